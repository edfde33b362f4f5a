//! Keys with which the server encrypts for others: data-encryption keys of SP 800-57, in versions.

use kf_key::{EncryptionKeyId, FacilityId, KeyState, UnixMillis};
use serde::{Deserialize, Serialize};

/// The most items of one call.
pub const MAX_DATA_ITEMS: usize = 1_024;
/// The most encryptions of one version: AES-256-GCM with nonces of 96 random bits (SP 800-38D section 8.3).
pub const ENCRYPTIONS_PER_VERSION: u64 = 1 << 32;
/// The most data keys of one call.
pub const MAX_DATA_KEYS: u32 = 64;

/// An encryption key. Its material never leaves the server; what it encrypted names it and the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionKey {
    /// Identifier.
    pub id: EncryptionKeyId,
    /// Unique name.
    pub name: String,
    /// The facility whose programs may use it.
    pub facility: FacilityId,
    /// When it was made.
    pub created: UnixMillis,
    /// The version that encrypts.
    pub newest_version: u32,
    /// Nothing of an older version than this is decrypted.
    pub minimum_version: u32,
    /// Its versions, newest first.
    pub versions: Vec<KeyVersion>,
}

/// A version of an encryption key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyVersion {
    /// Its number, from 1.
    pub version: u32,
    /// Active: encrypts and decrypts. Deactivated: the originator-usage period is over, it decrypts. Destroyed: gone.
    pub state: KeyState,
    /// When it was made.
    pub created: UnixMillis,
    /// When the next version took over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deactivated: Option<UnixMillis>,
    /// When it was destroyed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub destroyed: Option<UnixMillis>,
    /// Encryptions set aside for it so far, never fewer than there were: they are counted before they happen.
    pub encryptions: u64,
    /// Stored objects that lie under it now.
    #[serde(default)]
    pub objects: u64,
    /// The most encryptions that a key of its algorithm bears (SP 800-38D section 8.3). When they are used up, the next
    /// version takes over by itself.
    pub limit: u64,
}

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptionKeyFilter {
    /// Name or id of their facility.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facility: Option<String>,
    /// Only keys behind this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Rows of a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEncryptionKey {
    /// Unique name.
    pub name: String,
    /// Name or id of the facility.
    pub facility: String,
}

/// A new version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// The version that the caller takes for the newest: of two who rotate at the same time one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_version: Option<u32>,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}

/// The end of decryption for older versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RaiseMinimum {
    /// The oldest version that is still decrypted.
    pub version: u32,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}

/// Octets to be encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainItem {
    /// Base64 of at most 65,536 octets.
    pub plaintext: String,
    /// Base64 of what they are bound to, at most 4,096 octets; whoever decrypts must give the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub external_aad: String,
}

/// A ciphertext to be decrypted or re-encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CipherItem {
    /// The ciphertext as it was given out.
    pub ciphertext: String,
    /// Base64 of what it is bound to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub external_aad: String,
}

/// To be encrypted under the newest version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptRequest {
    /// At most 1,024.
    pub items: Vec<PlainItem>,
}

/// To be decrypted, or re-encrypted under the newest version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CipherRequest {
    /// At most 1,024.
    pub items: Vec<CipherItem>,
}

/// Ciphertexts, in the order of the items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptAnswer {
    /// The version that encrypted.
    pub version: u32,
    /// Ciphertexts.
    pub ciphertexts: Vec<String>,
}

/// Why something is not decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CipherRefusal {
    /// It is no ciphertext.
    Malformed,
    /// It names another key.
    OtherKey,
    /// It names a version that this key never had.
    UnknownVersion,
    /// Its version is older than the oldest that is decrypted, suspended or destroyed.
    VersionBarred,
    /// It was changed, or is bound to something else.
    NotAuthentic,
}

/// What became of one ciphertext.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DecryptOutcome {
    /// Decrypted.
    Decrypted {
        /// Base64.
        plaintext: String,
        /// The version that had encrypted it.
        version: u32,
    },
    /// Not decrypted.
    Refused {
        /// Why.
        refusal: CipherRefusal,
        /// Why, in words.
        problem: String,
    },
}

/// In the order of the items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecryptAnswer {
    /// One for each.
    pub items: Vec<DecryptOutcome>,
}

/// What became of one ciphertext.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RewrapOutcome {
    /// It is under the newest version.
    Newest {
        /// The ciphertext: the same as before where it was under the newest version already.
        ciphertext: String,
        /// The version that it had.
        from_version: u32,
        /// Whether it is another one than before.
        changed: bool,
    },
    /// Left as it is.
    Refused {
        /// Why.
        refusal: CipherRefusal,
        /// Why, in words.
        problem: String,
    },
}

/// In the order of the items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewrapAnswer {
    /// The newest version.
    pub version: u32,
    /// One for each.
    pub items: Vec<RewrapOutcome>,
}

/// Keys for the caller's own use, each also encrypted under an encryption key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataKeyRequest {
    /// How many, at most 64.
    pub count: u32,
    /// Base64 of what they are bound to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub external_aad: String,
}

/// A key of 32 random octets.
#[derive(Serialize, Deserialize)]
pub struct DataKey {
    /// Base64; the server keeps no copy.
    pub key: crate::ShownOnce,
    /// The same, encrypted: to be kept beside what it protects.
    pub ciphertext: String,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataKey({})", self.ciphertext)
    }
}

/// Data keys.
#[derive(Debug, Serialize, Deserialize)]
pub struct DataKeyAnswer {
    /// The version under which they are encrypted.
    pub version: u32,
    /// The keys.
    pub keys: Vec<DataKey>,
}
