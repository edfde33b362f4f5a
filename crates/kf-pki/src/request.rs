//! Certification requests (PKCS#10, RFC 2986), however they arrive.

use base64::Engine as _;
use kf_key::KeyAlgorithm;

use crate::asn1::{Element, Elements, Writer, is_canonical, oid, only, tag};
use crate::name::{self, Attribute};
use crate::pem;
use crate::public_key::{KeyRefusal, PublicKey, SignatureScheme, signed};

/// The most octets of a request body: an RSA-4096 request with generous attributes is below 4 KiB.
pub const MAX_REQUEST_OCTETS: usize = 16 * 1024;
/// The most attributes of a request; a usual one has one or two.
const MAX_ATTRIBUTES: usize = 16;
/// The most extensions in an extensionRequest.
const MAX_EXTENSIONS: usize = 32;
/// The most octets of a challengePassword: ub of PKCS#9 (RFC 2985 section 5.4.1).
const MAX_CHALLENGE_OCTETS: usize = 255;

/// Why a request is refused, named by field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Larger than [`MAX_REQUEST_OCTETS`].
    #[error("the request is larger than {MAX_REQUEST_OCTETS} octets")]
    TooLarge,
    /// Neither PEM, base64 nor DER of a CertificationRequest.
    #[error("the request is not a PKCS#10 certification request in DER, base64 or PEM")]
    Malformed,
    /// The signature does not prove possession of the private key.
    #[error("the request's signature does not verify under its own public key")]
    ProofOfPossession,
    /// A point that is not on its curve, or at infinity.
    #[error("the public point is not on its curve")]
    OffCurve,
    /// A key or signature algorithm that is not accepted here.
    #[error("the request's {0} is not supported")]
    Unsupported(&'static str),
}

/// A public key taken from a request whose signature verified, or from a verified certificate. It is made here only, of what the
/// provider takes: a point on its curve and not at infinity (SP 800-56A section 5.6.2.3.3), or an RSAPublicKey.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestedKey {
    /// Algorithm and size.
    pub algorithm: KeyAlgorithm,
    /// SubjectPublicKeyInfo, DER, canonical.
    pub spki: Vec<u8>,
    /// SHA-256 of `spki`.
    pub spki_sha256: [u8; 32],
}

impl RequestedKey {
    /// A key whose possession is known by other means: our own CAs and OCSP signers, a verified certificate.
    ///
    /// # Errors
    /// [`RequestError::Malformed`] when `spki` is no SubjectPublicKeyInfo, [`RequestError::Unsupported`] when it is
    /// none that is accepted: P-256 and P-384 with an uncompressed point, Ed25519, RSA of 2048, 3072 or 4096 bits;
    /// [`RequestError::OffCurve`].
    pub fn from_spki(spki: &[u8]) -> Result<Self, RequestError> {
        let key = PublicKey::from_spki(spki)?;
        if key.algorithm.may_sign_certificates() && !kf_crypto::is_public_key(key.algorithm, key.bits) {
            return Err(RequestError::OffCurve);
        }
        Ok(Self { algorithm: key.algorithm, spki: spki.to_vec(), spki_sha256: kf_crypto::sha256(spki) })
    }
}

impl From<KeyRefusal> for RequestError {
    fn from(refusal: KeyRefusal) -> Self {
        match refusal {
            KeyRefusal::Malformed => Self::Malformed,
            KeyRefusal::Unsupported => Self::Unsupported("public key"),
        }
    }
}

/// A certification request whose proof of possession verified.
#[derive(Clone, Debug)]
pub struct CertificationRequest {
    /// The key it asks a certificate for.
    pub key: RequestedKey,
    /// The subject Name it carries, DER. Not used for names; compared on re-enrolment (RFC 7030 section 4.2.2).
    pub subject: Vec<u8>,
    /// The GeneralNames of a subjectAltName it asks for, DER of the extension value.
    pub subject_alt_name: Option<Vec<u8>>,
    /// The challengePassword attribute, where RFC 7030 section 3.5 puts the TLS binding.
    pub challenge_password: Option<String>,
    /// The CertificationRequest, DER.
    pub der: Vec<u8>,
}

impl CertificationRequest {
    /// Reads a request from DER, base64 (any white space) or PEM and verifies its signature.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn from_body(body: &[u8]) -> Result<Self, RequestError> {
        if body.len() > MAX_REQUEST_OCTETS {
            return Err(RequestError::TooLarge);
        }
        // The first octet of DER is 0x30, the digit zero; base64 of DER begins with M, PEM with text or a hyphen.
        if body.first() == Some(&tag::SEQUENCE) {
            return Self::from_der(body);
        }
        let text = core::str::from_utf8(body).map_err(|_not_text| RequestError::Malformed)?;
        let der = if text.contains("-----BEGIN ") {
            only_request(text)?
        } else {
            let digits: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            base64::engine::general_purpose::STANDARD.decode(digits).map_err(|_not_base64| RequestError::Malformed)?
        };
        Self::from_der(&der)
    }

    /// Reads a request from DER and verifies its signature.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX_REQUEST_OCTETS {
            return Err(RequestError::TooLarge);
        }
        if !is_canonical(der) {
            return Err(RequestError::Malformed);
        }
        let parsed = Parsed::from_der(der).ok_or(RequestError::Malformed)?;
        let attributes = Attributes::of(parsed.attributes).ok_or(RequestError::Malformed)?;
        let key = PublicKey::from_spki(parsed.spki.der)?;
        let scheme =
            SignatureScheme::of(&parsed.signature_algorithm).ok_or(RequestError::Unsupported("signature algorithm"))?;
        key.verify(scheme, parsed.info.der, parsed.signature)
            .map_err(|kf_crypto::CryptoError| RequestError::ProofOfPossession)?;
        Ok(Self {
            key: RequestedKey {
                algorithm: key.algorithm,
                spki: parsed.spki.der.to_vec(),
                spki_sha256: kf_crypto::sha256(parsed.spki.der),
            },
            subject: parsed.subject.der.to_vec(),
            subject_alt_name: attributes.subject_alt_name.map(<[u8]>::to_vec),
            challenge_password: attributes.challenge_password,
            der: der.to_vec(),
        })
    }
}

/// The one request of a PEM text; keytool writes `NEW CERTIFICATE REQUEST`, as Netscape once did.
fn only_request(text: &str) -> Result<Vec<u8>, RequestError> {
    let found = pem::decode_any(&["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"], text);
    match found.map(<[Vec<u8>; 1]>::try_from) {
        Some(Ok([der])) => Ok(der),
        _ => Err(RequestError::Malformed),
    }
}

struct Parsed<'a> {
    info: Element<'a>,
    subject: Element<'a>,
    spki: Element<'a>,
    attributes: Elements<'a>,
    signature_algorithm: Element<'a>,
    signature: &'a [u8],
}

impl<'a> Parsed<'a> {
    fn from_der(der: &'a [u8]) -> Option<Self> {
        let mut outer = only(der, tag::SEQUENCE)?.elements();
        let info = outer.expect(tag::SEQUENCE)?;
        let signature_algorithm = outer.expect(tag::SEQUENCE)?;
        let signature = outer.bit_string()?;
        outer.end()?;
        let mut fields = info.elements();
        // RFC 2986 section 4.1: version v1(0).
        fields.expect(tag::INTEGER).filter(|version| version.value == [0])?;
        let subject = fields.expect(tag::SEQUENCE)?;
        let spki = fields.expect(tag::SEQUENCE)?;
        let attributes = fields.expect(tag::context_constructed(0))?.elements();
        fields.end()?;
        name::is_name(subject.der).then_some(Self { info, subject, spki, attributes, signature_algorithm, signature })
    }
}

#[derive(Default)]
struct Attributes<'a> {
    subject_alt_name: Option<&'a [u8]>,
    challenge_password: Option<String>,
}

impl<'a> Attributes<'a> {
    /// Reads the attributes that mean something here; an attribute given twice makes the request malformed.
    fn of(mut attributes: Elements<'a>) -> Option<Self> {
        let mut found = Self::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        while !attributes.is_empty() {
            let mut fields = attributes.expect(tag::SEQUENCE)?.elements();
            let kind = fields.expect(tag::OID)?.value;
            let mut values = fields.expect(tag::SET)?.elements();
            fields.end()?;
            if seen.contains(&kind) || seen.len() >= MAX_ATTRIBUTES {
                return None;
            }
            seen.push(kind);
            if kind == oid::CHALLENGE_PASSWORD.as_bytes() {
                found.challenge_password = Some(challenge_password(&values.any()?)?);
                values.end()?;
            } else if kind == oid::EXTENSION_REQUEST.as_bytes() {
                found.subject_alt_name = requested_alt_name(values.expect(tag::SEQUENCE)?.elements())?;
                values.end()?;
            }
        }
        Some(found)
    }
}

fn challenge_password(value: &Element<'_>) -> Option<String> {
    let is_text = matches!(value.tag, tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING);
    let text = core::str::from_utf8(value.value).ok()?;
    (is_text && text.len() <= MAX_CHALLENGE_OCTETS).then(|| text.to_owned())
}

/// The subjectAltName among requested extensions. `None`: malformed; `Some(None)`: there is none.
#[allow(clippy::option_option)]
fn requested_alt_name(mut extensions: Elements<'_>) -> Option<Option<&[u8]>> {
    let mut found = None;
    let mut count = 0;
    while !extensions.is_empty() {
        let extension = crate::certificate::Extension::of(&extensions.expect(tag::SEQUENCE)?)?;
        count += 1;
        if count > MAX_EXTENSIONS {
            return None;
        }
        if extension.oid == oid::SUBJECT_ALT_NAME.as_bytes() && found.replace(extension.value).is_some() {
            return None;
        }
    }
    Some(found)
}

/// Makes a PKCS#10 request signed by `key`, for the agent and for tests. `subject_common_name` empty: empty Name.
///
/// # Errors
/// [`RequestError::Unsupported`] when the key cannot sign, or the name is longer than 64 characters or has control
/// characters.
pub fn make_request(key: &kf_crypto::PrivateKey, subject_common_name: &str) -> Result<Vec<u8>, RequestError> {
    make_request_with(key.algorithm(), &key.spki(), subject_common_name, |message| key.sign(message).ok())
}

/// As [`make_request`], for a key of which only signatures can be had. `sign` takes a message, not a digest, and gives
/// DER for ECDSA.
///
/// # Errors
/// As [`make_request`], when `sign` gives none.
pub fn make_request_with(
    algorithm: KeyAlgorithm,
    spki: &[u8],
    subject_common_name: &str,
    sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<u8>, RequestError> {
    if !subject_common_name.is_empty() && !name::is_attribute_text(subject_common_name) {
        return Err(RequestError::Unsupported("common name"));
    }
    let common_name = [Attribute { oid: &oid::COMMON_NAME, text: subject_common_name }];
    let subject = name::encode(if subject_common_name.is_empty() { &[] } else { &common_name });
    let info = Writer::build(256, |w| {
        w.sequence(|w| {
            w.unsigned(0);
            w.raw(&subject);
            w.raw(spki);
            w.primitive(tag::context_constructed(0), &[]);
        });
    });
    let signature = sign(&info).ok_or(RequestError::Unsupported("key"))?;
    Ok(signed(&info, algorithm, &signature))
}
