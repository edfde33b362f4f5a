//! How often encryption keys are used: encryptions are set aside before they happen, because a version bears only so many;
//! who used which key is in the log before the first answer of an interval leaves, and how often at the interval's end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kf_access::{Action, Principal};
use kf_api::encryption_key::EncryptionKey;
use kf_key::{EncryptionKeyId, FacilityId, UnixMillis};
use kf_rotation::usage::Sealing;
use kf_store::encryption_key::{Reservation, Reserved};

use crate::entry::Entry;
use crate::{Fleet, FleetError};

/// How long uses are gathered before the log counts them.
const INTERVAL: u64 = UnixMillis::HOUR;
/// Encryptions and blocks that are set aside at once: one commit for so many.
const ASIDE: (u64, u64) = (4_096, 1 << 20);
/// The most intervals that are open; beyond, every call is logged by itself.
const MAX_INTERVALS: usize = 4_096;
/// How often a caller tries again when the version changes under it.
const ATTEMPTS: u32 = 4;

/// What is left of what was set aside.
#[derive(Default)]
pub(crate) struct Meters(Mutex<BTreeMap<(EncryptionKeyId, u32), (u64, u64)>>);

impl Meters {
    fn left(&self) -> MutexGuard<'_, BTreeMap<(EncryptionKeyId, u32), (u64, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes from what is set aside; false, and nothing taken, where that is not enough.
    fn take(&self, place: (EncryptionKeyId, u32), encryptions: u64, blocks: u64) -> bool {
        match self.left().get_mut(&place) {
            Some((e, b)) if *e >= encryptions && *b >= blocks => {
                (*e, *b) = (*e - encryptions, *b - blocks);
                true
            }
            _ => false,
        }
    }

    /// Adds what was set aside. What is left of older versions of the key is given up.
    fn add(&self, (key, version): (EncryptionKeyId, u32), encryptions: u64, blocks: u64) {
        let mut left = self.left();
        left.retain(|(other, older), _| *other != key || *older >= version);
        let (e, b) = left.entry((key, version)).or_default();
        (*e, *b) = (*e + encryptions, *b + blocks);
    }
}

/// Who uses which version for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    who: String,
    key: EncryptionKeyId,
    version: u32,
    action: Action,
}

struct Interval {
    principal: Principal,
    facility: FacilityId,
    since: UnixMillis,
    count: u64,
}

/// Uses that the log has not counted yet.
#[derive(Default)]
pub(crate) struct Uses(Mutex<BTreeMap<Use, Interval>>);

impl Uses {
    fn open(&self) -> MutexGuard<'_, BTreeMap<Use, Interval>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts, where an interval is open.
    fn count(&self, used: &Use, count: u64) -> bool {
        let mut open = self.open();
        let Some(interval) = open.get_mut(used) else { return false };
        interval.count = interval.count.saturating_add(count);
        true
    }

    fn begin(&self, used: Use, interval: Interval) {
        let mut open = self.open();
        if open.len() < MAX_INTERVALS {
            open.entry(used).and_modify(|there| there.count += interval.count).or_insert(interval);
        }
    }

    /// Ends what began at `before` or earlier.
    fn end(&self, before: UnixMillis) -> Vec<(Use, Interval)> {
        self.open().extract_if(.., |_, interval| interval.since <= before).collect()
    }
}

impl Fleet {
    /// Sets encryptions aside under the newest version; the version. One that has encrypted what it bears gives way to
    /// the next by itself.
    pub(super) async fn set_aside(
        &self,
        key: &EncryptionKey,
        encryptions: u64,
        blocks: u64,
    ) -> Result<u32, FleetError> {
        let mut key = key.clone();
        for _ in 0..ATTEMPTS {
            let place = (key.id, key.newest_version);
            if self.meters.take(place, encryptions, blocks) {
                return Ok(key.newest_version);
            }
            let aside = (encryptions.max(ASIDE.0), blocks.max(ASIDE.1));
            let reservation = Reservation {
                key: key.id,
                version: key.newest_version,
                encryptions: aside.0,
                blocks: aside.1,
                max_blocks: Sealing::GcmRandomNonce.max_blocks(),
            };
            let server = Self::server_principal();
            let entry = Entry::done(&server, "encryption-key.set-aside", self.now())
                .about(key.id)
                .at_facility(Some(key.facility))
                .with("version", key.newest_version)
                .with("encryptions", aside.0);
            match self.store.reserve_encryptions(reservation, entry.build()).await? {
                Reserved::Done => {
                    self.meters.add(place, aside.0 - encryptions, aside.1 - blocks);
                    return Ok(key.newest_version);
                }
                Reserved::UsedUp => match self.rotate_version(&server, &key, "its encryptions are used up").await {
                    // Somebody else may have been faster, which is as good.
                    Ok(_) | Err(FleetError::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                },
                Reserved::Superseded => {}
            }
            key = self.encryption_key_again(key.id)?;
        }
        Err(FleetError::TooMany { retry_after_seconds: 1 })
    }

    /// Notes uses. The first of an interval is in the log, durably, when this returns.
    pub(super) async fn note_uses(
        &self,
        who: &Principal,
        key: &EncryptionKey,
        version: u32,
        action: Action,
        count: u64,
    ) -> Result<(), FleetError> {
        let used = Use { who: who.id.clone(), key: key.id, version, action };
        if self.uses.count(&used, count) {
            return Ok(());
        }
        let now = self.now();
        let entry = Entry::done(who, action.name(), now)
            .about(key.id)
            .at_facility(Some(key.facility))
            .with("version", version)
            .with("first", count);
        self.store.append_log(entry.build()).await?;
        self.uses.begin(used, Interval { principal: who.clone(), facility: key.facility, since: now, count });
        Ok(())
    }

    /// Logs how often keys were used in the intervals that are over.
    pub(crate) async fn turn_uses(&self) -> Result<(), FleetError> {
        self.log_uses_until(self.now().minus(INTERVAL)).await
    }

    /// As [`Fleet::turn_uses`], of those that are not over as well: nothing is counted after.
    pub(crate) async fn end_uses(&self) -> Result<(), FleetError> {
        self.log_uses_until(self.now()).await
    }

    async fn log_uses_until(&self, before: UnixMillis) -> Result<(), FleetError> {
        for (Use { key, version, action, .. }, Interval { principal, facility, since, count }) in self.uses.end(before)
        {
            let entry = Entry::done(&principal, action.name(), self.now())
                .about(key)
                .at_facility(Some(facility))
                .with("version", version)
                .with("since_ms", since.0)
                .with("uses", count);
            self.store.append_log(entry.build()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kf_api::encryption_key::ENCRYPTIONS_PER_VERSION;

    use super::*;

    fn key(octet: u8) -> EncryptionKeyId {
        EncryptionKeyId::from_bytes([octet; 16])
    }

    #[test]
    fn the_limit_of_a_version_is_that_of_its_algorithm() {
        assert_eq!(Sealing::GcmRandomNonce.max_messages(0), ENCRYPTIONS_PER_VERSION);
    }

    #[test]
    fn no_more_is_taken_than_was_set_aside() {
        let meters = Meters::default();
        assert!(!meters.take((key(1), 1), 1, 1));
        meters.add((key(1), 1), 10, 100);
        assert!(meters.take((key(1), 1), 4, 90));
        assert!(!meters.take((key(1), 1), 1, 11), "the blocks are used up");
        assert!(!meters.take((key(1), 1), 7, 1), "the encryptions are used up");
        assert!(meters.take((key(1), 1), 6, 10));
        assert!(!meters.take((key(1), 1), 1, 0));
    }

    #[test]
    fn what_was_left_of_an_older_version_is_given_up() {
        let meters = Meters::default();
        meters.add((key(1), 1), 10, 10);
        meters.add((key(2), 1), 10, 10);
        meters.add((key(1), 2), 10, 10);
        assert!(!meters.take((key(1), 1), 1, 1));
        assert!(meters.take((key(2), 1), 1, 1) && meters.take((key(1), 2), 1, 1));
    }
}
