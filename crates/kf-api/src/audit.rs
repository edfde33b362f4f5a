//! Log entries as the API shows them.

use serde::{Deserialize, Serialize};

/// A log entry with its place in the log. `entry` is the exact JSON that is hashed into the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Index in the log, from 0.
    pub index: u64,
    /// The entry: `kf_log::AuditEntry`.
    pub entry: serde_json::Value,
}

/// Which entries to wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventFilter {
    /// See [`AuditFilter::subject`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The `next` of the answer before; absent: from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// See [`crate::PageRequest::limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Seconds to wait for the first one, at most [`EventFilter::MAX_WAIT_SECONDS`], which is also what is waited when
    /// nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u32>,
}

impl EventFilter {
    /// The longest wait: proxies and routers forget connections that say nothing for longer.
    pub const MAX_WAIT_SECONDS: u32 = 25;
}

/// Which entries to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditFilter {
    /// Text form of an id the entry is about (`dev_…`, `cert:…`, `fac_…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// See [`crate::PageRequest::after`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// See [`crate::PageRequest::limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
