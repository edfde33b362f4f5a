//! Successions: one CA takes over from another.

use kf_key::{AuthorityId, DeviceId, FacilityId, KeyAlgorithm, ProposalId, SuccessionState, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::authority::AuthorityKind;
use crate::campaign::SilenceByAge;

/// One CA and the one that takes over from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// The old CA.
    pub predecessor: AuthorityId,
    /// Its name.
    pub predecessor_name: String,
    /// The new CA.
    pub successor: AuthorityId,
    /// Its name.
    pub successor_name: String,
    /// Root or issuing.
    pub kind: AuthorityKind,
    /// How far it has come.
    pub state: SuccessionState,
    /// Why, for the log.
    pub why: String,
    /// When the successor was made.
    pub made: UnixMillis,
    /// When it took over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub switched: Option<UnixMillis>,
    /// When the old CA was handed out for the last time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retired: Option<UnixMillis>,
    /// When everything that it issued had expired.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closed: Option<UnixMillis>,
    /// When the successor was withdrawn.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub withdrawn: Option<UnixMillis>,
    /// Of roots: the new one certified by the old one (RFC 9810 section 4.4), PEM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub new_with_old_pem: Option<String>,
    /// Of roots: the old one certified by the new one, PEM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub old_with_new_pem: Option<String>,
}

/// What part of the fleet has proved that it verifies the server by the new root alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustProgress {
    /// Devices in all, but decommissioned ones.
    pub devices: u64,
    /// Of these: with proof, from a handshake.
    pub proved: u64,
    /// Of these: without. When the old root is retired they do not find back by themselves.
    pub unproved: u64,
    /// Those without proof, by when they were last heard of.
    pub unproved_unheard: SilenceByAge,
}

/// A succession with what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuccessionStatus {
    /// The succession.
    #[serde(flatten)]
    pub succession: Succession,
    /// Of roots: who trusts the new one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trust: Option<TrustProgress>,
    /// Certificates of the old CA that have not expired.
    pub unexpired: u64,
    /// When the last of them does: until then its CRLs and OCSP answers go on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_expiry: Option<UnixMillis>,
}

/// A successor to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewSuccession {
    /// Algorithm of the new keys; that of the old CA when absent.
    pub algorithm: Option<KeyAlgorithm>,
    /// Lifetime in days; as long as the old CA was made for, when absent.
    pub lifetime_days: Option<u32>,
    /// Why, for the log.
    pub why: String,
}

/// What is to be done with a succession.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SuccessionAct {
    /// The successor issues from now on.
    Switch,
    /// The old CA is handed out no more.
    Retire,
    /// The successor, which has not taken over, ends: it is revoked with what is below it, and the old CA goes on.
    Withdraw,
}

/// A step of a succession.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuccessionActRequest {
    /// What to do.
    pub act: SuccessionAct,
    /// Of retiring a root: go on although devices have not proved that they trust the new one; takes a second person.
    #[serde(default)]
    pub strand: bool,
    /// Of withdrawing a root: go on although devices trust it, or were asked to; takes a second person.
    #[serde(default)]
    pub although_trusted: bool,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a step of a succession came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuccessionOutcome {
    /// Whether it was carried out; otherwise it waits for a second person, or was only looked at.
    pub done: bool,
    /// The proposal that waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposal: Option<ProposalId>,
    /// Where the succession stands.
    pub succession: SuccessionStatus,
    /// Index of the log entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_index: Option<u64>,
}

/// A device that has not proved that it trusts the new root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnprovedDevice {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Its facility.
    pub facility: FacilityId,
    /// When it last authenticated, to the minute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_seen: Option<UnixMillis>,
}
