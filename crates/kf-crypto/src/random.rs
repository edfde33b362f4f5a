//! Random octets from the operating system through the provider's DRBG (SP 800-90A CTR_DRBG, seeded by getrandom).

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use kf_key::SecretArray;

use crate::CryptoError;

/// Fills `bytes` with random octets.
///
/// # Errors
/// [`CryptoError`] when the operating system gives no randomness; the octets must then not be used.
pub fn fill_random(bytes: &mut [u8]) -> Result<(), CryptoError> {
    SystemRandom::new().fill(bytes).map_err(|aws_lc_rs::error::Unspecified| CryptoError)
}

/// `N` random octets that are not secret (identifiers, serial numbers, nonces).
///
/// # Errors
/// As [`fill_random`].
pub fn random_array<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

/// `N` random secret octets.
///
/// # Errors
/// As [`fill_random`].
pub fn random_secret<const N: usize>() -> Result<SecretArray<N>, CryptoError> {
    SecretArray::try_fill(|bytes| fill_random(bytes))
}
