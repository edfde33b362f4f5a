//! Problem details (RFC 9457) with the field and the remedy.

use serde::{Deserialize, Serialize};

/// An error answer, `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable URN, `urn:keyfleet:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, in one sentence.
    pub title: String,
    /// The field of the request that is wrong, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub field: Option<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remedy: Option<String>,
}
