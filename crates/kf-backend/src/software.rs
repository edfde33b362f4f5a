//! The root in this process, from a sealed file.

use kf_derive::{Info, KeyedHmac, SoftwareKey};
use kf_key::{KeyAlgorithm, KeyId, SecretArray};

use crate::{
    BackendError, BackendKind, Capabilities, GeneratedKeyPair, KeyBackend, KeyHandle, SignatureKey, generate_wrapped,
    open_wrapped,
};

/// Root in memory, signature keys wrapped under it.
#[derive(Debug)]
pub struct SoftwareBackend {
    root: SoftwareKey,
    capabilities: Capabilities,
}

impl SoftwareBackend {
    /// A back end over `root`, described as `description`.
    #[must_use]
    pub fn new(root: SecretArray<32>, description: String) -> Self {
        let capabilities = Capabilities {
            kind: BackendKind::SealedFile,
            key_algorithms: vec![KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519],
            is_hardware: false,
            description,
        };
        Self { root: SoftwareKey::new(root), capabilities }
    }
}

impl KeyBackend for SoftwareBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn expand_root(&self, info: &Info) -> Result<SecretArray<32>, BackendError> {
        SecretArray::try_fill(|tag| self.root.hmac_sha256(info.hmac_message(), tag))
            .map_err(|never: core::convert::Infallible| match never {})
    }

    fn generate_key_pair(&self, key: KeyId, algorithm: KeyAlgorithm) -> Result<GeneratedKeyPair, BackendError> {
        generate_wrapped(self, key, algorithm)
    }

    fn open_key(&self, key: KeyId, handle: &KeyHandle) -> Result<Box<dyn SignatureKey>, BackendError> {
        match handle {
            KeyHandle::Wrapped { algorithm, sealed } => open_wrapped(self, key, *algorithm, sealed),
            KeyHandle::Token { .. } => Err(BackendError::Handle),
        }
    }

    fn destroy_key(&self, key: KeyId, handle: &KeyHandle) -> Result<(), BackendError> {
        // Nothing is held here: the wrapped key ends with its handle. Opening it first refuses a foreign one.
        self.open_key(key, handle).map(drop)
    }

    fn health(&self) -> Result<(), BackendError> {
        Ok(())
    }
}
