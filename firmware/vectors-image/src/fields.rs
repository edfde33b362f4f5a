//! Reads a request and writes a result.

use kf_key::SecretArray;

/// What is left of a request.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(crate) fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (field, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        self.0 = rest;
        Some(field)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.next()?.try_into().ok()
    }

    pub(crate) fn octet(&mut self) -> Option<u8> {
        self.array().map(|[octet]| octet)
    }

    /// Big endian, as the vectors write it.
    pub(crate) fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        core::str::from_utf8(self.next()?).ok()
    }

    pub(crate) fn key(&mut self) -> Option<SecretArray<32>> {
        let field = self.next()?;
        SecretArray::try_fill(|key| (field.len() == key.len()).then(|| key.copy_from_slice(field)).ok_or(())).ok()
    }
}

/// Copies parts into the front of `result`.
pub(crate) fn write(parts: &[&[u8]], result: &mut [u8]) -> Option<usize> {
    let mut length = 0;
    for part in parts {
        let end = length + part.len();
        result.get_mut(length..end)?.copy_from_slice(part);
        length = end;
    }
    Some(length)
}
