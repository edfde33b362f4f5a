//! Uses of keys in the log: as counts per key and interval, not one by one.

use kf_derive::Sender;
use kf_key::UnixMillis;
use kf_store::sealed::SealedUse;

use crate::entry::Entry;
use crate::{Fleet, FleetError};

/// How long uses are gathered before the log counts them.
const INTERVAL: u64 = UnixMillis::HOUR;
/// The most keys in one entry: as many as an entry has subjects.
const KEYS_PER_ENTRY: usize = 8;
/// The most keys in one turn of the background work; the others wait for the next.
const KEYS_PER_TURN: u32 = 512;

impl Fleet {
    /// Logs the uses whose interval has passed.
    pub(crate) async fn turn_sealed_uses(&self) -> Result<(), FleetError> {
        let now = self.now();
        let mut uses = self.store.unlogged_sealed_uses(now.minus(INTERVAL), KEYS_PER_TURN)?;
        uses.sort_by_key(|used| (used.facility, used.key_id));
        for same_facility in uses.chunk_by(|one, other| one.facility == other.facility) {
            for keys in same_facility.chunks(KEYS_PER_ENTRY) {
                self.store.log_sealed_uses(keys.to_vec(), now, entry(keys, now)).await?;
            }
        }
        Ok(())
    }
}

fn entry(keys: &[SealedUse], now: UnixMillis) -> kf_log::AuditEntry {
    let mut entry = Entry::done(&Fleet::server_principal(), "payload.open", now);
    let since = keys.iter().map(|used| used.since).min().unwrap_or(now);
    entry = entry.at_facility(keys.first().map(|used| used.facility)).with("since_ms", since.0);
    for SealedUse { key_id, uses, .. } in keys {
        let direction = if key_id.sender == Sender::Device { "from" } else { "to" };
        let key = format!(
            "{direction} {} {} {}.{}",
            key_id.device, key_id.service, key_id.facility_epoch, key_id.device_epoch
        );
        entry = entry.about(key_id.device).with(&key, uses);
    }
    entry.build()
}
