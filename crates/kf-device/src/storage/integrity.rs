//! The tag at the end of every group.

use hmac::{Hmac, KeyInit, Mac};
use kf_key::SecretArray;
use sha2::Sha256;

/// How groups are protected against change.
pub trait Integrity {
    /// A tag in the making.
    type Tag;

    /// Begins one.
    fn begin(&self) -> Self::Tag;
    /// Adds octets.
    fn update(tag: &mut Self::Tag, octets: &[u8]);
    /// Ends it.
    fn finish(tag: Self::Tag) -> [u8; 8];
}

/// CRC-32 (ISO 3309) and its complement: finds what cuts and cells do, not what somebody does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum;

const CRC_32_REFLECTED: u32 = 0xedb8_8320;

impl Integrity for Checksum {
    type Tag = u32;

    fn begin(&self) -> u32 {
        u32::MAX
    }

    fn update(tag: &mut u32, octets: &[u8]) {
        for octet in octets {
            *tag ^= u32::from(*octet);
            for _ in 0..8 {
                let carry = *tag & 1;
                *tag >>= 1;
                if carry == 1 {
                    *tag ^= CRC_32_REFLECTED;
                }
            }
        }
    }

    fn finish(tag: u32) -> [u8; 8] {
        let [a, b, c, d] = (!tag).to_be_bytes();
        [a, b, c, d, !a, !b, !c, !d]
    }
}

/// The first 64 bits of HMAC-SHA-256 under a key that is not in this memory. It finds changes; it cannot find an old
/// copy that is written back.
#[derive(Debug)]
pub struct Authenticated(SecretArray<32>);

impl Authenticated {
    /// With this key, for example from [`WrapKey`](crate::derivation::WrapKey).
    #[must_use]
    pub const fn new(key: SecretArray<32>) -> Self {
        Self(key)
    }
}

impl Integrity for Authenticated {
    type Tag = Hmac<Sha256>;

    fn begin(&self) -> Hmac<Sha256> {
        let mut block = zeroize::Zeroizing::new([0; 64]);
        // Exposed to HMAC.
        block.iter_mut().zip(self.0.expose()).for_each(|(place, octet)| *place = *octet);
        Hmac::new((&*block).into())
    }

    fn update(tag: &mut Hmac<Sha256>, octets: &[u8]) {
        tag.update(octets);
    }

    fn finish(tag: Hmac<Sha256>) -> [u8; 8] {
        let tag: [u8; 32] = tag.finalize().into_bytes().into();
        let mut first = [0; 8];
        first.iter_mut().zip(tag).for_each(|(place, octet)| *place = octet);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_crc_32() {
        let mut tag = Checksum.begin();
        Checksum::update(&mut tag, b"12345");
        Checksum::update(&mut tag, b"6789");
        assert_eq!(&Checksum::finish(tag)[..4], &0xcbf4_3926_u32.to_be_bytes());
    }

    #[test]
    fn tags_under_different_keys_differ() {
        let tag = |key: u8| {
            let integrity = Authenticated::new(SecretArray::fill(|octets| octets.fill(key)));
            let mut tag = integrity.begin();
            Authenticated::update(&mut tag, b"octets");
            Authenticated::finish(tag)
        };
        assert_eq!(tag(1), tag(1));
        assert_ne!(tag(1), tag(2));
    }
}
