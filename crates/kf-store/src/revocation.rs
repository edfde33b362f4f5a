//! Revocation, hold and release, of one certificate or of many.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kf_access::Visibility;
use kf_key::{
    AuthorityId, CertificateStatus, DeviceId, DeviceState, FacilityId, RevocationReason, SerialNumber, UnixMillis,
};

use rusqlite::types::Value;
use rusqlite::{Connection, Row};

use crate::act::{Act, Class};
use crate::column::{self, Coded, millis};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

/// Entries read at once for a CRL.
const CHUNK: u32 = 4_096;

/// The CRL shard of a certificate.
pub(crate) fn shard_of(
    connection: &Connection,
    authority: AuthorityId,
    serial: SerialNumber,
) -> Result<u16, StoreError> {
    let sql = "SELECT shard_count FROM authority WHERE id = ?1";
    let count = sql::one(connection, sql, [authority.as_bytes()], |row| row.get::<_, u16>(0))?;
    Ok(serial.shard(count.ok_or(StoreError::NotFound { what: "authority" })?))
}

/// The condition that selects certificates, with the target as `?2`.
fn condition(selection: &Selection) -> (&'static str, Value) {
    let blob = |octets: &[u8]| Value::Blob(octets.to_vec());
    match selection {
        Selection::Certificate(serial) => ("serial = ?2", blob(serial.as_bytes())),
        Selection::Device(id) => ("device = ?2", blob(id.as_bytes())),
        Selection::Batch(batch) => ("device IN (SELECT id FROM device WHERE batch = ?2)", Value::Text(batch.clone())),
        Selection::Facility(id) => ("facility = ?2", blob(id.as_bytes())),
        Selection::Authority(id) => (
            "authority = ?2 AND serial <> (SELECT own.serial FROM authority own WHERE own.id = ?2)",
            blob(id.as_bytes()),
        ),
    }
}

const fn profiles_condition(revocation: &Revocation) -> &'static str {
    match (&revocation.selection, revocation.profiles) {
        (Selection::Certificate(_), _) | (_, Profiles::All) => "1",
        (_, Profiles::LDevIdOnly) => "profile = 4",
        (_, Profiles::Device) => "profile IN (3, 4)",
    }
}

/// Refuses a target that is not there or not visible, so that a typing error is not taken for "nothing to revoke".
fn require_target(act: &Act<'_>, revocation: &Revocation, visibility: &Visibility) -> Result<(), StoreError> {
    let (what, sql) = match &revocation.selection {
        Selection::Certificate(_) => {
            ("certificate", concat!("SELECT 1 FROM certificate WHERE serial = ?2 AND ", in_scope!("facility")))
        }
        Selection::Device(_) => ("device", concat!("SELECT 1 FROM device WHERE id = ?2 AND ", in_scope!("facility"))),
        Selection::Batch(_) => {
            ("batch", concat!("SELECT 1 FROM device WHERE batch = ?2 AND ", in_scope!("facility"), " LIMIT 1"))
        }
        Selection::Facility(_) => ("facility", concat!("SELECT 1 FROM facility WHERE id = ?2 AND ", in_scope!("id"))),
        Selection::Authority(_) => ("authority", "SELECT 1 FROM authority WHERE id = ?2 AND (?1 IS NULL OR ?1 <> '')"),
    };
    let (_, target) = condition(&revocation.selection);
    if act.exists(sql, (scope(visibility), target))? { Ok(()) } else { Err(StoreError::NotFound { what }) }
}

/// Why a single certificate was not changed.
fn not_changeable(act: &Act<'_>, serial: SerialNumber, reason: RevocationReason) -> Result<StoreError, StoreError> {
    let sql = "SELECT status FROM certificate WHERE serial = ?1";
    let status = act.one(sql, [serial.as_bytes()], |row| column::coded(row, 0))?;
    let name = |status| match status {
        CertificateStatus::Good => "good",
        CertificateStatus::Held => "on hold",
        CertificateStatus::Revoked => "revoked",
    };
    let expected = match reason {
        RevocationReason::RemoveFromCrl => "on hold",
        RevocationReason::CertificateHold => "good",
        _ => "good or on hold",
    };
    Ok(StoreError::IllegalState {
        what: "certificate",
        found: status.map_or("not there", name).into(),
        expected: expected.into(),
    })
}

/// Changes the status of the selected certificates.
pub(crate) fn change(
    act: &mut Act<'_>,
    revocation: &Revocation,
    visibility: &Visibility,
) -> Result<Revoked, StoreError> {
    let (condition, target) = condition(&revocation.selection);
    let selected = Selected { condition, target, profiles: profiles_condition(revocation) };
    change_selected(act, &selected, revocation.reason, revocation.at, visibility)
}

/// Revokes the certificate of a CA itself.
pub(crate) fn revoke_itself(
    act: &mut Act<'_>,
    authority: AuthorityId,
    revocation: &Revocation,
) -> Result<Revoked, StoreError> {
    let selected = Selected {
        condition: "serial = (SELECT own.serial FROM authority own WHERE own.id = ?2)",
        target: Value::Blob(authority.as_bytes().to_vec()),
        profiles: "1",
    };
    change_selected(act, &selected, revocation.reason, revocation.at, &Visibility::Fleet)
}

/// Certificates by a condition on their columns, in which `?2` is the target.
pub(crate) struct Selected<'a> {
    pub(crate) condition: &'a str,
    pub(crate) target: Value,
    pub(crate) profiles: &'static str,
}

/// One statement per status that changes: its rows come back as they are written, so the cost is that of the rows.
pub(crate) fn change_selected(
    act: &mut Act<'_>,
    selected: &Selected<'_>,
    reason: RevocationReason,
    at: UnixMillis,
    visibility: &Visibility,
) -> Result<Revoked, StoreError> {
    use CertificateStatus::{Good, Held};
    let (from, to): (&[CertificateStatus], _) = match reason {
        RevocationReason::RemoveFromCrl => (&[Held], Good),
        RevocationReason::CertificateHold => (&[Good], Held),
        _ => (&[Good, Held], CertificateStatus::Revoked),
    };
    let shard_counts: BTreeMap<AuthorityId, u16> = act
        .all("SELECT id, shard_count FROM authority", [], |row| Ok((column::id(row, 0)?, row.get(1)?)))?
        .into_iter()
        .collect();
    let revoked = (to != Good).then_some((at, reason));
    let mut outcome = Revoked::default();
    let mut devices = BTreeSet::new();
    for status in from {
        let sql = format!(
            "UPDATE certificate SET status = ?4, revoked = ?5, reason = ?6
                WHERE {} AND {} AND {} AND status = ?3 RETURNING serial, authority, not_after, device, facility",
            in_scope!("facility"),
            selected.condition,
            selected.profiles,
        );
        let params = (
            scope(visibility),
            &selected.target,
            status.code(),
            to.code(),
            revoked.map(|(at, _)| millis(at)),
            revoked.map(|(_, reason)| Coded::code(reason)),
        );
        let mut statement = act.connection().prepare_cached(&sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            let (serial, authority) = (column::serial(row, 0)?, column::id(row, 1)?);
            let shard = serial.shard(shard_counts.get(&authority).copied().unwrap_or(1));
            let device = column::optional_id(row, 3)?;
            let change = StatusChange { serial, authority, shard, revoked, not_after: column::time(row, 2)?, device };
            let facility: Option<FacilityId> = column::optional_id(row, 4)?;
            act.counts.certificate(facility, *status, -1);
            act.counts.certificate(facility, to, 1);
            devices.extend(device);
            outcome.shards.insert((authority, shard));
            outcome.certificates += 1;
            if outcome.changes.len() < Revoked::MAX_CHANGES {
                outcome.changes.push(change);
            }
        }
    }
    outcome.devices = u64::try_from(devices.len()).unwrap_or(u64::MAX);
    Ok(outcome)
}

fn entry_row(row: &Row<'_>) -> rusqlite::Result<RevokedEntry> {
    Ok(RevokedEntry {
        serial: column::serial(row, 0)?,
        at: column::time(row, 1)?,
        reason: column::coded(row, 2)?,
        not_after: column::time(row, 3)?,
    })
}

/// The entries of one status, a chunk at a time.
struct Range {
    status: CertificateStatus,
    chunk: VecDeque<RevokedEntry>,
    last: Vec<u8>,
    ended: bool,
}

impl Range {
    const fn new(status: CertificateStatus) -> Self {
        Self { status, chunk: VecDeque::new(), last: Vec::new(), ended: false }
    }

    fn fill(
        &mut self,
        read: &impl Fn(CertificateStatus, &[u8]) -> Result<Vec<RevokedEntry>, StoreError>,
    ) -> Result<(), StoreError> {
        if !self.chunk.is_empty() || self.ended {
            return Ok(());
        }
        self.chunk = read(self.status, &self.last)?.into();
        self.ended = self.chunk.is_empty();
        if let Some(last) = self.chunk.back() {
            self.last = last.serial.as_bytes().to_vec();
        }
        Ok(())
    }

    fn first(&self) -> Option<&RevokedEntry> {
        self.chunk.front()
    }

    fn take(&mut self) -> Option<RevokedEntry> {
        self.chunk.pop_front()
    }
}

/// Which certificates an act touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One certificate.
    Certificate(SerialNumber),
    /// Those of a device.
    Device(DeviceId),
    /// Those of every device of a batch.
    Batch(String),
    /// Those of every device of a facility.
    Facility(FacilityId),
    /// Everything a CA issued; its own certificate is not among them.
    Authority(AuthorityId),
}

/// Which profiles a mass revocation touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profiles {
    /// LDevIDs only: the IDevID stays with the device.
    LDevIdOnly,
    /// IDevIDs and LDevIDs.
    Device,
    /// All.
    All,
}

/// A revocation, a hold (`certificateHold`) or a release (`removeFromCRL`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Which certificates.
    pub selection: Selection,
    /// Of which profiles; a single certificate is taken whatever its profile.
    pub profiles: Profiles,
    /// Why. A hold touches good ones, a release held ones, anything else good and held ones.
    pub reason: RevocationReason,
    /// When.
    pub at: UnixMillis,
}

/// A certificate whose status changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusChange {
    /// Serial number.
    pub serial: SerialNumber,
    /// Who issued it.
    pub authority: AuthorityId,
    /// The CRL shard it belongs to.
    pub shard: u16,
    /// When, and why; absent: released.
    pub revoked: Option<(UnixMillis, RevocationReason)>,
    /// Last moment of its validity: the entry may leave the CRL after it.
    pub not_after: UnixMillis,
    /// The device it names.
    pub device: Option<DeviceId>,
}

/// What a revocation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Certificates whose status changed.
    pub certificates: u64,
    /// Devices touched.
    pub devices: u64,
    /// The CRL shards that changed.
    pub shards: BTreeSet<(AuthorityId, u16)>,
    /// The changes, at most [`Revoked::MAX_CHANGES`]; beyond it read the shards again with [`Store::for_each_revoked`].
    pub changes: Vec<StatusChange>,
    /// Devices whose state changed, and to what, at most [`Revoked::MAX_CHANGES`]; beyond it read them again with
    /// [`Store::for_each_stopped_device`].
    pub states: Vec<(DeviceId, DeviceState)>,
}

impl Revoked {
    /// The most changes that are listed one by one.
    pub const MAX_CHANGES: usize = 250_000;

    /// Whether every change is listed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        u64::try_from(self.changes.len()) == Ok(self.certificates)
    }

    /// Both.
    pub(crate) fn add(&mut self, other: Self) {
        self.certificates += other.certificates;
        self.devices += other.devices;
        self.shards.extend(other.shards);
        let room = Self::MAX_CHANGES.saturating_sub(self.changes.len());
        self.changes.extend(other.changes.into_iter().take(room));
        let room = Self::MAX_CHANGES.saturating_sub(self.states.len());
        self.states.extend(other.states.into_iter().take(room));
    }
}

/// A revoked or held certificate, for building a CRL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedEntry {
    /// Serial number.
    pub serial: SerialNumber,
    /// When.
    pub at: UnixMillis,
    /// Why.
    pub reason: RevocationReason,
    /// Last moment of its validity.
    pub not_after: UnixMillis,
}

impl RevokedEntry {
    /// The same as a change of status, of no device and of a shard that is not told.
    #[must_use]
    pub const fn as_change(self, authority: AuthorityId) -> StatusChange {
        let Self { serial, at, reason, not_after } = self;
        StatusChange { serial, authority, shard: 0, revoked: Some((at, reason)), not_after, device: None }
    }
}

impl Store {
    /// Revokes, holds or releases, in one set-based statement per table; works on a full disk. Never leaves
    /// `visibility`. The log entry is completed with `detail.certificates` and `detail.devices`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when a single certificate (or the named device, facility or CA) is not there or not
    /// visible; [`StoreError::IllegalState`] when a single certificate is not in a state that the act can change.
    pub async fn revoke(
        &self,
        revocation: Revocation,
        visibility: Visibility,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Revoked>, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            require_target(act, &revocation, &visibility)?;
            let revoked = change(act, &revocation, &visibility)?;
            if revoked.certificates == 0
                && let Selection::Certificate(serial) = revocation.selection
            {
                return Err(not_changeable(act, serial, revocation.reason)?);
            }
            let audit = audit.with_detail("certificates", revoked.certificates);
            let index = act.log(&audit.with_detail("devices", revoked.devices))?;
            Ok(Logged { value: revoked, index })
        })
        .await
    }

    /// Revokes everything that a CA issued, and its own certificate, in one commit. Otherwise as [`Store::revoke`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Invalid`] for a reason that can be undone.
    pub async fn revoke_authority(
        &self,
        authority: AuthorityId,
        reason: RevocationReason,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Revoked>, StoreError> {
        let audit = audit.into();
        let revocation = Revocation { selection: Selection::Authority(authority), profiles: Profiles::All, reason, at };
        self.write(Class::Reserved, move |act| {
            if !reason.is_permanent() {
                return Err(StoreError::Invalid { field: "reason", problem: "a CA is revoked for good" });
            }
            require_target(act, &revocation, &Visibility::Fleet)?;
            let mut revoked = change(act, &revocation, &Visibility::Fleet)?;
            revoked.add(revoke_itself(act, authority, &revocation)?);
            let audit = audit.with_detail("certificates", revoked.certificates);
            let index = act.log(&audit.with_detail("devices", revoked.devices))?;
            Ok(Logged { value: revoked, index })
        })
        .await
    }

    /// How many certificates and devices [`Store::revoke`] would touch: `(certificates, devices)`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn count_revocation(&self, revocation: &Revocation, visibility: &Visibility) -> Result<(u64, u64), StoreError> {
        let (condition, target) = condition(&revocation.selection);
        let sql = format!(
            "SELECT count(*), count(DISTINCT device) FROM certificate WHERE {} AND {condition} AND {} AND status IN ({})",
            in_scope!("facility"),
            profiles_condition(revocation),
            if revocation.reason == RevocationReason::RemoveFromCrl {
                "2"
            } else if revocation.reason == RevocationReason::CertificateHold {
                "1"
            } else {
                "1, 2"
            },
        );
        self.read(|connection| {
            let counts = sql::one(connection, &sql, (scope(visibility), target), |row| {
                Ok((column::count(row, 0)?, column::count(row, 1)?))
            })?;
            Ok(counts.unwrap_or_default())
        })
    }

    /// Calls `each` for every revoked or held certificate of a CA, in the order of serial numbers.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn for_each_revoked(
        &self,
        authority: AuthorityId,
        each: &mut dyn FnMut(RevokedEntry),
    ) -> Result<(), StoreError> {
        let sql = "SELECT serial, revoked, reason, not_after FROM certificate INDEXED BY certificate_by_authority
            WHERE authority = ?1 AND status = ?2 AND serial > ?3 ORDER BY serial LIMIT ?4";
        self.read(|connection| {
            let chunk = |status: CertificateStatus, after: &[u8]| {
                sql::all(connection, sql, (authority.as_bytes(), status.code(), after, CHUNK), entry_row)
            };
            // Two sorted ranges, merged chunk by chunk so that a CA with a million revoked certificates needs no more
            // memory than one with a thousand.
            let mut held = Range::new(CertificateStatus::Held);
            let mut revoked = Range::new(CertificateStatus::Revoked);
            loop {
                held.fill(&chunk)?;
                revoked.fill(&chunk)?;
                let next = match (held.first(), revoked.first()) {
                    (Some(left), Some(right)) if left.serial < right.serial => held.take(),
                    (_, Some(_)) => revoked.take(),
                    (Some(_), None) => held.take(),
                    (None, None) => return Ok(()),
                };
                if let Some(entry) = next {
                    each(entry);
                }
            }
        })
    }
}
