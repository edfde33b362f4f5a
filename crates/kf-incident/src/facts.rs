//! What registry and log say.

use std::collections::BTreeMap;

use kf_api::audit::AuditRecord;
use kf_api::authority::Authority;
use kf_api::batch::Batch;
use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_api::epoch::{DeviceKeyEpoch, FacilityEpoch};
use kf_api::facility::Facility;
use kf_api::incident::FacilityHit;
use kf_api::operator::{Operator, Token};
use kf_key::{SerialNumber, TokenId, UnixMillis};

/// Everything that a decision rests on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Now.
    pub now: UnixMillis,
    /// When it may have begun; not after `now`.
    pub since: UnixMillis,
    /// Octets that one device protects in a second, if somebody said so.
    pub octets_per_second: Option<u64>,
    /// For how long a relying party may believe an old answer: the longer of CRL and OCSP, milliseconds.
    pub freshness: u64,
    /// Devices of the whole fleet.
    pub fleet_devices: u64,
    /// Facilities of the whole fleet.
    pub fleet_facilities: u64,
    /// The subjects.
    pub hits: Vec<HitFacts>,
}

/// A subject.
#[derive(Clone, Debug)]
pub enum HitFacts {
    /// See [`kf_api::incident::IncidentSubject::Device`].
    Device(Box<DeviceFacts>),
    /// See [`kf_api::incident::IncidentSubject::Key`].
    Key(KeyFacts),
    /// See [`kf_api::incident::IncidentSubject::Batch`].
    Batch(Box<BatchFacts>),
    /// Devices that were registered with a name as their batch.
    Label {
        /// The name.
        name: String,
        /// The devices.
        set: DeviceSet,
    },
    /// See [`kf_api::incident::IncidentSubject::Station`].
    Station(Box<StationFacts>),
    /// See [`kf_api::incident::IncidentSubject::Facility`].
    Facility(Box<FacilityFacts>),
    /// See [`kf_api::incident::IncidentSubject::Authority`].
    Authority(Box<AuthorityFacts>),
    /// An operator, or one of their tokens.
    Credential(Box<CredentialFacts>),
}

/// Many devices, by their counts: nothing here grows with the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSet {
    /// Devices, whatever their state.
    pub devices: u64,
    /// Names of the first of them, at most 100.
    pub names: Vec<String>,
    /// Their certificates that are good or on hold.
    pub certificates: u64,
    /// Serial numbers of the first of these, at most 100.
    pub serials: Vec<SerialNumber>,
    /// The last moment of validity of any of these that ends.
    pub last_not_after: Option<UnixMillis>,
    /// Where they are.
    pub facilities: Vec<FacilityHit>,
    /// Devices that were seen in the last day.
    pub seen_lately: u64,
}

/// A device.
#[derive(Clone, Debug)]
pub struct DeviceFacts {
    /// The device.
    pub device: Device,
    /// Name of its facility.
    pub facility: Facility,
    /// All devices at that facility.
    pub facility_devices: u64,
    /// Its certificates.
    pub certificates: Vec<Certificate>,
    /// The symmetric keys that it was sent.
    pub keys: Vec<DeviceKeyEpoch>,
    /// The device epoch when the incident was opened, if it was ever sent a key.
    pub epoch: Option<u32>,
}

/// A public key.
#[derive(Clone, Debug)]
pub struct KeyFacts {
    /// SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
    pub spki_sha256: String,
    /// Whose it is, as the registry names them.
    pub holder: Option<String>,
    /// Every certificate with it.
    pub certificates: Vec<Certificate>,
    /// Where its device is, if it is a device's.
    pub set: DeviceSet,
}

/// A batch.
#[derive(Clone, Debug)]
pub struct BatchFacts {
    /// The batch.
    pub batch: Batch,
    /// Its devices.
    pub set: DeviceSet,
    /// How many of them are at another facility than the batch.
    pub elsewhere: u64,
}

/// A factory station.
#[derive(Clone, Debug)]
pub struct StationFacts {
    /// The station's credential.
    pub credential: CredentialFacts,
    /// Its batches whose quota was in force at some moment since the incident may have begun.
    pub batches: Vec<BatchFacts>,
    /// Its earlier batches.
    pub earlier_batches: u64,
}

/// A facility.
#[derive(Clone, Debug)]
pub struct FacilityFacts {
    /// The facility.
    pub facility: Facility,
    /// Its devices.
    pub set: DeviceSet,
    /// Its key epochs, newest first.
    pub epochs: Vec<FacilityEpoch>,
    /// The newest epoch when the incident was opened.
    pub epoch: u32,
    /// Operators in whose scope it is, those of the whole fleet not among them.
    pub operators: Vec<Operator>,
    /// Its batches, except those that were over before the incident may have begun.
    pub batches: Vec<BatchFacts>,
    /// Devices that are at another facility by now and still hold a key of this one.
    pub departed: u64,
}

/// A CA.
#[derive(Clone, Debug)]
pub struct AuthorityFacts {
    /// The CA.
    pub authority: Authority,
    /// Certificates that it issued and that are good or on hold.
    pub certificates: u64,
    /// Devices that any of its certificates names.
    pub devices: u64,
}

/// An entry of the log by a leaked credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// Index in the log.
    pub index: u64,
    /// `noun.verb`.
    pub act: String,
    /// What it was about.
    pub subjects: Vec<String>,
}

/// An operator whose credential leaked.
#[derive(Clone, Debug)]
pub struct CredentialFacts {
    /// The operator.
    pub operator: Operator,
    /// The one token, where no other credential leaked.
    pub only: Option<TokenId>,
    /// Their tokens.
    pub tokens: Vec<Token>,
    /// Their certificates that had not ended when the incident may have begun, whatever their status.
    pub certificates: Vec<Certificate>,
    /// Devices in the operator's scope.
    pub scope_devices: u64,
    /// Names of the facilities in the operator's scope; empty for the whole fleet.
    pub scope: Vec<String>,
    /// Log entries by the operator since the incident may have begun, oldest first.
    pub acts: Vec<Act>,
    /// All of them, also where `acts` was cut short.
    pub entries: u64,
    /// How many of each act.
    pub by_act: BTreeMap<String, u64>,
    /// The first 100 as they stand in the log.
    pub first: Vec<AuditRecord>,
    /// Certificates that the credential had issued, whatever their status.
    pub issued: Vec<Certificate>,
}

/// How fast this server is, for estimates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Devices per second, suspended, revoked or cancelled.
    pub devices_per_second: u64,
    /// Whether that was measured on this server.
    pub measured: bool,
}

impl Default for Rates {
    /// A third of what the published figures say of a small machine (`docs/manual/figures.md`), so that an estimate errs to
    /// the slow side.
    fn default() -> Self {
        Self { devices_per_second: 10_000, measured: false }
    }
}
