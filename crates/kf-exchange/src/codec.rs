//! One encoding per message: a CBOR array (RFC 8949 section 4.2.1) that is encoded again and compared.

use minicbor::encode::write::{Cursor, EndOfSlice};
use minicbor::{Decoder, Encoder};
use zeroize::Zeroize;

use crate::refusal::Refusal;

/// The most octets of a message.
pub const MAX_MESSAGE_OCTETS: usize = 384;

/// What writes a message.
pub(crate) type Out<'a> = Encoder<Cursor<&'a mut [u8]>>;
pub(crate) type Written = Result<(), minicbor::encode::Error<EndOfSlice>>;
pub(crate) type Read<T> = Result<T, minicbor::decode::Error>;

/// A message, ready to be sent.
#[derive(Clone)]
pub struct Message {
    octets: [u8; MAX_MESSAGE_OCTETS],
    length: usize,
}

impl Message {
    /// The octets to be sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    /// Encodes. A message that does not fit is a bug that the tests of its encoder find; it would come out as malformed.
    pub(crate) fn encode(write: impl FnOnce(&mut Out<'_>) -> Written) -> Result<Self, Refusal> {
        let mut octets = [0; MAX_MESSAGE_OCTETS];
        let mut out = Encoder::new(Cursor::new(octets.as_mut_slice()));
        write(&mut out).map_err(|_too_long| Refusal::TooLong)?;
        let length = out.writer().position();
        Ok(Self { octets, length })
    }
}

/// The plain text of a delivery is encoded in one too.
impl Drop for Message {
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

impl core::fmt::Debug for Message {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Message({} octets)", self.length)
    }
}

/// Decodes what [`Message::encode`] wrote and nothing else: `write` encodes the result again, and it must be the same
/// octets. That rules out longer integers, indefinite lengths, trailing octets and the like in one place.
pub(crate) fn decode<'a, T>(
    octets: &'a [u8],
    read: impl FnOnce(&mut Decoder<'a>) -> Result<T, Refusal>,
    write: impl FnOnce(&T, &mut Out<'_>) -> Written,
) -> Result<T, Refusal> {
    if octets.len() > MAX_MESSAGE_OCTETS {
        return Err(Refusal::TooLong);
    }
    let value = read(&mut Decoder::new(octets))?;
    let again = Message::encode(|out| write(&value, out))?;
    if again.as_bytes() == octets { Ok(value) } else { Err(Refusal::Malformed) }
}

/// Octets of a fixed number.
pub(crate) fn array<const N: usize>(input: &mut Decoder<'_>) -> Read<[u8; N]> {
    let at = input.position();
    let octets = input.bytes()?;
    octets.try_into().map_err(|_other_length| minicbor::decode::Error::message("length").at(at))
}

/// The length of an array, which is always given.
pub(crate) fn items(input: &mut Decoder<'_>) -> Result<u64, Refusal> {
    input.array().ok().flatten().ok_or(Refusal::Malformed)
}
