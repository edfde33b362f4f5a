//! The root in this process, from a sealed file.

use kf_derive::{Info, SoftwareKey};
use kf_key::{KeyAlgorithm, KeyId, SecretArray};

use crate::{
    BackendError, BackendKind, Capabilities, GeneratedKeyPair, KeyBackend, KeyHandle, RootUse, SignatureKey,
    generate_wrapped, key_check_info, open_wrapped,
};

/// Root in memory, signature keys wrapped under it.
#[derive(Debug)]
pub struct SoftwareBackend {
    root: SoftwareKey,
    key_check: SecretArray<32>,
    capabilities: Capabilities,
}

impl SoftwareBackend {
    /// A back end over `root`, described as `description`.
    ///
    /// # Errors
    /// [`BackendError::Bug`], which cannot occur.
    pub fn new(root: SecretArray<32>, description: String) -> Result<Self, BackendError> {
        let capabilities = Capabilities {
            kind: BackendKind::SealedFile,
            key_algorithms: KeyAlgorithm::ALL
                .into_iter()
                .filter(|algorithm| algorithm.may_sign_certificates())
                .collect(),
            is_hardware: false,
            root_use: RootUse::Derives,
            description,
        };
        let root = SoftwareKey::new(root);
        let key_check = expand(&root, &key_check_info()?);
        Ok(Self { root, key_check, capabilities })
    }
}

impl KeyBackend for SoftwareBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn expand_root(&self, info: &Info) -> Result<SecretArray<32>, BackendError> {
        Ok(expand(&self.root, info))
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
        let now = expand(&self.root, &key_check_info()?);
        if now.equals(&self.key_check) { Ok(()) } else { Err(BackendError::Bug("the root changed in memory")) }
    }
}

fn expand(root: &SoftwareKey, info: &Info) -> SecretArray<32> {
    match kf_derive::expand(root, info) {
        Ok(key) => key.into_secret(),
        Err(never) => match never {},
    }
}
