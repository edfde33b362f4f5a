//! Certificates.

use kf_key::{
    AuthorityId, CertificateProfile, CertificateStatus, DeviceId, FacilityId, OperatorId, RevocationReason,
    SerialNumber, UnixMillis,
};
use serde::{Deserialize, Serialize};

/// An issued certificate, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Serial number, unique in the whole fleet.
    pub serial: SerialNumber,
    /// Who issued it.
    pub authority: AuthorityId,
    /// What it is for.
    pub profile: CertificateProfile,
    /// The device it names, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<DeviceId>,
    /// The operator it names, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operator: Option<OperatorId>,
    /// The facility of its subject, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// Distinguished name of the subject, RFC 4514.
    pub subject: String,
    /// SHA-256 of the SubjectPublicKeyInfo, hexadecimal.
    pub spki_sha256: String,
    /// First moment of validity.
    pub not_before: UnixMillis,
    /// Last moment of validity.
    pub not_after: UnixMillis,
    /// Revocation status; time plays no part in it.
    pub status: CertificateStatus,
    /// When it was revoked or put on hold.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revoked: Option<UnixMillis>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<RevocationReason>,
}

/// A certificate with its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateWithPem {
    /// The facts.
    #[serde(flatten)]
    pub certificate: Certificate,
    /// The certificate, PEM.
    pub pem: String,
    /// The issuing certificates up to the root, PEM, concatenated; empty for a root.
    #[serde(default)]
    pub chain_pem: String,
}

/// Which certificates to list. Every given field must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateFilter {
    /// Name or id of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Name or id of the facility.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facility: Option<String>,
    /// Name or id of the issuing CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<CertificateProfile>,
    /// Revocation status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<CertificateStatus>,
    /// Only those whose last moment lies before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_before: Option<UnixMillis>,
    /// See [`crate::PageRequest::after`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// See [`crate::PageRequest::limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// An operator's request for a certificate from a certification request made elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueRequest {
    /// `idevid`, `ldevid` (with `device`), `tls-server` (with `dns_names`) or `operator` (with `operator`).
    pub profile: CertificateProfile,
    /// The PKCS#10 request, PEM. Its key and signature are used; its names are not.
    pub csr_pem: String,
    /// Name or id of the device.
    #[serde(default)]
    pub device: Option<String>,
    /// Name or id of the operator.
    #[serde(default)]
    pub operator: Option<String>,
    /// DNS names and IP addresses of a TLS server.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Name or id of the issuing CA; chosen by the registry when absent.
    #[serde(default)]
    pub authority: Option<String>,
    /// Lifetime in hours, within the profile's limits; the profile's default when absent.
    #[serde(default)]
    pub lifetime_hours: Option<u32>,
    /// Check everything, issue nothing.
    #[serde(default)]
    pub dry_run: bool,
}
