//! Proof that a device's key lives in its TPM: a challenge, and its answer.

use kf_key::UnixMillis;
use serde::{Deserialize, Serialize};

/// What the answer to a challenge is a MAC over, before the challenge's id: HMAC-SHA-256 under the secret that the TPM
/// decrypted.
pub const ANSWER_LABEL: &[u8] = b"keyfleet endorsement answer v1";

/// A device's request to prove a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorsementRequest {
    /// Public area of the key (TPMT_PUBLIC), base64.
    pub public_area: String,
    /// Certificate of the TPM's endorsement key, DER in base64.
    pub endorsement_certificate: String,
    /// The certificates between it and its maker's root, DER in base64, at most 8.
    #[serde(default)]
    pub issuers: Vec<String>,
}

/// What only that TPM with that key can decrypt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndorsementChallenge {
    /// Names the challenge: 32 hexadecimal digits.
    pub id: String,
    /// TPMS_ID_OBJECT, base64.
    pub credential: String,
    /// TPM2B_ENCRYPTED_SECRET without its length, base64.
    pub encrypted_seed: String,
    /// The last moment at which an answer counts.
    pub expires: UnixMillis,
}

/// The answer. One try per challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorsementAnswer {
    /// HMAC-SHA-256 under the decrypted secret over [`ANSWER_LABEL`] and the 16 octets of the id, 64 hexadecimal digits.
    pub answer: String,
}

/// A key that was proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endorsement {
    /// SHA-256 of the key's SubjectPublicKeyInfo, hexadecimal.
    pub spki_sha256: String,
    /// SHA-256 of the endorsement key's SubjectPublicKeyInfo, hexadecimal.
    pub endorsement_key_sha256: String,
}
