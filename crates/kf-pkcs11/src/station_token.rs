//! What a factory station asks of a token beyond signatures: a key agreement, random octets, a counter.

use std::path::PathBuf;
use std::sync::Arc;

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use kf_backend::{BackendError, SignatureKey};
use kf_key::{KeyAlgorithm, KeyId, SecretArray, SecretBytes};

use crate::TokenConfig;
use crate::attributes::{find, find_existing, public_template, require_protected};
use crate::connection::{CallError, Connection, Open, Repeat};
use crate::key::{self, TokenKey, read_spki};

/// A station's token, logged in.
pub struct StationModule {
    connection: Arc<Connection>,
}

impl std::fmt::Debug for StationModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StationModule").finish_non_exhaustive()
    }
}

impl StationModule {
    /// Logs in. The PIN stays in memory, to log in again when the token comes back.
    ///
    /// # Errors
    /// [`BackendError::Token`].
    pub fn open(module: PathBuf, token: String, pin: SecretBytes) -> Result<Self, BackendError> {
        let config =
            TokenConfig { module, token, root_label: String::new(), reconnect_pause: TokenConfig::RECONNECT_PAUSE };
        Ok(Self { connection: Arc::new(Connection::open(config, pin)?) })
    }

    /// The non-extractable P-256 signature key of this label.
    ///
    /// # Errors
    /// [`BackendError::MissingKey`], [`BackendError::WeakObject`], [`BackendError::Token`].
    pub fn signature_key(&self, label: &str) -> Result<Box<dyn SignatureKey>, BackendError> {
        Ok(Box::new(TokenKey::open(Arc::clone(&self.connection), label, KeyAlgorithm::P256)?))
    }

    /// Makes a signature key of this label when there is none.
    ///
    /// # Errors
    /// [`BackendError::WeakObject`], [`BackendError::Token`].
    pub fn make_signature_key(&self, label: &str, key: KeyId) -> Result<(), BackendError> {
        match self.signature_key(label) {
            Err(BackendError::MissingKey { .. }) => {
                key::generate(&self.connection, label, key, KeyAlgorithm::P256).map(|_spki| ())
            }
            other => other.map(|_key| ()),
        }
    }

    /// The SubjectPublicKeyInfo of the non-extractable P-256 key for key agreement of this label.
    ///
    /// # Errors
    /// As [`StationModule::signature_key`].
    pub fn agreement_key(&self, label: &str) -> Result<Vec<u8>, BackendError> {
        self.connection.with(Repeat::WhenGone, |open| {
            let private = find_existing(open, ObjectClass::PRIVATE_KEY, label)?;
            require_protected(open, private, label, true)?;
            let public = find_existing(open, ObjectClass::PUBLIC_KEY, label)?;
            read_spki(open, public, KeyAlgorithm::P256)
        })
    }

    /// Makes a key for key agreement of this label when there is none.
    ///
    /// # Errors
    /// As [`StationModule::make_signature_key`].
    pub fn make_agreement_key(&self, label: &str, key: KeyId) -> Result<(), BackendError> {
        match self.agreement_key(label) {
            Err(BackendError::MissingKey { .. }) => {}
            other => return other.map(|_spki| ()),
        }
        let mut public = public_template(label, key, KeyAlgorithm::P256)?;
        public.retain(|attribute| !matches!(attribute, Attribute::Verify(_) | Attribute::Derive(_)));
        public.push(Attribute::Derive(true));
        let private = agreement_template(label, key);
        self.connection.with(Repeat::Once, |open| {
            if find(open, ObjectClass::PRIVATE_KEY, label)?.is_some() {
                return Err(BackendError::KeyExists { label: label.to_owned() }.into());
            }
            let (_, private) = open.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
            require_protected(open, private, label, true)
        })
    }

    /// Destroys every object of this label, and looks for them; that there is none is no error.
    ///
    /// # Errors
    /// [`BackendError::WeakObject`] for one that is still there, [`BackendError::Token`].
    pub fn destroy(&self, label: &str) -> Result<(), BackendError> {
        let template = [Attribute::Token(true), Attribute::Label(label.as_bytes().to_vec())];
        self.connection.with(Repeat::WhenGone, |open| {
            for object in open.session.find_objects(&template)? {
                open.session.destroy_object(object)?;
            }
            if open.session.find_objects(&template)?.is_empty() {
                return Ok(());
            }
            Err(BackendError::WeakObject { label: label.to_owned(), problem: "still there after C_DestroyObject" }
                .into())
        })
    }

    /// The x-coordinate of the ECDH (CKM_ECDH1_DERIVE without a KDF) between a key and `peer`, an uncompressed point.
    ///
    /// # Errors
    /// [`BackendError::MissingKey`], [`BackendError::Token`].
    pub fn agree(&self, label: &str, peer: &[u8; 65]) -> Result<SecretArray<32>, BackendError> {
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::Token(false),
            // It leaves the token at once: the HPKE key schedule is ours.
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
            Attribute::ValueLen(32.into()),
        ];
        self.connection.with(Repeat::WhenGone, |open| {
            let private = find_existing(open, ObjectClass::PRIVATE_KEY, label)?;
            let parameters = Ecdh1DeriveParams::new(EcKdf::null(), peer);
            let agreed = open.session.derive_key(&Mechanism::Ecdh1Derive(parameters), private, &template)?;
            let secret = read_secret(open, agreed);
            open.session.destroy_object(agreed)?;
            secret
        })
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

    /// The value of a counter; 0 when there is none.
    ///
    /// # Errors
    /// [`BackendError::WeakObject`] for an object that is no counter, [`BackendError::Token`].
    pub fn counter(&self, label: &str) -> Result<u64, BackendError> {
        self.connection.with(Repeat::WhenGone, |open| {
            let counters = counters(open, label)?;
            Ok(counters.into_iter().map(|(_, value)| value).max().unwrap_or(0))
        })
    }

    /// Raises a counter, a private data object; a number that is not above it changes nothing. Tokens do not let a value be
    /// changed, so the new one is made before the old one goes: a power cut leaves either or both, and the larger counts.
    /// Whoever has the PIN can set it back: it holds against copies and mistakes, not against the station's own operator.
    ///
    /// # Errors
    /// As [`StationModule::counter`].
    pub fn advance(&self, label: &str, to: u64) -> Result<(), BackendError> {
        let template = [
            Attribute::Class(ObjectClass::DATA),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Value(to.to_be_bytes().to_vec()),
        ];
        self.connection.with(Repeat::WhenGone, |open| {
            let old = counters(open, label)?;
            if old.iter().any(|(_, value)| *value >= to) {
                return Ok(());
            }
            open.session.create_object(&template)?;
            for (object, _) in old {
                open.session.destroy_object(object)?;
            }
            Ok(())
        })
    }
}

/// Every object of a counter with its value.
fn counters(open: &Open, label: &str) -> Result<Vec<(ObjectHandle, u64)>, CallError> {
    let template =
        [Attribute::Class(ObjectClass::DATA), Attribute::Token(true), Attribute::Label(label.as_bytes().to_vec())];
    let found = open.session.find_objects(&template)?;
    found.into_iter().map(|object| Ok((object, read_counter(open, object, label)?))).collect()
}

/// A private key for key agreement: that and nothing else.
fn agreement_template(label: &str, key: KeyId) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Sign(false),
        Attribute::Decrypt(false),
        Attribute::Derive(true),
        Attribute::Unwrap(false),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(key.as_bytes().to_vec()),
    ]
}

fn value_of(open: &Open, object: ObjectHandle) -> Result<Option<SecretBytes>, CallError> {
    let attributes = open.session.get_attributes(object, &[AttributeType::Value])?;
    Ok(attributes.into_iter().find_map(|attribute| match attribute {
        Attribute::Value(value) => Some(SecretBytes::from_vec(value)),
        _ => None,
    }))
}

fn read_secret(open: &Open, object: ObjectHandle) -> Result<SecretArray<32>, CallError> {
    let value = value_of(open, object)?.filter(|value| value.len() == 32);
    let value = value.ok_or(BackendError::Bug("length of the token's key agreement"))?;
    // Exposed to be moved into its type.
    Ok(SecretArray::fill(|out: &mut [u8; 32]| out.copy_from_slice(value.expose())))
}

fn read_counter(open: &Open, object: ObjectHandle, label: &str) -> Result<u64, CallError> {
    let weak = || BackendError::WeakObject { label: label.to_owned(), problem: "no counter" };
    let value = value_of(open, object)?.ok_or_else(weak)?;
    // Exposed: a number is no secret.
    let octets: [u8; 8] = value.expose().try_into().map_err(|_other_length| weak())?;
    Ok(u64::from_be_bytes(octets))
}
