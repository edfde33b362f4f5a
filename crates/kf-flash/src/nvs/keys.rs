//! The two keys of an encrypted partition, and where they come from.

use core::convert::Infallible;

use kf_key::SecretArray;

use super::{NvsCipher, NvsError, PAGE_OCTETS};
use crate::octets::{crc32, is_blank, put, u32_le};

/// What the HMAC peripheral is asked for the encryption key of scheme B: `0xaebe5a5a` eight times, little endian.
pub const HMAC_ENCRYPTION_MESSAGE: [u8; 32] = repeat([0x5a, 0x5a, 0xbe, 0xae]);
/// What the HMAC peripheral is asked for the tweak key of scheme B: `0xcedea5a5` eight times, little endian.
pub const HMAC_TWEAK_MESSAGE: [u8; 32] = repeat([0xa5, 0xa5, 0xde, 0xce]);

/// Octets of both keys.
const KEY_OCTETS: usize = 64;

/// Encryption key and tweak key of one NVS partition.
pub struct NvsKeys(SecretArray<KEY_OCTETS>);

impl NvsKeys {
    /// Takes 64 octets from a random source of the caller: the encryption key, then the tweak key.
    ///
    /// # Errors
    /// [`NvsError::WeakKeys`] when the two are equal or one is a single octet repeated: that is no random source.
    pub fn from_secret(keys: SecretArray<KEY_OCTETS>) -> Result<Self, NvsError> {
        // Exposed to look for what a broken random source or a blank page gives.
        let (encryption, tweak) = keys.expose().split_at(32);
        let is_constant = |key: &[u8]| key.windows(2).all(|pair| pair.first() == pair.last());
        if encryption == tweak || is_constant(encryption) || is_constant(tweak) {
            return Err(NvsError::WeakKeys);
        }
        Ok(Self(keys))
    }

    /// Scheme B: both keys are what `hmac`, HMAC-SHA-256 under an eFuse key of purpose `HMAC_UP`, makes of two fixed
    /// messages. On the chip that is the HMAC peripheral; in a factory that makes the eFuse key, software.
    ///
    /// # Errors
    /// Whatever `hmac` returns, or [`NvsError::WeakKeys`] for an `hmac` that is none.
    pub fn from_hmac<E: From<NvsError>>(
        mut hmac: impl FnMut(&[u8; 32]) -> Result<SecretArray<32>, E>,
    ) -> Result<Self, E> {
        let encryption = hmac(&HMAC_ENCRYPTION_MESSAGE)?;
        let tweak = hmac(&HMAC_TWEAK_MESSAGE)?;
        let keys = SecretArray::fill(|keys: &mut [u8; KEY_OCTETS]| {
            // Exposed to put the two beside each other.
            put(keys, 0, encryption.expose());
            put(keys, 32, tweak.expose());
        });
        Ok(Self::from_secret(keys)?)
    }

    /// Scheme A: reads a keys partition (type data, subtype `nvs_keys`), after flash decryption.
    ///
    /// # Errors
    /// [`NvsError::BlankKeys`], [`NvsError::KeysChecksum`], [`NvsError::WeakKeys`]; [`NvsError::PartitionSize`] when there
    /// are fewer than 68 octets.
    pub fn from_partition(octets: &[u8]) -> Result<Self, NvsError> {
        let size = NvsError::PartitionSize { octets: octets.len() };
        let (keys, rest) = octets.split_first_chunk::<KEY_OCTETS>().ok_or(size)?;
        let crc = rest.first_chunk::<4>().ok_or(size)?;
        if is_blank(keys) && is_blank(crc) {
            return Err(NvsError::BlankKeys);
        }
        if crc32(&[keys]) != u32_le(rest, 0) {
            return Err(NvsError::KeysChecksum);
        }
        Self::from_secret(SecretArray::fill(|secret| *secret = *keys))
    }

    /// Scheme A: writes a keys partition. It protects nothing until flash encryption encrypts it: whoever reads it reads
    /// the NVS partition.
    pub fn write_partition(&self, partition: &mut [u8; PAGE_OCTETS]) {
        partition.fill(0xff);
        // Exposed because the keys partition holds them in clear, by the format.
        let keys = self.0.expose();
        put(partition, 0, keys);
        put(partition, KEY_OCTETS, &crc32(&[keys]).to_le_bytes());
    }

    /// Encryption key and tweak key, for `nvs_sec_cfg_t` of ESP-IDF (`eky`, `tky`): the driver takes them in clear.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_OCTETS] {
        // Exposed to a driver that keeps them itself.
        self.0.expose()
    }

    /// The cipher under these keys.
    #[must_use]
    pub fn cipher(&self) -> NvsCipher {
        // Exposed to expand the AES keys.
        NvsCipher::new(self.0.expose())
    }
}

/// So that an `hmac` that cannot fail needs no error type.
impl From<Infallible> for NvsError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

const fn repeat(word: [u8; 4]) -> [u8; 32] {
    let [a, b, c, d] = word;
    [a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d]
}
