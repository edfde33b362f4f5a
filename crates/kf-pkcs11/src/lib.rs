//! The root and CA keys in a PKCS#11 token.
//!
//! The root is a non-extractable CKK_GENERIC_SECRET used with CKM_SHA256_HMAC and nothing else; CA keys are
//! non-extractable EC key pairs. Objects are found by label, and every attribute is set explicitly, because defaults
//! differ between tokens. A token is treated as one queue: one session behind one lock (more sessions bring nothing).
//! When the token or the session vanishes, the module is initialised anew, the login repeated and an idempotent call
//! tried once more.
//!
//! A PKCS#11 module is initialised per process, not per instance: one [`TokenBackend`] per module and process.
#![forbid(unsafe_code)]

mod attributes;
mod connection;
mod fault;
mod key;
mod root;
mod signature_token;
mod station_token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kf_backend::{
    BackendError, BackendKind, Capabilities, GeneratedKeyPair, KeyBackend, KeyHandle, RootUse, SignatureKey,
    key_check_info, open_wrapped,
};
use kf_derive::Info;
use kf_key::{KeyAlgorithm, KeyId, SecretArray, SecretBytes};

pub use signature_token::SignatureToken;
pub use station_token::StationModule;

use connection::Connection;
use key::TokenKey;

/// Which token, and which key in it is the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// The token's PKCS#11 module.
    pub module: PathBuf,
    /// Label of the token; exactly one token must carry it.
    pub token: String,
    /// CKA_LABEL of the root key.
    pub root_label: String,
    /// Pause after a failed attempt to reach the token; calls within it fail at once.
    pub reconnect_pause: Duration,
}

impl TokenConfig {
    /// A second: long enough to spare a dead token, short beside the time a person needs to plug it in.
    pub const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
}

/// A back end whose root and CA keys never leave a token.
pub struct TokenBackend {
    connection: Arc<Connection>,
    key_check: SecretArray<32>,
    capabilities: Capabilities,
}

impl std::fmt::Debug for TokenBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenBackend").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

impl TokenBackend {
    /// Logs in and finds the root. The PIN stays in memory, to log in again when the token comes back.
    ///
    /// # Errors
    /// [`BackendError::MissingKey`] without a root, [`BackendError::WeakObject`] for one that could be taken out,
    /// [`BackendError::Token`].
    pub fn open(config: TokenConfig, pin: SecretBytes) -> Result<Self, BackendError> {
        let connection = Arc::new(Connection::open(config, pin)?);
        let key_check = root::hmac(&connection, key_check_info()?.hmac_message())?;
        let (description, key_algorithms) = connection.describe()?;
        let capabilities = Capabilities {
            kind: BackendKind::Pkcs11,
            key_algorithms,
            is_hardware: true,
            root_use: RootUse::Derives,
            description,
        };
        Ok(Self { connection, key_check, capabilities })
    }

    /// Generates the root inside the token.
    ///
    /// # Errors
    /// [`BackendError::KeyExists`] when there is one already; [`BackendError::Token`].
    pub fn create_root(config: &TokenConfig, pin: SecretBytes) -> Result<(), BackendError> {
        root::create(&Connection::open(config.clone(), pin)?)
    }

    /// Puts an existing root into the token, for example one recovered from its shares. It can never be taken out
    /// again, but the token knows that it was once outside (CKA_NEVER_EXTRACTABLE is false).
    ///
    /// # Errors
    /// As [`TokenBackend::create_root`].
    pub fn import_root(config: &TokenConfig, pin: SecretBytes, root: &SecretArray<32>) -> Result<(), BackendError> {
        root::import(&Connection::open(config.clone(), pin)?, root)
    }
}

impl KeyBackend for TokenBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn expand_root(&self, info: &Info) -> Result<SecretArray<32>, BackendError> {
        root::hmac(&self.connection, info.hmac_message())
    }

    fn generate_key_pair(&self, key: KeyId, algorithm: KeyAlgorithm) -> Result<GeneratedKeyPair, BackendError> {
        if !self.capabilities.holds(algorithm) {
            return Err(BackendError::Algorithm(algorithm));
        }
        let label = key.to_string();
        let spki = key::generate(&self.connection, &label, key, algorithm)?;
        Ok(GeneratedKeyPair { spki, handle: KeyHandle::Token { algorithm, label } })
    }

    fn open_key(&self, key: KeyId, handle: &KeyHandle) -> Result<Box<dyn SignatureKey>, BackendError> {
        match handle {
            KeyHandle::Wrapped { algorithm, sealed } => open_wrapped(self, key, *algorithm, sealed),
            KeyHandle::Token { algorithm, label } => {
                if *label != key.to_string() || !self.capabilities.holds(*algorithm) {
                    return Err(BackendError::Handle);
                }
                Ok(Box::new(TokenKey::open(Arc::clone(&self.connection), label, *algorithm)?))
            }
        }
    }

    fn destroy_key(&self, key: KeyId, handle: &KeyHandle) -> Result<(), BackendError> {
        match handle {
            KeyHandle::Wrapped { .. } => self.open_key(key, handle).map(drop),
            KeyHandle::Token { label, .. } if *label == key.to_string() => key::destroy(&self.connection, label),
            KeyHandle::Token { .. } => Err(BackendError::Handle),
        }
    }

    fn health(&self) -> Result<(), BackendError> {
        let now = root::hmac(&self.connection, key_check_info()?.hmac_message())?;
        if now.equals(&self.key_check) { Ok(()) } else { Err(BackendError::OtherRoot) }
    }
}
