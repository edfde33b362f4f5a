//! Certificates: recording an issuance, looking them up.

use kf_access::Visibility;
use kf_api::certificate::Certificate;
use kf_api::{Page, PageRequest};
use kf_key::{
    AuthorityId, CertificateProfile, CertificateStatus, CodeId, DeviceId, DeviceState, EnrolmentId, FacilityId,
    KeyProtection, OperatorId, RevocationReason, SerialNumber, UnixMillis,
};

use crate::revocation::StatusChange;
use crate::{Audit, Store, StoreError};

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
}

/// What entitled the request, used up in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Nothing that is used up: an operator's request, an IDevID, a renewal.
    Standing,
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
    /// The same code (or voucher, or approved enrolment) was used with the same key before: hand out this one and forget
    /// the new one. Nothing was written.
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

impl Store {
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
        let _ = (issuance, audit.into());
        todo!()
    }

    /// Whose a public key is, by the SHA-256 of its SubjectPublicKeyInfo: to refuse before signing. The same check runs
    /// again inside [`Store::record_issuance`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn key_holder(&self, spki_sha256: &[u8; 32]) -> Result<Option<KeyHolder>, StoreError> {
        let _ = spki_sha256;
        todo!()
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
        let _ = (basis, spki_sha256);
        todo!()
    }

    /// Records the octets that are about to be signed. Durable before it answers; not logged, because the issuance or
    /// the revocation of the orphan is.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `serial`; [`StoreError::Stopped`]; [`StoreError::Full`].
    pub async fn record_tbs(&self, pre_image: PreImage) -> Result<(), StoreError> {
        let _ = pre_image;
        todo!()
    }

    /// Pre-images without a certificate, oldest first, at most 10,000: after a crash between the two records, somebody may
    /// hold a signature over them.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn orphans(&self) -> Result<Vec<PreImage>, StoreError> {
        todo!()
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
        let _ = (certificate, audit.into());
        todo!()
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
        let _ = (serial, visibility);
        todo!()
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
        let _ = (query, visibility);
        todo!()
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
        let _ = (device, visibility);
        todo!()
    }

    /// What OCSP says about a serial number: one lookup in one tree.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn status(&self, authority: AuthorityId, serial: SerialNumber) -> Result<StatusAnswer, StoreError> {
        let _ = (authority, serial);
        todo!()
    }

    /// Certificates by status: good, held, revoked; kept as counters.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn certificate_counts(&self, visibility: &Visibility) -> Result<(u64, u64, u64), StoreError> {
        let _ = visibility;
        todo!()
    }
}
