//! What a back end can do, declared before it is asked.

use kf_key::KeyAlgorithm;
use serde::{Deserialize, Serialize};

/// Which kind of back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// The root in a file sealed under a passphrase or under a key that a chip holds; CA keys wrapped under the root.
    SealedFile,
    /// Root and CA keys in a PKCS#11 token.
    Pkcs11,
    /// Root and CA keys in a TPM 2.0.
    Tpm,
    /// Root and keys in a secure element of the ATECC608 class: for devices and gateways, too slow and too small for a fleet.
    SecureElement,
}

/// What the key that a back end holds may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootUse {
    /// The key can be replaced, so the tree is derived from it.
    Derives,
    /// The key is in the chip for good (eFuses, a locked slot), so it only wraps: the key from which the tree is derived
    /// lies wrapped under it and can be replaced.
    OnlyWraps,
}

/// What a back end declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Kind.
    pub kind: BackendKind,
    /// Algorithms of the key pairs that it generates and holds itself.
    pub key_algorithms: Vec<KeyAlgorithm>,
    /// Whether private keys live in hardware that never releases them. A signature made there outlives a crash of ours,
    /// so the octets to be signed must be on disk before it is asked for.
    pub is_hardware: bool,
    /// What its root may be used for. What is refused is refused before the hardware is asked.
    pub root_use: RootUse,
    /// How the back end names itself: file name, or token label, model and serial number. For people.
    pub description: String,
}

impl Capabilities {
    /// Whether the back end itself generates and holds keys of `algorithm`.
    #[must_use]
    pub fn holds(&self, algorithm: KeyAlgorithm) -> bool {
        self.key_algorithms.contains(&algorithm)
    }
}
