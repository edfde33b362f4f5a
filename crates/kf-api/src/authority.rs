//! Certification authorities.

use kf_key::{AuthorityId, CertificateStatus, FacilityId, KeyAlgorithm, KeyId, UnixMillis};
use serde::{Deserialize, Serialize};

/// Root or issuing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorityKind {
    /// The fleet root.
    Root,
    /// An issuing CA below the root, path length 0.
    Issuing,
    /// The root of what factory stations certify: IDevIDs and nothing else, trusted by this server only.
    Factory,
}

/// A certification authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Identifier, part of the CRL addresses in its certificates.
    pub id: AuthorityId,
    /// Unique name.
    pub name: String,
    /// Root or issuing.
    pub kind: AuthorityKind,
    /// The CA above; absent for a root.
    pub issuer: Option<AuthorityId>,
    /// The facility whose devices it serves; absent: any.
    pub facility: Option<FacilityId>,
    /// Whether devices without a more specific CA get theirs from it.
    pub is_default: bool,
    /// Algorithm of its key.
    pub algorithm: KeyAlgorithm,
    /// Its key.
    pub key: KeyId,
    /// Distinguished name, RFC 4514.
    pub subject: String,
    /// Number of CRL shards, fixed at creation: it is baked into every certificate.
    pub shard_count: u16,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// First moment of validity.
    pub not_before: UnixMillis,
    /// Last moment of validity.
    pub not_after: UnixMillis,
    /// Whether its own certificate is good.
    pub status: CertificateStatus,
    /// When its key was destroyed: it signs nothing any more, and its last CRLs stand for ever.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_destroyed: Option<UnixMillis>,
}

/// An issuing CA to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAuthority {
    /// Unique name (alphabet of facility names); becomes part of the common name.
    pub name: String,
    /// Name or id of the facility it serves.
    #[serde(default)]
    pub facility: Option<String>,
    /// Key algorithm; the fleet's when absent.
    #[serde(default)]
    pub algorithm: Option<KeyAlgorithm>,
    /// Lifetime in days, 1 to 7,300; ten years, and never past the root, when absent.
    #[serde(default)]
    pub lifetime_days: Option<u32>,
    /// CRL shards, 1 to 256; 8 when absent.
    #[serde(default)]
    pub shard_count: Option<u16>,
    /// Make it the default of the fleet.
    #[serde(default)]
    pub make_default: bool,
}
