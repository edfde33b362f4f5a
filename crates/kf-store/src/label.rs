//! Labels of devices that stations made: kept, released, claimed, taken.

use kf_api::label::{Label, LabelState};
use kf_api::order::OrderState;
use kf_key::{BatchId, CodeId, DeviceId, DeviceState, FacilityId, UnixMillis};
use rusqlite::Row;

use crate::act::{Act, Class};
use crate::column::{self, Coded as _, millis};
use crate::{Audit, Logged, Store, StoreError, device, sql};

const COLUMNS: &str = "SELECT device, hash, key, released, released_by, facility, claimed, expires, completed, resold FROM label WHERE device = ?1";

/// A label with what is stored of its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRecord {
    /// What may be shown.
    pub label: Label,
    /// Hash of the code.
    pub hash: [u8; 32],
    /// SHA-256 of the device key's SubjectPublicKeyInfo.
    pub key: [u8; 32],
    /// Who let the device go.
    pub released_by: Option<String>,
    /// Whether its owner sold it: the claim that is completed next takes it out of suspension.
    pub resold: bool,
}

/// A claim that is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewClaim {
    /// The device.
    pub device: DeviceId,
    /// For whom.
    pub facility: FacilityId,
    /// Identifier of the code that then lets the device enrol.
    pub code: CodeId,
    /// When.
    pub at: UnixMillis,
    /// Its last moment.
    pub expires: UnixMillis,
}

fn label_row(row: &Row<'_>) -> rusqlite::Result<LabelRecord> {
    let key: [u8; 32] = row.get(2)?;
    let released = column::optional_time(row, 3)?;
    let claimed = column::optional_time(row, 6)?;
    let state = match (column::optional_time(row, 8)?, claimed, released) {
        (Some(_), ..) => LabelState::Taken,
        (None, Some(_), _) => LabelState::Claimed,
        (None, None, Some(_)) => LabelState::Released,
        (None, None, None) => LabelState::Kept,
    };
    Ok(LabelRecord {
        label: Label {
            device: column::id(row, 0)?,
            state,
            key_sha256: hex::encode(key),
            released,
            facility: column::optional_id(row, 5)?,
            expires: column::optional_time(row, 7)?,
        },
        hash: row.get(1)?,
        key,
        released_by: row.get(4)?,
        resold: column::optional_time(row, 9)?.is_some(),
    })
}

/// Keeps the label of a device that passed. A device that is made again with a fresh key has a fresh label; one that was
/// taken keeps what it has.
pub(crate) fn keep(act: &Act<'_>, device: DeviceId, hash: &[u8; 32], key: &[u8; 32]) -> Result<(), StoreError> {
    let sql = "INSERT INTO label (device, hash, key) VALUES (?1, ?2, ?3)
        ON CONFLICT (device) DO UPDATE SET hash = excluded.hash, key = excluded.key WHERE completed IS NULL";
    act.execute(sql, (device.as_bytes(), hash, key))?;
    Ok(())
}

fn in_transaction(act: &Act<'_>, device: DeviceId) -> Result<LabelRecord, StoreError> {
    act.one(COLUMNS, [device.as_bytes()], label_row)?.ok_or(StoreError::NotFound { what: "label" })
}

fn illegal(found: &str, expected: &str) -> StoreError {
    StoreError::IllegalState { what: "label", found: found.into(), expected: expected.into() }
}

/// A device that was sold comes to its new owner as one that never enrolled, and what its old owner ordered it to do is void. One that
/// somebody quarantined since stays where it is.
fn arrive(act: &mut Act<'_>, device: DeviceId, facility: FacilityId, at: UnixMillis) -> Result<(), StoreError> {
    let (open, cancelled) = (OrderState::Open, OrderState::Cancelled);
    let sql = "UPDATE device_order SET state = ?3, ended = ?4 WHERE device = ?1 AND state = ?2";
    act.execute(sql, (device.as_bytes(), open.code(), cancelled.code(), millis(at)))?;
    let (suspended, registered) = (DeviceState::Suspended, DeviceState::Registered);
    let sql = "UPDATE device SET state = ?3 WHERE id = ?1 AND state = ?2";
    if act.execute(sql, (device.as_bytes(), suspended.code(), registered.code()))? > 0 {
        act.counts.device(facility, suspended, -1);
        act.counts.device(facility, registered, 1);
    }
    Ok(())
}

impl Store {
    /// The label of a device.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn label(&self, device: DeviceId) -> Result<Option<LabelRecord>, StoreError> {
        self.read(|connection| sql::one(connection, COLUMNS, [device.as_bytes()], label_row))
    }

    /// Lets a device go.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without a label; [`StoreError::IllegalState`] when it was let go before.
    pub async fn release_device(
        &self,
        device: DeviceId,
        by: String,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let found = in_transaction(act, device)?;
            if found.label.state != LabelState::Kept {
                return Err(illegal("released", "kept"));
            }
            let sql = "UPDATE label SET released = ?2, released_by = ?3 WHERE device = ?1";
            act.execute(sql, (device.as_bytes(), millis(at), &by))?;
            Ok(())
        })
        .await
    }

    /// Lets a device go that was sold, whatever became of its label before: whoever holds it may claim the device. False, and
    /// nothing logged, for a device without a label or one that was let go by this sale already.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn release_resold(
        &self,
        device: DeviceId,
        by: String,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let sql = "UPDATE label SET released = ?2, released_by = ?3, resold = ?2, facility = NULL, claimed = NULL,
                expires = NULL, completed = NULL WHERE device = ?1 AND resold IS NULL";
            let changed = act.execute(sql, (device.as_bytes(), millis(at), &by))? > 0;
            if changed {
                act.log(&audit)?;
            }
            Ok(changed)
        })
        .await
    }

    /// Lets go every device of a batch that is still at the batch's facility. Its log entry is completed with
    /// `detail.devices`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn release_batch(
        &self,
        batch: BatchId,
        by: String,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<u64>, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let sql = "UPDATE label SET released = ?2, released_by = ?3 WHERE released IS NULL AND device IN
                (SELECT m.device FROM batch_made m JOIN batch b ON b.id = m.batch JOIN device d ON d.id = m.device
                 WHERE m.batch = ?1 AND d.facility = b.facility)";
            let devices = act.execute(sql, (batch.as_bytes(), millis(at), &by))?;
            let devices = u64::try_from(devices).unwrap_or(u64::MAX);
            let index = act.log(&audit.with_detail("devices", devices))?;
            Ok(Logged { value: devices, index })
        })
        .await
    }

    /// Records a claim, and gives the device a code bound to its key, until the claim ends.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when the device was taken.
    pub async fn claim_device(&self, claim: NewClaim, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let NewClaim { device, facility, code, at, expires } = claim;
            act.require_facility(facility)?;
            let found = in_transaction(act, device)?;
            if found.label.state == LabelState::Taken {
                return Err(illegal("taken", "released"));
            }
            let sql = "UPDATE label SET facility = ?2, claimed = ?3, expires = ?4 WHERE device = ?1";
            act.execute(sql, (device.as_bytes(), facility.as_bytes(), millis(at), millis(expires)))?;
            let sql = "INSERT INTO code (id, device, hash, bound, expires, withdrawn) VALUES (?1, ?2, ?3, ?4, ?5, 0)
                ON CONFLICT (hash) DO UPDATE SET expires = excluded.expires, withdrawn = iif(?6, 0, withdrawn)
                WHERE used IS NULL";
            // The sale withdrew it from who had the device before.
            act.execute(
                sql,
                (code.as_bytes(), device.as_bytes(), found.hash, found.key, millis(expires), found.resold),
            )?;
            Ok(())
        })
        .await
    }

    /// Ends a claim: the device proved its key, and belongs to who claimed it. It moves there with its certificates.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when the claim is not, or no longer, open.
    pub async fn complete_claim(
        &self,
        device: DeviceId,
        from: FacilityId,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let found = in_transaction(act, device)?;
            let is_open = found.label.state == LabelState::Claimed && found.label.expires.is_some_and(|end| at <= end);
            let Some(to) = found.label.facility.filter(|_| is_open) else { return Err(illegal("not open", "claimed")) };
            let sql = "UPDATE label SET completed = ?2, resold = NULL WHERE device = ?1";
            act.execute(sql, (device.as_bytes(), millis(at)))?;
            if found.resold {
                arrive(act, device, from, at)?;
            }
            if to == from { Ok(()) } else { device::change_facility(act, device, from, to) }
        })
        .await
    }
}
