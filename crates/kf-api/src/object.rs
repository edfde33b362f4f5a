//! Objects that programs store: encrypted under an encryption key of the server, brought along when it rotates.

use kf_key::{EncryptionKeyId, UnixMillis};
use serde::{Deserialize, Serialize};

/// The most octets of an object.
pub const MAX_OBJECT_OCTETS: usize = crate::ciphertext::MAX_PLAINTEXT_OCTETS;
/// The most characters of an object's name.
pub const MAX_OBJECT_NAME: usize = 128;
/// The most objects under one key.
pub const MAX_OBJECTS_PER_KEY: u64 = 100_000;

/// A stored object, without what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Its name, unique under its key.
    pub name: String,
    /// The encryption key.
    pub key: EncryptionKeyId,
    /// The version of the key that it lies under now.
    pub key_version: u32,
    /// How often it was put: 1 for a new one.
    pub generation: u64,
    /// Octets of what is in it.
    pub octets: u64,
    /// When it was first put.
    pub created: UnixMillis,
    /// When it was last put. That the server brings it under a new version of the key changes nothing here.
    pub written: UnixMillis,
}

/// An object to be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutObject {
    /// Base64 of at most 65,536 octets.
    pub plaintext: String,
    /// Only if this is its generation, 0 for one that is not there: of two who change it at once, one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// What is in an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectContent {
    /// The object.
    pub object: StoredObject,
    /// Base64.
    pub plaintext: String,
}
