//! When to renew and when to try again: pure functions of validity and a random number.

use kf_key::UnixMillis;

/// The first wait after a failure.
pub const FIRST_WAIT_MILLIS: u64 = 5 * UnixMillis::SECOND;
/// The longest wait after a failure.
pub const LONGEST_WAIT_MILLIS: u64 = UnixMillis::HOUR;

/// When a certificate is renewed: at two thirds of its lifetime, earlier by up to a twelfth of it, so that a batch made
/// in one minute does not come back in one minute. `random` is to be spread evenly over its range.
#[must_use]
pub const fn renew_at(not_before: UnixMillis, not_after: UnixMillis, random: u64) -> UnixMillis {
    let lifetime = not_after.since(not_before);
    let two_thirds = lifetime / 3 * 2;
    let early = random % (lifetime / 12 + 1);
    not_before.plus(two_thirds - early)
}

/// How long to wait after the `failures`-th failure in a row (counted from 1), in milliseconds: doubling from
/// [`FIRST_WAIT_MILLIS`] to [`LONGEST_WAIT_MILLIS`], the upper half of it random, and never less than the server asked.
#[must_use]
pub fn wait_after_failure(failures: u32, random: u64, asked_millis: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(20);
    let ceiling = FIRST_WAIT_MILLIS.saturating_mul(1 << doublings).min(LONGEST_WAIT_MILLIS);
    let half = ceiling / 2;
    let wait = half + random % (half + 1);
    if asked_millis == 0 {
        return wait;
    }
    // A fleet that was told the same number must not come back in one instant.
    wait.max(asked_millis.saturating_add(random % (asked_millis / 10 + 1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_day_is_renewed_between_fourteen_and_sixteen_hours() {
        let (from, to) = (UnixMillis(1_000), UnixMillis(1_000 + UnixMillis::DAY));
        assert_eq!(renew_at(from, to, 0), from.plus(16 * UnixMillis::HOUR));
        assert_eq!(renew_at(from, to, UnixMillis::DAY / 12), from.plus(14 * UnixMillis::HOUR));
    }

    #[test]
    fn waits_double_up_to_an_hour_and_respect_the_server() {
        assert_eq!(wait_after_failure(1, 0, 0), 2_500);
        assert_eq!(wait_after_failure(2, 0, 0), 5_000);
        assert_eq!(wait_after_failure(u32::MAX, u64::MAX, 0) / 1_000, 1_800 + u64::MAX % 1_800_001 / 1_000);
        assert_eq!(wait_after_failure(1, 0, 90_000), 90_000);
    }

    proptest! {
        #[test]
        fn renewal_lies_inside_the_validity_and_before_two_thirds(from: u64, life: u64, random: u64) {
            let (from, to) = (UnixMillis(from), UnixMillis(from).plus(life));
            let at = renew_at(from, to, random);
            prop_assert!(from <= at && at <= to);
            prop_assert!(at.since(from) <= to.since(from) / 3 * 2);
        }

        #[test]
        fn a_wait_is_never_shorter_than_asked_and_never_longer_than_an_hour_otherwise(
            failures: u32, random: u64, asked in 0..u64::from(u32::MAX),
        ) {
            let wait = wait_after_failure(failures, random, asked);
            prop_assert!(wait >= asked);
            prop_assert!(wait <= LONGEST_WAIT_MILLIS.max(asked + asked / 10));
            prop_assert!(wait >= FIRST_WAIT_MILLIS / 2);
        }
    }
}
