//! The key hierarchy. Every symmetric key below the root is `HKDF-Expand(parent, info, 32)` (RFC 5869 section 2.3),
//! one Expand per label, never chained blocks of one call. For 32 octets of SHA-256 that is exactly one HMAC-SHA-256
//! over `info || 0x01`, so any level can live in any hardware with a keyed HMAC and nothing else: a PKCS#11 token
//! (CKM_SHA256_HMAC), a TPM (TPM2_HMAC), an eFuse key behind an HMAC peripheral. [`KeyedHmac`] is that hardware.
//! [`CounterMode`] computes the same tree by SP 800-108r1, again with one HMAC a step.
//!
//! Parents are uniformly random, so Extract is skipped (RFC 5869 section 3.3). What is not uniformly random (an ECDH
//! output, a PUF response) enters through [`extract`]. One type per level: a key of a level has no constructor but
//! derivation from the level above and `from_keyed_hmac` for one that a back end holds.
//!
//! A key derived from a static root is *separated* from its siblings; it has no forward secrecy, because the root
//! recomputes it for ever. [`Ratchet`] protects a device's past against who takes the device, and
//! [`DeviceKey::mixed_session`] protects a session against who takes the root.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod arrangement;
mod hierarchy;
mod info;
mod keyed_hmac;
mod leaf;
mod mixed_session;
mod prepared;
mod ratchet;

pub use arrangement::{CounterMode, KeyDerivationKey, SoftwareHeld};
pub use hierarchy::{ApplicationKey, BatchKey, DeriveError, DeviceKey, FacilityKey, FleetRoot, FusedKey, SessionKey};
pub use info::{Algorithm, ContextTooLong, Info, Level, MAX_CONTEXT_OCTETS, MAX_INFO_OCTETS, Purpose};
pub use keyed_hmac::{KeyedHmac, SoftwareKey, expand, extract};
pub use leaf::{AeadAlgorithm, AuthenticationKey, EncryptionKey, SealingKey, Sender, StorageKey, WrappingKey};
pub use mixed_session::MixError;
pub use prepared::PreparedKey;
pub use ratchet::{Ratchet, RatchetError};

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests;
