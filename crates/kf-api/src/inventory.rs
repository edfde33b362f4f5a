//! The key inventory: every key that the server knows of, without the keys.

use kf_key::{DeviceId, FacilityId, KeyProtection, KeyState, KeyType, ProductLineId, SerialNumber, UnixMillis};
use serde::{Deserialize, Serialize};

/// Where a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPlace {
    /// In the file that holds the root, sealed.
    RootFile,
    /// In the file of wrapping keys, sealed under the root.
    WrappingFile,
    /// In hardware of the server: a token or a TPM.
    Hardware,
    /// In the registry, wrapped under the root.
    Registry,
    /// Nowhere: derived from its parent when it is used.
    Derived,
    /// In the memory of the server, and lost with its process.
    ServerMemory,
    /// On the device.
    Device,
    /// At a factory station.
    Station,
    /// With an operator.
    Operator,
}

/// A key, with what the policy of the server says of it at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryKey {
    /// What identifies it: `key_…`, `root`, `wrap:VERSION`, `fac_…/EPOCH`, `batch_…`, `dev_…/FACILITY-EPOCH.DEVICE-EPOCH`, `cert:…`.
    pub key: String,
    /// What it is of: a CA, a device, a facility.
    pub name: String,
    /// Its class, as policies call it.
    pub class: String,
    /// Its type (SP 800-57 Part 1 section 5.1.1).
    pub key_type: KeyType,
    /// Its state (SP 800-57 Part 1 section 7), as far as this server can know it.
    pub state: KeyState,
    /// Its algorithm.
    pub algorithm: String,
    /// Its length in bits.
    pub size_bits: u16,
    /// Its security strength in bits (SP 800-57 Part 1 section 5.6.1).
    pub strength_bits: u16,
    /// Where it is.
    pub place: KeyPlace,
    /// How it is protected there; a device's key as the device says.
    pub protection: KeyProtection,
    /// When it was made, or first sent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created: Option<UnixMillis>,
    /// When it became active.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub activated: Option<UnixMillis>,
    /// Whole days since then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub age_days: Option<u64>,
    /// The last moment of its certificate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<UnixMillis>,
    /// When time alone makes its successor due.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rotate_at: Option<UnixMillis>,
    /// How often it protected something, where that is counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uses: Option<u64>,
    /// How many objects or rows it protects at this moment, where that is counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub protects: Option<u64>,
    /// Whether its successor has taken over.
    pub succeeded: bool,
    /// What the policy says: `good`, `due`, `overdue`, `succeeded`, `processing-only`, `algorithm` or `ended`.
    pub verdict: String,
    /// Why, in words.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub because: String,
    /// The facility that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// The product line of its device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub product_line: Option<ProductLineId>,
    /// Its device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<DeviceId>,
    /// The certificate of its public half.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate: Option<SerialNumber>,
    /// SHA-256 of the SubjectPublicKeyInfo, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spki_sha256: Option<String>,
}

/// Which keys to list. Every given field must match. Keys that have ended are left out unless a state or a verdict is
/// asked for, or `ended`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InventoryFilter {
    /// Class, as policies call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// State.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<KeyState>,
    /// Name or id of the facility.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facility: Option<String>,
    /// Name or id of the product line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_line: Option<String>,
    /// Verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Only keys that somebody has to do something about: due, overdue, of a refused algorithm, or due before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_before: Option<UnixMillis>,
    /// Also keys that have ended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// See [`crate::PageRequest::after`]. A page may hold fewer rows than asked for, even none, and have a `next`: rows
    /// that do not match were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// See [`crate::PageRequest::limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
