//! The one place that names the server's cryptographic provider, aws-lc-rs.
//!
//! Everything above speaks of keys, signatures and sealed bytes; nothing above imports a provider. A second lock file
//! for the validated FIPS line of the provider therefore stays possible (docs/decisions). This crate implements no
//! primitive itself.
#![forbid(unsafe_code)]

mod aead;
mod digest;
mod ecdsa;
mod hpke;
mod passphrase;
mod random;
mod signature;
mod transport;

pub use aead::{AEAD_OVERHEAD, open, seal};
pub use digest::{Sha256, hmac_sha256, sha1, sha256, sha384, sha512};
pub use ecdsa::{ecdsa_p256_signature_from_der, ecdsa_signature_to_der};
pub use hpke::{HPKE_POINT_OCTETS, HPKE_TAG_OCTETS, HpkePrivateKey, HpkeReceiver, HpkeSender};
pub use passphrase::{Argon2Cost, derive_from_passphrase};
pub use random::{fill_random, random_array, random_secret};
pub use signature::{
    PrivateKey, SignatureHash, SpkiError, is_public_key, public_key_of_spki, spki_of_public_key, verify,
    verify_rsa_pkcs1, verify_with_hash,
};
pub use transport::{agree_with_ephemeral, encrypt_cfb_once, encrypt_rsa_oaep, hmac_with_hash};

/// A cryptographic operation failed. Opaque on purpose: which step failed is an oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cryptographic operation failed")]
pub struct CryptoError;
