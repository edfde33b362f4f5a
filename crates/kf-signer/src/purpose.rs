//! What a key may be used for, and what the client knows of one.

use kf_backend::BackendKind;
use kf_key::{KeyAlgorithm, KeyId, KeyRole};
use serde::{Deserialize, Serialize};

use crate::KeyHandle;

/// What a signature key may sign. Fixed when it is generated or registered; the signer refuses everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPurpose {
    /// CA certificates, its own root certificate and its own CRL.
    RootCa,
    /// End-entity certificates and its own CRLs; never a CA certificate.
    IssuingCa,
    /// Checkpoints of the log; always Ed25519 (C2SP signed-note).
    LogCheckpoint,
    /// The server's half of key exchanges with devices; always P-256. Devices pin its public key.
    Delivery,
    /// Orders to devices; always P-256. Devices pin its public key.
    Order,
    /// Quotas of factory stations; always P-256. Stations pin its public key.
    BatchAuthorisation,
}

impl KeyPurpose {
    /// Every purpose.
    pub const ALL: [Self; 6] =
        [Self::RootCa, Self::IssuingCa, Self::LogCheckpoint, Self::Delivery, Self::Order, Self::BatchAuthorisation];

    /// Whether a key for this may be of this algorithm, as far as the purpose says.
    pub(crate) fn suits(self, algorithm: KeyAlgorithm) -> bool {
        match self {
            Self::RootCa | Self::IssuingCa => true,
            Self::LogCheckpoint => algorithm == KeyAlgorithm::Ed25519,
            Self::Delivery | Self::Order | Self::BatchAuthorisation => algorithm == KeyAlgorithm::P256,
        }
    }

    /// Whether the key may be software under the root of a token that lacks its algorithm. A CA key may not.
    pub(crate) const fn may_be_wrapped(self) -> bool {
        !matches!(self, Self::RootCa | Self::IssuingCa)
    }

    /// What a key of this purpose that somebody pins is called in links; `None` for one that nobody pins, or that is succeeded
    /// in another way.
    #[must_use]
    pub const fn role(self) -> Option<KeyRole> {
        match self {
            Self::Delivery => Some(KeyRole::Delivery),
            Self::Order => Some(KeyRole::Order),
            Self::BatchAuthorisation => Some(KeyRole::Batch),
            Self::RootCa | Self::IssuingCa | Self::LogCheckpoint => None,
        }
    }

    /// One octet on disk and on the wire; zero is reserved.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::RootCa => 1,
            Self::IssuingCa => 2,
            Self::LogCheckpoint => 3,
            Self::Delivery => 4,
            Self::Order => 5,
            Self::BatchAuthorisation => 6,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.code() == code)
    }
}

/// A key that was just generated; give it to the registry before it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedKey {
    /// Identifier.
    pub key: KeyId,
    /// Purpose.
    pub purpose: KeyPurpose,
    /// Algorithm.
    pub algorithm: KeyAlgorithm,
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// To be stored; opaque.
    pub handle: KeyHandle,
}

/// What the signer must know of a key besides its handle. Public facts, from the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// Purpose.
    pub purpose: KeyPurpose,
    /// DER of the issuer Name that certificates and CRLs of this key must carry. Empty for a log key, and for a root
    /// that has not signed its own certificate yet ([`crate::SignerClient::sign_root`]).
    pub issuer_name: Vec<u8>,
}

/// What the signer's back end declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignerCapabilities {
    /// Kind of back end.
    pub backend: BackendKind,
    /// Algorithms that CA keys can have.
    pub key_algorithms: Vec<KeyAlgorithm>,
    /// Whether the octets to be signed must be durable before a signature is asked for: true for hardware, whose
    /// signature outlives a crash of ours.
    pub needs_preimage_record: bool,
    /// For people: file name, or token label, model and serial number.
    pub description: String,
}
