//! Pages for the key inventory that no other listing has.

use kf_access::Visibility;
use kf_api::epoch::EpochState;
use kf_key::{DeviceId, FacilityId, KeyId, UnixMillis};

use crate::column;
use crate::key::{KeyRecord, key_row};
use crate::sql::{self, in_scope, scope};
use crate::{Store, StoreError};

/// What a device has signed of the end of its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    /// When every key of it was destroyed.
    pub every: Option<UnixMillis>,
    /// When those were that its owner brought.
    pub of_owner: Option<UnixMillis>,
}

/// An epoch of a facility, without the count of its devices, which would be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochRow {
    /// The facility.
    pub facility: FacilityId,
    /// Its number.
    pub epoch: u32,
    /// Where it stands.
    pub state: EpochState,
    /// When it was made.
    pub created: UnixMillis,
    /// Whether a newer one was made.
    pub succeeded: bool,
}

impl Store {
    /// Keys in the order of their making, from behind `after`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn keys_after(&self, after: Option<KeyId>, limit: u32) -> Result<Vec<KeyRecord>, StoreError> {
        let sql = concat!(crate::key::columns!(), " WHERE id > ?1 ORDER BY id LIMIT ?2");
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        self.read(|connection| sql::all(connection, sql, (after, limit), key_row))
    }

    /// Epochs of the facilities that `visibility` sees, or of one of them, by facility and number, from behind `after`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn epochs_after(
        &self,
        facility: Option<FacilityId>,
        visibility: &Visibility,
        after: Option<(FacilityId, u32)>,
        limit: u32,
    ) -> Result<Vec<EpochRow>, StoreError> {
        let sql = concat!(
            "SELECT e.facility, e.epoch, e.state, e.created, EXISTS (SELECT 1 FROM facility_epoch n
                WHERE n.facility = e.facility AND n.epoch > e.epoch) FROM facility_epoch e
            WHERE (e.facility, e.epoch) > (?2, ?3) AND (?4 IS NULL OR e.facility = ?4) AND ",
            in_scope!("e.facility"),
            " ORDER BY e.facility, e.epoch LIMIT ?5"
        );
        let (from, epoch) = after.map_or_else(|| (Vec::new(), 0), |(id, epoch)| (id.as_bytes().to_vec(), epoch));
        let params = (scope(visibility), from, epoch, facility.map(|id| id.as_bytes().to_vec()), limit);
        self.read(|connection| {
            sql::all(connection, sql, params, |row| {
                Ok(EpochRow {
                    facility: column::id(row, 0)?,
                    epoch: row.get(1)?,
                    state: column::coded(row, 2)?,
                    created: column::time(row, 3)?,
                    succeeded: row.get(4)?,
                })
            })
        })
    }

    /// Whether a device holds a key of an epoch, or was offered one without an answer; barred ones included. Costs the same
    /// at any number of devices.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn epoch_is_held(&self, facility: FacilityId, epoch: u32) -> Result<bool, StoreError> {
        // Superseded ones are state 3.
        let sql = "SELECT 1 FROM device_key_epoch WHERE facility = ?1 AND facility_epoch = ?2 AND state <> 3 LIMIT 1";
        self.read(|connection| sql::exists(connection, sql, (facility.as_bytes(), epoch)))
    }

    /// When a device signed that it has destroyed every key, if it has; and when, that it has destroyed those that its owner brought.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn destroyed_at(&self, device: DeviceId) -> Result<Destroyed, StoreError> {
        // The codes of `wipe`, `factory-reset` and `done`.
        let sql = "SELECT max(CASE WHEN act = 2 THEN ended END), max(CASE WHEN act IN (2, 3) THEN ended END)
            FROM device_order WHERE device = ?1 AND act IN (2, 3) AND state = 2";
        let found = self.read(|connection| {
            sql::one(connection, sql, [device.as_bytes()], |row| {
                Ok(Destroyed { every: column::optional_time(row, 0)?, of_owner: column::optional_time(row, 1)? })
            })
        });
        Ok(found?.unwrap_or_default())
    }
}
