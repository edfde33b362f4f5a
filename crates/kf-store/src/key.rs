//! Keys under management: their states, and their wrapped bytes or the label under which a token holds them.

use std::fmt;

use kf_key::{KeyAlgorithm, KeyId, KeyState, KeyType, UnixMillis};

use crate::{Audit, Logged, Store, StoreError};

/// Where the private part is. Debug does not print the wrapped octets.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// Octets wrapped by a key that this crate has no access to.
    Wrapped(Vec<u8>),
    /// The label of an object in a token.
    Token(String),
    /// Gone: the key is destroyed.
    Destroyed,
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrapped(octets) => write!(f, "Wrapped({} octets)", octets.len()),
            Self::Token(label) => write!(f, "Token({label:?})"),
            Self::Destroyed => f.write_str("Destroyed"),
        }
    }
}

/// A key with its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Identifier.
    pub id: KeyId,
    /// SP 800-57 type.
    pub key_type: KeyType,
    /// Algorithm.
    pub algorithm: KeyAlgorithm,
    /// State.
    pub state: KeyState,
    /// What it is for: `authority:<name>`, `ocsp:<name>`, `log`, `tls`; at most 200 octets.
    pub purpose: String,
    /// Where the private part is.
    pub material: KeyMaterial,
    /// SubjectPublicKeyInfo DER of the public part; empty for a symmetric key.
    pub spki: Vec<u8>,
    /// When it was generated.
    pub created: UnixMillis,
    /// When it became active.
    pub activated: Option<UnixMillis>,
    /// When it was last suspended.
    pub suspended: Option<UnixMillis>,
    /// When it was deactivated.
    pub deactivated: Option<UnixMillis>,
    /// When it was found compromised, which may be after its destruction.
    pub compromised: Option<UnixMillis>,
    /// When it was destroyed.
    pub destroyed: Option<UnixMillis>,
}

/// A change of key state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key.
    pub id: KeyId,
    /// The state the caller saw.
    pub seen: KeyState,
    /// The new state.
    pub to: KeyState,
    /// When.
    pub at: UnixMillis,
}

impl Store {
    /// Adds a key.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `id`; [`StoreError::Invalid`] when state, material and times do not fit together.
    pub async fn insert_key(&self, key: KeyRecord, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let _ = (key, audit.into());
        todo!()
    }

    /// A key by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        let _ = id;
        todo!()
    }

    /// Every key whose purpose starts with `purpose_prefix`, newest first, at most 10,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn keys(&self, purpose_prefix: &str) -> Result<Vec<KeyRecord>, StoreError> {
        let _ = purpose_prefix;
        todo!()
    }

    /// Changes the state of a key by the one transition function; on `Destroyed` the wrapped octets are overwritten.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is not as the caller saw it;
    /// [`StoreError::IllegalKeyTransition`] for every pair that SP 800-57 does not draw.
    pub async fn change_key(&self, change: KeyChange, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let _ = (change, audit.into());
        todo!()
    }

    /// Records that a destroyed key had been compromised.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is not destroyed.
    pub async fn record_late_compromise(
        &self,
        id: KeyId,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        let _ = (id, at, audit.into());
        todo!()
    }

    /// Replaces the wrapped octets of a key (another wrapping key), state unchanged.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] for a destroyed key.
    pub async fn rewrap_key(
        &self,
        id: KeyId,
        material: KeyMaterial,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        let _ = (id, material, audit.into());
        todo!()
    }
}
