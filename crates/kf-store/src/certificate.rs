//! Certificates: recording an issuance, looking them up.

use kf_access::Visibility;
use kf_api::certificate::Certificate;
use kf_api::{Page, PageRequest};
use kf_key::{
    AuthorityId, CertificateProfile, CertificateStatus, CodeId, DeviceId, DeviceState, EnrolmentId, FacilityId,
    KeyProtection, OperatorId, RevocationReason, SerialNumber, UnixMillis,
};

use rusqlite::{Connection, Row};

use crate::act::Class;
use crate::column::{self, millis};
use crate::revocation::StatusChange;
use crate::sql::{self, in_scope, scope};
use crate::writer::Announcement;
use crate::{Audit, Store, StoreError};

pub(crate) mod issuance;
mod listed;

/// The statement that reads whole rows; `{}` stands for one more column.
macro_rules! columns {
    () => {
        columns!("")
    };
    ($($more:literal),+) => {
        concat!(
            "SELECT c.serial, c.authority, c.profile, c.device, b.operator, c.facility, b.subject, b.spki, b.not_before,
                c.not_after, c.status, c.revoked, c.reason",
            $($more,)+
            " FROM certificate c JOIN certificate_body b ON b.body = c.body"
        )
    };
}
pub(crate) use columns;

pub(crate) fn certificate_row(row: &Row<'_>) -> rusqlite::Result<Certificate> {
    Ok(Certificate {
        serial: column::serial(row, 0)?,
        authority: column::id(row, 1)?,
        profile: column::coded(row, 2)?,
        device: column::optional_id(row, 3)?,
        operator: column::optional_id(row, 4)?,
        facility: column::optional_id(row, 5)?,
        subject: row.get(6)?,
        spki_sha256: hex::encode(row.get::<_, [u8; 32]>(7)?),
        not_before: column::time(row, 8)?,
        not_after: column::time(row, 9)?,
        status: column::coded(row, 10)?,
        revoked: column::optional_time(row, 11)?,
        reason: column::optional_coded(row, 12)?,
    })
}

/// A certificate with its DER.
pub(crate) fn stored(
    connection: &Connection,
    serial: SerialNumber,
    visibility: &Visibility,
) -> Result<Option<StoredCertificate>, StoreError> {
    let sql = concat!(columns!(", b.der"), " WHERE c.serial = ?2 AND ", in_scope!("c.facility"));
    sql::one(connection, sql, (scope(visibility), serial.as_bytes()), |row| {
        Ok(StoredCertificate { certificate: certificate_row(row)?, der: row.get(13)? })
    })
}

/// Status, time and reason in three columns.
pub(crate) fn status_of(row: &Row<'_>, first: usize) -> rusqlite::Result<StatusAnswer> {
    Ok(match column::coded::<CertificateStatus>(row, first)? {
        CertificateStatus::Good => StatusAnswer::Good,
        CertificateStatus::Held | CertificateStatus::Revoked => {
            StatusAnswer::Revoked { at: column::time(row, first + 1)?, reason: column::coded(row, first + 2)? }
        }
    })
}

/// What is known of a public key: whether it is blocked, and whose it is. One statement, because both are asked for every
/// certificate.
pub(crate) fn key_standing(connection: &Connection, spki: &[u8; 32]) -> Result<KeyStanding, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM blocked_spki WHERE sha256 = ?1), holder_kind, holder
        FROM (SELECT 1) LEFT JOIN spki ON sha256 = ?1";
    let found = sql::one(connection, sql, [spki], key_standing_row)?;
    found.ok_or_else(|| StoreError::Corrupt { what: "a statement that always has a row has none".into() })
}

/// From the first three columns: blocked, kind of the holder, holder.
fn key_standing_row(row: &Row<'_>) -> rusqlite::Result<KeyStanding> {
    let holder = match row.get::<_, Option<u8>>(1)? {
        None => None,
        Some(1) => Some(KeyHolder::Device(column::id(row, 2)?)),
        Some(2) => Some(KeyHolder::Operator(column::id(row, 2)?)),
        Some(_) => Some(KeyHolder::Subject(String::from_utf8_lossy(&row.get::<_, Vec<u8>>(2)?).into_owned())),
    };
    Ok(KeyStanding { is_blocked: row.get(0)?, holder })
}

impl std::fmt::Display for KeyHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(id) => write!(f, "{id}"),
            Self::Operator(id) => write!(f, "{id}"),
            Self::Subject(name) => f.write_str(name),
        }
    }
}

/// A certificate with its DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCertificate {
    /// The facts.
    pub certificate: Certificate,
    /// The DER.
    pub der: Vec<u8>,
}

/// What a device certificate presupposes and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceIssuance {
    /// The state the caller saw; must still hold, and must allow enrolment.
    pub seen: DeviceState,
    /// How the device says its key is protected, if it said.
    pub protection: Option<KeyProtection>,
    /// For an LDevID: how many may be good at the same time, this one included (1 to 16); the oldest beyond it are
    /// revoked as superseded. Expired ones do not count.
    pub max_live_ldevids: Option<u8>,
    /// The device itself asked, which is a sighting of it.
    pub is_sighting: bool,
}

/// What entitled the request, used up in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Nothing that is used up: an operator's request, an IDevID.
    Standing,
    /// The server's own need: its OCSP responder, its TLS identity. Recorded even while issuance is stopped, the store
    /// is fenced or the disk is full, because without it nobody could learn of a revocation. Names no device and no
    /// operator.
    Own,
    /// A one-time enrolment code of this device. The same code with the same key gives the same certificate again.
    Code(CodeId),
    /// A station's voucher.
    Voucher {
        /// Its identifier, used once; at most 128 octets.
        id: String,
        /// Whose it is.
        station: OperatorId,
        /// When the identifier may be forgotten.
        expires: UnixMillis,
    },
    /// An enrolment that a person approved.
    Enrolment(EnrolmentId),
    /// A renewal. The same certificate with the same key gives the same successor again, so that a device which lost the
    /// answer may ask as often as it must; unless the successor is no longer good, ends too soon, or would come from
    /// another authority by now.
    Renewal {
        /// The certificate that authenticated it.
        of: SerialNumber,
        /// Who would issue the successor now.
        authority: AuthorityId,
        /// The first moment before which a successor that is given again must not end.
        valid_until: UnixMillis,
    },
}

/// A signed certificate to be recorded. Nothing of it may leave before [`Store::record_issuance`] has answered.
#[derive(Clone, Debug)]
pub struct Issuance {
    /// The facts; status `Good`.
    pub certificate: Certificate,
    /// The DER.
    pub der: Vec<u8>,
    /// For a certificate that names a device.
    pub device: Option<DeviceIssuance>,
    /// What entitled the request.
    pub basis: Basis,
    /// When.
    pub at: UnixMillis,
}

/// What recording an issuance came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuanceOutcome {
    /// Recorded: the certificate may be handed out.
    Recorded {
        /// Index of its log entry.
        index: u64,
        /// Older LDevIDs that this one superseded; their CRLs need an update.
        superseded: Vec<StatusChange>,
    },
    /// The same code (or voucher, approved enrolment, or certificate to renew) was used with the same key before: hand out
    /// this one and forget the new one. Nothing was written.
    Before(Box<StoredCertificate>),
}

/// Whose a public key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyHolder {
    /// A device.
    Device(DeviceId),
    /// An operator.
    Operator(OperatorId),
    /// Another subject (CA, TLS server, OCSP signer): its distinguished name.
    Subject(String),
}

/// What the registry knows of a public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStanding {
    /// On the list of keys that are never certified.
    pub is_blocked: bool,
    /// Whose it is, once it was certified.
    pub holder: Option<KeyHolder>,
}

/// What OCSP says about a serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusAnswer {
    /// This authority never issued it.
    NeverIssued,
    /// Issued, not revoked.
    Good,
    /// Revoked or on hold (`certificateHold`).
    Revoked {
        /// When.
        at: UnixMillis,
        /// Why.
        reason: RevocationReason,
    },
}

/// Which certificates to list; names are resolved by the caller. Every given field must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateQuery {
    /// Device.
    pub device: Option<DeviceId>,
    /// Facility.
    pub facility: Option<FacilityId>,
    /// Issuing CA.
    pub authority: Option<AuthorityId>,
    /// Profile.
    pub profile: Option<CertificateProfile>,
    /// Status.
    pub status: Option<CertificateStatus>,
    /// Only those whose last moment lies before this one. Given it, the listing is in the order of expiry, otherwise of
    /// serial numbers, which is that of issue.
    pub expires_before: Option<UnixMillis>,
    /// Page.
    pub page: PageRequest,
}

/// The octets that are about to be signed, recorded first where the signature happens in a token (Boulder's lesson).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreImage {
    /// Serial number in it.
    pub serial: SerialNumber,
    /// Who signs.
    pub authority: AuthorityId,
    /// TBSCertificate DER.
    pub tbs: Vec<u8>,
    /// When.
    pub at: UnixMillis,
}

/// What is the server's own goes on when everything else must stop.
const fn class_of(basis: &Basis) -> Class {
    match basis {
        Basis::Own => Class::Reserved,
        Basis::Standing | Basis::Code(_) | Basis::Voucher { .. } | Basis::Enrolment(_) | Basis::Renewal { .. } => {
            Class::Ordinary
        }
    }
}

/// An issuance that is being signed: see [`Store::announce_issuance`].
#[derive(Debug)]
#[must_use = "the writer waits for it"]
pub struct ComingIssuance {
    store: Store,
    announcement: Announcement,
}

impl ComingIssuance {
    /// As [`Store::record_issuance`].
    ///
    /// # Errors
    /// As [`Store::record_issuance`].
    pub async fn record(self, issuance: Issuance, audit: impl Into<Audit>) -> Result<IssuanceOutcome, StoreError> {
        let Self { store, announcement } = self;
        store.record(Some(announcement), issuance, audit.into()).await
    }
}

/// See [`Store::certificates_of_device`].
pub(crate) fn of_device(
    connection: &Connection,
    device: DeviceId,
    visibility: &Visibility,
) -> Result<Vec<Certificate>, StoreError> {
    let sql =
        concat!(columns!(), " WHERE c.device = ?2 AND ", in_scope!("c.facility"), " ORDER BY c.serial DESC LIMIT 1000");
    sql::all(connection, sql, (scope(visibility), device.as_bytes()), certificate_row)
}

impl Store {
    /// Tells the writer that an issuance will be recorded as soon as it is signed, so that it commits many together
    /// while many are being signed. Nothing is reserved; dropping it takes the word back.
    pub fn announce_issuance(&self) -> ComingIssuance {
        ComingIssuance { store: self.clone(), announcement: self.announcement() }
    }

    async fn record(
        &self,
        announcement: Option<Announcement>,
        issuance: Issuance,
        audit: Audit,
    ) -> Result<IssuanceOutcome, StoreError> {
        let class = class_of(&issuance.basis);
        let seen = issuance.certificate.device.filter(|_| issuance.device.is_some_and(|device| device.is_sighting));
        let at = issuance.at;
        let outcome =
            self.write_announced(announcement, class, move |act| issuance::record(act, &issuance, &audit)).await?;
        if let (Some(device), IssuanceOutcome::Recorded { .. }) = (seen, &outcome) {
            self.forget_sighting(device, at);
        }
        Ok(outcome)
    }

    /// Records an issuance: ONE transaction that checks what must still hold and writes everything or nothing:
    /// issuance not stopped; device there, in the state the caller saw, and allowed to enrol; public key not blocked and
    /// not held by another subject; serial number new; then certificate, DER, key binding, device state, superseded
    /// LDevIDs, the use of `basis`, the end of its pre-image, and the log entry.
    ///
    /// # Errors
    /// [`StoreError::Stopped`], [`StoreError::Full`], [`StoreError::Fenced`]; [`StoreError::NotFound`] for device, code
    /// or enrolment; [`StoreError::IllegalState`] when one of them changed, the code is used (with another key),
    /// withdrawn or expired, or the key is blocked; [`StoreError::KeyInUse`]; [`StoreError::Conflict`] on `serial` or
    /// `voucher`.
    pub async fn record_issuance(
        &self,
        issuance: Issuance,
        audit: impl Into<Audit>,
    ) -> Result<IssuanceOutcome, StoreError> {
        self.record(None, issuance, audit.into()).await
    }

    /// What is known of a public key, by the SHA-256 of its SubjectPublicKeyInfo: to refuse before signing. The same check
    /// runs again inside [`Store::record_issuance`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn key_standing(&self, spki_sha256: &[u8; 32]) -> Result<KeyStanding, StoreError> {
        self.read(|connection| key_standing(connection, spki_sha256))
    }

    /// The certificate that this basis gave before for this key, so that a retry needs no new signature.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn issued_before(
        &self,
        basis: &Basis,
        spki_sha256: &[u8; 32],
    ) -> Result<Option<StoredCertificate>, StoreError> {
        self.read(|connection| {
            let Some(serial) = issuance::used_before(connection, basis, spki_sha256)? else { return Ok(None) };
            stored(connection, serial, &Visibility::Fleet)
        })
    }

    /// Records the octets that are about to be signed. Durable before it answers; not logged, because the issuance or
    /// the revocation of the orphan is.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `serial`; [`StoreError::Stopped`]; [`StoreError::Full`].
    pub async fn record_tbs(&self, pre_image: PreImage, basis: &Basis) -> Result<(), StoreError> {
        let class = class_of(basis);
        let is_own = *basis == Basis::Own;
        self.write(class, move |act| {
            let PreImage { serial, authority, tbs, at } = &pre_image;
            if !is_own {
                act.require_issuance()?;
                act.require_issuance_for(authority.as_bytes())?;
            }
            if act.exists("SELECT 1 FROM certificate WHERE serial = ?1", [serial.as_bytes()])? {
                return Err(StoreError::Conflict { field: "serial" });
            }
            let sql = "INSERT INTO pre_image (serial, authority, tbs, at) VALUES (?1, ?2, ?3, ?4)";
            act.execute(sql, (serial.as_bytes(), authority.as_bytes(), tbs, millis(*at)))?;
            Ok(())
        })
        .await
    }

    /// Pre-images without a certificate, oldest first, at most 10,000: after a crash between the two records, somebody may
    /// hold a signature over them.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn orphans(&self) -> Result<Vec<PreImage>, StoreError> {
        let sql = "SELECT serial, authority, tbs, at FROM pre_image ORDER BY serial LIMIT 10000";
        self.read(|connection| {
            sql::all(connection, sql, [], |row| {
                Ok(PreImage {
                    serial: column::serial(row, 0)?,
                    authority: column::id(row, 1)?,
                    tbs: row.get(2)?,
                    at: column::time(row, 3)?,
                })
            })
        })
    }

    /// Turns an orphan into a revoked certificate without DER, so that OCSP and CRL refuse it if it exists.
    /// `certificate` holds the facts read from its pre-image, status `Revoked`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such pre-image.
    pub async fn revoke_orphan(
        &self,
        certificate: Certificate,
        audit: impl Into<Audit>,
    ) -> Result<crate::Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            if certificate.status != CertificateStatus::Revoked {
                return Err(StoreError::Invalid { field: "status", problem: "an orphan is recorded as revoked" });
            }
            let sql = "DELETE FROM pre_image WHERE serial = ?1";
            if act.execute(sql, [certificate.serial.as_bytes()])? == 0 {
                return Err(StoreError::NotFound { what: "pre-image" });
            }
            issuance::insert(act, &certificate, &[], None)
        })
        .await
    }

    /// A certificate by serial number, with its DER; `None` also when it lies outside `visibility`. Certificates of no
    /// facility are seen by those who see the fleet only.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn certificate(
        &self,
        serial: SerialNumber,
        visibility: &Visibility,
    ) -> Result<Option<StoredCertificate>, StoreError> {
        self.read(|connection| stored(connection, serial, visibility))
    }

    /// One page of certificates.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn certificates(
        &self,
        query: &CertificateQuery,
        visibility: &Visibility,
    ) -> Result<Page<Certificate>, StoreError> {
        self.read_at_once(|connection| listed::page(connection, query, visibility))
    }

    /// The certificates of a device, newest first, at most 1,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn certificates_of_device(
        &self,
        device: DeviceId,
        visibility: &Visibility,
    ) -> Result<Vec<Certificate>, StoreError> {
        self.read(|connection| of_device(connection, device, visibility))
    }

    /// What OCSP says about a serial number: one lookup in one tree.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn status(&self, authority: AuthorityId, serial: SerialNumber) -> Result<StatusAnswer, StoreError> {
        let sql = "SELECT status, revoked, reason FROM certificate WHERE serial = ?1 AND authority = ?2";
        self.read(|connection| {
            let found = sql::one(connection, sql, (serial.as_bytes(), authority.as_bytes()), |row| status_of(row, 0))?;
            Ok(found.unwrap_or(StatusAnswer::NeverIssued))
        })
    }

    /// Certificates by status: good, held, revoked; kept as counters.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn certificate_counts(&self, visibility: &Visibility) -> Result<(u64, u64, u64), StoreError> {
        let sql = concat!(
            "SELECT status, sum(count) FROM certificate_count WHERE ",
            in_scope!("facility"),
            " GROUP BY status"
        );
        self.read(|connection| {
            let rows = sql::all(connection, sql, [scope(visibility)], |row| {
                Ok((column::coded::<CertificateStatus>(row, 0)?, column::count(row, 1)?))
            })?;
            let of = |status| rows.iter().find(|(found, _)| *found == status).map_or(0, |(_, count)| *count);
            Ok((of(CertificateStatus::Good), of(CertificateStatus::Held), of(CertificateStatus::Revoked)))
        })
    }
}
