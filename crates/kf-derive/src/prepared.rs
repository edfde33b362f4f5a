//! A parent from which many keys are derived: the two states of HMAC behind the key block, computed once.

use core::convert::Infallible;
use core::fmt;

use sha2::block_api::compress256;
use zeroize::Zeroize;

use crate::hierarchy::{DeviceKey, FacilityKey, FleetRoot, SessionKey};
use crate::keyed_hmac::{KeyedHmac, SoftwareKey};

/// FIPS 180-4 section 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

const BLOCK: usize = 64;

/// A key in this process with its key block hashed already (FIPS 198-1 section 4, NOTE on precomputation): a step of up to
/// 55 octets then costs two compressions instead of four. The states are as secret as the key, and are wiped with it.
pub struct PreparedKey {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl PreparedKey {
    /// Spends `key`.
    #[must_use]
    pub fn new(key: SoftwareKey) -> Self {
        let key = key.into_secret();
        let under = |pad: u8| {
            let mut block = [pad; BLOCK];
            // Exposed to HMAC.
            block.iter_mut().zip(key.expose()).for_each(|(octet, key)| *octet ^= key);
            let mut state = INITIAL;
            compress256(&mut state, &[block]);
            block.zeroize();
            state
        };
        Self { inner: under(0x36), outer: under(0x5c) }
    }
}

impl KeyedHmac for PreparedKey {
    type Error = Infallible;

    fn hmac_sha256(&self, message: &[u8], tag: &mut [u8; 32]) -> Result<(), Infallible> {
        let mut digest = [0; 32];
        finish(self.inner, message, &mut digest);
        // What stays of the inner digest is worth nothing without the outer state.
        finish(self.outer, &digest, tag);
        Ok(())
    }
}

/// SHA-256 of one block that is in `state` already, and `message`. Octets are moved in whole slices: this is the inner
/// loop of deriving a fleet.
#[inline]
fn finish(mut state: [u32; 8], message: &[u8], digest: &mut [u8; 32]) {
    let (blocks, rest) = message.as_chunks::<BLOCK>();
    if !blocks.is_empty() {
        compress256(&mut state, blocks);
    }
    let mut last = [0; BLOCK];
    if let Some((place, after)) = last.split_at_mut_checked(rest.len()) {
        place.copy_from_slice(rest);
        // What is left over of blocks is shorter than one.
        after.iter_mut().take(1).for_each(|octet| *octet = 0x80);
    }
    if rest.len() >= BLOCK - 8 {
        compress256(&mut state, &[last]);
        last = [0; BLOCK];
    }
    // In bits; no slice has 2^61 octets.
    let bits = u64::try_from(BLOCK + message.len()).unwrap_or(0).wrapping_mul(8);
    if let Some(length) = last.last_chunk_mut() {
        *length = bits.to_be_bytes();
    }
    compress256(&mut state, &[last]);
    let (words, _) = digest.as_chunks_mut::<4>();
    words.iter_mut().zip(state).for_each(|(octets, word)| *octets = word.to_be_bytes());
    state.zeroize();
}

impl Drop for PreparedKey {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

impl fmt::Debug for PreparedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreparedKey")
    }
}

macro_rules! prepared {
    ($($name:ident)+) => {$(
        impl $name {
            /// The same key, ready to derive many from.
            #[must_use]
            pub fn prepare(self) -> $name<PreparedKey> {
                $name(PreparedKey::new(self.0))
            }
        }
    )+};
}

prepared! { FleetRoot FacilityKey DeviceKey SessionKey }
