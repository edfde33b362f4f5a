//! Recording an issuance: what must still hold, and what is written with it.

use kf_api::certificate::Certificate;
use kf_api::enrolment::EnrolmentState;
use kf_key::{
    CampaignId, CertificateProfile, CertificateStatus, DeviceId, DeviceState, FacilityId, OperatorId, RevocationReason,
    SerialNumber, UnixMillis,
};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::{
    Basis, DeviceIssuance, Issuance, IssuanceOutcome, KeyHolder, KeyStanding, StoredCertificate, key_standing,
    key_standing_row, stored,
};
use crate::act::Act;
use crate::campaign::renewal::answered_campaign;
use crate::column::{self, Coded, millis, sha256_of_hex};
use crate::enrolment::state_name;
use crate::error::DeviceTransition;
use crate::revocation::{StatusChange, shard_of};
use crate::{Audit, StoreError, sql};

const MAX_DER_OCTETS: usize = 65_536;
const MAX_VOUCHER_OCTETS: usize = 128;
/// LDevIDs that one issuance supersedes at most, after a policy came to allow fewer; the next one goes on.
const MAX_SUPERSEDED: usize = 100;

/// See [`crate::Store::record_issuance`].
pub(super) fn record(act: &mut Act<'_>, issuance: &Issuance, audit: &Audit) -> Result<IssuanceOutcome, StoreError> {
    let Issuance { certificate, der, device, basis, at } = issuance;
    let spki = sha256_of_hex("spki_sha256", &certificate.spki_sha256)?;
    let standing = Standing::of(act, certificate, &spki)?;
    if *basis != Basis::Own {
        standing.stopped.clone().map_or(Ok(()), |why| Err(StoreError::Stopped { why }))?;
    } else if certificate.device.is_some() || certificate.operator.is_some() {
        return Err(StoreError::Invalid { field: "basis", problem: "the server's own certificate names nobody else" });
    }
    if let Some(before) = check_basis(act, basis, certificate.device, &spki, *at)? {
        return Ok(IssuanceOutcome::Before(Box::new(before)));
    }
    if certificate.status != CertificateStatus::Good {
        return Err(StoreError::Invalid { field: "status", problem: "a new certificate is good" });
    }
    check_device(certificate, device.as_ref(), standing.device)?;
    if !standing.has_authority {
        return Err(StoreError::NotFound { what: "authority" });
    }
    let renews = match basis {
        Basis::Renewal { of, .. } => Some(*of),
        _ => None,
    };
    bind_key(act, certificate, &spki, standing.key)?;
    insert_rows(act, certificate, &spki, der, renews)?;
    let superseded = match device {
        None => Vec::new(),
        Some(device) => update_device(act, certificate, device, *at)?,
    };
    use_basis(act, basis, certificate.serial, &spki, *at)?;
    if standing.has_pre_image {
        act.execute("DELETE FROM pre_image WHERE serial = ?1", [certificate.serial.as_bytes()])?;
    }
    let mut facts = Vec::new();
    if let (Some(campaign), Some(_)) = (standing.campaign, renews) {
        facts.push(("campaign", campaign.to_string()));
    }
    if !superseded.is_empty() {
        let serials: Vec<_> = superseded.iter().map(|change| change.serial.to_string()).collect();
        facts.push(("superseded", serials.join(" ")));
    }
    let index = if facts.is_empty() { act.log(audit)? } else { act.log(&audit.with_details(facts))? };
    Ok(IssuanceOutcome::Recorded { index, superseded })
}

/// Everything that an issuance presupposes, in one statement: each one costs more than what it looks up. No `IN` and no `ORDER BY`
/// in it: for either SQLite opens a table in memory, which costs as much as all the look-ups.
struct Standing {
    stopped: Option<String>,
    has_authority: bool,
    has_pre_image: bool,
    device: Option<(DeviceState, FacilityId)>,
    key: KeyStanding,
    /// The campaign that asked the device for a new certificate.
    campaign: Option<CampaignId>,
}

impl Standing {
    fn of(act: &Act<'_>, certificate: &Certificate, spki: &[u8; 32]) -> Result<Self, StoreError> {
        let sql = concat!(
            "SELECT EXISTS (SELECT 1 FROM blocked_spki WHERE sha256 = ?1), k.holder_kind, k.holder,
            coalesce((SELECT value FROM setting WHERE key = 'issuance-stopped'),
                (SELECT why FROM issuance_hold WHERE target = ?2), (SELECT why FROM issuance_hold WHERE target = ?5)),
            EXISTS (SELECT 1 FROM authority WHERE id = ?2 UNION ALL SELECT 1 FROM batch WHERE authority = ?2),
            EXISTS (SELECT 1 FROM pre_image WHERE serial = ?3),
            d.state, d.facility, ",
            answered_campaign!(),
            " FROM (SELECT 1) LEFT JOIN spki k ON k.sha256 = ?1 LEFT JOIN device d ON d.id = ?4"
        );
        let device = certificate.device.as_ref().map(DeviceId::as_bytes);
        let facility = certificate.facility.as_ref().map(FacilityId::as_bytes);
        let params = (spki, certificate.authority.as_bytes(), certificate.serial.as_bytes(), device, facility);
        let found = act.one(sql, params, |row| {
            let device = match row.get_ref(6)? {
                ValueRef::Null => None,
                _ => Some((column::coded(row, 6)?, column::id(row, 7)?)),
            };
            Ok(Self {
                stopped: row.get(3)?,
                has_authority: row.get(4)?,
                has_pre_image: row.get(5)?,
                device,
                key: key_standing_row(row)?,
                campaign: column::optional_id(row, 8)?,
            })
        })?;
        found.ok_or_else(|| StoreError::Corrupt { what: "a statement that always has a row has none".into() })
    }
}

/// The device is there, is what the certificate says, and is in the state the caller saw.
fn check_device(
    certificate: &Certificate,
    issuance: Option<&DeviceIssuance>,
    found: Option<(DeviceState, FacilityId)>,
) -> Result<(), StoreError> {
    let issuance = match (certificate.device, issuance) {
        (Some(_), Some(issuance)) => issuance,
        (None, None) => return Ok(()),
        _ => return Err(StoreError::Invalid { field: "device", problem: "a device certificate needs its device" }),
    };
    let (state, facility) = found.ok_or(StoreError::NotFound { what: "device" })?;
    if state != issuance.seen || !state.may_enrol() {
        let expected = if issuance.seen.may_enrol() { issuance.seen.name() } else { "one that may enrol" };
        return Err(StoreError::IllegalState { what: "device", found: state.name().into(), expected: expected.into() });
    }
    if certificate.facility != Some(facility) {
        return Err(StoreError::IllegalState {
            what: "facility of the device",
            found: facility.to_string(),
            expected: certificate.facility.map_or_else(String::new, |facility| facility.to_string()),
        });
    }
    Ok(())
}

/// Inserts a certificate and binds its public key to its subject.
pub(crate) fn insert_with_key(
    act: &mut Act<'_>,
    certificate: &Certificate,
    der: &[u8],
    renews: Option<SerialNumber>,
) -> Result<(), StoreError> {
    let spki = sha256_of_hex("spki_sha256", &certificate.spki_sha256)?;
    let standing = key_standing(act.connection(), &spki)?;
    bind_key(act, certificate, &spki, standing)?;
    insert(act, certificate, der, renews)
}

/// Binds a public key to the certificate's subject, unless it is blocked or somebody else's.
fn bind_key(
    act: &Act<'_>,
    certificate: &Certificate,
    spki: &[u8; 32],
    standing: KeyStanding,
) -> Result<(), StoreError> {
    let subject = match (certificate.device, certificate.operator) {
        (Some(device), _) => KeyHolder::Device(device),
        (None, Some(operator)) => KeyHolder::Operator(operator),
        (None, None) => KeyHolder::Subject(certificate.subject.clone()),
    };
    bind_key_to(act, &subject, spki, standing)
}

/// As [`bind_key`], for a key that is not certified here.
pub(crate) fn bind_key_of_device(act: &Act<'_>, device: DeviceId, spki: &[u8; 32]) -> Result<(), StoreError> {
    bind_key_to(act, &KeyHolder::Device(device), spki, key_standing(act.connection(), spki)?)
}

/// Refuses a public key that is blocked or anybody's.
pub(crate) fn check_key_is_free(act: &Act<'_>, spki: &[u8; 32]) -> Result<(), StoreError> {
    let standing = key_standing(act.connection(), spki)?;
    check_not_blocked(&standing)?;
    standing.holder.map_or(Ok(()), |holder| Err(StoreError::KeyInUse { holder: holder.to_string() }))
}

fn check_not_blocked(standing: &KeyStanding) -> Result<(), StoreError> {
    if standing.is_blocked {
        return Err(StoreError::IllegalState {
            what: "public key",
            found: "blocked".into(),
            expected: "not known to be compromised".into(),
        });
    }
    Ok(())
}

fn bind_key_to(act: &Act<'_>, subject: &KeyHolder, spki: &[u8; 32], standing: KeyStanding) -> Result<(), StoreError> {
    check_not_blocked(&standing)?;
    match standing.holder {
        Some(found) if found == *subject => {}
        Some(found) => return Err(StoreError::KeyInUse { holder: found.to_string() }),
        None => {
            let (kind, octets) = match subject {
                KeyHolder::Device(id) => (1, &id.as_bytes()[..]),
                KeyHolder::Operator(id) => (2, &id.as_bytes()[..]),
                KeyHolder::Subject(name) => (3, name.as_bytes()),
            };
            let sql = "INSERT INTO spki (sha256, holder_kind, holder) VALUES (?1, ?2, ?3)";
            act.execute(sql, (spki, kind, octets))?;
        }
    }
    Ok(())
}

/// Inserts the two halves of a certificate of an authority that is there.
pub(crate) fn insert(
    act: &mut Act<'_>,
    certificate: &Certificate,
    der: &[u8],
    renews: Option<SerialNumber>,
) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM authority WHERE id = ?1 UNION ALL SELECT 1 FROM batch WHERE authority = ?1";
    if !act.exists(sql, [certificate.authority.as_bytes()])? {
        return Err(StoreError::NotFound { what: "authority" });
    }
    let spki = sha256_of_hex("spki_sha256", &certificate.spki_sha256)?;
    insert_rows(act, certificate, &spki, der, renews)
}

fn insert_rows(
    act: &mut Act<'_>,
    certificate: &Certificate,
    spki: &[u8; 32],
    der: &[u8],
    renews: Option<SerialNumber>,
) -> Result<(), StoreError> {
    let Certificate { serial, authority, profile, device, operator, facility, subject, .. } = certificate;
    let Certificate { not_before, not_after, status, revoked, reason, .. } = certificate;
    if der.len() > MAX_DER_OCTETS {
        return Err(StoreError::Invalid { field: "der", problem: "at most 65,536 octets" });
    }
    let revoked_fits =
        (*status == CertificateStatus::Good) == revoked.is_none() && revoked.is_some() == reason.is_some();
    if !revoked_fits {
        return Err(StoreError::Invalid { field: "status", problem: "status, time and reason do not fit together" });
    }
    let sql = "INSERT INTO certificate_body (spki, operator, not_before, subject, der, renews)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let operator = operator.as_ref().map(OperatorId::as_bytes);
    let renews = renews.as_ref().map(SerialNumber::as_bytes);
    act.execute(sql, (spki, operator, millis(*not_before), subject, der, renews))?;
    let sql = "INSERT INTO certificate
        (serial, authority, status, revoked, reason, profile, device, facility, not_after, body)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    act.execute(
        sql,
        (
            serial.as_bytes(),
            authority.as_bytes(),
            status.code(),
            revoked.map(millis),
            reason.map(Coded::code),
            profile.code(),
            device.as_ref().map(DeviceId::as_bytes),
            facility.as_ref().map(FacilityId::as_bytes),
            millis(*not_after),
            act.connection().last_insert_rowid(),
        ),
    )?;
    act.counts.certificate(*facility, *status, 1);
    Ok(())
}

/// What a device certificate does to its device and to its older LDevIDs.
fn update_device(
    act: &mut Act<'_>,
    certificate: &Certificate,
    issuance: &DeviceIssuance,
    at: UnixMillis,
) -> Result<Vec<StatusChange>, StoreError> {
    let (Some(id), Some(facility)) = (certificate.device, certificate.facility) else { return Ok(Vec::new()) };
    if let Some(protection) = issuance.protection {
        let sql = "UPDATE device SET protection = ?2 WHERE id = ?1 AND protection <> ?2";
        act.execute(sql, (id.as_bytes(), protection.code()))?;
    }
    let sighting = issuance.is_sighting.then(|| millis(at));
    let is_ldevid = certificate.profile == CertificateProfile::LDevId;
    if is_ldevid && issuance.seen == DeviceState::Registered {
        issuance.seen.transition(DeviceState::Active).map_err(DeviceTransition)?;
        let sql = "UPDATE device SET state = ?2, last_seen = coalesce(max(last_seen, ?3), last_seen, ?3) WHERE id = ?1";
        act.execute(sql, (id.as_bytes(), DeviceState::Active.code(), sighting))?;
        act.counts.device(facility, issuance.seen, -1);
        act.counts.device(facility, DeviceState::Active, 1);
    } else if sighting.is_some() {
        let sql = "UPDATE device SET last_seen = ?2 WHERE id = ?1 AND coalesce(last_seen, 0) < ?2";
        act.execute(sql, (id.as_bytes(), sighting))?;
    }
    if !is_ldevid {
        return Ok(Vec::new());
    }
    let Some(keep) = issuance.max_live_ldevids else { return Ok(Vec::new()) };
    supersede(act, (id, facility), certificate.serial, keep, at)
}

/// Revokes the oldest good LDevIDs of a device beyond `keep`, which the newest, just issued, always is among. In the order in
/// which they were recorded: serial numbers follow the clock, which can be set back.
fn supersede(
    act: &mut Act<'_>,
    (device, facility): (DeviceId, FacilityId),
    newest: SerialNumber,
    keep: u8,
    at: UnixMillis,
) -> Result<Vec<StatusChange>, StoreError> {
    let sql =
        "SELECT serial, authority, not_after, body FROM certificate WHERE device = ?1 AND status = 1 AND profile = 4
        AND not_after >= ?2 AND serial <> ?3 LIMIT 512";
    let mut others = act.all(sql, (device.as_bytes(), millis(at), newest.as_bytes()), |row| {
        Ok((column::serial(row, 0)?, column::id(row, 1)?, column::time(row, 2)?, row.get::<_, i64>(3)?))
    })?;
    // Sorted here: nearly always there are fewer than may stay, and SQLite would set up its sorter for nothing.
    others.sort_unstable_by_key(|&(.., body)| std::cmp::Reverse(body));
    let old = others.into_iter().skip(usize::from(keep.max(1) - 1)).take(MAX_SUPERSEDED);
    let reason = RevocationReason::Superseded;
    let mut changes = Vec::new();
    for (serial, authority, not_after, _) in old {
        let sql = "UPDATE certificate SET status = 3, revoked = ?2, reason = ?3 WHERE serial = ?1";
        act.execute(sql, (serial.as_bytes(), millis(at), Coded::code(reason)))?;
        act.counts.certificate(Some(facility), CertificateStatus::Good, -1);
        act.counts.certificate(Some(facility), CertificateStatus::Revoked, 1);
        let shard = shard_of(act.connection(), authority, serial)?;
        let revoked = Some((at, reason));
        changes.push(StatusChange { serial, authority, shard, revoked, not_after, device: Some(device) });
    }
    Ok(changes)
}

/// The serial number that a basis gave for this key, if it was used with it.
pub(super) fn used_before(
    connection: &Connection,
    basis: &Basis,
    spki: &[u8; 32],
) -> Result<Option<SerialNumber>, StoreError> {
    let read = |row: &rusqlite::Row<'_>| column::serial(row, 0);
    match basis {
        Basis::Standing | Basis::Own => Ok(None),
        Basis::Code(id) => {
            let sql = "SELECT serial FROM code WHERE id = ?1 AND used_with = ?2 AND withdrawn = 0";
            sql::one(connection, sql, (id.as_bytes(), spki), read)
        }
        Basis::Voucher { id, .. } => {
            let sql = "SELECT serial FROM voucher WHERE id = ?1 AND used_with = ?2";
            sql::one(connection, sql, (id, spki), read)
        }
        Basis::Enrolment(id) => {
            let sql = "SELECT serial FROM enrolment WHERE id = ?1 AND spki = ?2 AND serial IS NOT NULL";
            sql::one(connection, sql, (id.as_bytes(), spki), read)
        }
        Basis::Renewal { of, authority, valid_until } => {
            // Left to itself, the planner walks all good certificates of the authority: two equal columns look narrower
            // than one, and the work would grow with the fleet.
            let sql = "SELECT c.serial FROM certificate o
                CROSS JOIN certificate c INDEXED BY certificate_by_device ON c.device = o.device
                CROSS JOIN certificate_body b ON b.body = c.body
                WHERE o.serial = ?1 AND c.status = 1 AND c.profile = 4 AND c.authority = ?3 AND c.not_after >= ?4
                AND b.renews = ?1 AND b.spki = ?2 ORDER BY c.serial DESC LIMIT 1";
            sql::one(connection, sql, (of.as_bytes(), spki, authority.as_bytes(), millis(*valid_until)), read)
        }
    }
}

fn illegal(what: &'static str, found: &str, expected: &str) -> StoreError {
    StoreError::IllegalState { what, found: found.into(), expected: expected.into() }
}

/// Refuses unless the basis may be used now; the certificate that it gave before for the same key.
fn check_basis(
    act: &Act<'_>,
    basis: &Basis,
    device: Option<DeviceId>,
    spki: &[u8; 32],
    at: UnixMillis,
) -> Result<Option<StoredCertificate>, StoreError> {
    let (what, unused) = match basis {
        Basis::Standing | Basis::Own => return Ok(None),
        Basis::Renewal { .. } => {
            let Some(serial) = used_before(act.connection(), basis, spki)? else { return Ok(None) };
            return stored(act.connection(), serial, &kf_access::Visibility::Fleet);
        }
        Basis::Code(id) => ("code", check_code(act, *id, device, at)?),
        Basis::Voucher { id, .. } => ("voucher", check_voucher(act, id)?),
        Basis::Enrolment(id) => ("enrolment", check_enrolment(act, *id, device, spki)?),
    };
    if unused {
        return Ok(None);
    }
    let before = match used_before(act.connection(), basis, spki)? {
        None => None,
        Some(serial) => stored(act.connection(), serial, &kf_access::Visibility::Fleet)?,
    };
    match before {
        // What was revoked since is not handed out again.
        Some(before) if before.certificate.status == CertificateStatus::Good => Ok(Some(before)),
        _ if what == "voucher" => Err(StoreError::Conflict { field: "voucher" }),
        _ => Err(illegal(what, "used", "unused")),
    }
}

/// Whether a code is unused; refuses what can be neither used nor used again.
fn check_code(act: &Act<'_>, id: kf_key::CodeId, device: Option<DeviceId>, at: UnixMillis) -> Result<bool, StoreError> {
    let sql = "SELECT id, device, hash, expires, used, used_with, withdrawn, bound FROM code WHERE id = ?1";
    let found = act.one(sql, [id.as_bytes()], crate::enrolment::code_row)?;
    let record = found.filter(|record| Some(record.code.device) == device);
    let code = record.ok_or(StoreError::NotFound { what: "code" })?.code;
    if code.withdrawn {
        return Err(illegal("code", "withdrawn", "unused"));
    }
    if code.expires < at {
        return Err(illegal("code", "expired", "unused"));
    }
    Ok(code.used.is_none())
}

fn check_voucher(act: &Act<'_>, id: &str) -> Result<bool, StoreError> {
    if id.is_empty() || id.len() > MAX_VOUCHER_OCTETS {
        return Err(StoreError::Invalid { field: "voucher", problem: "an identifier has 1 to 128 octets" });
    }
    Ok(!act.exists("SELECT 1 FROM voucher WHERE id = ?1", [id])?)
}

fn check_enrolment(
    act: &Act<'_>,
    id: kf_key::EnrolmentId,
    device: Option<DeviceId>,
    spki: &[u8; 32],
) -> Result<bool, StoreError> {
    let sql = "SELECT state, device FROM enrolment WHERE id = ?1 AND spki = ?2";
    let found = act.one(sql, (id.as_bytes(), spki), |row| {
        Ok((column::coded::<EnrolmentState>(row, 0)?, column::id::<DeviceId>(row, 1)?))
    })?;
    match found {
        Some((EnrolmentState::Approved, holder)) if Some(holder) == device => Ok(true),
        Some((EnrolmentState::Issued, holder)) if Some(holder) == device => Ok(false),
        Some((state, holder)) if Some(holder) == device => {
            Err(illegal("enrolment", state_name(state), state_name(EnrolmentState::Approved)))
        }
        _ => Err(StoreError::NotFound { what: "enrolment" }),
    }
}

/// Uses the basis up.
fn use_basis(
    act: &Act<'_>,
    basis: &Basis,
    serial: SerialNumber,
    spki: &[u8; 32],
    at: UnixMillis,
) -> Result<(), StoreError> {
    match basis {
        // A renewal is noted with the certificate.
        Basis::Standing | Basis::Own | Basis::Renewal { .. } => {}
        Basis::Code(id) => {
            let sql = "UPDATE code SET used = ?2, used_with = ?3, serial = ?4 WHERE id = ?1";
            act.execute(sql, (id.as_bytes(), millis(at), spki, serial.as_bytes()))?;
            let sql = "DELETE FROM failed_attempt WHERE device = (SELECT device FROM code WHERE id = ?1)";
            act.execute(sql, [id.as_bytes()])?;
        }
        Basis::Voucher { id, station, expires } => {
            // A few forgotten ones leave with each that comes, so that the table stays as large as what is in force.
            let sql = "DELETE FROM voucher WHERE id IN
                (SELECT id FROM voucher WHERE expires < ?1 ORDER BY expires LIMIT 4)";
            act.execute(sql, [millis(at)])?;
            let sql = "INSERT INTO voucher (id, station, expires, used_with, serial) VALUES (?1, ?2, ?3, ?4, ?5)";
            act.execute(sql, (id, station.as_bytes(), millis(*expires), spki, serial.as_bytes()))?;
        }
        Basis::Enrolment(id) => {
            let sql = "UPDATE enrolment SET state = ?2, serial = ?3 WHERE id = ?1";
            act.execute(sql, (id.as_bytes(), EnrolmentState::Issued.code(), serial.as_bytes()))?;
        }
    }
    Ok(())
}
