//! Devices.

use std::collections::BTreeMap;

use kf_key::{DeviceId, DeviceState, FacilityId, KeyProtection, ProductLineId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::audit::AuditRecord;
use crate::certificate::Certificate;

/// A device in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Identifier.
    pub id: DeviceId,
    /// Unique name, which becomes the common name of its certificates: 1 to 64 characters of `A-Z`, `a-z`, `0-9`,
    /// `-`, `.`, `_`, `:`, starting with a letter or digit.
    pub name: String,
    /// The facility whose operators may act on it.
    pub facility: FacilityId,
    /// The product line whose policy it follows.
    pub product_line: ProductLineId,
    /// Where it stands.
    pub state: DeviceState,
    /// The batch it was made in, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch: Option<String>,
    /// Facts kept with the device, at most 32 of at most 64 + 256 characters.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// How it says its key is protected.
    pub protection: KeyProtection,
    /// When it was registered.
    pub created: UnixMillis,
    /// When it last authenticated, to the minute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_seen: Option<UnixMillis>,
}

/// A device to be registered; also one row of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    /// Unique name.
    pub name: String,
    /// Name or id of the facility.
    pub facility: String,
    /// Name or id of the product line.
    pub product_line: String,
    /// The batch it was made in.
    #[serde(default)]
    pub batch: Option<String>,
    /// Facts to keep.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// Which devices to list. Every given field must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceFilter {
    /// Name or id of the facility.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facility: Option<String>,
    /// Name or id of the product line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_line: Option<String>,
    /// State.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DeviceState>,
    /// Batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// First characters of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_prefix: Option<String>,
    /// See [`crate::PageRequest::after`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// See [`crate::PageRequest::limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A device with everything that happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceHistory {
    /// The device.
    pub device: Device,
    /// Name of its facility.
    pub facility_name: String,
    /// Name of its product line.
    pub product_line_name: String,
    /// Its certificates, newest first.
    pub certificates: Vec<Certificate>,
    /// What is unsafe about it, for ever: a station made it so.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unsafe_marks: Vec<String>,
    /// Its log entries, oldest first.
    pub events: Vec<AuditRecord>,
}

/// What to do with a device's place in the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceAct {
    /// Hold its certificates; it may come back.
    Suspend,
    /// Hold its certificates, cut its sessions; it is under suspicion.
    Quarantine,
    /// Release it from suspension or quarantine.
    Resume,
    /// Revoke its LDevIDs and bar its re-enrolment, in one act. Final.
    Decommission,
}

/// Why a device leaves, which decides whether its IDevID dies too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Departure {
    /// Sold, returned or retired: the IDevID stays good for the next owner.
    #[default]
    Retired,
    /// Destroyed: the IDevID is revoked (cessationOfOperation).
    Scrapped,
    /// Stolen: the IDevID is revoked (keyCompromise).
    Stolen,
}

/// A change of device state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceActRequest {
    /// What to do.
    pub act: DeviceAct,
    /// Why, for the log; at most 500 characters.
    #[serde(default)]
    pub why: String,
    /// For `decommission`: why the device leaves.
    #[serde(default)]
    pub departure: Departure,
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The encoding of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportFormat {
    /// Header line `name,facility,product_line[,batch][,attr.<key>…]`, RFC 4180.
    Csv,
    /// An array of [`NewDevice`].
    Json,
}

/// A row of an import that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowError {
    /// Row number; the first row of data is 1.
    pub row: u64,
    /// The field that is wrong.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// What an import did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// Whether nothing was written because that was asked for.
    pub dry_run: bool,
    /// Rows read.
    pub rows: u64,
    /// Devices registered, or that would be.
    pub registered: u64,
    /// Rows whose device was there already, with the same facts: an import that is sent again resumes.
    pub already_there: u64,
    /// Rows refused, at most the first 1,000; a refused row is not written, the others are.
    pub errors: Vec<RowError>,
    /// How many rows were refused in all.
    pub refused: u64,
}
