//! Signature key pairs in the token.

use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use kf_backend::{BackendError, SignatureKey};
use kf_crypto::{ecdsa_signature_to_der, sha256, sha384, spki_of_public_key};
use kf_key::{KeyAlgorithm, KeyId};

use crate::attributes::{ec_params, find, find_existing, private_template, public_template, require_protected};
use crate::connection::{CallError, Connection, Open, Repeat};

/// An open key pair: its label, its public half, and where the token had it last.
pub(crate) struct TokenKey {
    connection: Arc<Connection>,
    label: String,
    algorithm: KeyAlgorithm,
    spki: Vec<u8>,
    /// Session life and object handle.
    object: Mutex<Option<(u64, ObjectHandle)>>,
}

/// Generates a key pair and returns its SubjectPublicKeyInfo. Refuses a label that is taken.
pub(crate) fn generate(
    connection: &Connection,
    label: &str,
    key: KeyId,
    algorithm: KeyAlgorithm,
) -> Result<Vec<u8>, BackendError> {
    let public = public_template(label, key, algorithm)?;
    let private = private_template(label, key);
    let mechanism = match algorithm {
        KeyAlgorithm::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
        _ => Mechanism::EccKeyPairGen,
    };
    // Not repeated: the token may have made the pair before it vanished. The label then is taken, and the caller
    // draws a new identifier.
    connection.with(Repeat::Once, |open| {
        if find(open, ObjectClass::PRIVATE_KEY, label)?.is_some() {
            return Err(BackendError::KeyExists { label: label.to_owned() }.into());
        }
        let (public, private) = open.session.generate_key_pair(&mechanism, &public, &private)?;
        require_protected(open, private, label, true)?;
        read_spki(open, public, algorithm)
    })
}

/// Destroys both halves; a half that is gone already is no error, both are.
pub(crate) fn destroy(connection: &Connection, label: &str) -> Result<(), BackendError> {
    connection.with(Repeat::WhenGone, |open| {
        let private = find_existing(open, ObjectClass::PRIVATE_KEY, label)?;
        if let Some(public) = find(open, ObjectClass::PUBLIC_KEY, label)? {
            open.session.destroy_object(public)?;
        }
        open.session.destroy_object(private)?;
        Ok(())
    })
}

pub(crate) fn read_spki(open: &Open, public: ObjectHandle, algorithm: KeyAlgorithm) -> Result<Vec<u8>, CallError> {
    let attributes = open.session.get_attributes(public, &[AttributeType::EcPoint, AttributeType::EcParams])?;
    let is_of_curve = attributes.iter().any(
        |attribute| matches!(attribute, Attribute::EcParams(found) if Ok(found.as_slice()) == ec_params(algorithm)),
    );
    if !is_of_curve {
        return Err(BackendError::Handle.into());
    }
    let point = attributes.iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(point) => Some(unwrap_point(point, algorithm)),
        _ => None,
    });
    spki_of_public_key(algorithm, point.unwrap_or_default())
        .map_err(|_length| BackendError::Bug("the token's EC point has an unknown form").into())
}

/// CKA_EC_POINT is a DER OCTET STRING in some tokens and the bare point in others; the length tells which.
fn unwrap_point(point: &[u8], algorithm: KeyAlgorithm) -> &[u8] {
    let length = match algorithm {
        KeyAlgorithm::P384 => 97,
        KeyAlgorithm::Ed25519 => 32,
        _ => 65_u8,
    };
    match point {
        [0x04, prefix, bare @ ..] if *prefix == length && bare.len() == usize::from(length) => bare,
        bare => bare,
    }
}

impl TokenKey {
    pub(crate) fn open(
        connection: Arc<Connection>,
        label: &str,
        algorithm: KeyAlgorithm,
    ) -> Result<Self, BackendError> {
        let (spki, object) = connection.with(Repeat::WhenGone, |open| {
            let private = find_existing(open, ObjectClass::PRIVATE_KEY, label)?;
            require_protected(open, private, label, true)?;
            let public = find_existing(open, ObjectClass::PUBLIC_KEY, label)?;
            Ok((read_spki(open, public, algorithm)?, (open.life, private)))
        })?;
        Ok(Self { connection, label: label.to_owned(), algorithm, spki, object: Mutex::new(Some(object)) })
    }

    /// The object in this life of the session: looked up again after a reconnection.
    fn object(&self, open: &Open) -> Result<ObjectHandle, CallError> {
        let mut cached = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((life, object)) = *cached
            && life == open.life
        {
            return Ok(object);
        }
        let object = find_existing(open, ObjectClass::PRIVATE_KEY, &self.label)?;
        require_protected(open, object, &self.label, true)?;
        *cached = Some((open.life, object));
        Ok(object)
    }
}

impl SignatureKey for TokenKey {
    fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BackendError> {
        // Hashed here: many tokens offer raw ECDSA only, and none is faster at SHA-2 than we are.
        let (mechanism, input) = match self.algorithm {
            KeyAlgorithm::Ed25519 => {
                (Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)), message.to_vec())
            }
            KeyAlgorithm::P384 => (Mechanism::Ecdsa, sha384(message).to_vec()),
            _ => (Mechanism::Ecdsa, sha256(message).to_vec()),
        };
        // Signing twice does no harm: a signature that got lost with the session reached nobody.
        let signature = self.connection.with(Repeat::WhenGone, |open| {
            let object = self.object(open)?;
            Ok(open.session.sign(&mechanism, object, &input)?)
        })?;
        if self.algorithm == KeyAlgorithm::Ed25519 {
            return Ok(signature);
        }
        ecdsa_signature_to_der(&signature).ok_or(BackendError::Bug("length of the token's signature"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_with_and_without_its_octet_string() {
        for (algorithm, length) in [(KeyAlgorithm::P256, 65_u8), (KeyAlgorithm::P384, 97), (KeyAlgorithm::Ed25519, 32)]
        {
            // A bare point of the worst kind: it begins like an OCTET STRING of the right length.
            let mut bare = vec![0x55; usize::from(length)];
            bare[0] = 0x04;
            bare[1] = length;
            let wrapped = [&[0x04, length], bare.as_slice()].concat();
            assert_eq!(unwrap_point(&wrapped, algorithm), bare);
            assert_eq!(unwrap_point(&bare, algorithm), bare);
        }
    }
}
