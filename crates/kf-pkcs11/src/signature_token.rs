//! A token that holds signature keys and no root: a device's.

use std::path::PathBuf;
use std::sync::Arc;

use cryptoki::object::{Attribute, AttributeType, CertificateType, ObjectClass};
use kf_backend::{BackendError, SignatureKey};
use kf_key::{KeyAlgorithm, KeyId, SecretArray, SecretBytes};

use crate::TokenConfig;
use crate::attributes::{find, find_existing};
use crate::connection::{Connection, Repeat};
use crate::key::{self, TokenKey};
use crate::root;

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
        Self::with_wrapping_key(module, token, pin, String::new())
    }

    /// As [`SignatureToken::open`], with the label of a secret key from which wrapping keys are made.
    ///
    /// # Errors
    /// [`BackendError::Token`].
    pub fn with_wrapping_key(
        module: PathBuf,
        token: String,
        pin: SecretBytes,
        label: String,
    ) -> Result<Self, BackendError> {
        let config = TokenConfig { module, token, root_label: label, reconnect_pause: TokenConfig::RECONNECT_PAUSE };
        Ok(Self { connection: Arc::new(Connection::open(config, pin)?) })
    }

    /// HMAC-SHA-256 of `message` under the secret key of [`SignatureToken::with_wrapping_key`], which is non-extractable
    /// and made when there is none.
    ///
    /// # Errors
    /// [`BackendError::WeakObject`] for one that could be taken out; [`BackendError::Token`].
    pub fn wrapping_key(&self, message: &[u8]) -> Result<SecretArray<32>, BackendError> {
        match root::hmac(&self.connection, message) {
            Err(BackendError::MissingKey { .. }) => {
                root::create(&self.connection)?;
                root::hmac(&self.connection, message)
            }
            outcome => outcome,
        }
    }

    /// Destroys that secret key and looks that it is gone; one that is not there is no error.
    ///
    /// # Errors
    /// [`BackendError::KeyExists`] when it is still found; [`BackendError::Token`].
    pub fn destroy_wrapping_key(&self) -> Result<(), BackendError> {
        self.connection.with(Repeat::WhenGone, |open| {
            let label = self.connection.root_label();
            if let Some(secret) = find(open, ObjectClass::SECRET_KEY, label)? {
                open.session.destroy_object(secret)?;
            }
            match find(open, ObjectClass::SECRET_KEY, label)? {
                None => Ok(()),
                Some(_) => Err(BackendError::KeyExists { label: label.to_owned() }.into()),
            }
        })
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

    /// Fills `out` from the token's random generator.
    ///
    /// # Errors
    /// [`BackendError::Token`]; the octets must then not be used.
    pub fn fill_random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        let length = out.len();
        let octets = self.connection.with(Repeat::WhenGone, |open| {
            let mut octets = vec![0; length];
            open.session.generate_random_slice(&mut octets)?;
            Ok(SecretBytes::from_vec(octets))
        })?;
        // Exposed to whoever asked for it.
        out.copy_from_slice(octets.expose());
        Ok(())
    }

    /// The token's serial number.
    ///
    /// # Errors
    /// [`BackendError::Token`].
    pub fn serial_number(&self) -> Result<String, BackendError> {
        self.connection.serial_number()
    }

    /// Puts an X.509 certificate beside the key pair of this label, in place of one that was there. `subject` is its subject
    /// name, DER.
    ///
    /// # Errors
    /// [`BackendError::MissingKey`], [`BackendError::Token`].
    pub fn put_certificate(&self, label: &str, subject: &[u8], der: &[u8]) -> Result<(), BackendError> {
        self.connection.with(Repeat::WhenGone, |open| {
            let private = find_existing(open, ObjectClass::PRIVATE_KEY, label)?;
            let id = open.session.get_attributes(private, &[AttributeType::Id])?;
            let mut template = vec![
                Attribute::Class(ObjectClass::CERTIFICATE),
                Attribute::CertificateType(CertificateType::X_509),
                Attribute::Token(true),
                Attribute::Private(false),
                Attribute::Label(label.as_bytes().to_vec()),
                Attribute::Subject(subject.to_vec()),
                Attribute::Value(der.to_vec()),
            ];
            // By its identifier programs find the key that belongs to a certificate.
            template.extend(id);
            if let Some(old) = find(open, ObjectClass::CERTIFICATE, label)? {
                open.session.destroy_object(old)?;
            }
            open.session.create_object(&template)?;
            Ok(())
        })
    }

    /// The certificate beside the key pair of this label.
    ///
    /// # Errors
    /// [`BackendError::Token`].
    pub fn certificate(&self, label: &str) -> Result<Option<Vec<u8>>, BackendError> {
        self.connection.with(Repeat::WhenGone, |open| {
            let Some(object) = find(open, ObjectClass::CERTIFICATE, label)? else { return Ok(None) };
            let attributes = open.session.get_attributes(object, &[AttributeType::Value])?;
            Ok(attributes.into_iter().find_map(|attribute| match attribute {
                Attribute::Value(der) => Some(der),
                _ => None,
            }))
        })
    }

    /// Takes the certificate beside the key pair of this label away; one that is not there is no error.
    ///
    /// # Errors
    /// [`BackendError::Token`].
    pub fn remove_certificate(&self, label: &str) -> Result<(), BackendError> {
        self.connection.with(Repeat::WhenGone, |open| {
            if let Some(object) = find(open, ObjectClass::CERTIFICATE, label)? {
                open.session.destroy_object(object)?;
            }
            Ok(())
        })
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
