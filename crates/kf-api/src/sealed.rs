//! Sealed payloads: envelopes to be opened, and commands to be sealed. Octets travel as base64 (RFC 4648 section 4).

use std::fmt;

use kf_key::{DeviceId, FacilityId};
use serde::{Deserialize, Serialize};

/// The most payloads in one request.
pub const MAX_PAYLOADS: usize = 32;

/// Payloads to be opened, each judged by itself, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    /// From 1 to [`MAX_PAYLOADS`].
    pub payloads: Vec<SealedPayload>,
}

/// A sealed payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedPayload {
    /// The COSE_Encrypt0, base64.
    pub envelope: String,
    /// The external additional data that the sender bound it to, base64; usually none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub external_aad: String,
}

/// What became of the payloads of a request, in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAnswer {
    /// One for each.
    pub payloads: Vec<OpenOutcome>,
}

/// What became of one payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum OpenOutcome {
    /// It is authentic and new.
    Opened(Opened),
    /// It was not opened.
    Refused {
        /// Why.
        refusal: OpenRefusal,
        /// In a sentence.
        problem: String,
    },
}

/// An opened payload.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Who sealed it.
    pub device: DeviceId,
    /// The device's name.
    pub device_name: String,
    /// The facility that the device belongs to.
    pub facility: FacilityId,
    /// What for.
    pub service: String,
    /// Epoch of the facility's key.
    pub facility_epoch: u32,
    /// Epoch of the device's key.
    pub device_epoch: u32,
    /// The mixed session that it was sealed in, hexadecimal; absent for a key that the root gives again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Number of the device's boot.
    pub boot_number: u32,
    /// Counter within the boot.
    pub counter: u32,
    /// What was sealed, base64.
    pub plaintext: String,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, service, boot_number, counter, plaintext, .. } = self;
        write!(f, "Opened({device} {service} {boot_number}.{counter}, {} characters)", plaintext.len())
    }
}

/// Why a payload was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenRefusal {
    /// It is no sealed payload.
    Malformed,
    /// It is a payload of the server to a device.
    Direction,
    /// There is no such device here, or it never had such a key.
    UnknownKey,
    /// The device is suspended, quarantined or decommissioned.
    Barred,
    /// The device has acknowledged a newer key, or the epoch is retired.
    Superseded,
    /// Its mixed session is over, or was never agreed with this server.
    UnknownSession,
    /// It is not what the holder of the key sealed. No more is known.
    NotAuthentic,
    /// It was opened before.
    Replayed,
    /// It is so old that it may have been opened before.
    TooOld,
    /// The server cannot tell whether it was opened before: its own record is damaged.
    DamagedRecord,
}

impl OpenRefusal {
    /// The name in answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Direction => "direction",
            Self::UnknownKey => "unknown-key",
            Self::Barred => "barred",
            Self::Superseded => "superseded",
            Self::UnknownSession => "unknown-session",
            Self::NotAuthentic => "not-authentic",
            Self::Replayed => "replayed",
            Self::TooOld => "too-old",
            Self::DamagedRecord => "damaged-record",
        }
    }
}

/// A payload to be sealed for a device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealRequest {
    /// Name or id of the device.
    pub device: String,
    /// What for: 1 to 16 characters of `a-z`, `0-9`, `-`.
    pub service: String,
    /// What to seal, base64.
    pub plaintext: String,
    /// External additional data to bind it to, base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub external_aad: String,
    /// `aes-128-ccm`, `aes-128-gcm` or `chacha20-poly1305`.
    pub algorithm: String,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}

impl fmt::Debug for SealRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, service, plaintext, .. } = self;
        write!(f, "SealRequest({device} {service}, {} characters)", plaintext.len())
    }
}

/// A payload sealed for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealAnswer {
    /// For whom.
    pub device: DeviceId,
    /// The COSE_Encrypt0, base64.
    pub envelope: String,
}
