//! Manufacturers of devices made elsewhere, and which device may use which of their IDevIDs (IEEE 802.1AR).

use kf_key::{DeviceId, UnixMillis, VendorId};
use serde::{Deserialize, Serialize};

/// A manufacturer whose IDevIDs bootstrap devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vendor {
    /// Identifier.
    pub id: VendorId,
    /// Unique name.
    pub name: String,
    /// Subject of its CA certificate.
    pub subject: String,
    /// The CA certificate that its IDevIDs must lead to.
    pub anchor_pem: String,
    /// When that certificate ends.
    pub not_after: UnixMillis,
    /// When it was added.
    pub created: UnixMillis,
    /// When the trust was withdrawn: no IDevID of its bootstraps a device since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub withdrawn: Option<UnixMillis>,
}

/// A manufacturer to be trusted for the devices that are imported under it, and for no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVendor {
    /// Unique name.
    pub name: String,
    /// Its CA certificate: a root, or the issuing CA itself.
    pub anchor_pem: String,
}

/// One device of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorRow {
    /// The device's name in the registry; the identifier when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the certificate says the device is: the serialNumber of its subject, else its common name. Needed only without
    /// a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// The IDevID and the CA certificates below the anchor, PEM, the IDevID first. Absent: the first certificate of the
    /// vendor's with this identifier that enrols becomes the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_pem: Option<String>,
}

/// Devices to be imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorImport {
    /// Name or id of the facility.
    pub facility: String,
    /// Name or id of the product line.
    pub product_line: String,
    /// Where the rows are from, for the log; at most 200 characters.
    #[serde(default)]
    pub source: String,
    /// Check every row, write nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The devices, at most 10,000 in one call.
    pub rows: Vec<VendorRow>,
}

/// A device that bootstraps by a manufacturer's IDevID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VendorDevice {
    /// The device.
    pub device: DeviceId,
    /// Its manufacturer.
    pub vendor: VendorId,
    /// What its certificate says it is.
    pub identifier: String,
    /// SHA-256 of the only certificate that it may use, in hexadecimal; absent until its first use.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate_sha256: Option<String>,
    /// When it was first used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_used: Option<UnixMillis>,
}
