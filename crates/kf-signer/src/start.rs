//! From configuration to a back end that works.

use std::error::Error;
use std::sync::Arc;

use kf_backend::{BackendKind, Deadline, KeyBackend, SoftwareBackend, create_sealed_root, open_sealed_root};
use kf_crypto::Argon2Cost;
use kf_key::SecretBytes;
use kf_pkcs11::{TokenBackend, TokenConfig};

use crate::{SignerConfig, SignerError, secret_source};

/// Reads the secret, creates the root if told to, and opens the back end.
pub(crate) fn open_backend(config: &SignerConfig, create_root: bool) -> Result<Arc<dyn KeyBackend>, SignerError> {
    match config.backend {
        BackendKind::SealedFile => open_sealed_file(config, create_root),
        BackendKind::Pkcs11 => open_token(config, create_root),
        BackendKind::Tpm => open_tpm(config, create_root),
        BackendKind::SecureElement => Err(SignerError::Start(
            "backend = \"secure-element\" is for devices; a server uses sealed-file, pkcs11 or tpm".to_owned(),
        )),
    }
}

fn open_sealed_file(config: &SignerConfig, create_root: bool) -> Result<Arc<dyn KeyBackend>, SignerError> {
    let path = &config.sealed_file.path;
    let what = format!("Passphrase of {}", path.display());
    let passphrase = read_secret(config, &what, create_root)?;
    let root = if create_root {
        create_sealed_root(path, &passphrase, Argon2Cost::FLOOR)
    } else {
        open_sealed_root(path, &passphrase)
    }
    .map_err(|error| start(&error))?;
    let backend = SoftwareBackend::new(root, path.display().to_string()).map_err(|error| start(&error))?;
    Ok(Arc::new(backend))
}

fn open_token(config: &SignerConfig, create_root: bool) -> Result<Arc<dyn KeyBackend>, SignerError> {
    let Some(token) = &config.pkcs11 else {
        return Err(SignerError::Start("backend = \"pkcs11\" needs a [signer.pkcs11] table".to_owned()));
    };
    if !token.module.is_absolute() {
        // A bare name would be looked for along a path that the environment can change.
        return Err(SignerError::Start("signer.pkcs11.module must be an absolute path".to_owned()));
    }
    let pin = read_secret(config, &format!("PIN of token {}", token.token), false)?;
    let token = TokenConfig {
        module: token.module.clone(),
        token: token.token.clone(),
        root_label: token.root_label.clone(),
        reconnect_pause: TokenConfig::RECONNECT_PAUSE,
    };
    if create_root {
        // Exposed to its own copy: creation and use are two logins.
        let pin = SecretBytes::fill(pin.len(), |copy| copy.copy_from_slice(pin.expose()));
        TokenBackend::create_root(&token, pin).map_err(|error| start(&error))?;
    }
    let backend = TokenBackend::open(token, pin).map_err(|error| start(&error))?;
    // A module that hangs must not hang whoever waits for the signer.
    let limited = Deadline::new(Arc::new(backend), Deadline::LIMIT).map_err(|error| start(&error))?;
    Ok(Arc::new(limited))
}

#[cfg(not(feature = "tpm"))]
fn open_tpm(_config: &SignerConfig, _create_root: bool) -> Result<Arc<dyn KeyBackend>, SignerError> {
    Err(SignerError::Start("this program was built without TPM support: build it with --features tpm".to_owned()))
}

#[cfg(feature = "tpm")]
fn open_tpm(config: &SignerConfig, create_root: bool) -> Result<Arc<dyn KeyBackend>, SignerError> {
    use kf_tpm::{Protection, Tpm, TpmAddress, TpmBackend};
    use std::os::unix::fs::DirBuilderExt as _;

    let Some(tpm) = &config.tpm else {
        return Err(SignerError::Start("backend = \"tpm\" needs a [signer.tpm] table".to_owned()));
    };
    let address: TpmAddress = tpm.address.parse().map_err(|error| start(&error))?;
    let pin = read_secret(config, &format!("PIN of the root in the TPM at {address}"), create_root)?;
    let protection = Protection { auth: Some(pin), policy: None };
    let open = Tpm::open(address, kf_tpm::DEFAULT_DEADLINE).map_err(|error| start(&error))?;
    if create_root {
        let mut directory = std::fs::DirBuilder::new();
        directory.recursive(true).mode(0o700).create(&tpm.directory).map_err(|error| start(&error))?;
        TpmBackend::create_root(&open, &tpm.directory, &protection).map_err(|error| start(&error))?;
    }
    let backend = TpmBackend::open(open, &tpm.directory, protection).map_err(|error| start(&error))?;
    Ok(Arc::new(backend))
}

fn read_secret(config: &SignerConfig, what: &str, is_new: bool) -> Result<SecretBytes, SignerError> {
    secret_source::read(&config.unlock, what, is_new).map_err(|error| start(&error))
}

/// An error with its causes in one line, for whoever started the signer.
pub(crate) fn start(error: &dyn Error) -> SignerError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    SignerError::Start(text)
}
