//! Writing DER by appending; only the length octets of long elements are ever moved.

use const_oid::ObjectIdentifier;
use kf_key::UnixMillis;

use super::{tag, time};

/// DER under construction.
#[derive(Debug)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(octets: usize) -> Self {
        Self(Vec::with_capacity(octets))
    }

    /// What was written.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// The DER that `fill` writes.
    pub(crate) fn build(octets: usize, fill: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut writer = Self::with_capacity(octets);
        fill(&mut writer);
        writer.finish()
    }

    /// DER that exists already.
    pub(crate) fn raw(&mut self, der: &[u8]) {
        self.0.extend_from_slice(der);
    }

    /// A constructed element, or a primitive one whose contents are DER.
    pub(crate) fn nested(&mut self, tag: u8, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[tag, 0]);
        fill(self);
        let length = self.0.len().saturating_sub(start + 2);
        if let (Ok(short @ 0..0x80), Some(octet)) = (u8::try_from(length), self.0.get_mut(start + 1)) {
            *octet = short;
            return;
        }
        let (octets, count) = length_octets(length);
        let octets = octets.iter().copied().take(count);
        // In DER the length octets come first and their number depends on what follows.
        drop(self.0.splice(start + 1..start + 2, octets));
    }

    /// A SEQUENCE.
    pub(crate) fn sequence(&mut self, fill: impl FnOnce(&mut Self)) {
        self.nested(tag::SEQUENCE, fill);
    }

    /// A primitive element.
    pub(crate) fn primitive(&mut self, tag: u8, contents: &[u8]) {
        let (octets, count) = length_octets(contents.len());
        self.0.push(tag);
        self.0.extend(octets.iter().copied().take(count));
        self.0.extend_from_slice(contents);
    }

    pub(crate) fn oid(&mut self, oid: &ObjectIdentifier) {
        self.primitive(tag::OID, oid.as_bytes());
    }

    pub(crate) fn boolean_true(&mut self) {
        self.0.extend_from_slice(&[tag::BOOLEAN, 1, 0xff]);
    }

    pub(crate) fn null(&mut self) {
        self.0.extend_from_slice(&[tag::NULL, 0]);
    }

    pub(crate) fn octet_string(&mut self, octets: &[u8]) {
        self.primitive(tag::OCTET_STRING, octets);
    }

    /// A BIT STRING of whole octets.
    pub(crate) fn bit_string(&mut self, octets: &[u8]) {
        self.nested(tag::BIT_STRING, |writer| {
            writer.0.push(0);
            writer.raw(octets);
        });
    }

    /// A non-negative INTEGER.
    pub(crate) fn unsigned(&mut self, number: u64) {
        let octets = number.to_be_bytes();
        let leading = octets.iter().take_while(|octet| **octet == 0).count().min(octets.len() - 1);
        let (_, significant) = octets.split_at(leading);
        self.nested(tag::INTEGER, |writer| {
            if significant.first().is_some_and(|first| *first >= 0x80) {
                writer.0.push(0);
            }
            writer.raw(significant);
        });
    }

    /// A Time as RFC 5280 section 4.1.2.5 wants it: UTCTime through 2049, GeneralizedTime from 2050.
    pub(crate) fn time(&mut self, moment: UnixMillis) {
        let text = time::generalized(moment);
        match time::utc_part(&text) {
            Some(short) => self.primitive(tag::UTC_TIME, short),
            None => self.primitive(tag::GENERALIZED_TIME, &text),
        }
    }

    /// A GeneralizedTime, as OCSP wants it (RFC 6960 section 4.2.2.1).
    pub(crate) fn generalized_time(&mut self, moment: UnixMillis) {
        self.primitive(tag::GENERALIZED_TIME, &time::generalized(moment));
    }
}

/// Length octets and how many of them count. Lengths from 2^32 do not occur: they saturate, and no reader takes them.
fn length_octets(length: usize) -> ([u8; 5], usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let [a, b, c, d] = length.to_be_bytes();
    match length {
        0..0x80 => ([d, 0, 0, 0, 0], 1),
        0x80..0x100 => ([0x81, d, 0, 0, 0], 2),
        0x100..0x1_0000 => ([0x82, c, d, 0, 0], 3),
        0x1_0000..0x100_0000 => ([0x83, b, c, d, 0], 4),
        _ => ([0x84, a, b, c, d], 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal_at_every_border() {
        for (length, expected) in [(127, 2), (128, 3), (255, 3), (256, 4), (65_535, 4), (65_536, 5), (16_777_216, 6)] {
            let contents = vec![0; length];
            let primitive = Writer::build(0, |w| w.octet_string(&contents));
            let nested = Writer::build(0, |w| w.nested(tag::OCTET_STRING, |w| w.raw(&contents)));
            assert_eq!(primitive.len(), length + expected);
            assert_eq!(primitive, nested);
            assert!(super::super::is_canonical(&primitive));
        }
    }

    #[test]
    fn integers_are_minimal_and_positive() {
        let encode = |number| Writer::build(0, |w| w.unsigned(number));
        assert_eq!(encode(0), [2, 1, 0]);
        assert_eq!(encode(127), [2, 1, 127]);
        assert_eq!(encode(128), [2, 2, 0, 128]);
        assert_eq!(encode(u64::MAX), [2, 9, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    }
}
