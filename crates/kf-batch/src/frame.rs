//! The one envelope: COSE_Sign1 (RFC 9052 section 4.2) with ES256 (RFC 9053 section 2.1). Algorithm and name of the key are
//! protected, nothing is unprotected, the external data say what kind of document it is.

use minicbor::Decoder;
use minicbor::data::Tag;

use crate::codec::{Out, Written, encode};
use crate::key::P256Key;

const COSE_SIGN1: u64 = 18;
const ES256: i8 = -7;
/// Header labels (RFC 9052 section 3.1).
const ALGORITHM: u8 = 1;
const KEY_ID: u8 = 4;
/// SHA-256 of the SubjectPublicKeyInfo, the first octets.
const KEY_ID_OCTETS: usize = 16;
const SIGNATURE_OCTETS: usize = 64;

/// Why a document is not accepted as what it claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Longer than its kind may be.
    #[error("the document is longer than {limit} octets")]
    TooLong {
        /// Octets.
        limit: usize,
    },
    /// Not the one encoding of such a document.
    #[error("the document is not in the one encoding of its kind")]
    Malformed,
    /// Of a version that is not known here.
    #[error("the document is of a version that this program does not know: update it")]
    Version,
    /// A document of another kind.
    #[error("the document is of another kind")]
    Kind,
    /// A field outside its limits.
    #[error("the field `{0}` is outside its limits")]
    Field(&'static str),
    /// Signed by another key than the one that must have signed it.
    #[error("the document is signed by another key")]
    OtherKey,
    /// The signature does not hold.
    #[error("the signature does not hold")]
    Unauthentic,
}

/// Kinds of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`crate::station_request::StationRequest`].
    StationRequest,
    /// [`crate::quota::Quota`].
    Quota,
    /// [`crate::record::Record`].
    Record,
    /// [`crate::manifest::Manifest`].
    Manifest,
    /// [`crate::keys_destroyed::KeysDestroyed`].
    KeysDestroyed,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::StationRequest, Self::Quota, Self::Record, Self::Manifest, Self::KeysDestroyed];

    /// The first element of the payload.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::StationRequest => 1,
            Self::Quota => 2,
            Self::Record => 3,
            Self::Manifest => 4,
            Self::KeysDestroyed => 5,
        }
    }

    /// External data (RFC 9052 section 4.3), so that no signature serves for another kind.
    const fn external(self) -> &'static [u8] {
        match self {
            Self::StationRequest => b"keyfleet station request v1",
            Self::Quota => b"keyfleet quota v1",
            Self::Record => b"keyfleet record v1",
            Self::Manifest => b"keyfleet manifest v1",
            Self::KeysDestroyed => b"keyfleet keys destroyed v1",
        }
    }

    /// The most octets of a signed document.
    #[must_use]
    pub const fn limit(self) -> usize {
        match self {
            Self::StationRequest => 8 * 1024,
            Self::Quota => 256 * 1024,
            Self::Record => 8 * 1024,
            Self::Manifest | Self::KeysDestroyed => 1024,
        }
    }
}

/// The most octets of one item of a sequence of records and manifests.
pub const MAX_ITEM_OCTETS: usize = Kind::Record.limit();

fn key_id(key: &P256Key) -> [u8; KEY_ID_OCTETS] {
    let mut id = [0; KEY_ID_OCTETS];
    for (octet, value) in id.iter_mut().zip(key.spki_sha256()) {
        *octet = value;
    }
    id
}

fn protected(key: &[u8; KEY_ID_OCTETS]) -> Vec<u8> {
    encode(|out| out.map(2)?.u8(ALGORITHM)?.i8(ES256)?.u8(KEY_ID)?.bytes(key)?.ok())
}

/// Sig_structure (RFC 9052 section 4.4).
fn to_be_signed(kind: Kind, key: &[u8; KEY_ID_OCTETS], payload: &[u8]) -> Vec<u8> {
    encode(|out| out.array(4)?.str("Signature1")?.bytes(&protected(key))?.bytes(kind.external())?.bytes(payload)?.ok())
}

/// A document before its signature. The key may lie anywhere: sign [`Unsigned::to_be_signed`] with ECDSA on P-256 and SHA-256
/// and give the signature to [`Unsigned::complete`] or [`Unsigned::complete_raw`].
#[derive(Clone, Debug)]
pub struct Unsigned {
    kind: Kind,
    key: [u8; KEY_ID_OCTETS],
    payload: Vec<u8>,
}

impl Unsigned {
    pub(crate) fn new(kind: Kind, key: &P256Key, payload: Vec<u8>) -> Self {
        Self { kind, key: key_id(key), payload }
    }

    /// What is to be signed.
    #[must_use]
    pub fn to_be_signed(&self) -> Vec<u8> {
        to_be_signed(self.kind, &self.key, &self.payload)
    }

    /// The signed document, from a signature in DER (`Ecdsa-Sig-Value`), as `kf_crypto` and back ends give it. Not verified.
    ///
    /// # Errors
    /// [`FormatError::Unauthentic`] for what is no such signature, [`FormatError::TooLong`].
    pub fn complete(self, signature: &[u8]) -> Result<Vec<u8>, FormatError> {
        let [r, s] = kf_crypto::ecdsa_p256_signature_from_der(signature).ok_or(FormatError::Unauthentic)?;
        let mut raw = [0; SIGNATURE_OCTETS];
        for (octet, value) in raw.iter_mut().zip(r.iter().chain(&s)) {
            *octet = *value;
        }
        self.complete_raw(&raw)
    }

    /// As [`Unsigned::complete`], from r and s of 32 octets each, as PKCS#11 gives them.
    ///
    /// # Errors
    /// [`FormatError::TooLong`].
    pub fn complete_raw(self, signature: &[u8; SIGNATURE_OCTETS]) -> Result<Vec<u8>, FormatError> {
        let signed = Signed { key: self.key, payload: &self.payload, signature };
        let document = encode(|out| signed.write(out));
        if document.len() > self.kind.limit() {
            return Err(FormatError::TooLong { limit: self.kind.limit() });
        }
        Ok(document)
    }
}

/// A signed document that was read and not checked.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    key: [u8; KEY_ID_OCTETS],
    payload: &'a [u8],
    signature: &'a [u8; SIGNATURE_OCTETS],
}

impl<'a> Signed<'a> {
    fn write(&self, out: &mut Out) -> Written {
        out.tag(Tag::new(COSE_SIGN1))?.array(4)?.bytes(&protected(&self.key))?.map(0)?;
        out.bytes(self.payload)?.bytes(self.signature)?.ok()
    }

    /// Reads a document of this kind.
    ///
    /// # Errors
    /// [`FormatError::TooLong`], [`FormatError::Malformed`], [`FormatError::Kind`].
    pub fn read(kind: Kind, document: &'a [u8]) -> Result<Self, FormatError> {
        if document.len() > kind.limit() {
            return Err(FormatError::TooLong { limit: kind.limit() });
        }
        let (signed, length) = Self::head(document).map_err(|_reason| FormatError::Malformed)?;
        // The one encoding, and nothing behind it.
        if length != document.len() || encode(|out| signed.write(out)) != document {
            return Err(FormatError::Malformed);
        }
        if signed.kind()? == kind { Ok(signed) } else { Err(FormatError::Kind) }
    }

    /// A document at the beginning of `input`, and its length.
    fn head(input: &'a [u8]) -> Result<(Self, usize), minicbor::decode::Error> {
        let wrong = || minicbor::decode::Error::message("not a COSE_Sign1");
        let mut decoder = Decoder::new(input);
        if decoder.tag()? != Tag::new(COSE_SIGN1) || decoder.array()? != Some(4) {
            return Err(wrong());
        }
        // Its one encoding ends with the name of the key; whoever reads compares the whole.
        let key = *decoder.bytes()?.last_chunk().ok_or_else(wrong)?;
        if decoder.map()? != Some(0) {
            return Err(wrong());
        }
        let payload = decoder.bytes()?;
        let signature = decoder.bytes()?.try_into().map_err(|_other_length| wrong())?;
        Ok((Self { key, payload, signature }, decoder.position()))
    }

    /// What kind of document this claims to be.
    ///
    /// # Errors
    /// [`FormatError::Malformed`].
    pub fn kind(&self) -> Result<Kind, FormatError> {
        let mut decoder = Decoder::new(self.payload);
        let code = decoder.array().and_then(|_length| decoder.u8()).map_err(|_reason| FormatError::Malformed)?;
        Kind::ALL.into_iter().find(|kind| kind.code() == code).ok_or(FormatError::Malformed)
    }

    /// Whether it names `key`.
    #[must_use]
    pub fn is_by(&self, key: &P256Key) -> bool {
        self.key == key_id(key)
    }

    /// The payload, of which nothing has been proved yet.
    #[must_use]
    pub const fn unverified_payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The payload, if `key` signed it as a document of this kind.
    ///
    /// # Errors
    /// [`FormatError::OtherKey`], [`FormatError::Unauthentic`].
    pub fn verify(&self, kind: Kind, key: &P256Key) -> Result<&'a [u8], FormatError> {
        if !self.is_by(key) {
            return Err(FormatError::OtherKey);
        }
        let signature = kf_crypto::ecdsa_signature_to_der(self.signature).ok_or(FormatError::Unauthentic)?;
        let message = to_be_signed(kind, &self.key, self.payload);
        kf_crypto::verify(kf_key::KeyAlgorithm::P256, key.point(), &message, &signature)
            .map(|()| self.payload)
            .map_err(|kf_crypto::CryptoError| FormatError::Unauthentic)
    }
}

/// The beginning of a sequence of signed documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// The first item.
    pub item: &'a [u8],
    /// What is behind it.
    pub rest: &'a [u8],
}

/// The first item of a sequence (RFC 8742) of signed documents; `None` when `input` ends before
/// the item does, so that a reader fetches more, which is never more than [`MAX_ITEM_OCTETS`].
///
/// # Errors
/// [`FormatError::Malformed`] for what is no such item, [`FormatError::TooLong`].
pub fn split_item(input: &[u8]) -> Result<Option<Split<'_>>, FormatError> {
    let too_long = FormatError::TooLong { limit: MAX_ITEM_OCTETS };
    match Signed::head(input) {
        Ok((_, length)) if length > MAX_ITEM_OCTETS => Err(too_long),
        Ok((_, length)) => {
            let (item, rest) = input.split_at_checked(length).ok_or(FormatError::Malformed)?;
            Ok(Some(Split { item, rest }))
        }
        Err(error) if error.is_end_of_input() && input.len() <= MAX_ITEM_OCTETS => Ok(None),
        Err(error) if error.is_end_of_input() => Err(too_long),
        Err(_) => Err(FormatError::Malformed),
    }
}

/// A signed quota, and what is behind it in its file: the links from the key that stations pin to the one that signed it.
///
/// # Errors
/// [`FormatError::Malformed`], [`FormatError::TooLong`].
pub fn split_quota(file: &[u8]) -> Result<Split<'_>, FormatError> {
    let (_, length) = Signed::head(file).map_err(|_unreadable| FormatError::Malformed)?;
    if length > Kind::Quota.limit() {
        return Err(FormatError::TooLong { limit: Kind::Quota.limit() });
    }
    let (item, rest) = file.split_at_checked(length).ok_or(FormatError::Malformed)?;
    Ok(Split { item, rest })
}

/// The hash by which a signed document is named: SHA-256 of its octets. What chains records.
#[must_use]
pub fn document_hash(document: &[u8]) -> [u8; 32] {
    kf_crypto::sha256(document)
}
