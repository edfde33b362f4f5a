//! Counting signatures per key.

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// Signatures of one key within the current minute. A window that restarts each minute lets through at most twice the
/// ceiling in any sixty seconds, which is close enough for an alarm.
#[derive(Debug)]
pub(crate) struct RateWindow {
    ceiling: u32,
    started: Instant,
    count: u32,
    has_refused: bool,
}

/// Whether a signature lies below the ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    /// The first of this minute that does not: the moment to alarm.
    FirstRefusal,
    Refused,
}

impl RateWindow {
    pub(crate) const fn new(ceiling: u32, now: Instant) -> Self {
        Self { ceiling, started: now, count: 0, has_refused: false }
    }

    pub(crate) const fn ceiling(&self) -> u32 {
        self.ceiling
    }

    /// Counts one signature.
    #[must_use]
    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        if now.saturating_duration_since(self.started) >= MINUTE {
            *self = Self::new(self.ceiling, now);
        }
        if self.count < self.ceiling {
            self.count += 1;
            return Admission::Admitted;
        }
        if std::mem::replace(&mut self.has_refused, true) { Admission::Refused } else { Admission::FirstRefusal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_holds_within_a_minute_and_is_lifted_after_it() {
        let start = Instant::now();
        let mut window = RateWindow::new(2, start);
        let late = start + Duration::from_secs(59);
        let expected = [Admission::Admitted, Admission::Admitted, Admission::FirstRefusal, Admission::Refused];
        assert_eq!([start, late, late, late].map(|now| window.admit(now)), expected);
        let next = start + Duration::from_secs(60);
        assert_eq!([next; 4].map(|now| window.admit(now)), expected);
    }
}
