//! Check, then permit, then sign: the only way to a certificate leads through [`CheckedTbs`].

use kf_key::{CertificateProfile, DeviceId, KeyAlgorithm, SerialNumber, UnixMillis};

use crate::issuer::Issuer;
use crate::request::RequestedKey;

/// Whom a certificate names. Every value comes from the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Root or issuing CA.
    Authority {
        /// Common name.
        common_name: String,
        /// Organisation: the fleet's name.
        organization: String,
    },
    /// A device: CN = name, serialNumber = id; SAN URI `urn:uuid:…`; an IDevID also hardwareModuleName (RFC 4108).
    Device {
        /// Organisation: the fleet's name.
        organization: String,
        /// Identifier.
        device: DeviceId,
        /// Name.
        name: String,
        /// Product line, as organizational unit.
        product_line: String,
    },
    /// A TLS server: SAN dNSName and iPAddress.
    Server {
        /// Names and addresses, at least one.
        dns_names: Vec<String>,
    },
    /// An operator: CN = name.
    Operator {
        /// Organisation: the fleet's name.
        organization: String,
        /// Name.
        name: String,
    },
    /// The delegated OCSP responder of a CA.
    OcspSigner {
        /// Common name.
        common_name: String,
    },
}

/// What is to be certified.
#[derive(Clone, Debug)]
pub struct IssuanceRequest {
    /// Profile.
    pub profile: CertificateProfile,
    /// Names, from the registry.
    pub subject: Subject,
    /// The key; must have passed [`crate::weak_key::check_key`].
    pub key: RequestedKey,
    /// A fresh serial number.
    pub serial: SerialNumber,
    /// First moment of validity.
    pub not_before: UnixMillis,
    /// Last moment of validity; `None` means none (RFC 5280 section 4.1.2.5: 99991231235959Z), IDevID only.
    pub not_after: Option<UnixMillis>,
}

/// Why a certificate is not issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueRefusal {
    /// A lifetime outside the profile's limits.
    #[error("the lifetime asked for lies outside the limits of profile {0}")]
    Lifetime(CertificateProfile),
    /// It would outlive its issuer.
    #[error("the certificate would outlive its issuer")]
    OutlivesIssuer,
    /// Names that do not fit the profile.
    #[error("the {field} does not fit the profile")]
    Name {
        /// Which name.
        field: &'static str,
    },
    /// The key does not fit the profile.
    #[error("a {0} key does not fit the profile")]
    Key(KeyAlgorithm),
    /// DER encoding failed: a bug of ours.
    #[error("the certificate could not be encoded; please report this")]
    Encoding,
}

/// The permission to sign one certificate: a TBSCertificate that passed every check of its profile. Made by
/// [`check_issuance`] and [`check_root`] only, not Clone, spent by [`CheckedTbs::complete`].
///
/// ```compile_fail,E0382
/// fn twice(checked: kf_pki::certificate::CheckedTbs) {
///     let first = checked.complete(&[]);
///     let second = checked.complete(&[]);
/// }
/// ```
#[derive(Debug)]
pub struct CheckedTbs {
    tbs: Vec<u8>,
    facts: CertificateFacts,
}

/// What the registry keeps of an issued certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Serial number.
    pub serial: SerialNumber,
    /// Profile.
    pub profile: CertificateProfile,
    /// Subject, RFC 4514.
    pub subject: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// First moment of validity.
    pub not_before: UnixMillis,
    /// Last moment of validity; 9999-12-31T23:59:59Z when there is none.
    pub not_after: UnixMillis,
    /// Algorithm of the issuer's signature.
    pub signature_algorithm: KeyAlgorithm,
}

/// A signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Certificate, DER.
    pub der: Vec<u8>,
    /// Its facts.
    pub facts: CertificateFacts,
}

/// Checks a request against its profile and builds what is to be signed.
///
/// # Errors
/// [`IssueRefusal`].
pub fn check_issuance(issuer: &Issuer, request: IssuanceRequest) -> Result<CheckedTbs, IssueRefusal> {
    let _ = (issuer, request);
    todo!()
}

/// Builds a self-signed root; `request.profile` must be `Root`.
///
/// # Errors
/// [`IssueRefusal`].
pub fn check_root(request: IssuanceRequest) -> Result<CheckedTbs, IssueRefusal> {
    let _ = request;
    todo!()
}

impl CheckedTbs {
    /// The octets to be signed.
    #[must_use]
    pub fn tbs(&self) -> &[u8] {
        &self.tbs
    }

    /// The facts of the certificate that this will become.
    #[must_use]
    pub const fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// Spends the permission: joins what was checked with its signature. The signature is not verified here.
    ///
    /// # Errors
    /// [`IssueRefusal::Encoding`].
    pub fn complete(self, signature: &[u8]) -> Result<IssuedCertificate, IssueRefusal> {
        let _ = signature;
        todo!()
    }
}

/// A certificate that somebody presents, parsed but not trusted.
#[derive(Clone, Debug)]
pub struct PresentedCertificate {
    /// Serial number, if it is one that we could have issued.
    pub serial: Option<SerialNumber>,
    /// Issuer Name, DER.
    pub issuer: Vec<u8>,
    /// AuthorityKeyIdentifier keyIdentifier, if present.
    pub authority_key_identifier: Option<Vec<u8>>,
    /// Subject Name, DER.
    pub subject: Vec<u8>,
    /// subjectAltName extension value, DER, if present.
    pub subject_alt_name: Option<Vec<u8>>,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// First moment of validity.
    pub not_before: UnixMillis,
    /// Last moment of validity.
    pub not_after: UnixMillis,
}

impl PresentedCertificate {
    /// Parses a certificate of at most 16 KiB.
    ///
    /// # Errors
    /// `None` when it is not one.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let _ = der;
        todo!()
    }
}

/// Checks that DER is the TBSCertificate of an end entity or CA named as issued by `issuer_name`, with a serial number of our form: what
/// the signer re-checks before it signs, independent of who asks. `may_be_authority` is true for keys whose policy lets
/// them sign CA certificates (the root).
///
/// # Errors
/// A short reason, for the alarm.
pub fn recheck_tbs_certificate(tbs: &[u8], issuer_name: &[u8], may_be_authority: bool) -> Result<(), &'static str> {
    let _ = (tbs, issuer_name, may_be_authority);
    todo!()
}

/// The facts of a TBSCertificate that was recorded before its signature, for the revocation of an orphan.
#[must_use]
pub fn facts_of_tbs(tbs: &[u8]) -> Option<CertificateFacts> {
    let _ = tbs;
    todo!()
}
