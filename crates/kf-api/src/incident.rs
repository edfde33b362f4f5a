//! Incidents: what is suspected, what it reaches, what is done about it in which order, and the report.
//!
//! The words are those of SP 800-57 Part 2 section 5.1 (compromise recovery): an incident is opened on what may be compromised, and
//! answered with its blast radius. Moments are milliseconds since 1970, durations are in seconds unless named otherwise.

use kf_key::{
    AuthorityId, BatchId, CodeId, DeviceId, FacilityId, IncidentId, OperatorId, ProposalId, SerialNumber, TokenId,
    UnixMillis,
};
use serde::{Deserialize, Serialize};

use crate::audit::AuditRecord;

/// What may be compromised, as it is named by whoever opens an incident.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "of")]
pub enum IncidentSubject {
    /// A device (name or id): it was stolen, opened or taken over.
    Device(String),
    /// One public key: SHA-256 of its SubjectPublicKeyInfo, hexadecimal. Its private key is known to others.
    Key(String),
    /// A batch (name or id): its keys left the station. Or the devices that were registered with this name as their batch.
    Batch(String),
    /// A factory station (name or id of the operator with this role).
    Station(String),
    /// Everything at a facility (name or id).
    Facility(String),
    /// A CA (name or id): its private key is known to others.
    Authority(String),
    /// Every credential of an operator (name or id).
    Operator(String),
    /// One API token.
    Token(TokenId),
}

/// An incident to be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewIncident {
    /// What may be compromised, 1 to 16 subjects.
    pub subjects: Vec<IncidentSubject>,
    /// When it may have begun. Absent: nobody knows, so since the subjects have been there.
    #[serde(default)]
    pub since: Option<UnixMillis>,
    /// Octets that one device protects in a second, to say how much data is exposed and not only for how long.
    #[serde(default)]
    pub octets_per_second: Option<u64>,
    /// Why, for the log; at most 500 characters.
    #[serde(default)]
    pub why: String,
    /// Say what it reaches, keep nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A subject as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "id")]
pub enum Hit {
    /// A device.
    Device(DeviceId),
    /// A public key, SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
    Key(String),
    /// A batch of a station.
    Batch(BatchId),
    /// Devices that were registered with a name as their batch, without a station's quota.
    Label(String),
    /// A factory station.
    Station(OperatorId),
    /// A facility.
    Facility(FacilityId),
    /// A CA.
    Authority(AuthorityId),
    /// An operator.
    Operator(OperatorId),
    /// An API token.
    Token(TokenId),
}

/// A subject of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectHit {
    /// What.
    #[serde(flatten)]
    pub hit: Hit,
    /// Its name, for people.
    pub name: String,
    /// Its facility, where it belongs to one alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// The newest key epoch when the incident was opened, of a facility or a device: what a new one must follow.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epoch: Option<u32>,
}

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IncidentState {
    /// It is being dealt with.
    Open,
    /// Somebody has given a verdict.
    Closed,
}

impl IncidentState {
    /// The name used in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// What an incident came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It was a compromise, and every step is done.
    Recovered,
    /// It was a compromise, and what is left is accepted, for the reason given.
    Accepted,
    /// It was none.
    FalseAlarm,
}

impl Verdict {
    /// The name used in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Accepted => "accepted",
            Self::FalseAlarm => "false-alarm",
        }
    }
}

/// An incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Identifier.
    pub id: IncidentId,
    /// Where it stands.
    pub state: IncidentState,
    /// What may be compromised.
    pub subjects: Vec<SubjectHit>,
    /// The one facility that it concerns; absent when it concerns several, or the fleet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// When it may have begun.
    pub since: UnixMillis,
    /// When it was opened: when its operator became aware.
    pub opened: UnixMillis,
    /// By whom.
    pub opened_by: String,
    /// Their name.
    pub opened_by_name: String,
    /// Octets that one device protects in a second, if somebody said so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub octets_per_second: Option<u64>,
    /// Why it was opened.
    pub why: String,
    /// SHA-256 of the plan that is in force, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plan_sha256: Option<String>,
    /// When it was closed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closed: Option<UnixMillis>,
    /// What it came to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verdict: Option<Verdict>,
    /// Why it was closed so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closing: Option<String>,
}

/// What came of opening an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentOpened {
    /// The incident; absent in a dry run of one that is not open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub incident: Option<Incident>,
    /// Whether it was open already: then nothing new was made.
    pub already_open: bool,
    /// Whether nothing was kept because that was asked for.
    pub dry_run: bool,
    /// Index of the log entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_index: Option<u64>,
    /// What it reaches.
    pub radius: BlastRadius,
}

/// An incident with what it reaches now and how far its plan is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentDetail {
    /// The incident.
    pub incident: Incident,
    /// What it reaches, by what the registry and the log say now.
    pub radius: BlastRadius,
    /// The plan, if one was made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plan: Option<PlanStanding>,
}

/// Which incidents to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IncidentFilter {
    /// See [`crate::PageRequest::after`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// See [`crate::PageRequest::limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// How a key is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// It may be known to others.
    Exposed,
    /// Others may have used it where it lies, and do not have it.
    Usable,
}

impl Reach {
    /// The name used in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exposed => "exposed",
            Self::Usable => "usable",
        }
    }
}

/// Keys of one kind that are hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysHit {
    /// The class, by the name that rotation policies use.
    pub class: String,
    /// How many.
    pub keys: u64,
    /// The facility under which they lie.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// The facility epoch under which they lie.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epoch: Option<u32>,
    /// How.
    pub reach: Reach,
    /// Why.
    pub why: String,
}

/// What is hit at one facility.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacilityHit {
    /// The facility.
    pub facility: FacilityId,
    /// Its name.
    pub name: String,
    /// Devices that are hit there.
    pub devices: u64,
    /// All devices there.
    pub of_devices: u64,
}

/// Data that may be read or forged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataWindow {
    /// What data.
    pub what: String,
    /// Devices whose data it is.
    pub devices: u64,
    /// From when on.
    pub from: UnixMillis,
    /// Until when, as far as it is not stopped.
    pub until: UnixMillis,
    /// How much of it one device has to expect, milliseconds.
    pub expected_millis: u64,
    /// At worst.
    pub worst_millis: u64,
    /// Octets of all devices to be expected, where somebody said how much a device protects.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected_octets: Option<u64>,
    /// At worst.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub worst_octets: Option<u64>,
    /// Why.
    pub why: String,
}

/// What a credential did, by the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActsDone {
    /// Whose credential.
    pub operator: OperatorId,
    /// Their name.
    pub name: String,
    /// Log entries by this operator since the incident may have begun.
    pub entries: u64,
    /// How many of each act.
    pub by_act: std::collections::BTreeMap<String, u64>,
    /// The first entries, at most 100; the rest is in the log.
    pub first: Vec<AuditRecord>,
    /// Index of the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_index: Option<u64>,
    /// What this says and what it cannot say.
    pub note: String,
}

/// What stays safe, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Safe {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// What an incident reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlastRadius {
    /// Devices that are hit.
    pub devices: u64,
    /// Names of the first of them, at most 100.
    pub device_names: Vec<String>,
    /// By facility: those at which something is hit, and no others.
    pub facilities: Vec<FacilityHit>,
    /// Keys that are hit.
    pub keys: Vec<KeysHit>,
    /// Certificates, good or on hold, that must not be believed any more.
    pub certificates: u64,
    /// Serial numbers of the first of them, at most 100.
    pub serials: Vec<SerialNumber>,
    /// Data that may be read or forged.
    pub windows: Vec<DataWindow>,
    /// What leaked credentials did.
    pub acts: Vec<ActsDone>,
    /// What stays safe, and why.
    pub safe: Vec<Safe>,
    /// What nobody can tell from registry and log.
    pub unknown: Vec<String>,
}

/// The parts of a plan, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepPhase {
    /// What stops the damage. Can be undone, and waits for nobody.
    Stop,
    /// What is permanent. Needs approval.
    Settle,
    /// What brings devices back.
    Recover,
}

/// Who it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepControl {
    /// One person in scope.
    One,
    /// Two people: whoever made the plan, and somebody else who approves it.
    Two,
    /// A person, by hand: `incident run` does not do it, and says how.
    Hand,
}

/// What a step does. Every identifier is that of the registry, so that a name that changes hands is not hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "act")]
pub enum StepAct {
    /// Nothing is issued for devices of this facility any more.
    StopFacilityIssuance {
        /// The facility.
        facility: FacilityId,
    },
    /// This CA issues nothing any more.
    StopAuthorityIssuance {
        /// The CA.
        authority: AuthorityId,
    },
    /// The operator signs in no more; vouchers of a station are refused from then on.
    DisableOperator {
        /// The operator.
        operator: OperatorId,
    },
    /// The tokens of an operator are withdrawn: all, or one.
    WithdrawTokens {
        /// The operator.
        operator: OperatorId,
        /// The one token.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        token: Option<TokenId>,
    },
    /// One-time codes are withdrawn.
    WithdrawCodes {
        /// The codes.
        codes: Vec<CodeId>,
    },
    /// Proposals of an operator that wait are cancelled.
    CancelProposals {
        /// The operator.
        operator: OperatorId,
    },
    /// Certificates are put on hold.
    HoldCertificates {
        /// Which.
        serials: Vec<SerialNumber>,
    },
    /// A device is suspended, its certificates on hold, its session cut.
    SuspendDevice {
        /// The device.
        device: DeviceId,
    },
    /// As before, every device of a batch.
    SuspendBatch {
        /// Name of the batch.
        batch: String,
    },
    /// As before, every device of a facility.
    SuspendFacility {
        /// The facility.
        facility: FacilityId,
    },
    /// The brokers are told, and say that the devices are gone.
    CutSessions {
        /// The facility, where it is one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        facility: Option<FacilityId>,
    },
    /// A public key is certified never again.
    BlockKey {
        /// SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
        spki_sha256: String,
    },
    /// Certificates are revoked: keyCompromise.
    RevokeCertificates {
        /// Which.
        serials: Vec<SerialNumber>,
    },
    /// Every LDevID of a device is revoked.
    RevokeDevice {
        /// The device.
        device: DeviceId,
    },
    /// Every LDevID of every device of a facility is revoked.
    RevokeFacility {
        /// The facility.
        facility: FacilityId,
    },
    /// Every LDevID of every device of a batch without a station's quota is revoked.
    RevokeBatch {
        /// Name of the batch.
        batch: String,
    },
    /// Everything that a CA issued is revoked, and the CA.
    RevokeAuthority {
        /// The CA.
        authority: AuthorityId,
    },
    /// A batch ends as compromised: its CA, its certificates and its devices.
    CancelBatch {
        /// The batch.
        batch: BatchId,
    },
    /// A facility gets a new key epoch.
    AdvanceFacilityEpoch {
        /// The facility.
        facility: FacilityId,
        /// The epoch that the new one follows: a run that finds a newer one has nothing to do.
        beyond: u32,
    },
    /// A device gets a new key epoch.
    AdvanceDeviceEpoch {
        /// The device.
        device: DeviceId,
        /// As above.
        beyond: u32,
    },
    /// Issuance for devices of a facility goes on.
    StartFacilityIssuance {
        /// The facility.
        facility: FacilityId,
    },
    /// What no mechanism does.
    ByHand {
        /// A short name, unique in the plan.
        task: String,
    },
}

/// How long a step will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Seconds; an estimate, never a promise. Absent where it depends on people or on devices that must come.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds: Option<u64>,
    /// Whether the rate was measured on this server, or assumed from the published figures.
    pub measured: bool,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    /// Its place, from 1.
    pub number: u32,
    /// The part of the plan.
    pub phase: StepPhase,
    /// What it does.
    pub step: StepAct,
    /// The same for people.
    pub what: String,
    /// Why it is there.
    pub why: String,
    /// The facility to which it is confined.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// The most devices that it touches. Part of what is approved: a run that finds more stops.
    pub devices: u64,
    /// Who it takes.
    pub control: StepControl,
    /// How long it will take. Not part of what is approved.
    pub estimate: Estimate,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The incident.
    pub incident: IncidentId,
    /// The steps, in order.
    pub steps: Vec<PlanStep>,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Not begun.
    Waiting,
    /// Begun, and no outcome is recorded: it is done again, which does no harm.
    Begun,
    /// Done.
    Done,
    /// For a person, by hand: a run does not do it, and records it when told.
    Hand,
}

/// A step with how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStanding {
    /// The step.
    #[serde(flatten)]
    pub step: PlanStep,
    /// Where it stands.
    pub state: StepState,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<String>,
    /// When it was begun.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub begun: Option<UnixMillis>,
    /// When it was done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<UnixMillis>,
    /// Index of the log entry that says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_index: Option<u64>,
}

/// An approval of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who.
    pub operator: OperatorId,
    /// Their name.
    pub name: String,
    /// The break-glass credential behind which they approved it, where it was one: then they may have made the plan as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<ProposalId>,
    /// SHA-256 of the plan that they approved, hexadecimal.
    pub plan_sha256: String,
    /// When.
    pub at: UnixMillis,
    /// Until when it counts.
    pub expires: UnixMillis,
    /// Why, in their words.
    pub why: String,
}

/// A plan with its approvals and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStanding {
    /// SHA-256 of what is approved, hexadecimal.
    pub plan_sha256: String,
    /// Who made it: the first of the two people.
    pub planned_by: OperatorId,
    /// Their name.
    pub planned_by_name: String,
    /// When.
    pub planned: UnixMillis,
    /// In single-control mode: when permanent steps may be run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effective: Option<UnixMillis>,
    /// Approvals of this very plan, those that have expired included.
    pub approvals: Vec<Approval>,
    /// Whether permanent steps may be run now.
    pub approved: bool,
    /// The steps.
    pub steps: Vec<StepStanding>,
    /// Seconds that all steps take that need neither hands nor devices; an estimate.
    pub estimated_seconds: u64,
}

/// A plan is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// Say what it would be, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A plan is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Numbers of steps that people have done by hand, to be recorded as done.
    #[serde(default)]
    pub by_hand: Vec<u32>,
    /// What was done by hand, for the log; required with `by_hand`.
    #[serde(default)]
    pub why: String,
    /// Answer after so many steps, so that whoever asks can say how far it is.
    #[serde(default)]
    pub at_most: Option<u32>,
}

/// An approval is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRequest {
    /// SHA-256 of the plan that was read, hexadecimal.
    pub plan_sha256: String,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}

/// What a run did, and what keeps it from going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// The incident.
    pub incident: IncidentId,
    /// Steps that this run did.
    pub done: Vec<StepStanding>,
    /// Steps that are left, those by hand included.
    pub left: u64,
    /// Whether every step that is not by hand is done.
    pub finished: bool,
    /// Whether there is more to do at once: as many steps were done as were asked for.
    pub more: bool,
    /// What it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub waits: Vec<String>,
}

/// An incident is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentClosing {
    /// What it came to.
    pub verdict: Verdict,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}

/// An entry of the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// Index in the log.
    pub index: u64,
    /// When.
    pub at: UnixMillis,
    /// Who.
    pub who: String,
    /// What.
    pub act: String,
    /// For people.
    pub what: String,
    /// The entry, octet for octet as it is hashed into the tree: JSON.
    pub leaf: String,
    /// RFC 6962 hash of the leaf, hexadecimal: SHA-256 of a zero octet and the leaf.
    pub leaf_sha256: String,
    /// The inclusion proof up to the tree of the report (RFC 6962 section 2.1.1), hexadecimal, from the leaf up.
    pub proof: Vec<String>,
}

/// A duty to report (Regulation (EU) 2024/2847 article 14).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duty {
    /// Which: `24h`, `72h` or `14d`.
    pub name: String,
    /// What the article asks for.
    pub what: String,
    /// When it is due; absent as long as it is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub due: Option<UnixMillis>,
}

/// The report of an incident. It is what registry and log say; what a manufacturer must tell an authority beyond it, only
/// people know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentReport {
    /// Name of the fleet.
    pub fleet: String,
    /// When it was made.
    pub at: UnixMillis,
    /// The incident.
    pub incident: Incident,
    /// What it reaches.
    pub radius: BlastRadius,
    /// The plan.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plan: Option<PlanStanding>,
    /// What happened, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// The signed checkpoint of the tree against which the proofs are, a C2SP signed note.
    pub checkpoint: String,
    /// Entries in that tree.
    pub tree_size: u64,
    /// When its duties are due.
    pub duties: Vec<Duty>,
    /// Whether one person alone runs this fleet.
    pub single_control: bool,
}
