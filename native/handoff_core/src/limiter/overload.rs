//! When refusals mean that there is too much in flight.
//!
//! Guarantee: a store that refuses everything is seen after five refusals; a store that refuses now and then, whatever the load
//! on it, does not throttle the drain for good.
//!
//! Method: a running sum of refusals above what is expected (CUSUM). Crossing its bar advises a cut, and every cut is a trial: if
//! refusals stop, it helped; if they go on at much the same rate while others are served, they have nothing to do with how
//! much is in flight, their share becomes the expected one, and the cut is undone. If nearly everything is still refused, cut again.

/// Refusals tolerated on top of the expected share. A lone one in ten never adds up to anything.
const TOLERATED: f64 = 0.2;
/// What the sum must reach: with everything refused that is five attempts, fewer than one generation of the starting limit.
const BAR: f64 = 4.0;
/// A cut helped when what was served in a row since would, at the old rate, have contained this many refusals (by chance:
/// e^-5, less than one in a hundred).
const SPARED: f64 = 5.0;
/// A cut did not help when refusals go on for this many attempts.
const TRIAL: f64 = 20.0;
/// This share of refusals, seen over this many refusals, is an outage: cut again without waiting for the end of the trial.
const OUTAGE: f64 = 0.7;
const OUTAGE_REFUSALS: f64 = 6.0;
/// The expected share is brought up to date over this many attempts, downwards only: upwards takes a trial.
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
    /// Share of refusals that is there whatever we do.
    expected: f64,
    excess: f64,
    /// Since the sum was last zero, or since the cut.
    recent: Tally,
    long: Tally,
    served_in_a_row: f64,
    /// A cut is on trial: the share of refusals before it.
    before_cut: Option<f64>,
    /// Attempts up to this number started before the last advice and say nothing about its effect.
    decided_at: u64,
}

impl Overloads {
    /// An attempt was served or refused; `last` is the number of the latest attempt that has started.
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

    /// Feeds outcomes of attempts that start one after the other, and gives what was advised, with the attempt's number.
    fn feed(overloads: &mut Overloads, from: u64, outcomes: impl IntoIterator<Item = bool>) -> Vec<(u64, Advice)> {
        let numbered = (from..).zip(outcomes);
        numbered.map(|(n, r)| (n, overloads.outcome(n, n, r))).filter(|(_, a)| *a != Advice::Nothing).collect()
    }

    #[test]
    fn five_refusals_in_a_row_cut_and_an_outage_goes_on_cutting() {
        let mut overloads = Overloads::default();
        let advised = feed(&mut overloads, 1, [true; 17]);
        assert_eq!(advised, [(5, Advice::Cut), (11, Advice::Cut), (17, Advice::Cut)]);
    }

    #[test]
    fn refusals_that_stop_after_a_cut_were_ours() {
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
    fn refusals_that_do_not_depend_on_us_stop_cutting() {
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
