//! Keys in a PKCS#11 token. What is stored is the label.

use std::sync::Arc;

use kf_backend::{BackendError, SignatureKey, TokenFault};
use kf_client::TlsKey;
use kf_crypto::CryptoError;
use kf_key::{KeyAlgorithm, KeyId, SecretArray, SecretBytes, UnixMillis};
use kf_pkcs11::SignatureToken;

use super::{DeviceKey, HardwareFault, KeyError, KeySource, WRAPPING_LABEL};

const IN_TOKEN: u8 = 4;
/// Before the labels of keys that a factory station had made: found, and never destroyed.
const FROM_FACTORY: &str = "keyfleet-idevid ";
/// The most octets of a label of ours.
const MAX_LABEL_OCTETS: usize = 160;

/// Keys of one device in a token, told from those of others by their labels.
#[derive(Debug)]
pub(crate) struct TokenKeys {
    token: SignatureToken,
    prefix: String,
}

impl TokenKeys {
    /// Logs in. `device_name` marks this device's keys.
    ///
    /// # Errors
    /// [`KeyError::Hardware`].
    pub(crate) fn open(
        module: std::path::PathBuf,
        token: String,
        pin: SecretBytes,
        device_name: &str,
    ) -> Result<Self, KeyError> {
        let prefix = format!("keyfleet-agent {device_name} ");
        let wrapping = format!("{prefix}wrapping");
        let token = SignatureToken::with_wrapping_key(module, token, pin, wrapping).map_err(|error| fault(&error))?;
        Ok(Self { token, prefix })
    }

    fn label_of<'a>(&self, stored: &'a SecretBytes) -> Result<&'a str, KeyError> {
        // Exposed to be read: a label is no secret.
        let [IN_TOKEN, label @ ..] = stored.expose() else { return Err(KeyError::Open) };
        let label = std::str::from_utf8(label).map_err(|_not_text| KeyError::Open)?;
        if label.len() > MAX_LABEL_OCTETS || !label.starts_with(&self.prefix) {
            return Err(KeyError::Open);
        }
        Ok(label)
    }

    fn open_key(&self, label: &str) -> Result<Box<dyn DeviceKey>, KeyError> {
        let key = self.token.key(label).map_err(|error| fault(&error))?;
        Ok(device_key(key))
    }
}

impl KeySource for TokenKeys {
    fn generate(&self) -> Result<(Box<dyn DeviceKey>, SecretBytes), KeyError> {
        let random = kf_crypto::random_array().map_err(|_opaque| KeyError::Generate)?;
        let id = KeyId::from_parts(UnixMillis(0), random);
        let label = format!("{}{id}", self.prefix);
        self.token.generate(&label, id).map_err(|error| fault(&error))?;
        let stored = SecretBytes::from_vec([&[IN_TOKEN], label.as_bytes()].concat());
        Ok((self.open_key(&label)?, stored))
    }

    fn load(&self, stored: &SecretBytes) -> Result<Box<dyn DeviceKey>, KeyError> {
        // Exposed to be read: a label is no secret.
        if let [IN_TOKEN, label @ ..] = stored.expose()
            && let Ok(label) = std::str::from_utf8(label)
            && label.starts_with(FROM_FACTORY)
            && label.len() <= MAX_LABEL_OCTETS
        {
            return self.open_key(label);
        }
        self.open_key(self.label_of(stored)?)
    }

    fn keep_only(&self, stored: &[&SecretBytes]) -> Result<(), KeyError> {
        let kept: Vec<&str> = stored.iter().filter_map(|stored| self.label_of(stored).ok()).collect();
        for label in self.token.labels(&self.prefix).map_err(|error| fault(&error))? {
            if !kept.contains(&label.as_str()) {
                self.token.destroy(&label).map_err(|error| fault(&error))?;
            }
        }
        Ok(())
    }

    fn wrapping_key(&self) -> Result<Option<SecretArray<32>>, KeyError> {
        self.token.wrapping_key(WRAPPING_LABEL).map(Some).map_err(|error| fault(&error))
    }

    fn destroy_all(&self) -> Result<(), KeyError> {
        self.keep_only(&[])?;
        self.token.destroy_wrapping_key().map_err(|error| fault(&error))?;
        let left = self.token.labels(&self.prefix).map_err(|error| fault(&error))?;
        if left.is_empty() { Ok(()) } else { Err(KeyError::Hardware(HardwareFault::Refused)) }
    }

    fn is_protected_at_rest(&self) -> bool {
        true
    }
}

pub(super) fn fault(error: &BackendError) -> KeyError {
    KeyError::Hardware(match error {
        BackendError::Token(TokenFault::Login) => HardwareFault::Authorization,
        BackendError::Token(TokenFault::Module | TokenFault::Label { .. }) => HardwareFault::Unreachable,
        BackendError::Token(TokenFault::Pause | TokenFault::Late { .. }) => HardwareFault::Late,
        BackendError::Token(_) => HardwareFault::Vanished,
        BackendError::MissingKey { .. } => HardwareFault::OtherDevice,
        _ => HardwareFault::Refused,
    })
}

/// A key behind a back end.
struct TokenKey(Arc<Signing>);

/// A key that a back end opened, as the agent uses it.
pub(super) fn device_key(key: Box<dyn SignatureKey>) -> Box<dyn DeviceKey> {
    Box::new(TokenKey(Arc::new(Signing(key))))
}

struct Signing(Box<dyn SignatureKey>);

impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").finish_non_exhaustive()
    }
}

impl TlsKey for Signing {
    fn algorithm(&self) -> KeyAlgorithm {
        self.0.algorithm()
    }

    fn spki(&self) -> Vec<u8> {
        self.0.spki().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.0.sign(message).map_err(|error| {
            tracing::error!(%error, "the hardware did not sign");
            CryptoError
        })
    }
}

impl DeviceKey for TokenKey {
    fn tls_key(&self) -> Arc<dyn TlsKey> {
        self.0.clone()
    }

    fn certification_request(&self) -> Result<Vec<u8>, KeyError> {
        let key = &self.0.0;
        kf_pki::request::make_request_with(key.algorithm(), key.spki(), "", |message| key.sign(message).ok())
            .map_err(|_refused| KeyError::Sign)
    }
}
