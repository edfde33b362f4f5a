//! What holds the station's keys, draws its random octets, and counts its devices.

mod pkcs11;
mod software;
#[cfg(feature = "tpm")]
mod tpm;

pub use pkcs11::Pkcs11Token;
pub use software::{SoftwareToken, SoftwareTokenError};
#[cfg(feature = "tpm")]
pub use tpm::{TpmToken, TpmTokenError};

use kf_batch::P256Key;
use kf_key::SecretArray;

/// Which keys of a station: it draws fresh ones for each batch, and their numbers count up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

impl Generation {
    /// The first.
    pub const FIRST: Self = Self(1);

    /// The generation of a number; there is none of number 0.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The keys of a station that sign; each serves one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StationKey {
    /// Signs station requests, and says what became of the keys of a batch; the server knows it. It stays.
    Identity,
    /// The issuing CA of a batch.
    Authority(Generation),
    /// Signs records and manifests of a batch.
    Record(Generation),
}

impl StationKey {
    /// Its label in a token.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Self::Identity => "keyfleet-station-identity".to_owned(),
            Self::Authority(generation) => format!("keyfleet-station-authority-{generation}"),
            Self::Record(generation) => format!("keyfleet-station-record-{generation}"),
        }
    }
}

/// The label of the key to which the batch key is sealed.
#[must_use]
pub fn transport_label(generation: Generation) -> String {
    format!("keyfleet-station-transport-{generation}")
}

/// The labels of all keys of a generation.
#[must_use]
pub fn labels(generation: Generation) -> [String; 3] {
    let signing = [StationKey::Authority(generation), StationKey::Record(generation)].map(StationKey::label);
    let [authority, record] = signing;
    [authority, record, transport_label(generation)]
}

/// The token did not do what was asked; why is in the log of whoever holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the station's token did not {0}")]
pub struct TokenError(pub &'static str);

impl TokenError {
    /// The disk that its counter is on has no space.
    pub const DISK_FULL: Self = Self("advance its counter: its disk is full");
    /// It has no room for the keys of another batch.
    pub const FULL: Self = Self("make the keys of a batch: it is full");
    /// It does not hold the keys of a generation: they were destroyed, or it is another token.
    pub const MISSING: Self = Self("find the keys of the batch");
    /// It never drew the generation of a batch in the station's directory: it is another token, or an old copy.
    pub const OTHER: Self =
        Self("draw the keys of a batch in the station's directory: it is another one, or an old copy");
    /// The keys of a generation are still there.
    pub const NOT_DESTROYED: Self = Self("destroy the keys of the batch");
}

/// A station's token.
pub trait StationToken: Send + Sync {
    /// What it is, for records and people: at most 32 octets.
    fn source(&self) -> &str;

    /// The public half of a key.
    ///
    /// # Errors
    /// [`TokenError`]; [`TokenError::MISSING`] where the generation is not there.
    fn public_key(&self, key: StationKey) -> Result<P256Key, TokenError>;

    /// Signs a message: ECDSA with SHA-256, DER.
    ///
    /// # Errors
    /// [`TokenError`].
    fn sign(&self, key: StationKey, message: &[u8]) -> Result<Vec<u8>, TokenError>;

    /// The public half of the transport key of a generation, to which its batch key is sealed.
    ///
    /// # Errors
    /// As [`StationToken::public_key`].
    fn transport_key(&self, generation: Generation) -> Result<P256Key, TokenError>;

    /// The x-coordinate of the ECDH between the transport key of a generation and `peer`.
    ///
    /// # Errors
    /// As [`StationToken::public_key`].
    fn agree(&self, generation: Generation, peer: &[u8; 65]) -> Result<SecretArray<32>, TokenError>;

    /// Makes those keys of a generation that are not there yet: after a power cut the same call finishes it.
    ///
    /// # Errors
    /// [`TokenError`]; [`TokenError::FULL`] where there is no room.
    fn draw(&self, generation: Generation) -> Result<(), TokenError>;

    /// Destroys the keys of a generation, looks for them, and says by which method. Those that are gone already are no error: after
    /// a power cut the same call finishes it.
    ///
    /// # Errors
    /// [`TokenError`]; some keys may then be gone.
    fn destroy(&self, generation: Generation) -> Result<&'static str, TokenError>;

    /// Fills `out` with random octets.
    ///
    /// # Errors
    /// [`TokenError`]; the octets must then not be used.
    fn fill_random(&self, out: &mut [u8]) -> Result<(), TokenError>;

    /// How many units were counted for a batch.
    ///
    /// # Errors
    /// [`TokenError`].
    fn counter(&self, batch: &[u8; 16]) -> Result<u64, TokenError>;

    /// Raises the counter of a batch; a number that is not above it changes nothing.
    ///
    /// # Errors
    /// [`TokenError`].
    fn advance(&self, batch: &[u8; 16], to: u64) -> Result<(), TokenError>;
}
