//! Product lines: devices that share an EST label and an enrolment policy.

use kf_key::{AuthorityId, KeyAlgorithm, ProductLineId, UnixMillis};
use serde::{Deserialize, Serialize};

/// A product line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductLine {
    /// Identifier.
    pub id: ProductLineId,
    /// Unique name, which is also its EST label (same alphabet as facility names).
    pub name: String,
    /// The issuing CA of this line; the facility's or the fleet's default when absent.
    pub authority: Option<AuthorityId>,
    /// How its devices enrol.
    pub policy: EnrolmentPolicy,
    /// When it was created.
    pub created: UnixMillis,
}

/// A product line to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewProductLine {
    /// Unique name and EST label.
    pub name: String,
    /// Name or id of the issuing CA.
    #[serde(default)]
    pub authority: Option<String>,
    /// How its devices enrol; the defaults where absent.
    #[serde(default)]
    pub policy: EnrolmentPolicy,
}

/// Whether an enrolment is granted at once or waits for a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// Granted when every check holds.
    #[default]
    Automatic,
    /// Answered with 202 until an operator approves (RFC 7030 section 4.2.3).
    Manual,
}

/// How devices of a product line enrol and renew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnrolmentPolicy {
    /// Lifetime of an LDevID in hours, 1 to 87,600 (ten years). Default 2,160 (90 days).
    pub ldevid_lifetime_hours: u32,
    /// How long after expiry a certificate may still renew itself, in hours; 0 never. Default 720 (30 days): devices
    /// sleep through winters.
    pub renewal_grace_hours: u32,
    /// At once or by a person.
    pub approval: Approval,
    /// Key algorithms a device may bring. Default P-256, P-384, Ed25519.
    pub allowed_algorithms: Vec<KeyAlgorithm>,
    /// Whether the server makes keys for devices that cannot (RFC 7030 section 4.4). Default false.
    pub server_keygen: bool,
    /// Whether an IDevID may bootstrap. Default true.
    pub bootstrap_by_idevid: bool,
    /// Whether a one-time enrolment code may bootstrap. Default true.
    pub bootstrap_by_code: bool,
    /// Whether a station's voucher may bootstrap. Default true.
    pub bootstrap_by_voucher: bool,
    /// Whether an expired IDevID may bootstrap (IEEE 802.1AR does not let IDevIDs expire). Default true.
    pub accept_expired_idevid: bool,
    /// LDevIDs of one device that may be good at the same time, 1 to 16. Default 2: the old one and its successor
    /// while the device swaps slots; enrolling beyond it revokes the oldest as superseded.
    pub max_live_ldevids: u8,
    /// Whether EST answers wrap base64 at 64 columns for clients of this line (libest); clients that say they are
    /// libest get it anyway. Default false.
    pub wrap_base64: bool,
    /// Whether keys must be proven to live in the device's TPM, and in which. Absent by default: keys from anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endorsement: Option<EndorsementPolicy>,
}

/// Which TPMs a line believes. A device whose attribute `endorsement-key-sha256` names its endorsement key is held to
/// that key, whatever stands here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndorsementPolicy {
    /// Whether a device without that attribute is bound to the first TPM that it shows, of those below. Default false:
    /// then a stolen enrolment code is worth nothing even to somebody who owns a TPM of the same maker.
    pub bind_first: bool,
    /// CA certificates of TPM makers, PEM, at most 64. Root or issuing CA.
    pub authorities: Vec<String>,
    /// SHA-256 of SubjectPublicKeyInfo of endorsement keys, hexadecimal, at most 4,096.
    pub keys: Vec<String>,
}

/// The device attribute that names its endorsement key: SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
pub const ENDORSEMENT_ATTRIBUTE: &str = "endorsement-key-sha256";

impl Default for EnrolmentPolicy {
    fn default() -> Self {
        Self {
            ldevid_lifetime_hours: 2_160,
            renewal_grace_hours: 720,
            approval: Approval::Automatic,
            allowed_algorithms: vec![KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519],
            server_keygen: false,
            bootstrap_by_idevid: true,
            bootstrap_by_code: true,
            bootstrap_by_voucher: true,
            accept_expired_idevid: true,
            max_live_ldevids: 2,
            wrap_base64: false,
            endorsement: None,
        }
    }
}
