//! The end of a batch: its CA, everything that this issued, and its devices.

use kf_access::Visibility;
use kf_api::batch::{BatchState, MadeState};
use kf_key::{BatchId, CertificateStatus, DeviceId, DeviceState, FacilityId, RevocationReason, UnixMillis};
use rusqlite::types::Value;

use super::require_state;
use crate::act::{Act, Class};
use crate::column::{self, Coded, millis};
use crate::revocation::{Revoked, Selected, change_selected};
use crate::{Audit, Logged, Store, StoreError, sql};

/// Which batch ends, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// The batch.
    pub batch: BatchId,
    /// `Cancelled` or `Compromised`.
    pub to: BatchState,
    /// Whether devices that passed without conflict stay as they are.
    pub keep_made: bool,
    /// Reason code of the revocations.
    pub reason: RevocationReason,
    /// When.
    pub at: UnixMillis,
}

/// The devices that end with a batch, with its id as `?2` and its name looked up.
fn devices(keep_made: bool) -> String {
    let kept = format!(
        " AND NOT EXISTS (SELECT 1 FROM batch_made m WHERE m.batch = ?2 AND m.device = device.id AND m.state = {})",
        MadeState::Passed.code()
    );
    let spared = if keep_made { kept.as_str() } else { "" };
    format!("batch = (SELECT name FROM batch WHERE id = ?2) AND state <> 5{spared}")
}

fn cancel(act: &mut Act<'_>, cancellation: &Cancellation) -> Result<Revoked, StoreError> {
    let Cancellation { batch, to, keep_made, reason, at } = *cancellation;
    let found = require_state(act, batch)?;
    // A batch that was given up may turn out to be compromised; nothing leads back.
    if found == to || found == BatchState::Compromised || to == BatchState::Open {
        return Err(StoreError::IllegalState { what: "batch", found: found.name().into(), expected: "open".into() });
    }
    let target = || Value::Blob(batch.as_bytes().to_vec());
    let devices = devices(keep_made);
    let conditions = [
        "serial = (SELECT authority_serial FROM batch WHERE id = ?2)".to_owned(),
        format!("device IN (SELECT id FROM device WHERE {devices}) AND profile IN (3, 4)"),
    ];
    let mut revoked = Revoked::default();
    for condition in &conditions {
        let selected = Selected { condition, target: target(), profiles: "1" };
        revoked.add(change_selected(act, &selected, reason, at, &Visibility::Fleet)?);
    }
    let sql = format!(
        "UPDATE code SET withdrawn = 1 WHERE used IS NULL AND ?1 IS NULL
        AND device IN (SELECT id FROM device WHERE {devices})"
    );
    act.execute(&sql, (Value::Null, target()))?;
    let sql = format!(
        "UPDATE enrolment SET state = 3 WHERE state IN (1, 2) AND ?1 IS NULL
        AND device IN (SELECT id FROM device WHERE {devices})"
    );
    act.execute(&sql, (Value::Null, target()))?;
    let sql = format!(
        "SELECT facility, state, count(*) FROM device WHERE {devices} AND ?1 IS NULL
        GROUP BY facility, state"
    );
    let groups: Vec<(FacilityId, DeviceState, i64)> =
        act.all(&sql, (Value::Null, target()), |row| Ok((column::id(row, 0)?, column::coded(row, 1)?, row.get(2)?)))?;
    let mut ended = 0;
    for (facility, state, count) in groups {
        act.counts.device(facility, state, -count);
        act.counts.device(facility, DeviceState::Decommissioned, count);
        ended += u64::try_from(count).unwrap_or(0);
    }
    let sql = format!("UPDATE device SET state = 5 WHERE {devices} AND ?1 IS NULL RETURNING id");
    let ids: Vec<DeviceId> = act.all(&sql, (Value::Null, target()), |row| column::id(row, 0))?;
    revoked.states = ids.into_iter().map(|id| (id, DeviceState::Decommissioned)).take(Revoked::MAX_CHANGES).collect();
    act.execute("UPDATE batch SET state = ?2, ended = ?3 WHERE id = ?1", (batch.as_bytes(), to.code(), millis(at)))?;
    revoked.devices = ended;
    Ok(revoked)
}

impl Store {
    /// Ends a batch: revokes its CA and every certificate of its devices, and decommissions them, in one commit. Works on a
    /// full disk. The log entry is completed with `detail.certificates` and `detail.devices`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it has ended that way already.
    pub async fn cancel_batch(
        &self,
        cancellation: Cancellation,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Revoked>, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let revoked = cancel(act, &cancellation)?;
            let audit = audit.with_detail("certificates", revoked.certificates);
            let index = act.log(&audit.with_detail("devices", revoked.devices))?;
            Ok(Logged { value: revoked, index })
        })
        .await
    }

    /// Ends a batch again that somebody outside knows to be ended: nothing of it is merged any more. What becomes of its devices and
    /// certificates is another matter. Whether it was open, or only given up and is compromised; nothing is logged where it was not.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn end_batch_again(
        &self,
        batch: BatchId,
        to: BatchState,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let sql = "SELECT state FROM batch WHERE id = ?1";
            let found: Option<BatchState> = act.one(sql, [batch.as_bytes()], |row| column::coded(row, 0))?;
            let is_further = match found {
                Some(BatchState::Open) => to != BatchState::Open,
                Some(BatchState::Cancelled) => to == BatchState::Compromised,
                Some(BatchState::Compromised) | None => false,
            };
            if is_further {
                let sql = "UPDATE batch SET state = ?2, ended = ?3 WHERE id = ?1";
                act.execute(sql, (batch.as_bytes(), to.code(), millis(at)))?;
                act.log(&audit)?;
            }
            Ok(is_further)
        })
        .await
    }

    /// Batches that have ended, in the order of their ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn ended_batches(&self) -> Result<Vec<(BatchId, BatchState)>, StoreError> {
        let sql = "SELECT id, state FROM batch WHERE state <> ?1 ORDER BY id";
        self.read(|connection| {
            sql::all(connection, sql, [BatchState::Open.code()], |row| {
                Ok((column::id(row, 0)?, column::coded(row, 1)?))
            })
        })
    }

    /// How many certificates and devices [`Store::cancel_batch`] would touch: `(certificates, devices)`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn count_batch_cancellation(&self, cancellation: &Cancellation) -> Result<(u64, u64), StoreError> {
        let devices = devices(cancellation.keep_made);
        let statuses = format!("{}, {}", CertificateStatus::Good.code(), CertificateStatus::Held.code());
        let sql = format!("SELECT count(*) FROM device WHERE {devices} AND ?1 IS NULL");
        let certificates = format!(
            "SELECT count(*) FROM certificate WHERE ?1 IS NULL AND status IN ({statuses}) AND (
                serial = (SELECT authority_serial FROM batch WHERE id = ?2) OR
                (device IN (SELECT id FROM device WHERE {devices}) AND profile IN (3, 4)))"
        );
        self.read(|connection| {
            let count = |sql: &str| {
                let params = (Value::Null, cancellation.batch.as_bytes());
                Ok::<_, StoreError>(sql::one(connection, sql, params, |row| column::count(row, 0))?.unwrap_or(0))
            };
            Ok((count(&certificates)?, count(&sql)?))
        })
    }
}
