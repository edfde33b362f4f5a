//! Reading DER element by element.

use der::{Encode, Header, Reader as _, SliceReader};

use super::tag;

/// The deepest nesting that any structure of ours has is about 10.
const MAX_DEPTH: usize = 24;

/// One element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    /// Identifier octet.
    pub(crate) tag: u8,
    /// Contents octets.
    pub(crate) value: &'a [u8],
    /// The whole element.
    pub(crate) der: &'a [u8],
}

/// The elements not yet read of a constructed one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elements<'a>(&'a [u8]);

impl<'a> Element<'a> {
    /// The elements inside.
    pub(crate) const fn elements(&self) -> Elements<'a> {
        Elements(self.value)
    }

    /// The element if it has this identifier octet.
    pub(crate) fn with_tag(self, tag: u8) -> Option<Self> {
        (self.tag == tag).then_some(self)
    }
}

impl<'a> Elements<'a> {
    pub(crate) const fn new(contents: &'a [u8]) -> Self {
        Self(contents)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element; `None` at the end and for what is not DER.
    pub(crate) fn any(&mut self) -> Option<Element<'a>> {
        let mut reader = SliceReader::new(self.0).ok()?;
        let header = Header::peek(&reader).ok()?;
        let header_length = usize::try_from(header.encoded_len().ok()?).ok()?;
        let der = reader.tlv_bytes().ok()?;
        let tag = *der.first()?;
        // Tag numbers from 31 take more octets; no structure read here uses them.
        if tag & 0x1f == 0x1f {
            return None;
        }
        self.0 = self.0.get(der.len()..)?;
        Some(Element { tag, value: der.get(header_length..)?, der })
    }

    /// The next element, which must have this identifier octet.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.any()?.with_tag(tag)
    }

    /// The next element if it has this identifier octet, else nothing is read.
    pub(crate) fn optional(&mut self, tag: u8) -> Option<Element<'a>> {
        if self.0.first() == Some(&tag) { self.any() } else { None }
    }

    /// That nothing is left.
    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    /// The octets of the next BIT STRING, which must have no unused bits.
    pub(crate) fn bit_string(&mut self) -> Option<&'a [u8]> {
        self.expect(tag::BIT_STRING)?.value.strip_prefix(&[0])
    }
}

/// The one element that `der` consists of.
pub(crate) fn only(der: &[u8], tag: u8) -> Option<Element<'_>> {
    let mut elements = Elements::new(der);
    let element = elements.expect(tag)?;
    elements.end().map(|()| element)
}

/// Whether `der` is one element that is DER all the way down: definite minimal lengths, canonical BOOLEANs and
/// INTEGERs, limited depth.
pub(crate) fn is_canonical(der: &[u8]) -> bool {
    let mut elements = Elements::new(der);
    elements.any().is_some_and(|element| element_is_canonical(&element, 0)) && elements.is_empty()
}

fn element_is_canonical(element: &Element<'_>, depth: usize) -> bool {
    const CONSTRUCTED: u8 = 0x20;
    match element.tag {
        tag::BOOLEAN => matches!(element.value, [0x00 | 0xff]),
        tag::INTEGER | tag::ENUMERATED => match element.value {
            [] | [0x00, 0x00..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => false,
            [_, ..] => true,
        },
        tag::NULL => element.value.is_empty(),
        constructed if constructed & CONSTRUCTED != 0 => {
            let mut inner = element.elements();
            while !inner.is_empty() {
                let Some(next) = inner.any() else { return false };
                if depth >= MAX_DEPTH || !element_is_canonical(&next, depth + 1) {
                    return false;
                }
            }
            true
        }
        _ => true,
    }
}
