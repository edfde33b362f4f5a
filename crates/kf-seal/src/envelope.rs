//! The shape of an envelope.

use core::fmt;

use crate::algorithm::{SealAlgorithm, TAG_OCTETS};
use crate::boot::{BootId, Nonce};
use crate::cbor::{Reader, Unreadable, Writer};
use crate::key_id::KeyId;
use crate::{MAX_ENVELOPE_OCTETS, MAX_EXTERNAL_AAD_OCTETS};

/// Tag 16 (COSE_Encrypt0) around an array of three.
const START: &[u8] = &[0xd0, 0x83];
/// A map of the three protected parameters, and the key of the first of them.
const PROTECTED_START: &[u8] = &[0xa3, ALG];
/// A map of one, and its key.
const UNPROTECTED_START: &[u8] = &[0xa1, IV];

/// RFC 9052 section 3.1.
const ALG: u8 = 1;
const KID: u8 = 4;
const IV: u8 = 5;
/// RFC 8613 section 5.1.
const KID_CONTEXT: u8 = 10;

/// RFC 9052 section 5.3.
const CONTEXT: &str = "Encrypt0";

/// The most octets of the encoded protected header.
const MAX_PROTECTED_OCTETS: usize = 87;

/// The protected header of every envelope of a boot, encoded once.
pub(crate) struct Protected {
    octets: [u8; MAX_PROTECTED_OCTETS],
    length: usize,
}

impl Protected {
    /// `None` cannot occur: the longest header fits.
    pub(crate) fn encode(algorithm: SealAlgorithm, key_id: &KeyId, boot: &BootId) -> Option<Self> {
        let mut octets = [0; MAX_PROTECTED_OCTETS];
        let mut out = Writer::new(&mut octets);
        out.raw(PROTECTED_START)?;
        out.unsigned(algorithm.cose())?;
        out.unsigned(KID)?;
        key_id.write(&mut out)?;
        out.unsigned(KID_CONTEXT)?;
        out.bytes(&boot.to_bytes())?;
        let length = out.written().len();
        Some(Self { octets, length })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

/// Writes everything before the ciphertext; the octets written. `None`: no room.
pub(crate) fn write_front(out: &mut [u8], protected: &[u8], nonce: &Nonce, ciphertext_octets: usize) -> Option<usize> {
    let mut out = Writer::new(out);
    out.raw(START)?;
    out.bytes(protected)?;
    out.raw(UNPROTECTED_START)?;
    out.bytes(nonce.as_bytes())?;
    out.bytes_head(ciphertext_octets)?;
    Some(out.written().len())
}

/// Octets of the longest [`enc_structure`].
pub(crate) const ENC_STRUCTURE_OCTETS: usize = MAX_PROTECTED_OCTETS + MAX_EXTERNAL_AAD_OCTETS + 15;

/// The additional authenticated data of the cipher: `["Encrypt0", protected, external_aad]` (RFC 9052 section 5.3). Written
/// where the caller says: as a value that is handed on it would lie on a small stack twice.
///
/// `None`: more than [`MAX_EXTERNAL_AAD_OCTETS`].
pub(crate) fn enc_structure<'b>(
    octets: &'b mut [u8; ENC_STRUCTURE_OCTETS],
    protected: &[u8],
    external_aad: &[u8],
) -> Option<&'b [u8]> {
    if external_aad.len() > MAX_EXTERNAL_AAD_OCTETS {
        return None;
    }
    let mut out = Writer::new(octets);
    out.raw(&[0x83])?;
    out.text(CONTEXT)?;
    out.bytes(protected)?;
    out.bytes(external_aad)?;
    let length = out.written().len();
    octets.get(..length)
}

/// Why some octets are not a sealed payload. No secret is involved, so each reason has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// More octets than an envelope can have.
    TooLarge {
        /// Octets given.
        octets: usize,
    },
    /// The input ends before the envelope does.
    Truncated,
    /// Octets behind the envelope.
    TrailingOctets {
        /// How many.
        octets: usize,
    },
    /// Not a COSE_Encrypt0 of the fixed shape in deterministic CBOR.
    NotTheShape,
    /// An algorithm that sealed payloads do not use.
    Algorithm,
    /// `kid` is not a key identifier of this version.
    KeyId,
    /// `kid context` is not a boot.
    Boot,
    /// `IV` is not the nonce of this boot.
    Iv,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { octets } => {
                write!(f, "{octets} octets are more than the {MAX_ENVELOPE_OCTETS} of the largest sealed payload")
            }
            Self::Truncated => f.write_str("the sealed payload is cut short"),
            Self::TrailingOctets { octets } => write!(f, "{octets} octets follow the sealed payload"),
            Self::NotTheShape => f.write_str("not a COSE_Encrypt0 in the form of sealed payloads"),
            Self::Algorithm => f.write_str("the parameter alg is none of 1, 24 and 30"),
            Self::KeyId => f.write_str("the parameter kid is not a key identifier of version 1 or 2"),
            Self::Boot => f.write_str("the parameter kid context is not a boot number and 16 random octets"),
            Self::Iv => f.write_str("the parameter IV does not begin with the boot's random octets"),
        }
    }
}

impl core::error::Error for ParseError {}

impl From<Unreadable> for ParseError {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Truncated => Self::Truncated,
            Unreadable::NotTheShape => Self::NotTheShape,
        }
    }
}

/// An envelope taken apart. **Nothing in it is authenticated** until [`Opener::open`](crate::Opener::open) succeeds: use
/// it to find the key.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    algorithm: SealAlgorithm,
    key_id: KeyId,
    boot: BootId,
    counter: u32,
    protected: &'a [u8],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_OCTETS],
}

impl<'a> Sealed<'a> {
    /// Takes an envelope apart. Exactly one encoding is accepted of each.
    ///
    /// # Errors
    /// [`ParseError`].
    pub fn parse(envelope: &'a [u8]) -> Result<Self, ParseError> {
        if envelope.len() > MAX_ENVELOPE_OCTETS {
            return Err(ParseError::TooLarge { octets: envelope.len() });
        }
        let mut input = Reader::new(envelope);
        input.literal(START)?;
        let protected = input.bytes()?;
        let (algorithm, key_id, boot) = parse_protected(protected)?;
        input.literal(UNPROTECTED_START)?;
        let counter = counter_of(input.bytes()?, algorithm, &boot)?;
        let (ciphertext, tag) = input.bytes()?.split_last_chunk().ok_or(ParseError::Truncated)?;
        match input.rest().len() {
            0 => Ok(Self { algorithm, key_id, boot, counter, protected, ciphertext, tag }),
            octets => Err(ParseError::TrailingOctets { octets }),
        }
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> SealAlgorithm {
        self.algorithm
    }

    /// The key that it claims.
    #[must_use]
    pub const fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// The boot that it claims.
    #[must_use]
    pub const fn boot(&self) -> &BootId {
        &self.boot
    }

    /// The counter that it claims.
    #[must_use]
    pub const fn counter(&self) -> u32 {
        self.counter
    }

    /// Octets of the plaintext: how much room [`Opener::open`](crate::Opener::open) needs.
    #[must_use]
    pub const fn plaintext_octets(&self) -> usize {
        self.ciphertext.len()
    }

    pub(crate) const fn protected(&self) -> &'a [u8] {
        self.protected
    }

    pub(crate) const fn ciphertext(&self) -> (&'a [u8], &'a [u8; TAG_OCTETS]) {
        (self.ciphertext, self.tag)
    }
}

fn parse_protected(protected: &[u8]) -> Result<(SealAlgorithm, KeyId, BootId), ParseError> {
    let mut input = Reader::new(protected);
    input.literal(PROTECTED_START)?;
    let algorithm = u64::try_from(input.unsigned()?).ok().and_then(SealAlgorithm::from_cose);
    let algorithm = algorithm.ok_or(ParseError::Algorithm)?;
    input.literal(&[KID])?;
    let key_id = KeyId::from_bytes(input.bytes()?).ok_or(ParseError::KeyId)?;
    input.literal(&[KID_CONTEXT])?;
    let boot = BootId::from_bytes(input.bytes()?).ok_or(ParseError::Boot)?;
    if input.rest().is_empty() { Ok((algorithm, key_id, boot)) } else { Err(ParseError::NotTheShape) }
}

fn counter_of(iv: &[u8], algorithm: SealAlgorithm, boot: &BootId) -> Result<u32, ParseError> {
    let (_, counter) = iv.split_last_chunk().ok_or(ParseError::Iv)?;
    let counter = u32::from_be_bytes(*counter);
    if boot.nonce(algorithm, counter).as_bytes() == iv { Ok(counter) } else { Err(ParseError::Iv) }
}
