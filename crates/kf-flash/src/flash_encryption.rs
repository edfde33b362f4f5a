//! Flash encryption of the S2 and later chips: AES-XTS over units of 128 octets (IEEE 1619).
//!
//! The number of a unit is its flash address. The chip handles each unit back to front: its octets are reversed before
//! encryption and after it. Like NVS encryption it has no authenticity. The first ESP32 has another scheme (AES with a
//! tweaked key), which is not here: that chip encrypts its own flash on the first boot.

use core::fmt;

use aes_of_xts::cipher::KeyInit;
use aes_of_xts::{Aes128, Aes256};
use kf_key::SecretArray;
use xts_mode::{Xts128, get_tweak_default};
use zeroize::Zeroize;

use crate::octets::field;

/// Octets of a unit.
const UNIT: usize = 128;
/// Octets of an AES block, to which address and length are aligned.
const BLOCK: usize = 16;

/// Encrypts and decrypts flash in place. The round keys are wiped when it is dropped.
pub struct FlashCipher(Xts);

#[allow(clippy::large_enum_variant, reason = "without an allocator there is nothing to point to")]
enum Xts {
    Aes128(Xts128<Aes128>),
    Aes256(Xts128<Aes256>),
}

/// Why octets were not encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlashEncryptionError {
    /// Address and length are multiples of 16.
    Unaligned {
        /// The flash address.
        address: u32,
        /// How many octets.
        octets: usize,
    },
    /// The end is past the last flash address.
    TooLong,
}

impl FlashCipher {
    /// Under the 32 octets of a block of purpose `XTS_AES_128_KEY`.
    #[must_use]
    pub fn aes_128(key: &SecretArray<32>) -> Self {
        // Exposed to the key schedules.
        let (encryption, tweak) = key.expose().split_at(16);
        let aes = |key: &[u8]| Aes128::new(&field(key, 0).into());
        Self(Xts::Aes128(Xts128::new(aes(encryption), aes(tweak))))
    }

    /// Under the 64 octets of two blocks of purposes `XTS_AES_256_KEY_1` and `XTS_AES_256_KEY_2`.
    #[must_use]
    pub fn aes_256(key: &SecretArray<64>) -> Self {
        // Exposed to the key schedules.
        let (encryption, tweak) = key.expose().split_at(32);
        let aes = |key: &[u8]| Aes256::new(&field(key, 0).into());
        Self(Xts::Aes256(Xts128::new(aes(encryption), aes(tweak))))
    }

    /// Encrypts what will lie at `address`.
    ///
    /// # Errors
    /// [`FlashEncryptionError`].
    pub fn encrypt(&self, address: u32, octets: &mut [u8]) -> Result<(), FlashEncryptionError> {
        each_unit(address, octets, |number, unit| match &self.0 {
            Xts::Aes128(xts) => xts.encrypt_sector(unit, get_tweak_default(number)),
            Xts::Aes256(xts) => xts.encrypt_sector(unit, get_tweak_default(number)),
        })
    }

    /// Decrypts what lies at `address`.
    ///
    /// # Errors
    /// [`FlashEncryptionError`].
    pub fn decrypt(&self, address: u32, octets: &mut [u8]) -> Result<(), FlashEncryptionError> {
        each_unit(address, octets, |number, unit| match &self.0 {
            Xts::Aes128(xts) => xts.decrypt_sector(unit, get_tweak_default(number)),
            Xts::Aes256(xts) => xts.decrypt_sector(unit, get_tweak_default(number)),
        })
    }
}

fn each_unit(
    address: u32,
    octets: &mut [u8],
    mut each: impl FnMut(u128, &mut [u8; UNIT]),
) -> Result<(), FlashEncryptionError> {
    let unaligned = FlashEncryptionError::Unaligned { address, octets: octets.len() };
    let start = usize::try_from(address).map_err(|_small| FlashEncryptionError::TooLong)?;
    if !start.is_multiple_of(BLOCK) || !octets.len().is_multiple_of(BLOCK) {
        return Err(unaligned);
    }
    if u32::try_from(octets.len()).ok().and_then(|octets| address.checked_add(octets)).is_none() {
        return Err(FlashEncryptionError::TooLong);
    }
    let before = start % UNIT;
    let mut unit = [0; UNIT];
    let mut number = u128::from(address - u32::try_from(before).unwrap_or_default());
    // Blocks of a unit do not depend on each other, so that the rest of a unit at either end can be anything.
    let (first, rest) = octets.split_at_mut(octets.len().min((UNIT - before) % UNIT));
    let parts = [(before, first)].into_iter().chain(rest.chunks_mut(UNIT).map(|chunk| (0, chunk)));
    for (at, chunk) in parts.filter(|(_, chunk)| !chunk.is_empty()) {
        let place = at..at + chunk.len();
        unit.get_mut(place.clone()).unwrap_or_default().copy_from_slice(chunk);
        unit.reverse();
        each(number, &mut unit);
        unit.reverse();
        chunk.copy_from_slice(unit.get(place).unwrap_or_default());
        number += 128;
    }
    unit.zeroize();
    Ok(())
}

impl fmt::Display for FlashEncryptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unaligned { address, octets } => {
                write!(f, "address {address:#x} and length {octets} must be multiples of 16: pad the image")
            }
            Self::TooLong => f.write_str("the image reaches past the last flash address"),
        }
    }
}

impl core::error::Error for FlashEncryptionError {}
