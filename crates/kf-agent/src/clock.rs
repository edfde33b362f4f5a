//! The time, as far as a device without a battery can know it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kf_client::TimeProvider;
use kf_key::UnixMillis;
use rustls_pki_types::UnixTime;

/// Before this moment the agent did not exist: 2026-11-01T00:00:00Z.
pub(crate) const RELEASED: UnixMillis = UnixMillis::from_seconds(1_793_491_200);

/// A clock that never shows less than what is known to have passed: the agent's release, the start of the certificate in
/// use, the last proven contact with the server. A clock at 1970 so still accepts the server's certificate.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    floor: Arc<AtomicU64>,
    read: fn() -> UnixMillis,
}

fn system_time() -> UnixMillis {
    // The rim: the one place of the agent that reads the clock.
    #[allow(clippy::disallowed_methods)]
    let now = SystemTime::now();
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixMillis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

impl Clock {
    pub(crate) fn system() -> Self {
        Self::reading(system_time)
    }

    fn reading(read: fn() -> UnixMillis) -> Self {
        Self { floor: Arc::new(AtomicU64::new(RELEASED.0)), read }
    }

    /// It is at least this late.
    pub(crate) fn not_before(&self, moment: UnixMillis) {
        self.floor.fetch_max(moment.0, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> UnixMillis {
        UnixMillis((self.read)().0.max(self.floor.load(Ordering::Relaxed)))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.now().0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_at_1970_shows_what_is_known_to_have_passed() {
        let clock = Clock::reading(|| UnixMillis(5));
        assert_eq!(clock.now(), RELEASED);
        clock.not_before(RELEASED.plus(7));
        clock.not_before(RELEASED);
        assert_eq!(clock.now(), RELEASED.plus(7));
        assert!(Clock::system().now() >= RELEASED);
    }
}
