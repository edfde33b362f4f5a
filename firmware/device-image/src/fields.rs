//! Reads the fields of a frame: each behind two octets of length (little endian); numbers are big endian.

use kf_key::{SecretArray, UnixMillis};

use crate::text::Text;

/// What is left of a frame.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(crate) fn next(&mut self) -> Result<&'a [u8], Text> {
        let cut = || Text::of("the frame is cut short");
        let (length, rest) = self.0.split_first_chunk().ok_or_else(cut)?;
        let (field, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or_else(cut)?;
        self.0 = rest;
        Ok(field)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Text> {
        self.next()?.try_into().map_err(|_length| Text::of("a field has another length"))
    }

    /// `None` when the field is empty.
    pub(crate) fn optional<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Text> {
        match self.next()? {
            [] => Ok(None),
            field => field.try_into().map(Some).map_err(|_length| Text::of("a field has another length")),
        }
    }

    pub(crate) fn octet(&mut self) -> Result<u8, Text> {
        self.array().map(|[octet]| octet)
    }

    pub(crate) fn number(&mut self) -> Result<u32, Text> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn time(&mut self) -> Result<UnixMillis, Text> {
        self.array().map(|octets| UnixMillis(u64::from_be_bytes(octets)))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Text> {
        core::str::from_utf8(self.next()?).map_err(|_not_utf8| Text::of("a field is no text"))
    }

    pub(crate) fn key(&mut self) -> Result<SecretArray<32>, Text> {
        let field = self.next()?;
        let fill = |key: &mut [u8; 32]| (field.len() == 32).then(|| key.copy_from_slice(field)).ok_or(());
        SecretArray::try_fill(fill).map_err(|()| Text::of("a key has another length"))
    }
}
