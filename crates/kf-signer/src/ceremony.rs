//! Ceremonies with the root: without a server, in a process of their own, by whoever has the passphrase or the PIN.
//!
//! The running signer offers none of this: whoever holds its socket gets derived keys and signatures, and never the root.

use std::sync::Arc;

pub use kf_backend::lock_memory;
use kf_backend::{BackendKind, SoftwareBackend, open_sealed_root, seal_root};
use kf_crypto::Argon2Cost;
use kf_key::{SecretArray, SecretBytes};
use kf_pkcs11::{TokenBackend, TokenConfig};

use crate::start::start;
use crate::{RateCeilings, SignerClient, SignerConfig, SignerError, secret_source};

/// Keeps this process out of dumps and swap, as far as the system allows it.
///
/// # Errors
/// [`SignerError::Start`].
pub fn harden() -> Result<(), SignerError> {
    crate::hardening::harden().map_err(|error| start(&error))
}

/// Takes the root out of its sealed file, to be split.
///
/// # Errors
/// [`SignerError::Start`]; also for a root in a token or a TPM, which never comes out.
pub fn take_root(config: &SignerConfig) -> Result<SecretArray<32>, SignerError> {
    if config.backend != BackendKind::SealedFile {
        return Err(SignerError::Start(
            "a root that was made in a token or TPM never comes out: make it with `keyfleet escrow split --fresh`, and \
             bring it into the token with `keyfleet escrow release`"
                .to_owned(),
        ));
    }
    let path = &config.sealed_file.path;
    let passphrase = secret_source::read(&config.unlock, &format!("Passphrase of {}", path.display()), false)
        .map_err(|error| start(&error))?;
    open_sealed_root(path, &passphrase).map_err(|error| start(&error))
}

/// Brings a root back: into a new sealed file, or into a token that has none.
///
/// # Errors
/// [`SignerError::Start`]; nothing is ever overwritten.
pub fn bring_root(config: &SignerConfig, root: &SecretArray<32>) -> Result<(), SignerError> {
    match (config.backend, &config.pkcs11) {
        (BackendKind::SealedFile, _) => {
            let path = &config.sealed_file.path;
            let passphrase =
                secret_source::read(&config.unlock, &format!("New passphrase of {}", path.display()), true)
                    .map_err(|error| start(&error))?;
            seal_root(path, &passphrase, Argon2Cost::FLOOR, root).map_err(|error| start(&error))
        }
        (BackendKind::Pkcs11, Some(token)) => {
            if !token.module.is_absolute() {
                return Err(SignerError::Start("signer.pkcs11.module must be an absolute path".to_owned()));
            }
            let pin = secret_source::read(&config.unlock, &format!("PIN of token {}", token.token), false)
                .map_err(|error| start(&error))?;
            let token = TokenConfig {
                module: token.module.clone(),
                token: token.token.clone(),
                root_label: token.root_label.clone(),
                reconnect_pause: TokenConfig::RECONNECT_PAUSE,
            };
            TokenBackend::import_root(&token, pin, root).map_err(|error| start(&error))
        }
        _ => Err(SignerError::Start("a root comes back into a sealed file or a PKCS#11 token".to_owned())),
    }
}

/// A signer in this process over a root that was brought back for a rehearsal, and goes with it.
///
/// # Errors
/// [`SignerError`].
pub fn rehearse(root: SecretArray<32>) -> Result<SignerClient, SignerError> {
    let backend = SoftwareBackend::new(root, "rehearsal".to_owned()).map_err(|error| start(&error))?;
    SignerClient::in_process(Arc::new(backend), RateCeilings::default())
}

/// A root from the octets that shares gave.
///
/// # Errors
/// [`SignerError::Start`] for another length.
pub fn root_of(octets: &SecretBytes) -> Result<SecretArray<32>, SignerError> {
    // Exposed to be moved into its type.
    let octets: &[u8; 32] = octets
        .expose()
        .try_into()
        .map_err(|_other| SignerError::Start("the shares give something that is no root".to_owned()))?;
    Ok(SecretArray::fill(|place: &mut [u8; 32]| *place = *octets))
}
