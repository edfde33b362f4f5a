//! A rotation run: what the policy asks for now, and what was done about it.

use kf_key::{FacilityId, ProposalId};
use serde::{Deserialize, Serialize};

/// What is to be done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RotationOperation {
    /// Make its successor.
    MakeSuccessor,
    /// Nobody holds it any more: give it up.
    Retire,
    /// Its successor is made; devices move to it by themselves, one exchange each.
    AwaitDevices,
    /// Its successor is made; the server brings what it protects under it, in the background.
    Reprotect,
    /// Nothing is protected by it any more: two people may destroy it.
    Destroy,
    /// Somebody has to: a run does not, as `problem` says.
    ByHand,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RotationOutcome {
    /// It would be done.
    Planned,
    /// It is done.
    Done,
    /// It waits for a second person.
    WaitsForApproval,
    /// It waits: for devices, or for a person.
    Waits,
    /// It was refused; the others were tried all the same.
    Refused,
}

/// One operation with its reason and outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationStep {
    /// The key, as the inventory calls it.
    pub key: String,
    /// What it is of.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Its facility.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// What is to be done.
    pub operation: RotationOperation,
    /// Why, in words.
    pub because: String,
    /// How many objects or rows it still protects, where that is counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remaining: Option<u64>,
    /// What came of it.
    pub outcome: RotationOutcome,
    /// Why it was refused, and what to do.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub problem: String,
    /// The proposal that waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposal: Option<ProposalId>,
    /// Index of the log entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_index: Option<u64>,
}

/// A rotation run to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RotateRequest {
    /// Name or id of the only facility to look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facility: Option<String>,
    /// The only class of keys to look at, as policies call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Make successors although none is due: for a class of the server's own keys.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub now: bool,
    /// The most acts of this run, 1 to 10,000; what is left is done by the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Say what would happen, change nothing.
    pub dry_run: bool,
    /// Why, for the log; the policy's reason when empty.
    pub why: String,
}

/// What a rotation run came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationReport {
    /// Whether nothing was changed because that was asked for.
    pub dry_run: bool,
    /// Each operation, in the order in which it was carried out.
    pub items: Vec<RotationStep>,
    /// Whether there is more to do than one run may.
    pub more: bool,
}
