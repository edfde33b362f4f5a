//! The symmetric keys of devices: the wrapped salt, which epochs were sent, and which one the device acknowledged. The
//! keys themselves are nowhere: they are derived from the root.

use kf_access::Visibility;
use kf_api::epoch::{DeviceKeyEpoch, DeviceKeyState, EpochState};
use kf_key::{DeviceId, DeviceState, FacilityId, UnixMillis};
use rusqlite::{Connection, Row};

use crate::act::{Act, Class};
use crate::column::{self, Coded, millis};
use crate::epoch::newest;
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

const MAX_SALT_OCTETS: usize = 256;

/// Where in the hierarchy a device key lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    /// The facility.
    pub facility: FacilityId,
    /// Epoch of the facility.
    pub facility_epoch: u32,
    /// Epoch of the device.
    pub device_epoch: u32,
}

/// What a device is to be sent next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The device's state.
    pub device: DeviceState,
    /// The place of its key.
    pub place: KeyPlace,
    /// Its salt, wrapped by the signer; absent before the first delivery.
    pub salt: Option<Vec<u8>>,
    /// Whether the device has acknowledged this already.
    pub acknowledged: bool,
}

/// A key that is, or was, in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// Its place.
    pub place: KeyPlace,
    /// The device's salt, wrapped by the signer.
    pub salt: Vec<u8>,
    /// Whether the device has acknowledged it, or a newer one.
    pub state: DeviceKeyState,
    /// State of its facility epoch; nothing is derived under a retired one.
    pub epoch: EpochState,
}

/// What an acknowledgement came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The first of this key, with the index of its log entry.
    First(u64),
    /// A repetition; nothing was written.
    Again,
}

fn salt_of(connection: &Connection, device: DeviceId) -> Result<Option<(Vec<u8>, u32)>, StoreError> {
    let sql = "SELECT salt, device_epoch FROM device_key WHERE device = ?1";
    sql::one(connection, sql, [device.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The device epoch of a fresh salt: the first, or behind those of the salts that were wiped, which a device may still hold.
fn fresh_epoch(connection: &Connection, device: DeviceId) -> Result<u32, StoreError> {
    let sql = "SELECT coalesce(max(device_epoch), 0) + 1 FROM device_key_epoch WHERE device = ?1";
    Ok(sql::one(connection, sql, [device.as_bytes()], |row| row.get(0))?.unwrap_or(1))
}

fn state_of(connection: &Connection, device: DeviceId, place: &KeyPlace) -> Result<Option<DeviceKeyState>, StoreError> {
    let sql = "SELECT state FROM device_key_epoch WHERE device = ?1 AND device_epoch = ?2 AND facility_epoch = ?3
        AND facility = ?4";
    let params = (device.as_bytes(), place.device_epoch, place.facility_epoch, place.facility.as_bytes());
    sql::one(connection, sql, params, |row| column::coded(row, 0))
}

/// See [`Store::delivery`].
fn delivery(connection: &Connection, device: DeviceId) -> Result<Option<Delivery>, StoreError> {
    let sql = "SELECT state, facility FROM device WHERE id = ?1";
    let found = sql::one(connection, sql, [device.as_bytes()], |row| {
        Ok((column::coded::<DeviceState>(row, 0)?, column::id::<FacilityId>(row, 1)?))
    })?;
    let Some((state, facility)) = found else { return Ok(None) };
    let (facility_epoch, _) = newest(connection, facility)?;
    let key = salt_of(connection, device)?;
    let device_epoch = match &key {
        Some((_, epoch)) => *epoch,
        None => fresh_epoch(connection, device)?,
    };
    let place = KeyPlace { facility, facility_epoch, device_epoch };
    let acknowledged = state_of(connection, device, &place)? == Some(DeviceKeyState::Held);
    Ok(Some(Delivery { device: state, place, salt: key.map(|(salt, _)| salt), acknowledged }))
}

/// The key of a device that moves to another facility lies elsewhere from the next delivery on: part of the move.
pub(crate) fn moved(act: &Act<'_>, device: DeviceId) -> Result<(), StoreError> {
    act.execute("UPDATE device_key SET device_epoch = device_epoch + 1 WHERE device = ?1", [device.as_bytes()])?;
    Ok(())
}

/// Advances the epoch of a device behind `seen`; the new one, or `None` when its epoch is another, or it has no key.
pub(crate) fn advance(act: &Act<'_>, device: DeviceId, seen: u32) -> Result<Option<u32>, StoreError> {
    let next = seen.checked_add(1).ok_or(StoreError::Invalid { field: "epoch", problem: "there is no further one" })?;
    let sql = "UPDATE device_key SET device_epoch = ?3 WHERE device = ?1 AND device_epoch = ?2";
    Ok((act.execute(sql, (device.as_bytes(), seen, next))? == 1).then_some(next))
}

fn place_row(row: &Row<'_>) -> rusqlite::Result<KeyPlace> {
    Ok(KeyPlace { facility: column::id(row, 0)?, facility_epoch: row.get(1)?, device_epoch: row.get(2)? })
}

fn changed(expected: &str) -> StoreError {
    StoreError::IllegalState { what: "key of the device", found: "another".into(), expected: expected.into() }
}

/// Notes the first time a place is offered. Whether it was the first.
fn offer(act: &Act<'_>, device: DeviceId, place: &KeyPlace, salt: &[u8], at: UnixMillis) -> Result<bool, StoreError> {
    if salt.is_empty() || salt.len() > MAX_SALT_OCTETS {
        return Err(StoreError::Invalid { field: "salt", problem: "1 to 256 octets" });
    }
    let wanted = delivery(act.connection(), device)?.ok_or(StoreError::NotFound { what: "device" })?;
    if !wanted.device.may_enrol() {
        return Err(StoreError::IllegalState {
            what: "device",
            found: wanted.device.name().into(),
            expected: "registered or active".into(),
        });
    }
    if wanted.place != *place || wanted.salt.as_deref().is_some_and(|known| known != salt) {
        return Err(changed("the one that the delivery was made from"));
    }
    if wanted.salt.is_none() {
        let sql = "INSERT INTO device_key (device, salt, device_epoch, made) VALUES (?1, ?2, ?3,
            max(?4, coalesce((SELECT at + 1 FROM device_key_wiped WHERE device = ?1), 0)))";
        act.execute(sql, (device.as_bytes(), salt, place.device_epoch, millis(at)))?;
    }
    let sql = "INSERT INTO device_key_epoch (device, device_epoch, facility_epoch, facility, state, offered)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
    let KeyPlace { facility, facility_epoch, device_epoch } = place;
    let state = DeviceKeyState::Offered.code();
    let params = (device.as_bytes(), device_epoch, facility_epoch, facility.as_bytes(), state, millis(at));
    Ok(act.execute(sql, params)? == 1)
}

impl Store {
    /// What a device is to be sent next: the newest epoch of its facility, and its own.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn delivery(&self, device: DeviceId) -> Result<Option<Delivery>, StoreError> {
        self.read(|connection| delivery(connection, device))
    }

    /// Records that a key is about to be sent; a repetition writes nothing and logs nothing. The index of the log entry
    /// when it was the first time.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when the device is barred, or when its place or salt is not
    /// (any more) the one that the caller saw: read [`Store::delivery`] again.
    pub async fn offer_device_key(
        &self,
        device: DeviceId,
        place: KeyPlace,
        salt: Vec<u8>,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Option<u64>, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            if offer(act, device, &place, &salt, at)? { act.log(&audit).map(Some) } else { Ok(None) }
        })
        .await
    }

    /// Records that a device holds a key that it was offered; its older ones are superseded. The only change of a
    /// device's rows that an advance of its facility's epoch causes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a key that was never offered; [`StoreError::IllegalState`] for one that was superseded.
    pub async fn acknowledge_device_key(
        &self,
        device: DeviceId,
        place: KeyPlace,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Acknowledged, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            match state_of(act.connection(), device, &place)? {
                None => return Err(StoreError::NotFound { what: "offered key" }),
                Some(DeviceKeyState::Held) => return Ok(Acknowledged::Again),
                Some(DeviceKeyState::Superseded) => return Err(changed("one that no newer one has superseded")),
                Some(DeviceKeyState::Offered) => {}
            }
            let sql = "UPDATE device_key_epoch SET state = ?2 WHERE device = ?1 AND state <> ?2 AND
                (device_epoch < ?3 OR (device_epoch = ?3 AND facility_epoch < ?4))";
            let superseded = DeviceKeyState::Superseded.code();
            act.execute(sql, (device.as_bytes(), superseded, place.device_epoch, place.facility_epoch))?;
            let sql = "UPDATE device_key_epoch SET state = ?4, acknowledged = ?5
                WHERE device = ?1 AND device_epoch = ?2 AND facility_epoch = ?3";
            let held = DeviceKeyState::Held.code();
            act.execute(sql, (device.as_bytes(), place.device_epoch, place.facility_epoch, held, millis(at)))?;
            act.log(&audit).map(Acknowledged::First)
        })
        .await
    }

    /// Gives a device a new epoch of its own, which its next exchange delivers.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a device that was never sent a key; [`StoreError::IllegalState`] when its epoch is not
    /// `seen` any more.
    pub async fn advance_device_epoch(
        &self,
        device: DeviceId,
        seen: u32,
        audit: impl Into<Audit>,
    ) -> Result<Logged<u32>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let (_, found) =
                salt_of(act.connection(), device)?.ok_or(StoreError::NotFound { what: "key of the device" })?;
            advance(act, device, seen)?.ok_or_else(|| StoreError::IllegalState {
                what: "key epoch of the device",
                found: found.to_string(),
                expected: seen.to_string(),
            })
        })
        .await
    }

    /// The key that a sealed payload names: the facility follows from the two epochs.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn device_key(
        &self,
        device: DeviceId,
        facility_epoch: u32,
        device_epoch: u32,
        visibility: &Visibility,
    ) -> Result<Option<StoredKey>, StoreError> {
        let sql = concat!(
            "SELECT k.facility, k.facility_epoch, k.device_epoch, k.state, s.salt, e.state FROM device_key_epoch k
            JOIN device d ON d.id = k.device JOIN device_key s ON s.device = k.device
            JOIN facility_epoch e ON e.facility = k.facility AND e.epoch = k.facility_epoch
            WHERE k.device = ?2 AND k.device_epoch = ?3 AND k.facility_epoch = ?4 AND ",
            in_scope!("d.facility")
        );
        let params = (scope(visibility), device.as_bytes(), device_epoch, facility_epoch);
        self.read(|connection| {
            sql::one(connection, sql, params, |row| {
                Ok(StoredKey {
                    place: place_row(row)?,
                    state: column::coded(row, 3)?,
                    salt: row.get(4)?,
                    epoch: column::coded(row, 5)?,
                })
            })
        })
    }

    /// When the salt of a device was made; `None` without one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn salt_made(&self, device: DeviceId) -> Result<Option<UnixMillis>, StoreError> {
        let sql = "SELECT made FROM device_key WHERE device = ?1";
        self.read(|connection| sql::one(connection, sql, [device.as_bytes()], |row| column::time(row, 0)))
    }

    /// The keys that were sent to a device, newest first, at most 1,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn device_key_epochs(
        &self,
        device: DeviceId,
        visibility: &Visibility,
    ) -> Result<Vec<DeviceKeyEpoch>, StoreError> {
        let sql = concat!(
            "SELECT k.facility, k.facility_epoch, k.device_epoch, k.state, k.offered, k.acknowledged
            FROM device_key_epoch k JOIN device d ON d.id = k.device WHERE k.device = ?2 AND ",
            in_scope!("d.facility"),
            " ORDER BY k.device_epoch DESC, k.facility_epoch DESC LIMIT 1000"
        );
        self.read(|connection| {
            sql::all(connection, sql, (scope(visibility), device.as_bytes()), |row| {
                let KeyPlace { facility, facility_epoch, device_epoch } = place_row(row)?;
                Ok(DeviceKeyEpoch {
                    facility,
                    facility_epoch,
                    device_epoch,
                    state: column::coded(row, 3)?,
                    offered: column::time(row, 4)?,
                    acknowledged: column::optional_time(row, 5)?,
                })
            })
        })
    }
}
