//! Canonical CBOR (RFC 8949 section 4.2.1): values are arrays, and what decodes is encoded again and compared.

use core::convert::Infallible;

use minicbor::{Decoder, Encoder};

use crate::frame::FormatError;
use crate::key::P256Key;

pub(crate) type Out = Encoder<Vec<u8>>;
pub(crate) type Written = Result<(), minicbor::encode::Error<Infallible>>;

/// Writes one value. A vector takes everything, so nothing can fail.
pub(crate) fn encode(write: impl FnOnce(&mut Out) -> Written) -> Vec<u8> {
    // As much as a device's record takes, so that it does not grow in steps.
    let mut out = Encoder::new(Vec::with_capacity(1_536));
    match write(&mut out) {
        Ok(()) => out.into_writer(),
        Err(_never) => Vec::new(),
    }
}

/// Decodes what [`encode`] wrote and nothing else: that rules out longer integers, indefinite lengths, trailing octets and
/// the like in one place.
pub(crate) fn decode<T>(
    octets: &[u8],
    read: impl FnOnce(&mut Input<'_>) -> Result<T, FormatError>,
    write: impl FnOnce(&T, &mut Out) -> Written,
) -> Result<T, FormatError> {
    let value = read(&mut Input(Decoder::new(octets)))?;
    if encode(|out| write(&value, out)) == octets { Ok(value) } else { Err(FormatError::Malformed) }
}

/// Reads values within limits.
pub(crate) struct Input<'a>(pub(crate) Decoder<'a>);

fn malformed(_reason: minicbor::decode::Error) -> FormatError {
    FormatError::Malformed
}

impl<'a> Input<'a> {
    /// The head of an array of `items`.
    pub(crate) fn array(&mut self, items: u64) -> Result<(), FormatError> {
        match self.0.array() {
            Ok(Some(length)) if length == items => Ok(()),
            _ => Err(FormatError::Malformed),
        }
    }

    /// A list of at most `limit` values.
    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        limit: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let length = self.0.array().map_err(malformed)?.ok_or(FormatError::Malformed)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= limit).ok_or(FormatError::Field(field))?;
        // Not reserved ahead: a length is a claim, the octets behind it are not.
        let mut list = Vec::new();
        for _ in 0..length {
            list.push(read(self)?);
        }
        Ok(list)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        self.0.u8().map_err(malformed)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.0.u32().map_err(malformed)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.0.u64().map_err(malformed)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, FormatError> {
        self.0.bool().map_err(malformed)
    }

    /// Octets of a fixed number.
    pub(crate) fn octets<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        self.0.bytes().map_err(malformed)?.try_into().map_err(|_other_length| FormatError::Malformed)
    }

    /// At most `limit` octets.
    pub(crate) fn bytes(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], FormatError> {
        let bytes = self.0.bytes().map_err(malformed)?;
        if bytes.len() > limit { Err(FormatError::Field(field)) } else { Ok(bytes) }
    }

    /// A text that [`is_text`].
    pub(crate) fn text(&mut self, field: &'static str, limit: usize) -> Result<String, FormatError> {
        let text = self.0.str().map_err(malformed)?;
        if is_text(text, limit) { Ok(text.to_owned()) } else { Err(FormatError::Field(field)) }
    }

    pub(crate) fn key(&mut self) -> Result<P256Key, FormatError> {
        P256Key::from_point(self.octets()?)
    }

    /// A value, or null.
    pub(crate) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Option<T>, FormatError> {
        if self.0.datatype().map_err(malformed)? == minicbor::data::Type::Null {
            self.0.null().map_err(malformed)?;
            return Ok(None);
        }
        read(self).map(Some)
    }
}

/// 1 to `limit` octets of UTF-8 without control characters, and without white space at either end.
pub(crate) fn is_text(text: &str, limit: usize) -> bool {
    (1..=limit).contains(&text.len()) && text.trim() == text && !text.chars().any(char::is_control)
}

/// Writes a value, or null.
pub(crate) fn optional<T>(out: &mut Out, value: Option<&T>, write: impl FnOnce(&T, &mut Out) -> Written) -> Written {
    match value {
        Some(value) => write(value, out),
        None => out.null().map(|_| ()),
    }
}

/// Writes a list.
pub(crate) fn list<T>(out: &mut Out, values: &[T], mut write: impl FnMut(&T, &mut Out) -> Written) -> Written {
    out.array(u64::try_from(values.len()).unwrap_or(u64::MAX))?;
    values.iter().try_for_each(|value| write(value, out))
}
