//! A token that holds signature keys and no root: a device's.

use std::path::PathBuf;
use std::sync::Arc;

use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use kf_backend::{BackendError, SignatureKey};
use kf_key::{KeyAlgorithm, KeyId, SecretBytes};

use crate::TokenConfig;
use crate::connection::{Connection, Repeat};
use crate::key::{self, TokenKey};

/// The most keys that are looked through.
const MAX_KEYS: usize = 256;

/// A token, logged in.
pub struct SignatureToken {
    connection: Arc<Connection>,
}

impl std::fmt::Debug for SignatureToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignatureToken").finish_non_exhaustive()
    }
}

impl SignatureToken {
    /// Logs in. The PIN stays in memory, to log in again when the token comes back.
    ///
    /// # Errors
    /// [`BackendError::Token`].
    pub fn open(module: PathBuf, token: String, pin: SecretBytes) -> Result<Self, BackendError> {
        let config =
            TokenConfig { module, token, root_label: String::new(), reconnect_pause: TokenConfig::RECONNECT_PAUSE };
        Ok(Self { connection: Arc::new(Connection::open(config, pin)?) })
    }

    /// Makes a non-extractable P-256 key pair and returns its SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`BackendError::KeyExists`] when the label is taken; [`BackendError::Token`].
    pub fn generate(&self, label: &str, key: KeyId) -> Result<Vec<u8>, BackendError> {
        key::generate(&self.connection, label, key, KeyAlgorithm::P256)
    }

    /// Opens a key pair.
    ///
    /// # Errors
    /// [`BackendError::MissingKey`], [`BackendError::WeakObject`], [`BackendError::Token`].
    pub fn key(&self, label: &str) -> Result<Box<dyn SignatureKey>, BackendError> {
        Ok(Box::new(TokenKey::open(Arc::clone(&self.connection), label, KeyAlgorithm::P256)?))
    }

    /// Destroys a key pair.
    ///
    /// # Errors
    /// [`BackendError::MissingKey`], [`BackendError::Token`].
    pub fn destroy(&self, label: &str) -> Result<(), BackendError> {
        key::destroy(&self.connection, label)
    }

    /// Labels of the private keys that begin with `prefix`, at most 256.
    ///
    /// # Errors
    /// [`BackendError::Token`].
    pub fn labels(&self, prefix: &str) -> Result<Vec<String>, BackendError> {
        self.connection.with(Repeat::WhenGone, |open| {
            let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Token(true)];
            let mut labels = Vec::new();
            for object in open.session.find_objects(&template)?.into_iter().take(MAX_KEYS) {
                for attribute in open.session.get_attributes(object, &[AttributeType::Label])? {
                    if let Attribute::Label(label) = attribute
                        && let Ok(label) = String::from_utf8(label)
                        && label.starts_with(prefix)
                    {
                        labels.push(label);
                    }
                }
            }
            Ok(labels)
        })
    }
}
