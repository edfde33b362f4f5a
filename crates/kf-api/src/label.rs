//! Labels that a factory station printed, and the claims that installers make with them.

use kf_key::{DeviceId, FacilityId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::ShownOnce;

/// Where a label stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelState {
    /// Its owner has not let the device go.
    Kept,
    /// It may be claimed by whoever holds the label and may act for a facility.
    Released,
    /// It was claimed, and waits for the device.
    Claimed,
    /// The device enrolled, and belongs to who claimed it.
    Taken,
}

/// A device's label, without its code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The device.
    pub device: DeviceId,
    /// Where it stands.
    pub state: LabelState,
    /// SHA-256 of the device key's SubjectPublicKeyInfo, in hexadecimal.
    pub key_sha256: String,
    /// When its owner let the device go.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub released: Option<UnixMillis>,
    /// The facility that it was claimed for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// When the claim ends unless the device has enrolled.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<UnixMillis>,
}

/// What is to be let go: a device, or all of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Name or id of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Name or id of a batch: every device of it that is still at the batch's facility.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// Why, for the log; at most 500 characters.
    #[serde(default)]
    pub why: String,
}

/// How many devices were let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Devices that may be claimed since.
    pub devices: u64,
}

/// A claim: what the label says, and where the device is to belong.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Name of the device.
    pub device: String,
    /// The one-time code.
    pub code: ShownOnce,
    /// SHA-256 of the device key's SubjectPublicKeyInfo, in hexadecimal, where the label has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_sha256: Option<String>,
    /// Name or id of the facility.
    pub facility: String,
}
