//! A change of device state together with what it does to certificates, codes and waiting enrolments.

use kf_access::Visibility;
use kf_key::{DeviceId, DeviceState, FacilityId, RevocationReason};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::{CertificateEffect, DeviceChange, DeviceTarget};
use crate::StoreError;
use crate::act::Act;
use crate::column::{self, Coded};
use crate::error::DeviceTransition;
use crate::revocation::{Revoked, Selected, change_selected};
use crate::sql::{self, in_scope, scope};

/// The condition that selects the devices of a target, with it as `?2`.
fn condition(target: &DeviceTarget) -> (&'static str, Value) {
    match target {
        DeviceTarget::Device { id, .. } => ("id = ?2", Value::Blob(id.as_bytes().to_vec())),
        DeviceTarget::Batch(batch) => ("batch = ?2", Value::Text(batch.clone())),
        DeviceTarget::Facility(id) => ("facility = ?2", Value::Blob(id.as_bytes().to_vec())),
    }
}

const fn resumes(to: DeviceState) -> bool {
    matches!(to, DeviceState::Active | DeviceState::Registered)
}

/// A device that is out of service already may be changed to the very state that it is in, so that its certificates are revoked
/// for good: it leaves who has it, and stays of use to somebody.
const fn stays(change: &DeviceChange, from: DeviceState) -> bool {
    matches!(change.certificates, CertificateEffect::Revoke { .. })
        && matches!(
            (from, change.to),
            (DeviceState::Suspended, DeviceState::Suspended) | (DeviceState::Quarantined, DeviceState::Quarantined)
        )
}

/// The states from which the change is a legal step, as a list for SQL. Suspending many leaves those in quarantine there: that
/// somebody looks into them must not be lost.
fn from_states(change: &DeviceChange) -> String {
    let DeviceChange { to, ref target, .. } = *change;
    let many = !matches!(target, DeviceTarget::Device { .. });
    let legal = |from: &DeviceState| {
        let resumable = !resumes(to) || matches!(from, DeviceState::Suspended | DeviceState::Quarantined);
        let remains = many && to == DeviceState::Suspended && *from == DeviceState::Quarantined;
        resumable && !remains && (from.transition(to).is_ok() || stays(change, *from))
    };
    let codes: Vec<_> =
        DeviceState::ALL.iter().filter(|from| legal(from)).map(|from| from.code().to_string()).collect();
    codes.join(", ")
}

/// The one device is there, visible, as the caller saw it, and may become this; or the batch or facility is there.
fn require_target(act: &Act<'_>, change: &DeviceChange, visibility: &Visibility) -> Result<(), StoreError> {
    let (_, target) = condition(&change.target);
    match &change.target {
        DeviceTarget::Facility(id) => act.require_visible(*id, visibility),
        DeviceTarget::Batch(_) => {
            let sql = concat!("SELECT 1 FROM device WHERE batch = ?2 AND ", in_scope!("facility"), " LIMIT 1");
            if act.exists(sql, (scope(visibility), target))? {
                Ok(())
            } else {
                Err(StoreError::NotFound { what: "batch" })
            }
        }
        DeviceTarget::Device { seen, .. } => {
            let sql = concat!("SELECT state FROM device WHERE id = ?2 AND ", in_scope!("facility"));
            let state: Option<DeviceState> = act.one(sql, (scope(visibility), target), |row| column::coded(row, 0))?;
            let state = state.ok_or(StoreError::NotFound { what: "device" })?;
            if state != *seen {
                return Err(StoreError::IllegalState {
                    what: "device",
                    found: state.name().into(),
                    expected: seen.name().into(),
                });
            }
            if resumes(change.to) && !matches!(state, DeviceState::Suspended | DeviceState::Quarantined) {
                // Activation is what an issuance does, not an act of its own.
                let illegal = kf_key::IllegalDeviceTransition { from: state, to: change.to };
                return Err(DeviceTransition(illegal).into());
            }
            if !stays(change, state) {
                state.transition(change.to).map_err(DeviceTransition)?;
            }
            Ok(())
        }
    }
}

/// See [`crate::Store::change_devices`]. Certificates first: the states from which devices come select them.
pub(crate) fn carry_out(
    act: &mut Act<'_>,
    change: &DeviceChange,
    visibility: &Visibility,
) -> Result<Revoked, StoreError> {
    require_target(act, change, visibility)?;
    let (devices, target) = condition(&change.target);
    let from = from_states(change);
    let selection = format!("SELECT id FROM device WHERE {devices} AND state IN ({from})");
    let mut outcome = Revoked::default();
    for (reason, profiles) in effects(change.certificates) {
        let condition = format!("device IN ({selection})");
        let selected = Selected { condition: &condition, target: target.clone(), profiles };
        outcome.add(change_selected(act, &selected, reason, change.at, visibility)?);
    }
    if matches!(change.certificates, CertificateEffect::Revoke { .. }) {
        end_bootstrap(act, &selection, &target, visibility)?;
    }
    if resumes(change.to) {
        // Whoever had sold it has it again: no claim takes it out of a later suspension.
        let sql = format!("UPDATE label SET resold = NULL WHERE resold IS NOT NULL AND device IN ({selection})");
        act.execute(&sql, (scope(visibility), &target))?;
    }
    (outcome.devices, outcome.states) = set_states(act, change, &from, visibility)?;
    Ok(outcome)
}

/// What happens to which profiles.
fn effects(effect: CertificateEffect) -> Vec<(RevocationReason, &'static str)> {
    match effect {
        CertificateEffect::Keep => Vec::new(),
        CertificateEffect::Hold => vec![(RevocationReason::CertificateHold, "profile IN (3, 4)")],
        CertificateEffect::Release => vec![(RevocationReason::RemoveFromCrl, "profile IN (3, 4)")],
        CertificateEffect::Revoke { ldevid, idevid } => {
            vec![(ldevid, "profile = 4"), (idevid.unwrap_or(RevocationReason::RemoveFromCrl), "profile = 3")]
        }
    }
}

/// A device that left bootstraps no more: open codes are withdrawn, waiting enrolments refused.
fn end_bootstrap(act: &Act<'_>, selection: &str, target: &Value, visibility: &Visibility) -> Result<(), StoreError> {
    let devices = format!("device IN ({selection} AND {})", in_scope!("facility"));
    let sql = format!("UPDATE code SET withdrawn = 1 WHERE used IS NULL AND withdrawn = 0 AND {devices}");
    act.execute(&sql, (scope(visibility), target))?;
    let sql = format!("UPDATE enrolment SET state = 3 WHERE state IN (1, 2) AND {devices}");
    act.execute(&sql, (scope(visibility), target))?;
    Ok(())
}

/// Sets the states; how many devices changed, and which, as far as they are listed.
fn set_states(
    act: &mut Act<'_>,
    change: &DeviceChange,
    from: &str,
    visibility: &Visibility,
) -> Result<(u64, Vec<(DeviceId, DeviceState)>), StoreError> {
    let (devices, target) = condition(&change.target);
    // Whoever comes back is active when it holds an LDevID that is not revoked, and registered otherwise.
    let to = if resumes(change.to) {
        "iif(EXISTS (SELECT 1 FROM certificate c WHERE c.device = device.id AND c.profile = 4 AND c.status <> 3), 2, 1)"
            .to_owned()
    } else {
        change.to.code().to_string()
    };
    let (mut changed, mut listed) = (0, Vec::new());
    for state in DeviceState::ALL {
        if !from.split(", ").any(|code| code == state.code().to_string()) {
            continue;
        }
        let sql = format!(
            "UPDATE device SET state = {to} WHERE {devices} AND state = ?3 AND {} RETURNING facility, state, id",
            in_scope!("facility")
        );
        let rows: Vec<(FacilityId, DeviceState, DeviceId)> =
            act.all(&sql, (scope(visibility), &target, state.code()), |row| {
                Ok((column::id(row, 0)?, column::coded(row, 1)?, column::id(row, 2)?))
            })?;
        for (facility, now, device) in rows {
            act.counts.device(facility, state, -1);
            act.counts.device(facility, now, 1);
            changed += 1;
            if listed.len() < Revoked::MAX_CHANGES {
                listed.push((device, now));
            }
        }
    }
    Ok((changed, listed))
}

/// Puts a device into a state in which it does nothing, as somebody outside knows it to be; certificates are another matter. Whether
/// it was in a state that can become this one.
pub(super) fn stop(act: &mut Act<'_>, device: DeviceId, to: DeviceState) -> Result<bool, StoreError> {
    let sql = "SELECT state, facility FROM device WHERE id = ?1";
    let found = act.one(sql, [device.as_bytes()], |row| {
        Ok((column::coded::<DeviceState>(row, 0)?, column::id::<FacilityId>(row, 1)?))
    })?;
    let Some((state, facility)) = found else { return Ok(false) };
    if to.may_enrol() || state.transition(to).is_err() {
        return Ok(false);
    }
    act.execute("UPDATE device SET state = ?2 WHERE id = ?1", (device.as_bytes(), to.code()))?;
    act.counts.device(facility, state, -1);
    act.counts.device(facility, to, 1);
    if to == DeviceState::Decommissioned {
        let target = Value::Blob(device.as_bytes().to_vec());
        end_bootstrap(act, "SELECT id FROM device WHERE id = ?2", &target, &Visibility::Fleet)?;
    }
    Ok(true)
}

/// See [`crate::Store::count_device_change`].
pub(super) fn count(
    connection: &Connection,
    change: &DeviceChange,
    visibility: &Visibility,
) -> Result<(u64, u64), StoreError> {
    let (devices, target) = condition(&change.target);
    let from = from_states(change);
    let selection =
        format!("SELECT id FROM device WHERE {devices} AND state IN ({from}) AND {}", in_scope!("facility"));
    let number = |sql: &str| {
        let count = sql::one(connection, sql, (scope(visibility), &target), |row| column::count(row, 0))?;
        Ok::<_, StoreError>(count.unwrap_or(0))
    };
    let count = number(&format!("SELECT count(*) FROM ({selection})"))?;
    let mut certificates = 0;
    for (reason, profiles) in effects(change.certificates) {
        let statuses = match reason {
            RevocationReason::CertificateHold => "1",
            RevocationReason::RemoveFromCrl => "2",
            _ => "1, 2",
        };
        certificates += number(&format!(
            "SELECT count(*) FROM certificate WHERE device IN ({selection}) AND {profiles} AND status IN ({statuses})"
        ))?;
    }
    Ok((count, certificates))
}
