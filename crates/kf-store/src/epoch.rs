//! The key epochs of facilities. Advancing and retiring touch rows of the facility and none of its devices'.

use kf_access::Visibility;
use kf_api::epoch::{EpochHolder, EpochState, FacilityEpoch};
use kf_api::{Page, PageRequest};
use kf_key::{DeviceId, FacilityId, UnixMillis};
use rusqlite::{Connection, Row};

use crate::act::{Act, Class};
use crate::column::{self, Coded, integer, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql;
use crate::{Audit, Logged, Store, StoreError};

/// The first epoch of every facility.
const FIRST: u32 = 1;

/// The first epoch of a new facility.
pub(crate) fn found(act: &Act<'_>, facility: FacilityId, at: UnixMillis) -> Result<(), StoreError> {
    insert(act, facility, FIRST, EpochState::Current, at)
}

fn insert(
    act: &Act<'_>,
    facility: FacilityId,
    epoch: u32,
    state: EpochState,
    at: UnixMillis,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO facility_epoch (facility, epoch, state, created) VALUES (?1, ?2, ?3, ?4)";
    act.execute(sql, (facility.as_bytes(), epoch, state.code(), millis(at)))?;
    Ok(())
}

fn state_row(row: &Row<'_>) -> rusqlite::Result<(u32, EpochState)> {
    Ok((row.get(0)?, column::coded(row, 1)?))
}

/// The newest epoch of a facility and its state.
pub(crate) fn newest(connection: &Connection, facility: FacilityId) -> Result<(u32, EpochState), StoreError> {
    let sql = "SELECT epoch, state FROM facility_epoch WHERE facility = ?1 ORDER BY epoch DESC LIMIT 1";
    sql::one(connection, sql, [facility.as_bytes()], state_row)?.ok_or(StoreError::NotFound { what: "facility" })
}

const fn state_name(state: EpochState) -> &'static str {
    match state {
        EpochState::Pending => "pending",
        EpochState::Current => "current",
        EpochState::Retired => "retired",
    }
}

/// Devices that may hold a key of an epoch and are not barred, from `after` on.
fn holders(
    connection: &Connection,
    facility: FacilityId,
    epoch: u32,
    after: &[u8],
    limit: u32,
) -> Result<Vec<EpochHolder>, StoreError> {
    // The states of devices that are not barred: registered and active.
    let sql = "SELECT d.id, d.name, d.state, min(k.state), d.last_seen FROM device_key_epoch k
        JOIN device d ON d.id = k.device
        WHERE k.facility = ?1 AND k.facility_epoch = ?2 AND k.state <> 3 AND k.device > ?3 AND d.state IN (1, 2)
        GROUP BY k.device ORDER BY k.device LIMIT ?4";
    sql::all(connection, sql, (facility.as_bytes(), epoch, after, limit), |row| {
        Ok(EpochHolder {
            device: column::id(row, 0)?,
            name: row.get(1)?,
            state: column::coded(row, 2)?,
            key: column::coded(row, 3)?,
            last_seen: column::optional_time(row, 4)?,
        })
    })
}

impl Store {
    /// The newest epoch of a facility and its state; costs the same at any number of devices.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn newest_facility_epoch(&self, facility: FacilityId) -> Result<(u32, EpochState), StoreError> {
        self.read(|connection| newest(connection, facility))
    }

    /// The epochs of a facility with their devices, which are counted, newest first, at most 1,000; empty also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn facility_epochs(
        &self,
        facility: FacilityId,
        visibility: &Visibility,
    ) -> Result<Vec<FacilityEpoch>, StoreError> {
        if !visibility.sees(facility) {
            return Ok(Vec::new());
        }
        let sql = "SELECT epoch, state, created, retired, (SELECT count(DISTINCT k.device) FROM device_key_epoch k
            WHERE k.facility = e.facility AND k.facility_epoch = e.epoch AND k.state <> 3)
            FROM facility_epoch e WHERE facility = ?1 ORDER BY epoch DESC LIMIT 1000";
        self.read(|connection| {
            sql::all(connection, sql, [facility.as_bytes()], |row| {
                Ok(FacilityEpoch {
                    facility,
                    epoch: row.get(0)?,
                    state: column::coded(row, 1)?,
                    created: column::time(row, 2)?,
                    retired: column::optional_time(row, 3)?,
                    devices: column::count(row, 4)?,
                })
            })
        })
    }

    /// Makes the epoch after `seen`, pending. One at a time: the one before must have been retired, or its devices could
    /// be two epochs behind.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when `seen` is not the newest, or is itself pending.
    pub async fn advance_facility_epoch(
        &self,
        facility: FacilityId,
        seen: u32,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<u32>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let (found, state) = newest(act.connection(), facility)?;
            if found != seen || state != EpochState::Current {
                return Err(StoreError::IllegalState {
                    what: "newest key epoch of the facility",
                    found: format!("{found}, {}", state_name(state)),
                    expected: format!("{seen}, current"),
                });
            }
            let next = seen
                .checked_add(1)
                .ok_or(StoreError::Invalid { field: "epoch", problem: "there is no further one" })?;
            insert(act, facility, next, EpochState::Pending, at)?;
            Ok(next)
        })
        .await
    }

    /// Retires an epoch and makes the pending one current.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when no newer one is pending, or when a device that is not barred may still hold a key
    /// of it: see [`Store::epoch_holders`]. Checked inside the transaction.
    pub async fn retire_facility_epoch(
        &self,
        facility: FacilityId,
        epoch: u32,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let illegal = |found: String, expected: &str| StoreError::IllegalState {
                what: "key epoch of the facility",
                found,
                expected: expected.into(),
            };
            let sql = "SELECT epoch, state FROM facility_epoch WHERE facility = ?1 AND epoch = ?2";
            let found = act.one(sql, (facility.as_bytes(), epoch), state_row)?;
            let (_, state) = found.ok_or(StoreError::NotFound { what: "key epoch" })?;
            let (next, next_state) = newest(act.connection(), facility)?;
            if state != EpochState::Current || next_state != EpochState::Pending {
                return Err(illegal(state_name(state).into(), "current, with a newer one pending"));
            }
            if let Some(holder) = holders(act.connection(), facility, epoch, &[], 1)?.first() {
                return Err(illegal(format!("held by {}", holder.device), "held by no device that is not barred"));
            }
            let sql = "UPDATE facility_epoch SET state = ?3, retired = ?4 WHERE facility = ?1 AND epoch = ?2";
            act.execute(sql, (facility.as_bytes(), epoch, EpochState::Retired.code(), integer(at.0)))?;
            let sql = "UPDATE facility_epoch SET state = ?3 WHERE facility = ?1 AND epoch = ?2";
            act.execute(sql, (facility.as_bytes(), next, EpochState::Current.code()))?;
            Ok(())
        })
        .await
    }

    /// The devices that keep an epoch from being retired, in the order of their ids: not barred, and holding a key of it
    /// or offered one without an answer.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] outside `visibility`.
    pub fn epoch_holders(
        &self,
        facility: FacilityId,
        epoch: u32,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<EpochHolder>, StoreError> {
        if !visibility.sees(facility) {
            return Err(StoreError::NotFound { what: "facility" });
        }
        let after = match &page.after {
            None => None,
            Some(text) => Some(text.parse::<DeviceId>().map_err(|_detail| BAD_CURSOR)?),
        };
        let after = after.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let mut items = self.read(|connection| holders(connection, facility, epoch, after, page.rows() + 1))?;
        let next = next_of(&mut items, rows, |last| last.device.to_string());
        Ok(Page { items, next })
    }
}
