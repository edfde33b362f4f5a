//! Bootstrap: one-time enrolment codes and enrolments that wait for a person.

use kf_key::{CodeId, DeviceId, EnrolmentId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::ShownOnce;

/// A one-time enrolment code to be made for one registered device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeRequest {
    /// Name or id of the device.
    pub device: String,
    /// Lifetime in hours, 1 to 8,760; 168 (a week) when absent.
    #[serde(default)]
    pub lifetime_hours: Option<u32>,
}

/// A fresh code: the only time it is shown.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewCode {
    /// Identifier of the code, not secret.
    pub id: CodeId,
    /// The device it is bound to.
    pub device: DeviceId,
    /// Name of that device: the user name for EST's HTTP Basic authentication.
    pub device_name: String,
    /// The code: 100 random bits in Crockford base32, grouped, with a check character.
    pub code: ShownOnce,
    /// What a QR label carries: server, device name, code, and the SHA-256 of the server's root.
    pub claim_uri: ShownOnce,
    /// Last moment of validity.
    pub expires: UnixMillis,
}

/// An enrolment code without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Identifier.
    pub id: CodeId,
    /// The device it is bound to.
    pub device: DeviceId,
    /// Last moment of validity.
    pub expires: UnixMillis,
    /// SHA-256 of the only SubjectPublicKeyInfo that it certifies, in hexadecimal; absent: of any key, once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_sha256: Option<String>,
    /// When it was used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used: Option<UnixMillis>,
    /// Whether it was withdrawn.
    pub withdrawn: bool,
}

/// Where a waiting enrolment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnrolmentState {
    /// Waits for a person.
    Waiting,
    /// Approved; the device's next request is granted.
    Approved,
    /// Refused.
    Refused,
    /// Granted and fetched.
    Issued,
}

/// An enrolment that waits for manual approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Identifier.
    pub id: EnrolmentId,
    /// The device.
    pub device: DeviceId,
    /// Name of the device.
    pub device_name: String,
    /// SHA-256 of the SubjectPublicKeyInfo asked for, hexadecimal: compare it with what the installer sees.
    pub spki_sha256: String,
    /// When it was first asked for.
    pub requested: UnixMillis,
    /// Where it stands.
    pub state: EnrolmentState,
}

/// A person's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentDecision {
    /// Grant or refuse.
    pub approve: bool,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}
