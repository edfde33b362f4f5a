//! Key epochs: of a facility, whose advance gives every device a new key, and of a single device.

use kf_key::{DeviceId, DeviceState, FacilityId, ProposalId, UnixMillis};
use serde::{Deserialize, Serialize};

/// Where an epoch of a facility stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EpochState {
    /// The newest; devices are moving to it, one exchange each.
    Pending,
    /// What devices hold, or are moving away from while another one is pending.
    Current,
    /// No device holds it any more, and the server derives nothing under it.
    Retired,
}

/// An epoch of a facility.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacilityEpoch {
    /// The facility.
    pub facility: FacilityId,
    /// Its number, from 1.
    pub epoch: u32,
    /// Where it stands.
    pub state: EpochState,
    /// When it was made.
    pub created: UnixMillis,
    /// When it was retired.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retired: Option<UnixMillis>,
    /// Devices that hold a key of it, or were offered one and have not answered; barred ones included.
    pub devices: u64,
}

/// Where a key of a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKeyState {
    /// Sent; the device has not acknowledged it, and may hold it or not.
    Offered,
    /// Acknowledged.
    Held,
    /// The device has acknowledged a newer one.
    Superseded,
}

/// A key that was sent to a device, without the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceKeyEpoch {
    /// The facility under whose key it lies.
    pub facility: FacilityId,
    /// Epoch of the facility.
    pub facility_epoch: u32,
    /// Epoch of the device.
    pub device_epoch: u32,
    /// Where it stands.
    pub state: DeviceKeyState,
    /// When it was first sent.
    pub offered: UnixMillis,
    /// When the device acknowledged it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acknowledged: Option<UnixMillis>,
}

/// The symmetric keys of a device, without the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceKeys {
    /// The device.
    pub device: DeviceId,
    /// The facility under whose key the next delivery lies.
    pub facility: FacilityId,
    /// The facility epoch of the next delivery.
    pub facility_epoch: u32,
    /// The device epoch of the next delivery.
    pub device_epoch: u32,
    /// Whether the device has acknowledged exactly that.
    pub up_to_date: bool,
    /// What was sent so far, newest first.
    pub epochs: Vec<DeviceKeyEpoch>,
}

/// A device that keeps an epoch from being retired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochHolder {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: DeviceState,
    /// Whether it acknowledged the epoch, or was only offered it.
    pub key: DeviceKeyState,
    /// When it last authenticated, to the minute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_seen: Option<UnixMillis>,
}

/// A new epoch is asked for, or an old one to be retired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRequest {
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}

/// What advancing or retiring an epoch came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochOutcome {
    /// Whether it was carried out; otherwise it waits for a second person.
    pub done: bool,
    /// The proposal that waits, if it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposal: Option<ProposalId>,
    /// The new epoch, or the retired one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epoch: Option<u32>,
    /// Devices that it concerns.
    pub devices: u64,
    /// Index of the log entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_index: Option<u64>,
}

/// The public keys that every device of the fleet pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePins {
    /// The server's key in key exchanges, SubjectPublicKeyInfo, PEM.
    pub delivery_key_pem: String,
    /// SHA-256 of its DER, hexadecimal.
    pub delivery_key_sha256: String,
    /// The key that signs orders, SubjectPublicKeyInfo, PEM.
    pub order_key_pem: String,
    /// SHA-256 of its DER, hexadecimal.
    pub order_key_sha256: String,
}
