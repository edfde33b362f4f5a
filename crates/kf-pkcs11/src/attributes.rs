//! Attribute templates, complete on purpose, and the search for objects.

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use kf_backend::BackendError;
use kf_key::{KeyAlgorithm, KeyId};

use crate::connection::{CallError, Open};

/// DER of the named curve (RFC 5480 section 2.1.1.1, RFC 8410 section 3).
const P256_PARAMS: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384_PARAMS: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519_PARAMS: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// The root: HMAC and nothing else.
pub(crate) fn root_template(label: &str) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Sign(true),
        Attribute::Verify(false),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Derive(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Label(label.as_bytes().to_vec()),
    ]
}

/// A private signature key: signatures and nothing else.
pub(crate) fn private_template(label: &str, key: KeyId) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Sign(true),
        Attribute::SignRecover(false),
        Attribute::Decrypt(false),
        Attribute::Derive(false),
        Attribute::Unwrap(false),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(key.as_bytes().to_vec()),
    ]
}

/// Its public half.
pub(crate) fn public_template(
    label: &str,
    key: KeyId,
    algorithm: KeyAlgorithm,
) -> Result<Vec<Attribute>, BackendError> {
    Ok(vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Verify(true),
        Attribute::Encrypt(false),
        Attribute::Derive(false),
        Attribute::Wrap(false),
        Attribute::EcParams(ec_params(algorithm)?.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(key.as_bytes().to_vec()),
    ])
}

pub(crate) const fn ec_params(algorithm: KeyAlgorithm) -> Result<&'static [u8], BackendError> {
    match algorithm {
        KeyAlgorithm::P256 => Ok(P256_PARAMS),
        KeyAlgorithm::P384 => Ok(P384_PARAMS),
        KeyAlgorithm::Ed25519 => Ok(ED25519_PARAMS),
        KeyAlgorithm::Rsa2048
        | KeyAlgorithm::Rsa3072
        | KeyAlgorithm::Rsa4096
        | KeyAlgorithm::MlDsa44
        | KeyAlgorithm::MlDsa65
        | KeyAlgorithm::MlDsa87 => Err(BackendError::Algorithm(algorithm)),
    }
}

/// The one object of this class and label; `None` when there is none.
pub(crate) fn find(open: &Open, class: ObjectClass, label: &str) -> Result<Option<ObjectHandle>, CallError> {
    let template = [Attribute::Class(class), Attribute::Token(true), Attribute::Label(label.as_bytes().to_vec())];
    let found = open.session.find_objects(&template)?;
    match found.as_slice() {
        [] => Ok(None),
        [object] => Ok(Some(*object)),
        _ => Err(weak(label, "not the only one of its label").into()),
    }
}

/// As [`find`], for an object that must be there.
pub(crate) fn find_existing(open: &Open, class: ObjectClass, label: &str) -> Result<ObjectHandle, CallError> {
    find(open, class, label)?.ok_or_else(|| BackendError::MissingKey { label: label.to_owned() }.into())
}

/// Refuses a secret or private key that can be taken out. `was_born_here` also refuses one that came from outside.
pub(crate) fn require_protected(
    open: &Open,
    object: ObjectHandle,
    label: &str,
    was_born_here: bool,
) -> Result<(), CallError> {
    let types = [AttributeType::Sensitive, AttributeType::Extractable, AttributeType::NeverExtractable];
    let attributes = open.session.get_attributes(object, &types)?;
    let has = |attribute: Attribute| attributes.contains(&attribute);
    if !has(Attribute::Sensitive(true)) {
        return Err(weak(label, "not sensitive").into());
    }
    if !has(Attribute::Extractable(false)) {
        return Err(weak(label, "extractable").into());
    }
    if was_born_here && !has(Attribute::NeverExtractable(true)) {
        return Err(weak(label, "not made in the token").into());
    }
    Ok(())
}

fn weak(label: &str, problem: &'static str) -> BackendError {
    BackendError::WeakObject { label: label.to_owned(), problem }
}
