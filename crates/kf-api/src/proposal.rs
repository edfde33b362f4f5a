//! Acts that need a second person.

use kf_key::{AuthorityId, BackupId, CampaignState, FacilityId, OperatorId, ProposalId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::batch::{CancelBatch, NewBatch};
use crate::break_glass::NewBreakGlass;
use crate::campaign::CampaignPlan;
use crate::destruction::DestructionTarget;
use crate::device::Departure;
use crate::order::OrderAct;
use crate::ownership::{LeavingDevice, OwnershipEnd};
use crate::revocation::RevocationTarget;
use kf_key::RevocationReason;

/// An act that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "act")]
pub enum ProposedAct {
    /// A permanent revocation.
    Revoke {
        /// What.
        target: RevocationTarget,
        /// Why, by RFC 5280.
        reason: RevocationReason,
        /// Why, for the log.
        why: String,
    },
    /// Decommissioning of every device of a batch or facility, or of one device where the limit is zero.
    Decommission {
        /// Which devices.
        target: RevocationTarget,
        /// Why they leave.
        departure: Departure,
        /// Why, for the log.
        why: String,
    },
    /// A device moves to another facility.
    MoveDevice {
        /// Name or id of the device.
        device: String,
        /// Name or id of the facility it moves to.
        facility: String,
        /// Why, for the log.
        why: String,
    },
    /// A facility gets a new key epoch.
    AdvanceFacilityEpoch {
        /// Name or id of the facility.
        facility: String,
        /// Why, for the log.
        why: String,
    },
    /// A device gets a new key epoch.
    AdvanceDeviceEpoch {
        /// Name or id of the device.
        device: String,
        /// Why, for the log.
        why: String,
    },
    /// A device is ordered to do something.
    OrderDevice {
        /// Name or id of the device.
        device: String,
        /// What.
        order: OrderAct,
        /// Hours from the approval until it expires.
        lifetime_hours: u32,
        /// Why, for the log.
        why: String,
    },
    /// A factory station is given a batch.
    CreateBatch {
        /// The batch.
        batch: Box<NewBatch>,
        /// When it was asked for: the station request had to be fresh then.
        received: UnixMillis,
        /// Why, for the log.
        why: String,
    },
    /// A batch ends, and what came of it.
    CancelBatch {
        /// Name or id of the batch.
        batch: String,
        /// How.
        request: CancelBatch,
        /// Why, for the log.
        why: String,
    },
    /// A campaign begins, or goes on past what it stopped for.
    StartCampaign {
        /// Name or id of the campaign.
        campaign: String,
        /// Where it stood when this was proposed; it is not carried out anywhere else.
        state: CampaignState,
        /// Its wave then.
        wave: u32,
        /// The version of its plan then.
        version: u32,
        /// Begin even if no device matches.
        #[serde(default)]
        allow_empty: bool,
        /// Why, for the log.
        why: String,
    },
    /// A campaign that has begun, and pauses, gets another plan.
    EditCampaign {
        /// Id of the campaign.
        campaign: String,
        /// The version of its plan when this was proposed; no other is replaced.
        version: u32,
        /// The whole plan as it is to be.
        plan: CampaignPlan,
        /// Why, for the log.
        why: String,
    },
    /// A campaign is given up, and what it asked is taken back.
    RollBackCampaign {
        /// Id of the campaign.
        campaign: String,
        /// Why, for the log.
        why: String,
    },
    /// A backup is said to be gone, or not to open any more.
    RetireBackup {
        /// Which.
        backup: BackupId,
        /// Increments that build on it, of which the same is said.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        increments: Vec<BackupId>,
        /// Why, for the log.
        why: String,
    },
    /// The key of an escrow is brought back.
    ReleaseEscrow {
        /// The ceremony.
        ceremony: String,
        /// Why, for the log.
        why: String,
    },
    /// A registry that was restored from before is taken into service.
    AcceptRestored {
        /// Why, for the log.
        why: String,
    },
    /// Keys are destroyed.
    Destroy {
        /// Which.
        target: DestructionTarget,
        /// Whether the proposer says that the station records that hold sealed salts are erased elsewhere.
        station_records_erased: bool,
        /// Why, for the log.
        why: String,
    },
    /// A root is handed out no more, although devices have not proved that they trust its successor.
    RetireAuthority {
        /// The old root.
        authority: AuthorityId,
        /// Devices that are left behind; it is not carried out for more.
        stranded: u64,
        /// Why, for the log.
        why: String,
    },
    /// A root that has not taken over is withdrawn, although devices trust it.
    WithdrawAuthority {
        /// The CA that it was to succeed.
        authority: AuthorityId,
        /// Devices that trust it, or were asked to; one more makes the consent void.
        trusting: u64,
        /// Why, for the log.
        why: String,
    },
    /// A break-glass credential is made.
    CreateBreakGlass {
        /// What it is to be, with facilities by their ids.
        new: Box<NewBreakGlass>,
    },
    /// Devices leave who has them, and their keys die.
    EndOwnership {
        /// How.
        end: OwnershipEnd,
        /// Their facility: nothing is done to one that went elsewhere meanwhile.
        facility: FacilityId,
        /// Which devices, by their ids.
        devices: Vec<LeavingDevice>,
        /// The customer's own reference.
        customer: String,
        /// Whether they are ordered to wipe themselves.
        wipe: bool,
        /// Whether those that know the order are ordered to go back to the state of the factory.
        #[serde(default)]
        factory_reset: bool,
        /// Device keys that die, as counted when it was proposed.
        salts: u64,
        /// As in `Destroy`.
        station_records_erased: bool,
        /// Why, for the log.
        why: String,
    },
    /// A key epoch of a facility is given up, and with it what barred devices sealed under it.
    RetireEpoch {
        /// Name or id of the facility.
        facility: String,
        /// The epoch.
        epoch: u32,
        /// Why, for the log.
        why: String,
    },
}

/// Where a proposal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProposalState {
    /// Waits for a second person, or for the delay of single-control mode.
    Waiting,
    /// Carried out.
    Done,
    /// Refused or cancelled.
    Cancelled,
    /// Nobody approved in time.
    Expired,
    /// Approved, then refused by the rules because the fleet had changed.
    Failed,
}

/// A proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Identifier.
    pub id: ProposalId,
    /// The act.
    pub act: ProposedAct,
    /// Devices it touches, as counted when it was proposed.
    pub devices: u64,
    /// Certificates it touches, as counted when it was proposed.
    pub certificates: u64,
    /// Who proposed it.
    pub proposer: OperatorId,
    /// Name of who proposed it.
    pub proposer_name: String,
    /// Who decided, once somebody has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decided_by: Option<OperatorId>,
    /// When it was proposed.
    pub created: UnixMillis,
    /// When it lapses.
    pub expires: UnixMillis,
    /// In single-control mode: when it is carried out unless somebody cancels it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effective: Option<UnixMillis>,
    /// Where it stands.
    pub state: ProposalState,
}

/// A second person's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalDecision {
    /// Approve, or cancel.
    pub approve: bool,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}
