//! Backups of the registry.

use serde::{Deserialize, Serialize};

/// Whether a backup can still be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupState {
    /// It can: what was in the registry when it was made is in it.
    Openable,
    /// Two people said that no copy is left, or that none can be opened any more.
    Retired,
}
