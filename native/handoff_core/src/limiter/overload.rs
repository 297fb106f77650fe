//! Decides when refusals mean that too many attempts are in flight.
//!
//! Guarantee: a store that refuses everything is detected after five refusals. A store that refuses a
//! constant part, whatever its load, does not slow the drain permanently.
//!
//! Method: a running sum of refusals above the expected number (CUSUM). When it crosses its threshold, the
//! limit is cut, and every cut is a trial. If refusals stop, the cut helped. If refusals continue at about
//! the same rate while other attempts are served, they do not depend on the number in flight: their rate
//! becomes the expected one, and the cut is undone. If nearly everything is still refused, the limit is cut
//! again.

/// Refusals tolerated above the expected ratio. One in ten never crosses the threshold.
const TOLERATED: f64 = 0.2;
/// The threshold of the sum. When everything is refused it is crossed after five attempts, fewer than one
/// generation of the starting limit.
const BAR: f64 = 4.0;
/// A cut helped if, at the old rate, the attempts served in a row since then would have contained this many
/// refusals. The probability that this happens by chance is e^-5, less than one in a hundred.
const SPARED: f64 = 5.0;
/// A cut did not help when refusals continue for this many attempts.
const TRIAL: f64 = 20.0;
/// This ratio of refusals, over that many refusals, is an outage: the limit is cut again before the trial
/// ends.
const OUTAGE: f64 = 0.7;
const OUTAGE_REFUSALS: f64 = 6.0;
/// The expected ratio is averaged over about this many attempts. It only falls; a rise requires a trial.
const FORGET: f64 = 64.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Advice {
    Nothing,
    Cut,
    CutHelped,
    CutFutile,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    refused: f64,
    all: f64,
}

impl Tally {
    fn add(&mut self, refused: bool) {
        self.refused += f64::from(u8::from(refused));
        self.all += 1.0;
    }

    fn share(self) -> f64 {
        self.refused / self.all.max(1.0)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Overloads {
    /// The ratio of refusals that does not depend on the limit.
    expected: f64,
    excess: f64,
    /// Counts since the sum was last zero, or since the cut.
    recent: Tally,
    long: Tally,
    served_in_a_row: f64,
    /// The ratio of refusals before the cut that is on trial; `None` without a trial.
    before_cut: Option<f64>,
    /// Attempts up to this number started before the last decision and do not show its effect.
    decided_at: u64,
}

impl Overloads {
    /// Records that an attempt was served or refused. `last` is the number of the latest attempt that has
    /// started.
    pub fn outcome(&mut self, number: u64, last: u64, refused: bool) -> Advice {
        if number <= self.decided_at {
            return Advice::Nothing;
        }
        self.recent.add(refused);
        self.served_in_a_row = if refused { 0.0 } else { self.served_in_a_row + 1.0 };
        let advice = match self.before_cut {
            None => self.watch(refused),
            Some(before) => self.judge(before),
        };
        match advice {
            Advice::Nothing => return advice,
            Advice::Cut => self.before_cut = self.before_cut.or(Some(self.recent.share())),
            Advice::CutHelped => self.before_cut = None,
            Advice::CutFutile => {
                self.before_cut = None;
                self.expected = self.recent.share();
            }
        }
        *self = Overloads {
            expected: self.expected,
            before_cut: self.before_cut,
            decided_at: last,
            ..Overloads::default()
        };
        advice
    }

    fn watch(&mut self, refused: bool) -> Advice {
        self.long.add(refused);
        if self.long.all >= FORGET {
            self.expected = self.expected.min((self.expected + self.long.share()) / 2.0);
            self.long = Tally::default();
        }
        self.excess += f64::from(u8::from(refused)) - self.expected - TOLERATED;
        if self.excess <= 0.0 {
            self.excess = 0.0;
            self.recent = Tally::default();
        }
        if self.excess >= BAR - 1e-9 { Advice::Cut } else { Advice::Nothing }
    }

    fn judge(&self, before: f64) -> Advice {
        if self.recent.refused >= OUTAGE_REFUSALS && self.recent.share() >= OUTAGE {
            Advice::Cut
        } else if self.served_in_a_row * before >= SPARED {
            Advice::CutHelped
        } else if self.recent.all >= TRIAL {
            Advice::CutFutile
        } else {
            Advice::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records the outcomes of attempts that start one after the other. Returns each decision with the
    /// attempt's number.
    fn feed(overloads: &mut Overloads, from: u64, outcomes: impl IntoIterator<Item = bool>) -> Vec<(u64, Advice)> {
        let numbered = (from..).zip(outcomes);
        numbered.map(|(n, r)| (n, overloads.outcome(n, n, r))).filter(|(_, a)| *a != Advice::Nothing).collect()
    }

    #[test]
    fn five_refusals_in_a_row_cut_and_an_outage_cuts_again() {
        let mut overloads = Overloads::default();
        let advised = feed(&mut overloads, 1, [true; 17]);
        assert_eq!(advised, [(5, Advice::Cut), (11, Advice::Cut), (17, Advice::Cut)]);
    }

    #[test]
    fn refusals_that_stop_after_a_cut_confirm_the_cut() {
        let mut overloads = Overloads::default();
        assert_eq!(feed(&mut overloads, 1, [true; 5]), [(5, Advice::Cut)]);
        assert_eq!(feed(&mut overloads, 6, [false; 5]), [(10, Advice::CutHelped)]);
    }

    #[test]
    fn one_refusal_in_ten_never_cuts() {
        let mut overloads = Overloads::default();
        assert_eq!(feed(&mut overloads, 1, (0..1_000).map(|n| n % 10 == 0)), []);
    }

    #[test]
    fn refusals_that_do_not_depend_on_the_limit_stop_cutting() {
        let mut overloads = Overloads::default();
        let advised = feed(&mut overloads, 1, (0..5_000).map(|n| n % 3 == 0));
        assert_eq!(advised.len(), 2, "one cut, found futile: {advised:?}");
        assert_eq!((advised[0].1, advised[1].1), (Advice::Cut, Advice::CutFutile));
    }

    #[test]
    fn attempts_from_before_a_cut_do_not_cut_again() {
        let mut overloads = Overloads::default();
        for number in 1..=4 {
            assert_eq!(overloads.outcome(number, 40, true), Advice::Nothing);
        }
        assert_eq!(overloads.outcome(5, 40, true), Advice::Cut);
        for number in 6..=40 {
            assert_eq!(overloads.outcome(number, 60, true), Advice::Nothing);
        }
    }
}
