//! What an encryption key of the server made of some octets: a COSE_Encrypt0 (RFC 9052 section 5.2) that names its key and
//! version, written as one word.
//!
//! ```text
//! kfc1.<base64url without padding of>
//! 16([ << {1: 3, 4: kid} >>, {5: iv}, ciphertext ])        kid = key (16 octets) || version (4, big-endian)
//! ```
//! The algorithm is A256GCM (3). There is exactly one encoding of each, so that a scan of a file finds every one of them.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use kf_key::EncryptionKeyId;
use minicbor::data::Tag;
use minicbor::{Decoder, Encoder};

/// What every one begins with.
pub const CIPHERTEXT_PREFIX: &str = "kfc1.";
/// The most octets of a plaintext.
pub const MAX_PLAINTEXT_OCTETS: usize = 64 * 1024;
/// The most octets that a ciphertext may be bound to.
pub const MAX_DATA_AAD_OCTETS: usize = 4 * 1024;
/// The most characters of a ciphertext's text: a plaintext of the largest size, a tag and less than 80 octets around, in base64.
pub const MAX_CIPHERTEXT_CHARACTERS: usize = 88_000;

const IV_OCTETS: usize = 12;
const TAG_OCTETS: usize = 16;
/// COSE_Encrypt0, RFC 9052 section 2.
const ENCRYPT0: u64 = 16;
/// A256GCM, RFC 9053 section 4.1.
const A256GCM: u8 = 3;
/// Header parameters alg, kid and IV, RFC 9052 section 3.1.
const ALG: u8 = 1;
const KID: u8 = 4;
const IV: u8 = 5;

/// A ciphertext taken apart. **Nothing in it is authenticated** until it is decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphertext {
    /// The key that it claims.
    pub key: EncryptionKeyId,
    /// The version of that key, from 1.
    pub version: u32,
    /// The initialization vector, then what the cipher gave: ciphertext and tag.
    pub iv_and_body: Vec<u8>,
}

/// A text that is no ciphertext of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotACiphertext(&'static str);

impl fmt::Display for NotACiphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no ciphertext of an encryption key: {}", self.0)
    }
}

impl std::error::Error for NotACiphertext {}

/// Writing to memory does not fail.
fn written(
    write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), minicbor::encode::Error<Infallible>>,
) -> Vec<u8> {
    let mut octets = Vec::new();
    match write(&mut Encoder::new(&mut octets)) {
        Ok(()) => octets,
        // The only error that is left is one of a type's own encoding, and none of ours is used.
        Err(_impossible) => Vec::new(),
    }
}

fn protected(key: EncryptionKeyId, version: u32) -> Vec<u8> {
    let kid = [&key.as_bytes()[..], &version.to_be_bytes()].concat();
    written(|out| out.map(2)?.u8(ALG)?.u8(A256GCM)?.u8(KID)?.bytes(&kid)?.ok())
}

/// The additional authenticated data of the cipher: `["Encrypt0", protected, external_aad]` (RFC 9052 section 5.3).
#[must_use]
pub fn ciphertext_aad(key: EncryptionKeyId, version: u32, external_aad: &[u8]) -> Vec<u8> {
    written(|out| out.array(3)?.str("Encrypt0")?.bytes(&protected(key, version))?.bytes(external_aad)?.ok())
}

impl Ciphertext {
    /// Octets of the plaintext.
    #[must_use]
    pub fn plaintext_octets(&self) -> usize {
        self.iv_and_body.len().saturating_sub(IV_OCTETS + TAG_OCTETS)
    }

    /// The COSE_Encrypt0.
    #[must_use]
    pub fn to_cose(&self) -> Vec<u8> {
        let (iv, body) = self.iv_and_body.split_at_checked(IV_OCTETS).unwrap_or_default();
        let protected = protected(self.key, self.version);
        written(|out| {
            out.tag(Tag::new(ENCRYPT0))?.array(3)?.bytes(&protected)?.map(1)?.u8(IV)?.bytes(iv)?.bytes(body)?.ok()
        })
    }

    /// Takes a COSE_Encrypt0 apart.
    ///
    /// # Errors
    /// [`NotACiphertext`] for everything but the one encoding.
    pub fn from_cose(octets: &[u8]) -> Result<Self, NotACiphertext> {
        let parsed = Self::parse(octets).map_err(|_detail| NotACiphertext("not a COSE_Encrypt0 of this form"))?;
        let parsed =
            parsed.ok_or(NotACiphertext("not a COSE_Encrypt0 under A256GCM that names a key and its version"))?;
        if parsed.iv_and_body.len() < IV_OCTETS + TAG_OCTETS || parsed.version == 0 {
            return Err(NotACiphertext("it is cut short"));
        }
        // One encoding of each: nothing behind it, no longer form of a length.
        if parsed.to_cose() == octets { Ok(parsed) } else { Err(NotACiphertext("not in deterministic encoding")) }
    }

    fn parse(octets: &[u8]) -> Result<Option<Self>, minicbor::decode::Error> {
        let mut input = Decoder::new(octets);
        if input.tag()? != Tag::new(ENCRYPT0) || input.array()? != Some(3) {
            return Ok(None);
        }
        let mut protected = Decoder::new(input.bytes()?);
        let is_ours = protected.map()? == Some(2)
            && protected.u8()? == ALG
            && protected.u8()? == A256GCM
            && protected.u8()? == KID;
        let kid: Option<&[u8; 20]> = protected.bytes()?.try_into().ok();
        let (true, Some(kid)) = (is_ours, kid) else { return Ok(None) };
        if input.map()? != Some(1) || input.u8()? != IV {
            return Ok(None);
        }
        let iv = input.bytes()?;
        let body = input.bytes()?;
        let (Some((key, version)), true) = (kid.split_first_chunk::<16>(), iv.len() == IV_OCTETS) else {
            return Ok(None);
        };
        let version = version.try_into().map(u32::from_be_bytes).unwrap_or_default();
        let key = EncryptionKeyId::from_bytes(*key);
        Ok(Some(Self { key, version, iv_and_body: [iv, body].concat() }))
    }
}

impl fmt::Display for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CIPHERTEXT_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(self.to_cose()))
    }
}

impl FromStr for Ciphertext {
    type Err = NotACiphertext;

    fn from_str(text: &str) -> Result<Self, NotACiphertext> {
        if text.len() > MAX_CIPHERTEXT_CHARACTERS {
            return Err(NotACiphertext("it is longer than the longest"));
        }
        let body = text.strip_prefix(CIPHERTEXT_PREFIX).ok_or(NotACiphertext("it does not begin with kfc1."))?;
        let octets = BASE64_URL_SAFE_NO_PAD.decode(body).map_err(|_detail| NotACiphertext("not base64url"))?;
        Self::from_cose(&octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Ciphertext {
        let key = EncryptionKeyId::from_bytes([0xab; 16]);
        Ciphertext { key, version: 3, iv_and_body: (0..40).collect() }
    }

    #[test]
    fn a_ciphertext_survives_its_text_and_names_its_key_and_version() {
        let text = example().to_string();
        assert!(text.starts_with(CIPHERTEXT_PREFIX));
        assert_eq!(text.parse(), Ok(example()));
        assert_eq!(example().plaintext_octets(), 12);
    }

    #[test]
    fn the_octets_are_those_that_rfc_9052_describes() {
        let expected = concat!(
            "d083", // 16([ ... ])
            "5819",
            "a2",
            "0103",
            "0454",
            "abababababababababababababababab",
            "00000003", // protected
            "a1",
            "054c",
            "000102030405060708090a0b", // {5: iv}
            "581c",
            "0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627",
        );
        let octets: Vec<u8> = (0..expected.len() / 2)
            .map(|place| u8::from_str_radix(&expected[2 * place..2 * place + 2], 16).unwrap())
            .collect();
        assert_eq!(example().to_cose(), octets);
        assert_eq!(Ciphertext::from_cose(&octets), Ok(example()));
        let aad = ciphertext_aad(example().key, 3, b"x");
        assert_eq!(&aad[..12], b"\x83\x68Encrypt0\x58\x19");
        assert_eq!(&aad[aad.len() - 2..], b"\x41x");
    }

    #[test]
    fn every_cut_and_every_octet_more_is_refused() {
        let octets = example().to_cose();
        for length in 0..octets.len() {
            assert!(Ciphertext::from_cose(&octets[..length]).is_err(), "{length} octets");
        }
        assert!(Ciphertext::from_cose(&[&octets[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_longer_form_of_the_same_is_refused() {
        // The array's length in two octets instead of one.
        let octets = example().to_cose();
        let longer = [&[0xd0, 0x98, 3][..], &octets[2..]].concat();
        assert!(Ciphertext::from_cose(&longer).is_err());
    }

    #[test]
    fn what_is_no_ciphertext_says_why() {
        for text in ["", "kfc1.", "kfc1.===", "vault:v1:abc", "kfc1.0IM"] {
            assert!(text.parse::<Ciphertext>().is_err(), "{text}");
        }
        let long = format!("kfc1.{}", "A".repeat(MAX_CIPHERTEXT_CHARACTERS));
        assert_eq!(long.parse::<Ciphertext>(), Err(NotACiphertext("it is longer than the longest")));
    }
}
