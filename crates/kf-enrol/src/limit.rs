//! How often a secret may be guessed: per device and per address.
//!
//! A code has 100 random bits, so the limits do not protect the code; they bound what guessing costs the server, and
//! make an attack visible. The count per device is kept by the registry, so that a restart does not forget it; the count
//! per address lives in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use kf_key::UnixMillis;

/// Failed attempts on one device before it has to wait.
pub const DEVICE_FAILURES: u32 = 5;
/// Failed attempts from one address within [`WINDOW`] before it has to wait.
pub const ADDRESS_FAILURES: u32 = 30;
/// Milliseconds that a failed attempt counts: 15 minutes.
pub const WINDOW: u64 = 15 * 60 * UnixMillis::SECOND;
/// Addresses that are remembered at the same time; beyond it the one that failed longest ago is forgotten.
pub const ADDRESSES: usize = 65_536;

/// Seconds to wait (at least 1) before a device's next attempt, given its failed attempts since the last success, as the
/// registry keeps them; `None` when it may try now. After the fifth failure each further attempt costs 15 minutes.
#[must_use]
pub fn device_must_wait(failed: u32, last: Option<UnixMillis>, now: UnixMillis) -> Option<u32> {
    let last = last?;
    (failed >= DEVICE_FAILURES).then(|| seconds_until(last.plus(WINDOW), now)).flatten()
}

/// Whole seconds from `now` to `then`, rounded up; `None` when it is not ahead.
fn seconds_until(then: UnixMillis, now: UnixMillis) -> Option<u32> {
    let milliseconds = then.since(now);
    let seconds = milliseconds.div_ceil(UnixMillis::SECOND);
    (milliseconds > 0).then(|| u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// What counts as one address: an IPv4 address, or the /64 of an IPv6 address, which is one site (RFC 4291 section
/// 2.5.4). An IPv4-mapped address counts as the IPv4 address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressKey([u8; 16]);

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().octets()),
            IpAddr::V6(address) => Self((address.to_bits() >> 64 << 64).to_be_bytes()),
        }
    }
}

/// The failures of many keys within a window of time, bounded in size. Time is an argument.
#[derive(Debug)]
pub struct FailureWindow<K> {
    limit: usize,
    window: u64,
    capacity: usize,
    failures: BTreeMap<K, VecDeque<UnixMillis>>,
    by_last: BTreeSet<(UnixMillis, K)>,
}

impl FailureWindow<AddressKey> {
    /// The window for addresses: [`ADDRESS_FAILURES`] in [`WINDOW`], at most [`ADDRESSES`] remembered.
    #[must_use]
    pub fn for_addresses() -> Self {
        Self::new(ADDRESS_FAILURES, WINDOW, ADDRESSES)
    }
}

impl<K: Ord + Clone> FailureWindow<K> {
    /// `limit` failures (at least 1) within `window` milliseconds, for at most `capacity` (at least 1) keys.
    #[must_use]
    pub fn new(limit: u32, window: u64, capacity: usize) -> Self {
        Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX).max(1),
            window,
            capacity: capacity.max(1),
            failures: BTreeMap::new(),
            by_last: BTreeSet::new(),
        }
    }

    /// Seconds that `key` must wait before its next attempt; `None` when it may try now.
    #[must_use]
    pub fn must_wait(&self, key: &K, now: UnixMillis) -> Option<u32> {
        let failures = self.failures.get(key)?;
        // No more than `limit` moments are kept, so the limit is reached only while the oldest of them still counts.
        let oldest = failures.front().filter(|_| failures.len() >= self.limit)?;
        seconds_until(oldest.plus(self.window), now)
    }

    /// Counts a failure of `key`.
    pub fn record_failure(&mut self, key: K, now: UnixMillis) {
        let failures = self.failures.entry(key.clone()).or_default();
        if let Some(last) = failures.back() {
            self.by_last.remove(&(*last, key.clone()));
        }
        // A clock that was set back must not make an earlier failure the newest one.
        let at = failures.back().map_or(now, |last| now.max(*last));
        while failures.len() >= self.limit || failures.front().is_some_and(|first| at.since(*first) >= self.window) {
            failures.pop_front();
        }
        failures.push_back(at);
        self.by_last.insert((at, key));
        while self.failures.len() > self.capacity {
            let Some((_, oldest)) = self.by_last.pop_first() else { break };
            self.failures.remove(&oldest);
        }
    }

    /// Forgets the failures of `key`, after a success.
    pub fn forgive(&mut self, key: &K) {
        if let Some(last) = self.failures.remove(key).and_then(|failures| failures.back().copied()) {
            self.by_last.remove(&(last, key.clone()));
        }
    }

    /// Keys that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.failures.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: UnixMillis = UnixMillis(1_800_000_000_000);

    #[test]
    fn a_device_may_fail_five_times_and_then_waits_a_quarter_of_an_hour() {
        assert_eq!(device_must_wait(0, None, START), None);
        assert_eq!(device_must_wait(4, Some(START), START), None);
        assert_eq!(device_must_wait(5, Some(START), START), Some(900));
        assert_eq!(device_must_wait(5, Some(START), START.plus(WINDOW - 1)), Some(1));
        assert_eq!(device_must_wait(5, Some(START), START.plus(WINDOW)), None);
        assert_eq!(device_must_wait(u32::MAX, Some(START), START.plus(1_000)), Some(899));
    }

    #[test]
    fn an_address_is_stopped_at_the_limit_and_let_in_when_the_oldest_failure_no_longer_counts() {
        let mut window = FailureWindow::new(3, 10_000, 8);
        for second in 0..3 {
            assert_eq!(window.must_wait(&1, START.plus(second * 1_000)), None);
            window.record_failure(1, START.plus(second * 1_000));
        }
        assert_eq!(window.must_wait(&1, START.plus(2_000)), Some(8));
        assert_eq!(window.must_wait(&2, START.plus(2_000)), None);
        assert_eq!(window.must_wait(&1, START.plus(10_000)), None);
        window.record_failure(1, START.plus(10_000));
        assert_eq!(window.must_wait(&1, START.plus(10_000)), Some(1));
    }

    #[test]
    fn a_success_forgives() {
        let mut window = FailureWindow::new(1, 10_000, 8);
        window.record_failure(1, START);
        assert!(window.must_wait(&1, START).is_some());
        window.forgive(&1);
        assert_eq!(window.must_wait(&1, START), None);
        assert!(window.is_empty());
    }

    #[test]
    fn a_clock_set_back_does_not_let_anybody_in_earlier() {
        let mut window = FailureWindow::new(2, 10_000, 8);
        window.record_failure(1, START);
        window.record_failure(1, START.minus(5_000));
        assert_eq!(window.must_wait(&1, START), Some(10));
    }

    #[test]
    fn beyond_the_capacity_the_key_that_failed_longest_ago_is_forgotten() {
        let mut window = FailureWindow::new(1, 10_000, 2);
        window.record_failure(1, START);
        window.record_failure(2, START.plus(1));
        window.record_failure(1, START.plus(2));
        window.record_failure(3, START.plus(3));
        assert_eq!(window.len(), 2);
        assert_eq!(window.must_wait(&2, START.plus(3)), None);
        assert!(window.must_wait(&1, START.plus(3)).is_some());
    }

    #[test]
    fn an_ipv6_site_is_one_address_and_a_mapped_ipv4_address_is_itself() {
        let key = |text: &str| AddressKey::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    proptest! {
        #[test]
        fn memory_stays_bounded_and_the_index_agrees(steps in prop::collection::vec((0u8..20, 0u64..5_000, any::<bool>()), 0..200)) {
            let mut window = FailureWindow::new(3, 10_000, 5);
            let mut now = START;
            for (key, pause, success) in steps {
                now = now.plus(pause);
                if success { window.forgive(&key) } else { window.record_failure(key, now) }
                prop_assert!(window.len() <= 5);
                prop_assert_eq!(window.failures.len(), window.by_last.len());
                prop_assert!(window.failures.values().all(|failures| (1..=3).contains(&failures.len())));
            }
        }
    }
}
