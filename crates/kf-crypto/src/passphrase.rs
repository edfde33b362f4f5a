//! Keys from passphrases: Argon2id (RFC 9106).

use argon2::{Algorithm, Argon2, Params, Version};
use kf_key::{SecretArray, SecretBytes};

use crate::CryptoError;

/// The cost of one Argon2id evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory in KiB; at least 65,536 (64 MiB).
    pub memory_kib: u32,
    /// Passes over the memory; at least 3.
    pub passes: u32,
    /// Lanes, at least 1.
    pub lanes: u32,
}

impl Argon2Cost {
    /// 64 MiB and three passes: the second recommended option of RFC 9106 section 4, and our floor.
    pub const FLOOR: Self = Self { memory_kib: 65_536, passes: 3, lanes: 4 };
    /// The most that a sealed file may ask for (1 GiB, 16 passes), so that a forged header is no denial of service.
    pub const CEILING: Self = Self { memory_kib: 1_048_576, passes: 16, lanes: 16 };

    fn is_sane(self) -> bool {
        (Self::FLOOR.memory_kib..=Self::CEILING.memory_kib).contains(&self.memory_kib)
            && (Self::FLOOR.passes..=Self::CEILING.passes).contains(&self.passes)
            && (1..=Self::CEILING.lanes).contains(&self.lanes)
    }
}

/// 32 octets from a passphrase and a salt of at least 16 octets.
///
/// # Errors
/// [`CryptoError`] when the cost lies outside floor and ceiling or the salt is too short.
pub fn derive_from_passphrase(
    passphrase: &SecretBytes,
    salt: &[u8],
    cost: Argon2Cost,
) -> Result<SecretArray<32>, CryptoError> {
    if !cost.is_sane() || salt.len() < 16 {
        return Err(CryptoError);
    }
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_too_large| CryptoError)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    // Exposed to the one function that stretches it.
    SecretArray::try_fill(|key| argon2.hash_password_into(passphrase.expose(), salt, key).map_err(|_error| CryptoError))
}
