//! Keyset paging: a page names where the next one starts, so that a listing costs the same at row 10 and at row
//! 1,000,000 and never shows a row twice.

use serde::{Deserialize, Serialize};

/// The most rows in one page.
pub const MAX_LIMIT: u32 = 1_000;
/// Rows in a page when nothing is asked for.
pub const DEFAULT_LIMIT: u32 = 100;

/// Where a page starts and how many rows it may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageRequest {
    /// The `next` of the page before; absent for the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Rows wanted, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl PageRequest {
    /// Rows to read, within the limits.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT)
    }
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The rows, in a stable order.
    pub items: Vec<T>,
    /// What to send as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}
