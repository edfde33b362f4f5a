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

/// The keys of a station; each serves one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StationKey {
    /// Signs station requests; the server knows it.
    Identity,
    /// The issuing CA of a batch.
    Authority,
    /// Signs records and manifests.
    Record,
}

impl StationKey {
    /// Every key that signs.
    pub const ALL: [Self; 3] = [Self::Identity, Self::Authority, Self::Record];

    /// Its label in a token.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Identity => "keyfleet-station-identity",
            Self::Authority => "keyfleet-station-authority",
            Self::Record => "keyfleet-station-record",
        }
    }
}

/// The token did not do what was asked; why is in the log of whoever holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the station's token did not {0}")]
pub struct TokenError(pub &'static str);

impl TokenError {
    /// The disk that its counter is on has no space.
    pub const DISK_FULL: Self = Self("advance its counter: its disk is full");
}

/// A station's token.
pub trait StationToken: Send + Sync {
    /// What it is, for records and people: at most 32 octets.
    fn source(&self) -> &str;

    /// The public half of a key.
    ///
    /// # Errors
    /// [`TokenError`].
    fn public_key(&self, key: StationKey) -> Result<P256Key, TokenError>;

    /// Signs a message: ECDSA with SHA-256, DER.
    ///
    /// # Errors
    /// [`TokenError`].
    fn sign(&self, key: StationKey, message: &[u8]) -> Result<Vec<u8>, TokenError>;

    /// The public half of the transport key, to which batch keys are sealed.
    ///
    /// # Errors
    /// [`TokenError`].
    fn transport_key(&self) -> Result<P256Key, TokenError>;

    /// The x-coordinate of the ECDH between the transport key and `peer`.
    ///
    /// # Errors
    /// [`TokenError`].
    fn agree(&self, peer: &[u8; 65]) -> Result<SecretArray<32>, TokenError>;

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
