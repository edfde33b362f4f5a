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
}

impl RateWindow {
    pub(crate) const fn new(ceiling: u32, now: Instant) -> Self {
        Self { ceiling, started: now, count: 0 }
    }

    pub(crate) const fn ceiling(&self) -> u32 {
        self.ceiling
    }

    /// Counts one signature; false when the ceiling is reached.
    #[must_use]
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.started) >= MINUTE {
            self.started = now;
            self.count = 0;
        }
        if self.count >= self.ceiling {
            return false;
        }
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_holds_within_a_minute_and_is_lifted_after_it() {
        let start = Instant::now();
        let mut window = RateWindow::new(2, start);
        assert!(window.admit(start));
        assert!(window.admit(start + Duration::from_secs(59)));
        assert!(!window.admit(start + Duration::from_secs(59)));
        assert!(window.admit(start + Duration::from_secs(60)));
    }
}
