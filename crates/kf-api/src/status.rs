//! The state of the server and the issuance switch.

use kf_key::UnixMillis;
use serde::{Deserialize, Serialize};

/// The state of the server at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// Name of the fleet.
    pub fleet: String,
    /// Version of the server.
    pub version: String,
    /// Whether certificates are being issued.
    pub issuance: Issuance,
    /// Devices by state, in the order of the vocabulary.
    pub devices: Vec<(String, u64)>,
    /// Certificates: good, held, revoked.
    pub certificates: (u64, u64, u64),
    /// Entries in the log.
    pub log_size: u64,
    /// Whether the newest checkpoint is also kept outside the server.
    pub witness: bool,
    /// Whether one person alone runs this fleet.
    pub single_control: bool,
    /// Whether the signer answers.
    pub signer_up: bool,
    /// SHA-256 of the delivery key that devices pin, hexadecimal.
    pub delivery_key_sha256: String,
    /// SHA-256 of the order key that devices pin, hexadecimal.
    pub order_key_sha256: String,
    /// Earliest nextUpdate of all CRLs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub crl_next_update: Option<UnixMillis>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
}

/// Whether certificates are being issued, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "why")]
pub enum Issuance {
    /// Certificates are issued.
    Running,
    /// Somebody stopped it.
    Stopped(String),
    /// The store is full: reads and revocation go on.
    StoreFull,
    /// The database is older than the witness says: see `keyfleet doctor`.
    Fenced(String),
}

/// Turns issuance on or off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuanceSwitch {
    /// Issue, or stop issuing.
    pub run: bool,
    /// Why, for the log; required to stop.
    #[serde(default)]
    pub why: String,
    /// For the devices of this facility alone (name or id).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<String>,
}
