//! COSE_Sign1 (RFC 9052 section 4.2) with ES256 (RFC 9053 section 2.1), in one shape: the algorithm and the key's name
//! protected, nothing unprotected.

use minicbor::Decoder;
use minicbor::data::Tag;

use crate::codec::{MAX_MESSAGE_OCTETS, Message, Out, Written, array, decode, items};
use crate::identity::{IdentityKey, PublicKey};
use crate::refusal::Refusal;

const COSE_SIGN1: u64 = 18;
const ES256: i8 = -7;
/// Header labels (RFC 9052 section 3.1).
const ALGORITHM: u8 = 1;
const KEY_ID: u8 = 4;
/// SHA-256 of the SubjectPublicKeyInfo, the first octets.
const KEY_ID_OCTETS: usize = 16;
/// The most octets of a payload.
const MAX_PAYLOAD_OCTETS: usize = 128;

/// Octets of a fixed room.
struct Room<const N: usize>([u8; N], usize);

impl<const N: usize> Room<N> {
    fn of(octets: &[u8]) -> Option<Self> {
        let mut room = [0; N];
        room.get_mut(..octets.len())?.copy_from_slice(octets);
        Some(Self(room, octets.len()))
    }

    fn octets(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

/// A signed message that was read and not checked.
pub(crate) struct Signed {
    key: [u8; KEY_ID_OCTETS],
    payload: Room<MAX_PAYLOAD_OCTETS>,
    signature: [u8; 64],
}

fn key_id(key: &PublicKey) -> [u8; KEY_ID_OCTETS] {
    let mut id = [0; KEY_ID_OCTETS];
    for (octet, value) in id.iter_mut().zip(key.spki_sha256()) {
        *octet = value;
    }
    id
}

fn protected(key: &[u8; KEY_ID_OCTETS]) -> Result<Message, Refusal> {
    Message::encode(|out| out.map(2)?.u8(ALGORITHM)?.i8(ES256)?.u8(KEY_ID)?.bytes(key)?.ok())
}

/// Sig_structure (RFC 9052 section 4.4); the external data say what kind of message it is.
fn to_be_signed(protected: &Message, kind: &[u8], payload: &[u8]) -> Result<Message, Refusal> {
    Message::encode(|out| {
        out.array(4)?.str("Signature1")?.bytes(protected.as_bytes())?.bytes(kind)?.bytes(payload)?.ok()
    })
}

/// Signs a payload of at most 128 octets.
pub(crate) fn sign<K: IdentityKey>(kind: &[u8], payload: &Message, key: &K) -> Result<Message, SignError<K::Error>> {
    let id = key_id(&key.public_key());
    let protected = protected(&id).map_err(SignError::Refused)?;
    let payload = Room::of(payload.as_bytes()).ok_or(SignError::Refused(Refusal::TooLong))?;
    let to_be_signed = to_be_signed(&protected, kind, payload.octets()).map_err(SignError::Refused)?;
    let signature = key.sign(to_be_signed.as_bytes()).map_err(SignError::Holder)?;
    let signed = Signed { key: id, payload, signature };
    Message::encode(|out| signed.write(out)).map_err(SignError::Refused)
}

/// Why nothing was signed.
pub(crate) enum SignError<E> {
    Refused(Refusal),
    Holder(E),
}

impl Signed {
    fn write(&self, out: &mut Out<'_>) -> Written {
        out.tag(Tag::new(COSE_SIGN1))?.array(4)?;
        // One length for every key, so that the map inside can be written in place.
        let mut header = [0; 32];
        let length = {
            let mut inner = minicbor::Encoder::new(minicbor::encode::write::Cursor::new(header.as_mut_slice()));
            inner.map(2)?.u8(ALGORITHM)?.i8(ES256)?.u8(KEY_ID)?.bytes(&self.key)?;
            inner.writer().position()
        };
        out.bytes(header.get(..length).unwrap_or_default())?.map(0)?;
        out.bytes(self.payload.octets())?.bytes(&self.signature)?.ok()
    }

    fn read_from(input: &mut Decoder<'_>) -> Result<Self, Refusal> {
        let malformed = |_reason: minicbor::decode::Error| Refusal::Malformed;
        if input.tag().map_err(malformed)? != Tag::new(COSE_SIGN1) || items(input)? != 4 {
            return Err(Refusal::Malformed);
        }
        let header = input.bytes().map_err(malformed)?;
        // Its one encoding ends with the name of the key; the comparison afterwards sees to the rest.
        let key = *header.last_chunk().ok_or(Refusal::Malformed)?;
        if input.map().map_err(malformed)? != Some(0) {
            return Err(Refusal::Malformed);
        }
        let payload = Room::of(input.bytes().map_err(malformed)?).ok_or(Refusal::TooLong)?;
        Ok(Self { key, payload, signature: array(input).map_err(malformed)? })
    }

    /// Reads a message.
    pub(crate) fn read(message: &[u8]) -> Result<Self, Refusal> {
        if message.len() > MAX_MESSAGE_OCTETS {
            return Err(Refusal::TooLong);
        }
        decode(message, Self::read_from, Self::write)
    }

    /// Whether it names `key`.
    pub(crate) fn is_by(&self, key: &PublicKey) -> bool {
        self.key == key_id(key)
    }

    /// The payload, of which nothing has been proved yet.
    pub(crate) fn unverified_payload(&self) -> &[u8] {
        self.payload.octets()
    }

    /// The payload, if `key` signed it as a message of this kind.
    pub(crate) fn verify(&self, kind: &[u8], key: &PublicKey) -> Result<&[u8], Refusal> {
        let to_be_signed = to_be_signed(&protected(&self.key)?, kind, self.payload.octets())?;
        if self.is_by(key) && key.verifies(to_be_signed.as_bytes(), &self.signature) {
            Ok(self.payload.octets())
        } else {
            Err(Refusal::Unauthentic)
        }
    }
}
