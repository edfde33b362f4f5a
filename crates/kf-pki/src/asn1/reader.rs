//! Reading DER element by element. Written out rather than left to a decoder of whole types, because the signer walks
//! through every octet of lists of a hundred thousand entries; the crate `der` is the oracle of its tests.

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
        let (tag, rest) = self.0.split_first()?;
        // Tag numbers from 31 take more octets; no structure read here uses them.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, contents) = length_of(rest)?;
        let (value, following) = contents.split_at_checked(length)?;
        let (der, _) = self.0.split_at_checked(self.0.len() - following.len())?;
        self.0 = following;
        Some(Element { tag: *tag, value, der })
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

/// The length octets (X.690 sections 8.1.3 and 10.1: definite, as few octets as possible) and what follows them.
fn length_of(octets: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = match octets {
        [short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [0x81, low @ 0x80..=0xff, rest @ ..] => (usize::from(*low), rest),
        [0x82, high @ 1..=0xff, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        [0x83, high @ 1..=0xff, middle, low, rest @ ..] => {
            (usize::try_from(u32::from_be_bytes([0, *high, *middle, *low])).ok()?, rest)
        }
        [0x84, high @ 1..=0xff, b, c, low, rest @ ..] => {
            (usize::try_from(u32::from_be_bytes([*high, *b, *c, *low])).ok()?, rest)
        }
        _ => return None,
    };
    Some((length, rest))
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

#[cfg(test)]
mod tests {
    use der::asn1::AnyRef;
    use der::{Decode as _, Tag};
    use proptest::prelude::*;

    use super::*;

    /// What the crate `der` says: contents of the one element, if its tag is one that we read.
    fn oracle(octets: &[u8]) -> Option<(u8, &[u8])> {
        let any = AnyRef::from_der(octets).ok()?;
        let tag = *octets.first()?;
        // An element of ours has a low tag number and is no end-of-contents.
        (tag & 0x1f != 0x1f && !matches!(der::Tagged::tag(&any), Tag::Null if !any.value().is_empty()))
            .then(|| (tag, any.value()))
    }

    fn ours(octets: &[u8]) -> Option<(u8, &[u8])> {
        let mut elements = Elements::new(octets);
        let element = elements.any()?;
        elements.end().map(|()| (element.tag, element.value))
    }

    #[test]
    fn lengths_that_are_indefinite_or_longer_than_needed_are_refused() {
        for octets in [&[0x80][..], &[0x81, 0x7f], &[0x82, 0, 0xff], &[0x83, 0, 1, 0], &[0x85, 1, 0, 0, 0, 0], &[0xff]]
        {
            assert!(length_of(octets).is_none(), "{octets:?}");
        }
        assert!(Elements::new(&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff]).any().is_none());
    }

    proptest! {
        #[test]
        fn whatever_the_crate_der_reads_is_read_the_same(
            tag in prop::sample::select(vec![0x02u8, 0x03, 0x04, 0x06, 0x0c, 0x30, 0x31, 0xa0, 0x80, 0x81]),
            contents in prop::collection::vec(any::<u8>(), 0..400),
            cut in 0usize..3,
        ) {
            let written = super::super::Writer::build(0, |w| w.primitive(tag, &contents));
            let octets = &written[..written.len() - cut.min(written.len())];
            prop_assert_eq!(oracle(octets), ours(octets));
        }

        #[test]
        fn what_we_read_of_any_octets_the_crate_der_reads_too(octets: Vec<u8>) {
            if let (Some(expected), Some(found)) = (oracle(&octets), ours(&octets)) {
                prop_assert_eq!(expected, found);
            }
            if let Some(expected) = oracle(&octets) {
                prop_assert_eq!(ours(&octets), Some(expected));
            }
        }
    }
}
