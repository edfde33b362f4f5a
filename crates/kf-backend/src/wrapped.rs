//! Signature keys in software, wrapped under a key derived from the root.
#![allow(missing_docs)]

use kf_crypto::PrivateKey;
use kf_derive::{FleetRoot, Purpose, SoftwareKey};
use kf_key::{KeyAlgorithm, KeyId, SecretArray};

use crate::handle::algorithm_code;
use crate::{BackendError, GeneratedKeyPair, KeyBackend, KeyHandle, SignatureKey};

const EPOCH: u32 = 1;

/// Generates a key pair in software and wraps it under the root of `backend`. For keys that the hardware cannot hold
/// (Ed25519 in many tokens) and whose policy allows software.
///
/// # Errors
/// [`BackendError::Algorithm`] for RSA, [`BackendError::Crypto`], or whatever the back end reports.
pub fn generate_wrapped(
    backend: &dyn KeyBackend,
    key: KeyId,
    algorithm: KeyAlgorithm,
) -> Result<GeneratedKeyPair, BackendError> {
    if !algorithm.may_sign_certificates() {
        return Err(BackendError::Algorithm(algorithm));
    }
    let wrapping = wrapping_key(backend)?;
    let pair = PrivateKey::generate(algorithm).map_err(crypto)?;
    let pkcs8 = pair.to_pkcs8().map_err(crypto)?;
    // Exposed to be wrapped.
    let sealed = kf_crypto::seal(&wrapping, &context(key, algorithm), pkcs8.expose()).map_err(crypto)?;
    Ok(GeneratedKeyPair { spki: pair.spki(), handle: KeyHandle::Wrapped { algorithm, sealed } })
}

/// Opens a key made by [`generate_wrapped`].
///
/// # Errors
/// [`BackendError::Handle`] when it was wrapped under another root, for another key identifier or algorithm.
pub fn open_wrapped(
    backend: &dyn KeyBackend,
    key: KeyId,
    algorithm: KeyAlgorithm,
    sealed: &[u8],
) -> Result<Box<dyn SignatureKey>, BackendError> {
    let wrapping = wrapping_key(backend)?;
    let pkcs8 = kf_crypto::open(&wrapping, &context(key, algorithm), sealed).map_err(|_opaque| BackendError::Handle)?;
    let pair = PrivateKey::from_pkcs8(algorithm, &pkcs8).map_err(|_opaque| BackendError::Handle)?;
    let spki = pair.spki();
    Ok(Box::new(WrappedKey { pair, spki }))
}

fn wrapping_key(backend: &dyn KeyBackend) -> Result<SecretArray<32>, BackendError> {
    let info = FleetRoot::<SoftwareKey>::wrapping_info(Purpose::WrapSignatureKey, EPOCH)
        .map_err(|_too_long| BackendError::Bug("wrapping info"))?;
    backend.expand_root(&info)
}

/// What a wrapped key is bound to: key identifier, then algorithm.
fn context(key: KeyId, algorithm: KeyAlgorithm) -> Vec<u8> {
    let mut context = key.as_bytes().to_vec();
    context.push(algorithm_code(algorithm));
    context
}

pub(crate) fn crypto(_opaque: kf_crypto::CryptoError) -> BackendError {
    BackendError::Crypto
}

struct WrappedKey {
    pair: PrivateKey,
    spki: Vec<u8>,
}

impl SignatureKey for WrappedKey {
    fn algorithm(&self) -> KeyAlgorithm {
        self.pair.algorithm()
    }

    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BackendError> {
        self.pair.sign(message).map_err(crypto)
    }
}
