//! Revocation of one certificate or of many.

use kf_key::{ProposalId, RevocationReason, SerialNumber};
use serde::{Deserialize, Serialize};

/// What to revoke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "of")]
pub enum RevocationTarget {
    /// One certificate.
    Certificate(SerialNumber),
    /// Every LDevID of a device (name or id).
    Device(String),
    /// Every LDevID of every device of a batch.
    Batch(String),
    /// Every LDevID of every device of a facility (name or id).
    Facility(String),
    /// Everything a CA issued (name or id), and, for a permanent reason, the CA itself.
    Authority(String),
}

/// A revocation, a hold, or the release of a hold (`removeFromCRL`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// What.
    pub target: RevocationTarget,
    /// Why, by RFC 5280. `certificateHold` holds, `removeFromCRL` releases, everything else is permanent.
    pub reason: RevocationReason,
    /// Why, for the log; at most 500 characters.
    #[serde(default)]
    pub why: String,
    /// Cut the sessions at the brokers and report whether that worked, before answering.
    #[serde(default)]
    pub verify: bool,
    /// Say what would be revoked, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a revocation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeOutcome {
    /// Whether it was carried out; otherwise it was a dry run or waits for a second person.
    pub done: bool,
    /// The proposal that waits, if it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposal: Option<ProposalId>,
    /// Certificates whose status changed, or would.
    pub certificates: u64,
    /// Devices touched.
    pub devices: u64,
    /// Index of the log entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_index: Option<u64>,
    /// What each broker did, when asked to verify.
    #[serde(default)]
    pub brokers: Vec<BrokerReport>,
}

/// What a broker connector did with a revocation, step by step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerReport {
    /// Name of the connector.
    pub broker: String,
    /// The CRL files were replaced.
    pub crl_published: bool,
    /// The broker was told to read them.
    pub reloaded: bool,
    /// The live session was cut, or there was none.
    pub session_cut: bool,
    /// Nothing with this name is connected any more, as seen by the broker itself.
    pub verified: bool,
    /// What went wrong, if something did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
}
