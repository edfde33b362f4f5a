//! What was seen under the keys of sealed payloads, and how often each was used.

use kf_access::Visibility;
use kf_api::epoch::{DeviceKeyState, EpochState};
use kf_key::{DeviceId, DeviceState, FacilityId, UnixMillis};
use kf_seal::{Accepted, KeyId, Mark, Replay, ReplayError};
use rusqlite::Connection;

use crate::act::{Act, Class};
use crate::column::{self, integer, millis};
use crate::device_key::KeyPlace;
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

/// How many boots of a sender are remembered per key.
pub const BOOTS_REMEMBERED: usize = 8;

/// The most marks in one call.
pub const MAX_MARKS: usize = 64;

type Window = Replay<BOOTS_REMEMBERED>;

/// The key of a sealed payload, as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKey {
    /// The device's name.
    pub device_name: String,
    /// The facility that the device belongs to now: whose operators may open.
    pub owner: FacilityId,
    /// The facility whose epoch the key lies under.
    pub facility: FacilityId,
    /// The device's salt, wrapped by the signer.
    pub salt: Vec<u8>,
}

/// Why nothing is opened under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedRefusal {
    /// No such device within the caller's scope, or it was never sent such a key.
    Unknown,
    /// The device is suspended, quarantined or decommissioned.
    Barred(DeviceState),
    /// The device has acknowledged a newer key.
    Superseded,
    /// The epoch of the facility is retired.
    EpochRetired,
    /// The message was seen, or may have been.
    Replay(ReplayError),
    /// The stored window cannot be read; until it is known why, every message could be a replay.
    DamagedWindow,
}

/// How often a key was used and not yet logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedUse {
    /// The key.
    pub key_id: KeyId,
    /// The facility that the device belongs to.
    pub facility: FacilityId,
    /// How often.
    pub uses: u64,
    /// The first of them.
    pub since: UnixMillis,
}

/// The key that a payload names, if something may be opened under it now.
fn usable(
    connection: &Connection,
    key_id: &KeyId,
    visibility: &Visibility,
) -> Result<Result<SealedKey, SealedRefusal>, StoreError> {
    let sql = concat!(
        "SELECT d.name, d.facility, d.state, k.facility, k.state, e.state, s.salt FROM device_key_epoch k
        JOIN device d ON d.id = k.device JOIN device_key s ON s.device = k.device
        JOIN facility_epoch e ON e.facility = k.facility AND e.epoch = k.facility_epoch
        WHERE k.device = ?2 AND k.device_epoch = ?3 AND k.facility_epoch = ?4 AND ",
        in_scope!("d.facility")
    );
    let params = (scope(visibility), key_id.device.as_bytes(), key_id.device_epoch, key_id.facility_epoch);
    let found = sql::one(connection, sql, params, |row| {
        let key = SealedKey {
            device_name: row.get(0)?,
            owner: column::id(row, 1)?,
            facility: column::id(row, 3)?,
            salt: row.get(6)?,
        };
        let states = (column::coded(row, 2)?, column::coded(row, 4)?, column::coded(row, 5)?);
        Ok((key, states))
    })?;
    let Some((key, (device, key_state, epoch))) = found else { return Ok(Err(SealedRefusal::Unknown)) };
    let device: DeviceState = device;
    Ok(match (key_state, epoch) {
        _ if !device.may_enrol() => Err(SealedRefusal::Barred(device)),
        (_, EpochState::Retired) => Err(SealedRefusal::EpochRetired),
        (DeviceKeyState::Superseded, _) => Err(SealedRefusal::Superseded),
        (DeviceKeyState::Offered | DeviceKeyState::Held, EpochState::Pending | EpochState::Current) => Ok(key),
    })
}

fn encoded(key_id: &KeyId) -> Vec<u8> {
    let mut octets = [0; kf_seal::KEY_ID_MAX_OCTETS];
    let length = key_id.encode(&mut octets);
    octets.into_iter().take(length).collect()
}

/// Takes note of one message.
fn accept(
    act: &Act<'_>,
    key_id: &KeyId,
    mark: &Mark,
    at: UnixMillis,
) -> Result<Result<Accepted, SealedRefusal>, StoreError> {
    let key = encoded(key_id);
    let sql = "SELECT seen FROM replay_window WHERE key_id = ?1";
    let stored: Option<Vec<u8>> = act.one(sql, [&key], |row| row.get(0))?;
    let Ok(mut window) = stored.map_or(Ok(Window::new()), |stored| Window::decode(&stored)) else {
        return Ok(Err(SealedRefusal::DamagedWindow));
    };
    let accepted = match window.accept(mark) {
        Ok(accepted) => accepted,
        Err(refused) => return Ok(Err(SealedRefusal::Replay(refused))),
    };
    let mut seen = vec![0; Window::MAX_OCTETS];
    let Some(length) = window.encode(&mut seen) else { return Ok(Err(SealedRefusal::DamagedWindow)) };
    seen.truncate(length);
    let sql = "INSERT INTO replay_window (key_id, seen, uses, since) VALUES (?1, ?2, 1, ?3)
        ON CONFLICT (key_id) DO UPDATE SET seen = excluded.seen, uses = uses + 1, since = coalesce(since, excluded.since)";
    act.execute(sql, (&key, &seen, millis(at)))?;
    Ok(Ok(accepted))
}

impl Store {
    /// The key that a sealed payload names.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn sealed_key(
        &self,
        key_id: &KeyId,
        visibility: &Visibility,
    ) -> Result<Result<SealedKey, SealedRefusal>, StoreError> {
        self.read(|connection| usable(connection, key_id, visibility))
    }

    /// Takes note of messages that opened, in order, each checked again: that its key may still be used, and that it was
    /// not seen. When this returns the note is durable; only then may a plaintext be given out.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for more than [`MAX_MARKS`]; [`StoreError::Full`] and [`StoreError::Fenced`]: what cannot be
    /// noted is not opened.
    pub async fn accept_sealed(
        &self,
        marks: Vec<(KeyId, Mark)>,
        visibility: Visibility,
        at: UnixMillis,
    ) -> Result<Vec<Result<Accepted, SealedRefusal>>, StoreError> {
        if marks.len() > MAX_MARKS {
            return Err(StoreError::Invalid { field: "payloads", problem: "at most 64 at once" });
        }
        self.write(Class::Ordinary, move |act| {
            let mut outcomes = Vec::with_capacity(marks.len());
            for (key_id, mark) in &marks {
                outcomes.push(match usable(act.connection(), key_id, &visibility)? {
                    Ok(_) => accept(act, key_id, mark, at)?,
                    Err(refused) => Err(refused),
                });
            }
            Ok(outcomes)
        })
        .await
    }

    /// Keys whose first use that is not logged lies at or before `before`; at most `limit`, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn unlogged_sealed_uses(&self, before: UnixMillis, limit: u32) -> Result<Vec<SealedUse>, StoreError> {
        let sql = "SELECT w.key_id, d.facility, w.uses, w.since FROM replay_window w
            JOIN device d ON d.id = substr(w.key_id, 2, 16) WHERE w.since IS NOT NULL AND w.since <= ?1
            ORDER BY w.since LIMIT ?2";
        let rows = self.read(|connection| {
            sql::all(connection, sql, (millis(before), limit), |row| {
                let key_id: Vec<u8> = row.get(0)?;
                Ok((key_id, column::id(row, 1)?, column::count(row, 2)?, column::time(row, 3)?))
            })
        })?;
        let uses = rows.into_iter().filter_map(|(key_id, facility, uses, since)| {
            Some(SealedUse { key_id: KeyId::from_bytes(&key_id)?, facility, uses, since })
        });
        Ok(uses.collect())
    }

    /// Records that the log counts these uses.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn log_sealed_uses(
        &self,
        uses: Vec<SealedUse>,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            for SealedUse { key_id, uses, .. } in &uses {
                // What came in since the count was read is counted the next time.
                let sql = "UPDATE replay_window SET uses = uses - ?2,
                    since = CASE WHEN uses > ?2 THEN ?3 END WHERE key_id = ?1 AND uses >= ?2";
                act.execute(sql, (encoded(key_id), integer(*uses), millis(at)))?;
            }
            Ok(())
        })
        .await
    }

    /// The place and the salt of the newest key that a device holds, for a payload that is to be sealed for it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn newest_held_key(&self, device: DeviceId) -> Result<Option<(KeyPlace, Vec<u8>)>, StoreError> {
        let sql = "SELECT k.facility, k.facility_epoch, k.device_epoch, s.salt FROM device_key_epoch k
            JOIN device_key s ON s.device = k.device WHERE k.device = ?1 AND k.state = 2
            ORDER BY k.device_epoch DESC, k.facility_epoch DESC LIMIT 1";
        self.read(|connection| {
            sql::one(connection, sql, [device.as_bytes()], |row| {
                let place =
                    KeyPlace { facility: column::id(row, 0)?, facility_epoch: row.get(1)?, device_epoch: row.get(2)? };
                Ok((place, row.get(3)?))
            })
        })
    }

    /// The number of the server's next boot: one more than the last, and at least `floor`, so that a registry restored
    /// from an older copy does not count what is past again. Durable, with its log entry, when this returns.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when there is no further number.
    pub async fn next_seal_boot(&self, floor: u32, audit: impl Into<Audit>) -> Result<Logged<u32>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let sql = "SELECT CAST(value AS INTEGER) FROM setting WHERE key = 'seal-boot'";
            let last: Option<u32> = act.one(sql, [], |row| row.get(0))?;
            let next = last.map_or(Some(floor), |last| last.checked_add(1).map(|next| next.max(floor)));
            let next = next.ok_or(StoreError::Invalid { field: "boot", problem: "there is no further one" })?;
            let sql = "INSERT INTO setting (key, value) VALUES ('seal-boot', ?1)
                ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            act.execute(sql, [next.to_string()])?;
            Ok(next)
        })
        .await
    }
}
