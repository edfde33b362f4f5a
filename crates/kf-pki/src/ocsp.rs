//! OCSP requests and answers (RFC 6960, RFC 5019, nonce RFC 9654).

mod answer;
mod verify;

pub use answer::{failure, respond};
pub use verify::verify_response;

use kf_crypto::PrivateKey;
use kf_key::{RevocationReason, SerialNumber, UnixMillis};

use crate::asn1::{Element, Elements, Writer, is_canonical, oid, only, tag};
use crate::certificate::{Extensions, write_extension};
use crate::issuer::Issuer;

/// The most octets of a request.
pub const MAX_REQUEST_OCTETS: usize = 4 * 1024;
/// The most certificates in one request.
pub const MAX_CERT_IDS: usize = 16;
/// The most octets of a nonce (RFC 9654 section 2.1).
const MAX_NONCE_OCTETS: usize = 128;

/// The CertID of a request, kept as sent because the answer repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertId {
    /// CertID, DER, as sent.
    pub der: Vec<u8>,
    /// Hash of the issuer's Name.
    pub issuer_name_hash: Vec<u8>,
    /// Hash of the issuer's public key bits.
    pub issuer_key_hash: Vec<u8>,
    /// The serial number, if it is one that we could have issued.
    pub serial: Option<SerialNumber>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspRequest {
    /// What is asked about, at least one.
    pub cert_ids: Vec<CertId>,
    /// The nonce of 1 to 128 octets (RFC 9654), as the contents of the extension's OCTET STRING: with the inner OCTET
    /// STRING of the RFC where the client sent one, bare where it did not. The answer repeats exactly these octets.
    pub nonce: Option<Vec<u8>>,
}

/// OCSPResponseStatus of an answer without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcspFailure {
    /// 1
    MalformedRequest,
    /// 2
    InternalError,
    /// 3
    TryLater,
    /// 6
    Unauthorized,
}

/// What is known about one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertStatus {
    /// Issued by us and neither revoked nor held.
    Good,
    /// Revoked or held.
    Revoked {
        /// When.
        at: UnixMillis,
        /// Why.
        reason: RevocationReason,
    },
    /// Never issued: answered as `revoked` with reason certificateHold at the epoch and the extended-revoke extension
    /// (RFC 6960 section 2.2).
    NeverIssued,
    /// Not our issuer.
    Unknown,
}

/// A delegated responder: its certificate and key.
#[derive(Debug)]
pub struct Responder {
    /// Its certificate, DER, included in answers.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: PrivateKey,
}

impl OcspRequest {
    /// Parses a request. Signatures on requests are ignored (RFC 6960 section 4.1.2: optional).
    ///
    /// # Errors
    /// [`OcspFailure::MalformedRequest`].
    pub fn from_der(der: &[u8]) -> Result<Self, OcspFailure> {
        Self::parse(der).ok_or(OcspFailure::MalformedRequest)
    }

    fn parse(der: &[u8]) -> Option<Self> {
        if der.len() > MAX_REQUEST_OCTETS || !is_canonical(der) {
            return None;
        }
        let mut outer = only(der, tag::SEQUENCE)?.elements();
        let mut fields = outer.expect(tag::SEQUENCE)?.elements();
        let _signature = outer.optional(tag::context_constructed(0));
        outer.end()?;
        if let Some(version) = fields.optional(tag::context_constructed(0)) {
            // v1(0) is the default and should be absent; some clients send it all the same.
            only(version.value, tag::INTEGER).filter(|version| version.value == [0])?;
        }
        let _requestor_name = fields.optional(tag::context_constructed(1));
        let cert_ids = cert_ids(fields.expect(tag::SEQUENCE)?.elements())?;
        let extensions = fields.optional(tag::context_constructed(2));
        fields.end()?;
        let nonce = match extensions {
            Some(wrapper) => requested_nonce(&Extensions::of(only(wrapper.value, tag::SEQUENCE)?.elements())?)?,
            None => None,
        };
        Some(Self { cert_ids, nonce })
    }
}

fn cert_ids(mut requests: Elements<'_>) -> Option<Vec<CertId>> {
    let mut cert_ids = Vec::new();
    while !requests.is_empty() {
        let mut request = requests.expect(tag::SEQUENCE)?.elements();
        let cert_id = request.expect(tag::SEQUENCE)?;
        let _single_extensions = request.optional(tag::context_constructed(0));
        request.end()?;
        if cert_ids.len() >= MAX_CERT_IDS {
            return None;
        }
        cert_ids.push(CertId::of(&cert_id)?);
    }
    (!cert_ids.is_empty()).then_some(cert_ids)
}

/// The nonce among the extensions of a request. `None`: a broken one, or a critical extension that is not known
/// (RFC 6960 section 4.4); `Some(None)`: there is none.
#[allow(clippy::option_option)]
fn requested_nonce(extensions: &Extensions<'_>) -> Option<Option<Vec<u8>>> {
    let is_known = |oid: &[u8]| oid == oid::OCSP_NONCE.as_bytes();
    if extensions.iter().any(|extension| extension.is_critical && !is_known(extension.oid)) {
        return None;
    }
    match extensions.get(&oid::OCSP_NONCE) {
        // Octets that are an OCTET STRING are the RFC's form, anything else is the nonce itself: clients differ.
        Some(extension) => {
            let nonce = only(extension.value, tag::OCTET_STRING).map_or(extension.value, |inner| inner.value);
            (1..=MAX_NONCE_OCTETS).contains(&nonce.len()).then(|| Some(extension.value.to_vec()))
        }
        None => Some(None),
    }
}

impl CertId {
    fn of(element: &Element<'_>) -> Option<Self> {
        let mut fields = element.elements();
        let _hash_algorithm = fields.expect(tag::SEQUENCE)?;
        let issuer_name_hash = fields.expect(tag::OCTET_STRING)?.value.to_vec();
        let issuer_key_hash = fields.expect(tag::OCTET_STRING)?.value.to_vec();
        let serial = SerialNumber::from_der_contents(fields.expect(tag::INTEGER)?.value);
        fields.end()?;
        Some(Self { der: element.der.to_vec(), issuer_name_hash, issuer_key_hash, serial })
    }

    /// Whether the CertID names this issuer, by SHA-1 or SHA-256. Precompute with [`IssuerHashes`].
    #[must_use]
    pub fn names(&self, hashes: &IssuerHashes) -> bool {
        let (name, key) = (self.issuer_name_hash.as_slice(), self.issuer_key_hash.as_slice());
        let names = |(name_hash, key_hash): (&[u8], &[u8])| name == name_hash && key == key_hash;
        // The lengths tell the algorithms apart; a hash by a third one matches neither.
        names((&hashes.sha1.0, &hashes.sha1.1)) || names((&hashes.sha256.0, &hashes.sha256.1))
    }
}

/// The hashes under which clients ask for an issuer.
#[derive(Clone, Debug)]
pub struct IssuerHashes {
    /// SHA-1 of name and of key.
    pub sha1: ([u8; 20], [u8; 20]),
    /// SHA-256 of name and of key.
    pub sha256: ([u8; 32], [u8; 32]),
}

impl IssuerHashes {
    /// Hashes of an issuer.
    #[must_use]
    pub fn of(issuer: &Issuer) -> Self {
        let (name, key) = (issuer.name.as_ref(), issuer.public_key.as_ref());
        Self {
            sha1: (kf_crypto::sha1(name), kf_crypto::sha1(key)),
            sha256: (kf_crypto::sha256(name), kf_crypto::sha256(key)),
        }
    }
}

/// A request for one certificate, for the demo, the agent and tests; SHA-256 CertID. `nonce` is wrapped in an OCTET
/// STRING, as RFC 9654 section 2.1 has it.
#[must_use]
pub fn make_request(issuer: &Issuer, serial: SerialNumber, nonce: Option<&[u8]>) -> Vec<u8> {
    Writer::build(256, |w| {
        w.sequence(|w| {
            w.sequence(|w| {
                w.sequence(|w| w.sequence(|w| write_cert_id(w, issuer, serial)));
                if let Some(nonce) = nonce {
                    w.nested(tag::context_constructed(2), |w| {
                        w.sequence(|w| write_extension(w, &oid::OCSP_NONCE, false, |w| w.octet_string(nonce)));
                    });
                }
            });
        });
    })
}

fn write_cert_id(w: &mut Writer, issuer: &Issuer, serial: SerialNumber) {
    let (name_hash, key_hash) = IssuerHashes::of(issuer).sha256;
    w.sequence(|w| {
        w.sequence(|w| {
            w.oid(&oid::SHA256);
            w.null();
        });
        w.octet_string(&name_hash);
        w.octet_string(&key_hash);
        w.primitive(tag::INTEGER, serial.as_bytes());
    });
}
