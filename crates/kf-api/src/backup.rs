//! Backups of the registry, and what is known of a registry that was restored.

use std::collections::BTreeMap;

use kf_key::{BackupId, ProposalId, UnixMillis};
use serde::{Deserialize, Serialize};

/// A version of the key that backups are sealed to. The server knows its public half alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupKey {
    /// Version, from 1.
    pub version: u32,
    /// The public half, a recipient of age (`age1…`).
    pub recipient: String,
    /// To whom the private half was sealed when it was made, as its maker says: recipients of age.
    pub sealed_to: Vec<String>,
    /// When it was made known.
    pub created: UnixMillis,
}

/// A new version is made known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBackupKey {
    /// The public half.
    pub recipient: String,
    /// To whom the private half is sealed.
    pub sealed_to: Vec<String>,
}

/// Whether a backup can still be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupState {
    /// It can: what was in the registry when it was made is in it.
    Openable,
    /// Two people said that no copy is left, or that none can be opened any more; or it was never finished.
    Retired,
}

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Identifier.
    pub id: BackupId,
    /// Version of the key that it is sealed to.
    pub key_version: u32,
    /// Whether it can still be opened.
    pub state: BackupState,
    /// When it was begun.
    pub created: UnixMillis,
    /// The directory in which it was made, on the host of the server.
    pub directory: String,
    /// What its manifest says; absent until it is finished, or where only the witness knows of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest: Option<BackupManifest>,
    /// When it was retired.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retired: Option<UnixMillis>,
    /// Why it is a full one, although an increment was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub full_because: Option<String>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupFile {
    /// Its name in the directory of the backup.
    pub name: String,
    /// Its octets, sealed.
    pub octets: u64,
    /// SHA-256 of them, hexadecimal.
    pub sha256: String,
}

/// `manifest.json`: what a backup is, in clear. Beside it lies its seal by the root of the fleet, `manifest.seal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupManifest {
    /// Format version: 2.
    pub v: u8,
    /// Identifier.
    pub id: BackupId,
    /// What it builds on; absent for a full backup.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base: Option<BackupBase>,
    /// Name of the fleet.
    pub fleet: String,
    /// Origin of the fleet's log, which no other fleet has.
    pub origin: String,
    /// When it was begun.
    pub created: UnixMillis,
    /// The time of the newest act in it.
    pub as_of: UnixMillis,
    /// Program and version.
    pub tool: String,
    /// Schema version of the registry.
    pub schema: u32,
    /// Entries of the log that it holds.
    pub log_size: u64,
    /// RFC 6962 root over them, hexadecimal.
    pub log_root: String,
    /// Version of the key that it is sealed to.
    pub key_version: u32,
    /// The public half of that key.
    pub recipient: String,
    /// The registry that it gives back, in clear.
    pub registry: RegistryFile,
    /// The files.
    pub files: Vec<BackupFile>,
}

/// The file of a registry, in clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryFile {
    /// Its octets.
    pub octets: u64,
    /// SHA-256 of them, hexadecimal.
    pub sha256: String,
}

/// What an increment builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupBase {
    /// The backup before it.
    pub backup: BackupId,
    /// The full backup with which its chain begins.
    pub full: BackupId,
    /// Its number in the chain; the first increment on a full backup is 1.
    pub number: u32,
    /// SHA-256 of the registry that the backup before it gives back, hexadecimal.
    pub registry_sha256: String,
    /// Pages that changed since, all of which it holds.
    pub pages: u64,
}

/// A backup is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBackup {
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
    /// Only what changed since the newest backup; a full one where there is none to build on.
    #[serde(default)]
    pub incremental: bool,
}

/// A backup is retired, or a restored registry accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}

/// What retiring a backup or accepting a restored registry came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOutcome {
    /// The proposal that waits for a second person.
    pub proposal: ProposalId,
    /// Increments that build on the backup and are retired with it, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub increments: Vec<BackupId>,
}

/// What is known of a registry that was restored from before, until two people accept it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restored {
    /// When it was found.
    pub found: UnixMillis,
    /// The backup, where one was restored by `keyfleet restore`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backup: Option<BackupId>,
    /// Entries that the log had.
    pub had: u64,
    /// Entries that it has again, from the witness: acts between the two numbers are in the log and not in the registry,
    /// except for what stops things.
    pub has: u64,
    /// Certificates that were revoked or held again.
    pub stopped: u64,
    /// Devices that were suspended, quarantined or decommissioned again.
    #[serde(default)]
    pub devices: u64,
    /// Operators who were disabled again.
    #[serde(default)]
    pub operators: u64,
    /// Tokens that were withdrawn again.
    #[serde(default)]
    pub tokens: u64,
    /// Names of owners who had been disabled and are enabled, because no other owner is in this registry. Their tokens stay withdrawn and
    /// their certificates revoked.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub owners_left: Vec<String>,
    /// How many acts of each kind the registry has lost.
    pub lost: BTreeMap<String, u64>,
    /// Whether there was no witness: then nothing is known about what was lost.
    pub blind: bool,
}
