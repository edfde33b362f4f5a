//! The fleet root in the token.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use kf_backend::BackendError;
use kf_key::{SecretArray, SecretBytes};

use crate::attributes::{find, find_existing, require_protected, root_template};
use crate::connection::{Connection, Open, Repeat};

/// Octets of the root. SoftHSM2 refuses HMAC-SHA-256 keys below 32 octets; so do we.
const ROOT_OCTETS: u64 = 32;

pub(crate) fn create(connection: &Connection) -> Result<(), BackendError> {
    let mut template = root_template(connection.root_label());
    template.push(Attribute::ValueLen(ROOT_OCTETS.into()));
    connection.with(Repeat::Once, |open| {
        refuse_second(open, connection.root_label())?;
        let root = open.session.generate_key(&Mechanism::GenericSecretKeyGen, &template)?;
        require_protected(open, root, connection.root_label(), true)
    })
}

pub(crate) fn import(connection: &Connection, root: &SecretArray<32>) -> Result<(), BackendError> {
    connection.with(Repeat::Once, |open| {
        refuse_second(open, connection.root_label())?;
        let mut template = root_template(connection.root_label());
        // Exposed to the token, which is where it is to live. The binding's copy is not wiped: import on a machine
        // that is switched off afterwards.
        template.push(Attribute::Value(root.expose().to_vec()));
        let object = open.session.create_object(&template)?;
        require_protected(open, object, connection.root_label(), false)
    })
}

fn refuse_second(open: &Open, label: &str) -> Result<(), crate::connection::CallError> {
    match find(open, ObjectClass::SECRET_KEY, label)? {
        None => Ok(()),
        Some(_) => Err(BackendError::KeyExists { label: label.to_owned() }.into()),
    }
}

/// HMAC-SHA-256 of `message` under the root.
pub(crate) fn hmac(connection: &Connection, message: &[u8]) -> Result<SecretArray<32>, BackendError> {
    connection.with(Repeat::WhenGone, |open| {
        let label = connection.root_label();
        let root = find_existing(open, ObjectClass::SECRET_KEY, label)?;
        require_protected(open, root, label, false)?;
        // Taken over, so that the vector is wiped.
        let tag = SecretBytes::from_vec(open.session.sign(&Mechanism::Sha256Hmac, root, message)?);
        // Exposed to be moved into its type.
        let octets: &[u8; 32] =
            tag.expose().try_into().map_err(|_other_length| BackendError::Bug("length of the token's HMAC"))?;
        Ok(SecretArray::fill(|out| out.copy_from_slice(octets)))
    })
}
