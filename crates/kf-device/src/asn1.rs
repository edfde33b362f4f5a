//! As much DER (X.690) as certificates need: definite lengths in their shortest form, at most 64 KiB.

pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;

pub(crate) const fn constructed(number: u8) -> u8 {
    0xa0 | number
}

/// One element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) value: &'a [u8],
    /// With tag and length.
    pub(crate) der: &'a [u8],
}

/// A row of elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    pub(crate) const fn new(der: &'a [u8]) -> Self {
        Self(der)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element.
    pub(crate) fn next(&mut self) -> Option<Element<'a>> {
        let (tag, rest) = self.0.split_first()?;
        // Tags of several octets do not occur.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match *first {
            short @ 0..=0x7f => (usize::from(short), rest),
            0x81 => {
                let (length, rest) = rest.split_first()?;
                (*length >= 0x80).then_some((usize::from(*length), rest))?
            }
            0x82 => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                let length = u16::from_be_bytes(*length);
                (length >= 0x100).then_some((usize::from(length), rest))?
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        let (der, _) = self.0.split_at_checked(self.0.len().checked_sub(rest.len())?)?;
        self.0 = rest;
        Some(Element { tag: *tag, value, der })
    }

    /// The next element, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.next().filter(|element| element.tag == tag)
    }

    /// The next element if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Option<Element<'a>> {
        let mut ahead = *self;
        let found = ahead.next().filter(|element| element.tag == tag)?;
        *self = ahead;
        Some(found)
    }
}

/// The one element that `der` is.
pub(crate) fn only(der: &[u8], tag: u8) -> Option<Element<'_>> {
    let mut elements = Elements::new(der);
    let element = elements.expect(tag)?;
    elements.is_empty().then_some(element)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_in_their_shortest_form_only() {
        assert_eq!(only(&[4, 2, 1, 2], 4).unwrap().value, [1, 2]);
        let mut long = std::vec![4, 0x82, 1, 0];
        long.extend([7; 256]);
        assert_eq!(only(&long, 4).unwrap().value.len(), 256);
        for der in [
            [4, 0x81, 1, 0].as_slice(),
            &[4, 0x82, 0, 1, 0],
            &[4, 0x80, 0, 0],
            &[4, 0x83, 0, 0, 1, 0],
            &[4, 2, 1],
            &[4],
            &[],
            &[4, 1, 0, 0],
            &[0x1f, 1, 0],
        ] {
            assert!(only(der, 4).is_none(), "{der:?}");
        }
    }
}
