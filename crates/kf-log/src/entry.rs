//! What one entry says.

use std::collections::BTreeMap;

use kf_key::{FacilityId, TokenId, UnixMillis};
use serde::{Deserialize, Serialize};

/// The most octets of one encoded entry.
pub const MAX_ENTRY_OCTETS: usize = 16 * 1024;

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Text form of the operator's or device's id, or `server`.
    pub id: String,
    /// Name at that time.
    pub name: String,
    /// Role at that time.
    pub role: String,
    /// How they proved it: `certificate`, `token`, `code`, `voucher`, `server`.
    pub by: String,
    /// Which API token, where it was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<TokenId>,
}

/// Whether the entry is an act on the database, complete in itself, or one side of an act outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Committed together with the act.
    Done,
    /// About to act outside the database.
    Intent,
    /// What came of the intent; `unknown` in `detail.outcome` when start-up could not find out.
    Outcome,
}

/// One entry. Its JSON encoding, fields in this order, is the leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Format version: 1.
    pub v: u8,
    /// When.
    pub at: UnixMillis,
    /// Who.
    pub who: Actor,
    /// What: `noun.verb`, for example `certificate.issue`.
    pub act: String,
    /// Done, intent or outcome.
    pub phase: Phase,
    /// The facility it concerns, which also decides which facility operators see it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// What it is about: text forms of ids, `cert:<serial>`, `spki:<sha256>`. At most 8; a mass act names its target.
    pub subjects: Vec<String>,
    /// Why, in the words of who acted; empty when nothing was said.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub why: String,
    /// Further facts. Never a secret.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub detail: BTreeMap<String, String>,
}

impl AuditEntry {
    /// The octets that are hashed: compact JSON.
    #[must_use]
    pub fn to_leaf(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
