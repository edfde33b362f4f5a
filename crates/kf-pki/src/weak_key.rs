//! Keys that must never be certified.

mod known;
mod rsa;

use crate::public_key::{PublicKey, RsaNumbers};
use crate::request::RequestedKey;

/// Why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeakKey {
    /// Not of the algorithm that it is said to be of.
    #[error("the public key is of another algorithm")]
    Algorithm,
    /// RSA modulus of a size that is not accepted, even, or with a small factor.
    #[error("the RSA modulus is not 2048, 3072 or 4096 bits of good form")]
    Modulus,
    /// RSA exponent even, or below 65537, or above 2^256.
    #[error("the RSA exponent is not an odd number from 65537")]
    Exponent,
    /// Made by the faulty Infineon library (CVE-2017-15361).
    #[error("the RSA modulus has the ROCA fingerprint")]
    Roca,
    /// Two primes that are too close (Fermat).
    #[error("the RSA primes are too close to each other")]
    ClosePrimes,
    /// On the list of keys whose private half is known.
    #[error("the private half of this key is publicly known")]
    KnownLeaked,
}

/// Refuses keys that are weak in themselves. `is_blocked` answers whether a SHA-256 of a SubjectPublicKeyInfo is on
/// the fleet's own list; the published test keys (RFC 9500 and the like) are built in.
///
/// # Errors
/// [`WeakKey`].
pub fn check_key(key: &RequestedKey, is_blocked: impl Fn(&[u8; 32]) -> bool) -> Result<(), WeakKey> {
    if known::is_published(&key.spki_sha256) || is_blocked(&key.spki_sha256) {
        return Err(WeakKey::KnownLeaked);
    }
    let public_key = PublicKey::from_spki(&key.spki).map_err(|_not_ours| WeakKey::Algorithm)?;
    if public_key.algorithm != key.algorithm {
        return Err(WeakKey::Algorithm);
    }
    if key.algorithm.may_sign_certificates() {
        return Ok(());
    }
    let numbers = RsaNumbers::from_der(public_key.bits).ok_or(WeakKey::Modulus)?;
    rsa::check(&numbers)
}

#[cfg(test)]
mod tests;
