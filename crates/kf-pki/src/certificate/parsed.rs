//! Certificates as structure, not trusted.

use kf_key::UnixMillis;

use crate::asn1::{Element, Elements, oid, only, tag, time_of};
use crate::public_key::SignatureScheme;

/// The most octets of a certificate that is read.
const MAX_CERTIFICATE_OCTETS: usize = 16 * 1024;
/// The most extensions of a certificate that is read.
const MAX_EXTENSIONS: usize = 64;

/// One Extension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extension<'a> {
    /// Contents of the OBJECT IDENTIFIER.
    pub(crate) oid: &'a [u8],
    pub(crate) is_critical: bool,
    /// Contents of the OCTET STRING.
    pub(crate) value: &'a [u8],
}

impl<'a> Extension<'a> {
    pub(crate) fn of(element: &Element<'a>) -> Option<Self> {
        let mut fields = element.elements();
        let oid = fields.expect(tag::OID)?.value;
        let is_critical = match fields.optional(tag::BOOLEAN) {
            // FALSE is the default and therefore never written in DER; some programs do.
            Some(flag) => matches!(flag.value, [0xff]),
            None => false,
        };
        let value = fields.expect(tag::OCTET_STRING)?.value;
        fields.end().map(|()| Self { oid, is_critical, value })
    }
}

/// Extensions, each type at most once (RFC 5280 section 4.2).
#[derive(Clone, Debug, Default)]
pub(crate) struct Extensions<'a>(Vec<Extension<'a>>);

impl<'a> Extensions<'a> {
    /// Reads a SEQUENCE OF Extension.
    pub(crate) fn of(mut elements: Elements<'a>) -> Option<Self> {
        let mut found: Vec<Extension<'a>> = Vec::new();
        while !elements.is_empty() {
            let extension = Extension::of(&elements.expect(tag::SEQUENCE)?)?;
            let is_duplicate = found.iter().any(|other| other.oid == extension.oid);
            if is_duplicate || found.len() >= MAX_EXTENSIONS {
                return None;
            }
            found.push(extension);
        }
        Some(Self(found))
    }

    pub(crate) fn get(&self, oid: &const_oid::ObjectIdentifier) -> Option<&Extension<'a>> {
        self.0.iter().find(|extension| extension.oid == oid.as_bytes())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Extension<'a>> {
        self.0.iter()
    }

    /// BasicConstraints: whether this is a CA, and its path length. `None` when the extension is broken.
    pub(crate) fn authority(&self) -> Option<Authority> {
        let Some(extension) = self.get(&oid::BASIC_CONSTRAINTS) else { return Some(Authority::default()) };
        let mut fields = only(extension.value, tag::SEQUENCE)?.elements();
        let is_authority = fields.optional(tag::BOOLEAN).is_some_and(|flag| flag.value == [0xff]);
        let path_length = fields.optional(tag::INTEGER).map(|length| match length.value {
            [length @ 0..=0x7f] => *length,
            _ => 0x7f,
        });
        fields.end().map(|()| Authority { is_authority, path_length })
    }

    /// KeyUsage bits 0 to 7, bit 0 highest; `None` when the extension is absent or broken.
    pub(crate) fn key_usage(&self) -> Option<u8> {
        let extension = self.get(&oid::KEY_USAGE)?;
        let (_unused_bits, bits) = only(extension.value, tag::BIT_STRING)?.value.split_first()?;
        bits.first().copied()
    }

    /// Whether the extendedKeyUsage names this purpose.
    pub(crate) fn has_purpose(&self, purpose: &const_oid::ObjectIdentifier) -> bool {
        let Some(sequence) =
            self.get(&oid::EXTENDED_KEY_USAGE).and_then(|extension| only(extension.value, tag::SEQUENCE))
        else {
            return false;
        };
        let mut purposes = sequence.elements();
        core::iter::from_fn(|| purposes.expect(tag::OID)).any(|found| found.value == purpose.as_bytes())
    }

    pub(crate) fn authority_key_identifier(&self) -> Option<&'a [u8]> {
        let value = self.get(&oid::AUTHORITY_KEY_IDENTIFIER)?.value;
        only(value, tag::SEQUENCE)?.elements().optional(tag::context(0)).map(|identifier| identifier.value)
    }

    pub(crate) fn subject_key_identifier(&self) -> Option<&'a [u8]> {
        let value = self.get(&oid::SUBJECT_KEY_IDENTIFIER)?.value;
        only(value, tag::OCTET_STRING).map(|identifier| identifier.value)
    }
}

/// What BasicConstraints says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) is_authority: bool,
    pub(crate) path_length: Option<u8>,
}

/// A TBSCertificate.
#[derive(Clone, Debug)]
pub(crate) struct Tbs<'a> {
    pub(crate) serial: &'a [u8],
    pub(crate) signature_algorithm: &'a [u8],
    pub(crate) issuer: &'a [u8],
    pub(crate) not_before: UnixMillis,
    pub(crate) not_after: UnixMillis,
    pub(crate) subject: &'a [u8],
    pub(crate) spki: &'a [u8],
    pub(crate) extensions: Extensions<'a>,
}

impl<'a> Tbs<'a> {
    pub(crate) fn of(element: &Element<'a>) -> Option<Self> {
        let mut fields = element.elements();
        // Version v3: profiles without extensions are of no use here.
        let version = only(fields.expect(tag::context_constructed(0))?.value, tag::INTEGER)?;
        if version.value != [2] {
            return None;
        }
        let serial = fields.expect(tag::INTEGER)?.value;
        let signature_algorithm = fields.expect(tag::SEQUENCE)?.der;
        let issuer = fields.expect(tag::SEQUENCE)?.der;
        let mut validity = fields.expect(tag::SEQUENCE)?.elements();
        let (not_before, not_after) = (time_of(&validity.any()?)?, time_of(&validity.any()?)?);
        validity.end()?;
        let subject = fields.expect(tag::SEQUENCE)?.der;
        let spki = fields.expect(tag::SEQUENCE)?.der;
        // Unique identifiers [1] and [2] are obsolete and mean nothing here.
        let _issuer_unique_id = fields.optional(tag::context(1));
        let _subject_unique_id = fields.optional(tag::context(2));
        let extensions = match fields.optional(tag::context_constructed(3)) {
            Some(wrapper) => Extensions::of(only(wrapper.value, tag::SEQUENCE)?.elements())?,
            None => Extensions::default(),
        };
        fields.end()?;
        Some(Self { serial, signature_algorithm, issuer, not_before, not_after, subject, spki, extensions })
    }
}

/// A certificate.
#[derive(Clone, Debug)]
pub(crate) struct Certificate<'a> {
    pub(crate) tbs_der: &'a [u8],
    pub(crate) tbs: Tbs<'a>,
    /// How it is signed; `None` for an algorithm that is not accepted here.
    pub(crate) scheme: Option<SignatureScheme>,
    pub(crate) signature: &'a [u8],
}

impl<'a> Certificate<'a> {
    pub(crate) fn from_der(der: &'a [u8]) -> Option<Self> {
        if der.len() > MAX_CERTIFICATE_OCTETS {
            return None;
        }
        let mut fields = only(der, tag::SEQUENCE)?.elements();
        let tbs_element = fields.expect(tag::SEQUENCE)?;
        let algorithm = fields.expect(tag::SEQUENCE)?;
        let signature = fields.bit_string()?;
        fields.end()?;
        let tbs = Tbs::of(&tbs_element)?;
        // RFC 5280 section 4.1.1.2: both AlgorithmIdentifiers are the same.
        (tbs.signature_algorithm == algorithm.der).then(|| Self {
            tbs_der: tbs_element.der,
            tbs,
            scheme: SignatureScheme::of(&algorithm),
            signature,
        })
    }
}
