//! What the registry keeps wrapped: under which version of the wrapping key, and from one to the next.
//!
//! Version 1 is derived from the root. Every later one is 32 random octets; its sealed form is kept by the server outside the
//! registry, and given back to this process in each of its lives. Whoever removes the sealed form ends the version.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use kf_backend::KeyHandle as BackendHandle;
use kf_derive::{Algorithm, FleetRoot, Info, Level, Purpose, SoftwareKey};
use kf_key::{KeyId, SecretArray, SecretBytes};

use super::derivation::is_salt_context;
use super::{Engine, back_end, malformed, unknown};
use crate::protocol::{Fields, MAX_CONTEXT_OCTETS, MAX_REWRAPPED, MAX_SECRET_OCTETS, bug, prefix, too_large};
use crate::wrapping::{FIRST_VERSION, HEADER_OCTETS, header, wrapped_version};
use crate::{KeyHandle, KeyPurpose, SignerError, SignerRefusal};

/// The most versions that are loaded at a time: between two there is a sweep over the whole registry.
const MAX_VERSIONS: usize = 256;
/// In front of the version, in the context of its sealed form.
const SEALED_CONTEXT: &[u8] = b"wrapping key version ";
/// The context of the digest of a backup's manifest. That is sealed, not kept: whoever has the root recognises it, whatever version wraps
/// by then.
const MANIFEST_CONTEXT: &[u8] = b"backup manifest";
/// What stands for the root itself in place of a version.
const ROOT_SEAL: u32 = 0;
/// In front of the key, in the context of a private key's second wrapping.
const HANDLE_CONTEXT: &[u8] = b"signature key ";

/// The versions of the wrapping key that may be used; `None` for one that was ended.
#[derive(Default)]
pub(super) struct WrappingKeys(RwLock<BTreeMap<u32, Option<Arc<SecretArray<32>>>>>);

impl WrappingKeys {
    fn get(&self, version: u32) -> Option<Option<Arc<SecretArray<32>>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&version).cloned()
    }

    fn keep(&self, version: u32, key: Option<Arc<SecretArray<32>>>) -> Result<(), SignerError> {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_VERSIONS && !known.contains_key(&version) {
            return Err(too_large(MAX_VERSIONS));
        }
        known.insert(version, key);
        Ok(())
    }

    /// The newest version that may be used.
    fn newest(&self) -> u32 {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let usable = known.iter().rev().find(|(version, key)| **version != ROOT_SEAL && key.is_some());
        usable.map_or(FIRST_VERSION, |(version, _)| *version)
    }
}

fn version_of(fields: &mut Fields<'_>) -> Result<u32, SignerError> {
    fields.array().map(u32::from_be_bytes).ok_or_else(malformed)
}

fn bound(header: &[u8], context: &[u8]) -> Result<Vec<u8>, SignerError> {
    if context.len() > MAX_CONTEXT_OCTETS {
        return Err(too_large(MAX_CONTEXT_OCTETS));
    }
    Ok([header, context].concat())
}

fn sealed_context(version: u32) -> Vec<u8> {
    [SEALED_CONTEXT, &version.to_be_bytes()].concat()
}

fn handle_context(key: KeyId) -> Vec<u8> {
    [HANDLE_CONTEXT, key.as_bytes()].concat()
}

impl Engine {
    /// A fresh version, sealed under the root. It is used once it is loaded.
    pub(super) fn new_wrapping(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let version = version_of(&mut fields)?;
        fields.end().ok_or_else(malformed)?;
        if version <= FIRST_VERSION {
            return Err(malformed());
        }
        let key: SecretArray<32> = kf_crypto::random_secret().map_err(|_source| bug("random source"))?;
        // Exposed to be sealed.
        kf_crypto::seal(&self.version_sealing_key()?, &sealed_context(version), key.expose())
            .map_err(|_opaque| SignerError::Wrapped)
    }

    /// Opens a version that [`Self::new_wrapping`] made. The newest one wraps from now on.
    pub(super) fn load_wrapping(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let version = version_of(&mut fields)?;
        let opened = kf_crypto::open(&self.version_sealing_key()?, &sealed_context(version), fields.rest())
            .map_err(|_opaque| SignerError::Wrapped)?;
        // Exposed to be moved into its type.
        let octets: &[u8; 32] = opened.expose().try_into().map_err(|_other_length| SignerError::Wrapped)?;
        let key = SecretArray::fill(|place: &mut [u8; 32]| *place = *octets);
        self.wrapping.keep(version, Some(Arc::new(key)))?;
        Ok(Vec::new())
    }

    /// Ends a version: nothing is wrapped or opened under it any more in this life of the process.
    pub(super) fn forget_wrapping(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let version = version_of(&mut fields)?;
        fields.end().ok_or_else(malformed)?;
        if version == ROOT_SEAL {
            return Err(malformed());
        }
        self.wrapping.keep(version, None)?;
        Ok(Vec::new())
    }

    /// Wraps each secret under the newest version; an empty answer for one that does not open. No plaintext leaves, so that
    /// salts are moved as well.
    pub(super) fn rewrap(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let newest = self.wrapping.newest();
        let mut answer = Vec::new();
        for _ in 0..MAX_REWRAPPED {
            if fields.0.is_empty() {
                return Ok(answer);
            }
            let context = fields.prefixed().ok_or_else(malformed)?;
            let wrapped = fields.prefixed().ok_or_else(malformed)?;
            let moved = match self.unwrap_under(context, wrapped) {
                // Exposed to be wrapped again.
                Ok(secret) => self.wrap_as(newest, context, secret.expose())?,
                Err(SignerError::Wrapped) => Vec::new(),
                Err(error) => return Err(error),
            };
            answer.extend_from_slice(&prefix(&moved)?);
            answer.extend_from_slice(&moved);
        }
        fields.end().ok_or_else(malformed)?;
        Ok(answer)
    }

    /// The handle of the same key with its private part under the newest version.
    pub(super) fn rewrap_handle(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let key = fields.key().ok_or_else(malformed)?;
        let handle = KeyHandle::from_bytes(fields.rest()).map_err(|_unreadable| unknown(key))?;
        if !self.handle_seal.is_ours(key, &handle) {
            return Err(unknown(key));
        }
        let inner = self.unprotect(key, &handle)?.into_owned();
        Ok(self.protect(key, handle.purpose(), inner)?.to_bytes())
    }

    /// The handle of a key that the back end has made. What lies under the root alone is put under the newest version of the
    /// wrapping key besides, so that it goes with that version from every backup.
    pub(super) fn protect(
        &self,
        key: KeyId,
        purpose: KeyPurpose,
        inner: BackendHandle,
    ) -> Result<KeyHandle, SignerError> {
        let version = self.wrapping.newest();
        match inner {
            BackendHandle::Wrapped { algorithm, sealed } if version != FIRST_VERSION => {
                let sealed = self.wrap_as(version, &handle_context(key), &sealed)?;
                Ok(self.handle_seal.seal(key, purpose, version, BackendHandle::Wrapped { algorithm, sealed }))
            }
            inner => Ok(self.handle_seal.seal(key, purpose, FIRST_VERSION, inner)),
        }
    }

    /// The handle as the back end made it.
    pub(super) fn unprotect<'a>(
        &self,
        key: KeyId,
        handle: &'a KeyHandle,
    ) -> Result<Cow<'a, BackendHandle>, SignerError> {
        match handle.inner() {
            BackendHandle::Wrapped { algorithm, sealed } if handle.wrapping_version() != FIRST_VERSION => {
                let opened = self.unwrap_under(&handle_context(key), sealed)?;
                // What the root alone opens is no secret: exposed to become a handle again.
                let sealed = opened.expose().to_vec();
                Ok(Cow::Owned(BackendHandle::Wrapped { algorithm: *algorithm, sealed }))
            }
            inner => Ok(Cow::Borrowed(inner)),
        }
    }

    pub(super) fn wrap(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let context = fields.prefixed().ok_or_else(malformed)?;
        let secret = fields.rest();
        if secret.len() > MAX_SECRET_OCTETS {
            return Err(too_large(MAX_SECRET_OCTETS));
        }
        refuse_reserved(context)?;
        let version = if context == MANIFEST_CONTEXT { ROOT_SEAL } else { self.wrapping.newest() };
        self.wrap_as(version, context, secret)
    }

    pub(super) fn unwrap(&self, mut fields: Fields<'_>) -> Result<SecretBytes, SignerError> {
        let context = fields.prefixed().ok_or_else(malformed)?;
        refuse_reserved(context)?;
        self.unwrap_under(context, fields.rest())
    }

    /// Wraps under the newest version.
    pub(super) fn wrap_under(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.wrap_as(self.wrapping.newest(), context, secret)
    }

    fn wrap_as(&self, version: u32, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, SignerError> {
        let header = header(version);
        let context = bound(&header, context)?;
        let sealed = kf_crypto::seal(&*self.wrapping_key(version)?, &context, secret);
        Ok([header.as_slice(), &sealed.map_err(|_opaque| SignerError::Wrapped)?].concat())
    }

    pub(super) fn unwrap_under(&self, context: &[u8], wrapped: &[u8]) -> Result<SecretBytes, SignerError> {
        let version = wrapped_version(wrapped).ok_or(SignerError::Wrapped)?;
        let context = bound(&header(version), context)?;
        let sealed = wrapped.get(HEADER_OCTETS..).unwrap_or_default();
        kf_crypto::open(&*self.wrapping_key(version)?, &context, sealed).map_err(|_opaque| SignerError::Wrapped)
    }

    /// A version that is loaded. The first is one HMAC under the root in this life of the process, then kept: a token would do
    /// ten thousand a second at most.
    fn wrapping_key(&self, version: u32) -> Result<Arc<SecretArray<32>>, SignerError> {
        match self.wrapping.get(version) {
            Some(Some(key)) => Ok(key),
            None if version <= FIRST_VERSION => {
                let info = FleetRoot::<SoftwareKey>::wrapping_info(Purpose::WrapRegistry, version)
                    .map_err(|_too_long| bug("wrapping info"))?;
                let key = Arc::new(self.backend.expand_root(&info).map_err(back_end)?);
                self.wrapping.keep(version, Some(Arc::clone(&key)))?;
                Ok(key)
            }
            Some(None) | None => Err(SignerError::Wrapped),
        }
    }

    /// What versions are sealed under.
    fn version_sealing_key(&self) -> Result<SecretArray<32>, SignerError> {
        let info = Info::new(Level::Wrapping, Algorithm::Aes256Gcm, Purpose::WrapRegistry, b"wrapping key version", 1)
            .map_err(|_too_long| bug("wrapping info"))?;
        self.backend.expand_root(&info).map_err(back_end)
    }
}

/// Salts and private keys are made and used here and nowhere else.
fn refuse_reserved(context: &[u8]) -> Result<(), SignerError> {
    if is_salt_context(context) || context.starts_with(HANDLE_CONTEXT) {
        return Err(SignerError::Refused(SignerRefusal::Purpose));
    }
    Ok(())
}
