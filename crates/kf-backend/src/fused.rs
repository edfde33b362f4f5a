//! A key that a chip holds for good, and the replaceable key below it.

use kf_derive::{Algorithm, Info, KeyedHmac, Level, Purpose};
use kf_key::{KeyAlgorithm, KeyId, SecretArray};

use crate::wrapped::crypto;
use crate::{
    BackendError, BackendKind, Capabilities, GeneratedKeyPair, KeyBackend, KeyHandle, RootUse, SignatureKey,
    generate_wrapped, key_check_info, open_wrapped,
};

/// What a wrapped replaceable key is bound to, before its epoch.
const CONTEXT: &[u8] = b"keyfleet replaceable key";

/// A back end over a chip that offers one HMAC-SHA-256 under a key that it never gives away and nobody can replace: an
/// eFuse block behind an HMAC peripheral, a slot that was locked. It wraps, and refuses to derive a tree.
#[derive(Debug)]
pub struct FusedBackend<H> {
    chip: H,
    key_check: SecretArray<32>,
    capabilities: Capabilities,
}

impl<H: KeyedHmac<Error = BackendError>> FusedBackend<H> {
    /// A back end over `chip`, described as `description`.
    ///
    /// # Errors
    /// What the chip reports.
    pub fn new(chip: H, description: String) -> Result<Self, BackendError> {
        let capabilities = Capabilities {
            kind: BackendKind::SealedFile,
            key_algorithms: KeyAlgorithm::ALL
                .into_iter()
                .filter(|algorithm| algorithm.may_sign_certificates())
                .collect(),
            is_hardware: false,
            root_use: RootUse::OnlyWraps,
            description,
        };
        let key_check = hmac(&chip, &key_check_info()?)?;
        Ok(Self { chip, key_check, capabilities })
    }
}

fn hmac<H: KeyedHmac<Error = BackendError>>(chip: &H, info: &Info) -> Result<SecretArray<32>, BackendError> {
    SecretArray::try_fill(|tag| chip.hmac_sha256(info.hmac_message(), tag))
}

impl<H: KeyedHmac<Error = BackendError> + Send + Sync> KeyBackend for FusedBackend<H> {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn expand_root(&self, info: &Info) -> Result<SecretArray<32>, BackendError> {
        if info.level() != Level::Wrapping {
            return Err(BackendError::OnlyWraps);
        }
        hmac(&self.chip, info)
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
        self.open_key(key, handle).map(drop)
    }

    fn health(&self) -> Result<(), BackendError> {
        let now = hmac(&self.chip, &key_check_info()?)?;
        if now.equals(&self.key_check) { Ok(()) } else { Err(BackendError::OtherRoot) }
    }
}

/// Wraps a key under what `backend` holds, bound to its epoch. To replace the key, wrap another one under the next
/// epoch and destroy the old octets; the chip's key stays as it is.
///
/// # Errors
/// What the back end reports; [`BackendError::Crypto`].
pub fn wrap_replaceable(backend: &dyn KeyBackend, epoch: u32, key: &SecretArray<32>) -> Result<Vec<u8>, BackendError> {
    // Exposed to be wrapped.
    kf_crypto::seal(&wrapping_key(backend, epoch)?, &context(epoch), key.expose()).map_err(crypto)
}

/// Opens what [`wrap_replaceable`] made.
///
/// # Errors
/// [`BackendError::Handle`] when it was wrapped under another chip's key or for another epoch, or altered.
pub fn unwrap_replaceable(
    backend: &dyn KeyBackend,
    epoch: u32,
    wrapped: &[u8],
) -> Result<SecretArray<32>, BackendError> {
    let opened = kf_crypto::open(&wrapping_key(backend, epoch)?, &context(epoch), wrapped)
        .map_err(|_opaque| BackendError::Handle)?;
    // Exposed to be moved into its type.
    let octets: &[u8; 32] = opened.expose().try_into().map_err(|_other_length| BackendError::Handle)?;
    Ok(SecretArray::fill(|key| key.copy_from_slice(octets)))
}

fn wrapping_key(backend: &dyn KeyBackend, epoch: u32) -> Result<SecretArray<32>, BackendError> {
    let info = Info::new(Level::Wrapping, Algorithm::Aes256Gcm, Purpose::WrapReplaceableKey, &[], epoch)
        .map_err(|_too_long| BackendError::Bug("wrapping info"))?;
    backend.expand_root(&info)
}

fn context(epoch: u32) -> Vec<u8> {
    [CONTEXT, &epoch.to_be_bytes()].concat()
}
