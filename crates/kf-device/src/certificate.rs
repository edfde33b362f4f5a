//! What a device reads of certificates (RFC 5280): whose key, how long, and signed by whom. P-256 with SHA-256 only.

use core::fmt;

use kf_exchange::PublicKey;
use kf_key::UnixMillis;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{DerSignature, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::asn1::{self, Element, Elements, only};

/// The most octets of a certificate.
pub const MAX_CERTIFICATE_OCTETS: usize = 2_048;
/// The most certificates in one answer.
pub const MAX_CERTIFICATES: usize = 8;
/// The most certificates from a leaf to its anchor.
const MAX_CHAIN: usize = 4;

/// 1.2.840.10045.4.3.2.
const ECDSA_WITH_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// 1.2.840.113549.1.7.2.
const SIGNED_DATA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// Why a certificate is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateError {
    /// It cannot be read: not DER, too long, or of a shape that no certificate has.
    Malformed,
    /// It is for another key.
    OtherKey,
    /// No chain of P-256 signatures leads from it to the pinned anchor.
    NotAnchored,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the certificate cannot be read",
            Self::OtherKey => "the certificate is for another key",
            Self::NotAnchored => "no chain of signatures leads from the certificate to the pinned anchor",
        })
    }
}

impl core::error::Error for CertificateError {}

/// A certificate, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    der: &'a [u8],
    to_be_signed: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    public_key: &'a [u8],
    not_before: UnixMillis,
    not_after: UnixMillis,
    is_authority: bool,
    /// `None`: by another algorithm than ECDSA with SHA-256.
    signature: Option<&'a [u8]>,
}

impl<'a> Certificate<'a> {
    /// Reads a certificate, DER. Nothing is verified.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_der(der: &'a [u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE_OCTETS {
            return Err(CertificateError::Malformed);
        }
        parse(der).ok_or(CertificateError::Malformed)
    }

    /// The octets.
    #[must_use]
    pub const fn as_der(&self) -> &'a [u8] {
        self.der
    }

    /// SubjectPublicKeyInfo, DER.
    #[must_use]
    pub const fn public_key(&self) -> &'a [u8] {
        self.public_key
    }

    /// First moment of its validity.
    #[must_use]
    pub const fn not_before(&self) -> UnixMillis {
        self.not_before
    }

    /// Last moment of its validity.
    #[must_use]
    pub const fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// SHA-256 of its octets.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.der).into()
    }

    /// Checks that it is for this key.
    ///
    /// # Errors
    /// [`CertificateError::OtherKey`].
    pub fn require_key(&self, key: &PublicKey) -> Result<(), CertificateError> {
        if self.public_key == key.to_spki() { Ok(()) } else { Err(CertificateError::OtherKey) }
    }

    /// Whether it certifies the same key under the same name as `other`.
    pub(crate) fn is_for_same(&self, other: &Certificate<'_>) -> bool {
        self.subject == other.subject && self.public_key == other.public_key && self.is_authority
    }

    pub(crate) fn is_signed_by(&self, issuer: &Certificate<'_>) -> bool {
        let key = PublicKey::from_spki(issuer.public_key).ok();
        let key = key.and_then(|key| VerifyingKey::from_sec1_bytes(&key.to_sec1()).ok());
        let signature = self.signature.and_then(|signature| DerSignature::try_from(signature).ok());
        match (key, signature) {
            (Some(key), Some(signature)) => {
                issuer.is_authority
                    && self.issuer == issuer.subject
                    && key.verify(self.to_be_signed, &signature).is_ok()
            }
            _ => false,
        }
    }
}

/// A trust anchor as it is pinned in a device: the SHA-256 of a root certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor(pub [u8; 32]);

impl Anchor {
    /// Checks that signatures lead from `leaf` to the pinned root over at most four of `authorities`. It looks at
    /// signatures, names and the CA flag; revocation and validity periods are the server's business, which a device
    /// without a clock cannot judge.
    ///
    /// # Errors
    /// [`CertificateError::NotAnchored`].
    pub fn require<'a>(
        &self,
        leaf: &Certificate<'a>,
        authorities: impl Iterator<Item = Certificate<'a>> + Clone,
    ) -> Result<(), CertificateError> {
        let mut current = *leaf;
        for _ in 0..MAX_CHAIN {
            let issuer = authorities.clone().take(MAX_CERTIFICATES).find(|issuer| current.is_signed_by(issuer));
            let issuer = issuer.ok_or(CertificateError::NotAnchored)?;
            if issuer.fingerprint() == self.0 {
                return Ok(());
            }
            current = issuer;
        }
        Err(CertificateError::NotAnchored)
    }
}

/// The certificates of a certs-only SignedData (RFC 7030 section 4.1.3, RFC 5652), at most [`MAX_CERTIFICATES`]; those
/// that cannot be read are left out.
#[derive(Clone, Debug)]
pub struct CertsOnly<'a> {
    rest: Elements<'a>,
    left: usize,
}

impl<'a> CertsOnly<'a> {
    /// Reads the ContentInfo, DER.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_der(der: &'a [u8]) -> Result<Self, CertificateError> {
        signed_data(der).map(|rest| Self { rest, left: MAX_CERTIFICATES }).ok_or(CertificateError::Malformed)
    }
}

impl<'a> Iterator for CertsOnly<'a> {
    type Item = Certificate<'a>;

    fn next(&mut self) -> Option<Certificate<'a>> {
        while self.left > 0 {
            self.left -= 1;
            let element = self.rest.expect(asn1::SEQUENCE)?;
            if let Ok(certificate) = Certificate::from_der(element.der) {
                return Some(certificate);
            }
        }
        None
    }
}

fn signed_data(der: &[u8]) -> Option<Elements<'_>> {
    let mut content_info = Elements::new(only(der, asn1::SEQUENCE)?.value);
    content_info.expect(asn1::OID).filter(|kind| kind.value == SIGNED_DATA)?;
    let wrapper = content_info.expect(asn1::constructed(0))?;
    let mut signed_data = Elements::new(only(wrapper.value, asn1::SEQUENCE)?.value);
    signed_data.expect(asn1::INTEGER)?;
    signed_data.expect(asn1::SET)?;
    signed_data.expect(asn1::SEQUENCE)?;
    Some(Elements::new(signed_data.expect(asn1::constructed(0))?.value))
}

fn parse(der: &[u8]) -> Option<Certificate<'_>> {
    let mut certificate = Elements::new(only(der, asn1::SEQUENCE)?.value);
    let to_be_signed = certificate.expect(asn1::SEQUENCE)?;
    let algorithm = certificate.expect(asn1::SEQUENCE)?;
    let signature = bits(certificate.expect(asn1::BIT_STRING)?)?;
    certificate.is_empty().then_some(())?;
    let mut fields = Elements::new(to_be_signed.value);
    let _version = fields.optional(asn1::constructed(0));
    fields.expect(asn1::INTEGER)?;
    // RFC 5280 section 4.1.1.2: the same algorithm inside and outside.
    fields.expect(asn1::SEQUENCE).filter(|inner| inner.der == algorithm.der)?;
    let issuer = fields.expect(asn1::SEQUENCE)?;
    let mut validity = Elements::new(fields.expect(asn1::SEQUENCE)?.value);
    let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
    let subject = fields.expect(asn1::SEQUENCE)?;
    let public_key = fields.expect(asn1::SEQUENCE)?;
    let mut identifier = Elements::new(algorithm.value);
    let is_ecdsa = identifier.expect(asn1::OID)?.value == ECDSA_WITH_SHA256;
    Some(Certificate {
        der,
        to_be_signed: to_be_signed.der,
        issuer: issuer.der,
        subject: subject.der,
        public_key: public_key.der,
        not_before,
        not_after,
        is_authority: is_authority(fields).unwrap_or(false),
        signature: is_ecdsa.then_some(signature),
    })
}

/// basicConstraints, 2.5.29.19, with cA TRUE (RFC 5280 section 4.2.1.9).
fn is_authority(mut fields: Elements<'_>) -> Option<bool> {
    let wrapper = loop {
        let field = fields.next()?;
        if field.tag == asn1::constructed(3) {
            break field;
        }
    };
    let mut extensions = Elements::new(only(wrapper.value, asn1::SEQUENCE)?.value);
    while !extensions.is_empty() {
        let mut extension = Elements::new(extensions.expect(asn1::SEQUENCE)?.value);
        if extension.expect(asn1::OID)?.value != [0x55, 0x1d, 0x13] {
            continue;
        }
        let _critical = extension.optional(0x01);
        let value = extension.expect(0x04)?;
        let mut constraints = Elements::new(only(value.value, asn1::SEQUENCE)?.value);
        return Some(constraints.optional(0x01).is_some_and(|is_ca| is_ca.value == [0xff]));
    }
    Some(false)
}

/// The octets of a bit string without unused bits.
fn bits(element: Element<'_>) -> Option<&[u8]> {
    element.value.split_first().filter(|(unused, _)| **unused == 0).map(|(_, octets)| octets)
}

/// UTCTime or GeneralizedTime as RFC 5280 section 4.1.2.5 has them.
fn time(element: Element<'_>) -> Option<UnixMillis> {
    let (year, rest) = match element.tag {
        asn1::UTC_TIME => {
            let (digits, rest) = element.value.split_first_chunk::<2>()?;
            let year = number(digits)?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, rest)
        }
        asn1::GENERALIZED_TIME => {
            let (digits, rest) = element.value.split_first_chunk::<4>()?;
            (number(digits)?, rest)
        }
        _ => return None,
    };
    let (digits, zone) = rest.split_first_chunk::<10>()?;
    (zone == b"Z").then_some(())?;
    let mut pairs = digits.chunks_exact(2).map(number);
    let mut pair = |range: core::ops::RangeInclusive<u64>| pairs.next()?.filter(|value| range.contains(value));
    let (month, day) = (pair(1..=12)?, pair(1..=31)?);
    let (hours, minutes, seconds) = (pair(0..=23)?, pair(0..=59)?, pair(0..=59)?);
    let days = days_since_1970(year, month, day)?;
    Some(UnixMillis::from_seconds(((days * 24 + hours) * 60 + minutes) * 60 + seconds))
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

/// Days of the proleptic Gregorian calendar; a year begins in March, so that the leap day is its last.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + (day - 1);
    days.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tag: u8, text: &str) -> Option<UnixMillis> {
        time(Element { tag, value: text.as_bytes(), der: &[] })
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        // date -u -d ... +%s
        for (tag, text, seconds) in [
            (asn1::UTC_TIME, "700101000000Z", 0),
            (asn1::UTC_TIME, "240229235959Z", 1_709_251_199),
            (asn1::UTC_TIME, "261123090000Z", 1_795_424_400),
            (asn1::GENERALIZED_TIME, "20500301000000Z", 2_529_705_600),
            (asn1::GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(of(tag, text), Some(UnixMillis::from_seconds(seconds)), "{text}");
        }
        for (tag, text) in [
            (asn1::UTC_TIME, "2611230900Z"),
            (asn1::UTC_TIME, "261323090000Z"),
            (asn1::UTC_TIME, "261123090000+0100"),
            (asn1::UTC_TIME, "26112309000xZ"),
            (asn1::GENERALIZED_TIME, "19691231235959Z"),
            (asn1::INTEGER, "261123090000Z"),
        ] {
            assert_eq!(of(tag, text), None, "{text}");
        }
    }
}
