//! The usual duration of an attempt: the 90th percentile of the latest attempts that were served.

use crate::time::Micros;

/// Enough for a steady 90th percentile (six samples above it), few enough to follow a store that changes.
const KEPT: usize = 64;

#[derive(Debug, Clone, Default)]
pub(super) struct Recent {
    /// In order of arrival. Once the buffer is full, the oldest is at index `oldest`.
    ring: Vec<Micros>,
    oldest: usize,
    sorted: Vec<Micros>,
}

impl Recent {
    pub fn push(&mut self, latency: Micros) {
        if self.ring.len() < KEPT {
            self.ring.push(latency);
        } else {
            let gone = std::mem::replace(&mut self.ring[self.oldest], latency);
            self.oldest = (self.oldest + 1) % KEPT;
            let at = self.sorted.partition_point(|l| *l < gone);
            self.sorted.remove(at);
        }
        let at = self.sorted.partition_point(|l| *l < latency);
        self.sorted.insert(at, latency);
    }

    pub fn typical(&self) -> Option<Micros> {
        self.sorted.get(self.sorted.len() * 9 / 10).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_latency_is_typical_before_an_attempt_is_served() {
        assert_eq!(Recent::default().typical(), None);
    }

    #[test]
    fn a_rare_slow_attempt_is_not_typical_and_old_attempts_are_forgotten() {
        let mut recent = Recent::default();
        for n in 0..200 {
            recent.push(Micros::from_millis(if n % 50 == 0 { 900 } else { 40 }));
        }
        assert_eq!(recent.typical(), Some(Micros::from_millis(40)));
        for _ in 0..KEPT {
            recent.push(Micros::from_millis(80));
        }
        assert_eq!(recent.typical(), Some(Micros::from_millis(80)));
        assert_eq!(recent.sorted.len(), KEPT);
    }
}
