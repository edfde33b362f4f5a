//! The end of somebody's ownership of devices: scrapped, sold, returned, stolen. Which keys die, which live on, and the
//! receipt for the customer.

use kf_key::{BackupId, DestructionId, DeviceId, DeviceState, FacilityId, OrderId, ProposalId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::destruction::DestructionResult;
use crate::incident::TimelineEntry;
use crate::order::OrderAct;

/// The most devices of one request.
pub const MAX_LEAVING: usize = 1_000;

/// How an ownership ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnershipEnd {
    /// The device is destroyed. Nothing of it lives on.
    Scrapped,
    /// The device goes to a new owner, whose claim it waits for. Its IDevID lives on.
    Resold,
    /// The device is sent back (RMA) and waits in quarantine: it is readmitted with `device resume`, or scrapped.
    Returned,
    /// The device is in other hands. Its certificates are on hold at once, and nothing of it lives on.
    Stolen,
}

impl OwnershipEnd {
    /// Every end.
    pub const ALL: [Self; 4] = [Self::Scrapped, Self::Resold, Self::Returned, Self::Stolen];

    /// The name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scrapped => "scrapped",
            Self::Resold => "resold",
            Self::Returned => "returned",
            Self::Stolen => "stolen",
        }
    }

    /// The state of the device afterwards.
    #[must_use]
    pub const fn state(self) -> DeviceState {
        match self {
            Self::Scrapped | Self::Stolen => DeviceState::Decommissioned,
            Self::Resold => DeviceState::Suspended,
            Self::Returned => DeviceState::Quarantined,
        }
    }

    /// Whether the device is ordered to wipe itself unless somebody says otherwise. A wipe takes the key of its IDevID too,
    /// so a device that is to be of use to somebody is not.
    #[must_use]
    pub const fn wipes(self) -> bool {
        matches!(self, Self::Scrapped | Self::Stolen)
    }

    /// Whether the device is ordered to go back to the state of the factory unless somebody says otherwise: what its owner brought dies, and
    /// its IDevID lives.
    #[must_use]
    pub const fn resets(self) -> bool {
        matches!(self, Self::Resold | Self::Returned)
    }
}

/// A device that leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeavingDevice {
    /// Name or id.
    pub device: String,
    /// For `returned`: name or id of the device that takes its place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replacement: Option<String>,
}

/// Devices are to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnershipRequest {
    /// How.
    pub end: OwnershipEnd,
    /// Which devices, all of one facility; at most [`MAX_LEAVING`].
    pub devices: Vec<LeavingDevice>,
    /// Why, for the log and the receipt; at most 500 characters.
    pub why: String,
    /// The customer's own reference, for the receipt; at most 128 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub customer: String,
    /// Whether the devices are ordered to wipe themselves; when absent, as [`OwnershipEnd::wipes`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe: Option<bool>,
    /// Whether devices that are resold or returned are ordered to go back to the state of the factory. When absent, those are that have
    /// said that they know the order; with true, one that has not refuses the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factory_reset: Option<bool>,
    /// As in [`crate::destruction::DestructionRequest`].
    #[serde(default)]
    pub station_records_erased: bool,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// What becomes of a class of keys or certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It dies.
    Dies,
    /// It lives on.
    Lives,
    /// It is on hold until somebody decides.
    Held,
    /// It dies when the device carries out its order, and says so under its key.
    DiesByOrder,
    /// It is not reached.
    NotReached,
}

/// One row of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFate {
    /// What.
    pub what: String,
    /// How many, where the registry knows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
    /// What becomes of it.
    pub fate: Fate,
    /// By what, or why.
    pub because: String,
}

/// What would happen, as things stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnershipPlan {
    /// How the ownership ends.
    pub end: OwnershipEnd,
    /// Whose devices.
    pub facility: FacilityId,
    /// How many.
    pub devices: u64,
    /// Their state afterwards.
    pub state: DeviceState,
    /// What dies and what lives.
    pub fates: Vec<KeyFate>,
    /// What the receipt would say of the device keys.
    pub result: DestructionResult,
    /// Backups that can still be opened and hold device keys.
    pub barred_by: Vec<BackupId>,
    /// What this does not reach.
    pub exceptions: Vec<String>,
}

/// What asking came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnershipOutcome {
    /// The proposal that waits; absent for a dry run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposal: Option<ProposalId>,
    /// Devices that were stopped at once, because that waits for nobody.
    pub stopped: u64,
    /// What would happen, or will.
    pub plan: OwnershipPlan,
}

/// What happened to one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedOwnership {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub device_name: String,
    /// The proposal that was approved.
    pub proposal: ProposalId,
    /// How the ownership ended.
    pub end: OwnershipEnd,
    /// The facility that it belonged to.
    pub facility: FacilityId,
    /// The customer's own reference.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub customer: String,
    /// Why.
    pub why: String,
    /// Who proposed it.
    pub proposed_by: String,
    /// Who approved it, or that nobody did.
    pub approved_by: String,
    /// When.
    pub at: UnixMillis,
    /// LDevIDs of the device, all of them revoked: serial numbers, newest first, at most 20.
    pub ldevids: Vec<String>,
    /// What became of its IDevID: `none`, `lives`, `on hold` or `revoked`.
    pub idevid: String,
    /// What became of its device keys: `none`, `destroyed` or `barred`.
    pub device_keys: String,
    /// The receipt of their destruction.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub destruction: Option<DestructionId>,
    /// The order to destroy what it holds itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub order: Option<OrderId>,
    /// Which one: a wipe, or a factory reset.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub order_act: Option<OrderAct>,
    /// The device that took its place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replacement: Option<DeviceId>,
    /// Whether a label lets its next owner claim it.
    pub claimable: bool,
    /// What this did not reach.
    pub exceptions: Vec<String>,
    /// Index of the log entry that says the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_index: Option<u64>,
}

/// The receipt for the customer: what happened to one device, each statement a log entry with its proof. Whoever has the
/// log's public key checks it without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerReceipt {
    /// Format version: 1.
    pub v: u8,
    /// Name of the fleet.
    pub fleet: String,
    /// When it was made out.
    pub at: UnixMillis,
    /// What happened, in fields. For reading: what counts are the entries.
    pub record: EndedOwnership,
    /// How far the order has come, if there was one: `executed` is signed by the device, `never-answered` is open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wipe: Option<String>,
    /// The entries, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// The signed checkpoint of the tree against which the proofs are, a C2SP signed note.
    pub checkpoint: String,
    /// Entries in that tree.
    pub tree_size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_to_be_of_use_to_somebody_is_not_wiped_by_itself() {
        for end in OwnershipEnd::ALL {
            assert_eq!(end.wipes(), end.state() == DeviceState::Decommissioned, "{}", end.name());
            assert_ne!(end.wipes(), end.resets(), "{}", end.name());
            assert_eq!(serde_json::to_value(end).unwrap(), end.name());
        }
    }
}
