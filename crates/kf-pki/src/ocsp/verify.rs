//! The client's side: what an answer says, once its signature and its signer are verified (RFC 6960 section 3.2).

use kf_key::{RevocationReason, SerialNumber, UnixMillis};

use super::{CertId, CertStatus, IssuerHashes};
use crate::asn1::{Element, Elements, is_canonical, oid, only, tag, time_of};
use crate::certificate::{Certificate, Extensions};
use crate::issuer::Issuer;
use crate::public_key::{PublicKey, SignatureScheme};

/// The most octets of an answer.
const MAX_RESPONSE_OCTETS: usize = 64 * 1024;
/// How far the responder's clock may be ahead of ours.
const CLOCK_SKEW: u64 = 300 * UnixMillis::SECOND;
/// The most certificates that an answer may bring.
const MAX_CERTIFICATES: usize = 4;

/// What an answer says about one serial number, its signature verified under `issuer` or a responder that `issuer`
/// delegated to (EKU OCSPSigning, valid at `now`), its nonce compared. `nonce` is what [`super::make_request`] was
/// given; an answer without it is refused. An answer that is not of now (thisUpdate, nextUpdate) is refused.
///
/// # Errors
/// A short reason.
pub fn verify_response(
    der: &[u8],
    issuer: &Issuer,
    serial: SerialNumber,
    nonce: Option<&[u8]>,
    now: UnixMillis,
) -> Result<CertStatus, &'static str> {
    if der.len() > MAX_RESPONSE_OCTETS {
        return Err("the answer is too large");
    }
    let basic = basic_response(der)?;
    let response = Basic::from_der(basic).ok_or("the answer is not a BasicOCSPResponse")?;
    verify_signer(&response, issuer, now)?;
    let data = Data::of(&response.data).ok_or("the answer's data are malformed")?;
    if let Some(nonce) = nonce {
        let echoed = data.extensions.get(&oid::OCSP_NONCE).and_then(|found| only(found.value, tag::OCTET_STRING));
        if echoed.is_none_or(|echoed| echoed.value != nonce) {
            return Err("the answer does not repeat the nonce");
        }
    }
    status_of(&data, issuer, serial, now)
}

/// The octets of the BasicOCSPResponse in a successful OCSPResponse.
fn basic_response(der: &[u8]) -> Result<&[u8], &'static str> {
    let malformed = "the answer is not an OCSPResponse";
    if !is_canonical(der) {
        return Err(malformed);
    }
    let mut fields = only(der, tag::SEQUENCE).ok_or(malformed)?.elements();
    match fields.expect(tag::ENUMERATED).ok_or(malformed)?.value {
        [0] => {}
        [1] => return Err("the responder calls the request malformed"),
        [2] => return Err("the responder has an internal error"),
        [3] => return Err("the responder asks to try later"),
        [6] => return Err("the responder does not answer for this certificate"),
        _ => return Err("the responder refuses to answer"),
    }
    let mut read = || {
        let mut bytes = only(fields.expect(tag::context_constructed(0))?.value, tag::SEQUENCE)?.elements();
        fields.end()?;
        bytes.expect(tag::OID).filter(|kind| kind.value == oid::OCSP_BASIC.as_bytes())?;
        let basic = bytes.expect(tag::OCTET_STRING)?;
        bytes.end().map(|()| basic.value)
    };
    read().ok_or(malformed)
}

struct Basic<'a> {
    data: Element<'a>,
    scheme: SignatureScheme,
    signature: &'a [u8],
    certificates: Vec<&'a [u8]>,
}

impl<'a> Basic<'a> {
    fn from_der(der: &'a [u8]) -> Option<Self> {
        if !is_canonical(der) {
            return None;
        }
        let mut fields = only(der, tag::SEQUENCE)?.elements();
        let data = fields.expect(tag::SEQUENCE)?;
        let scheme = SignatureScheme::of(&fields.expect(tag::SEQUENCE)?)?;
        let signature = fields.bit_string()?;
        let mut certificates = Vec::new();
        if let Some(wrapper) = fields.optional(tag::context_constructed(0)) {
            let mut elements = only(wrapper.value, tag::SEQUENCE)?.elements();
            while !elements.is_empty() {
                if certificates.len() >= MAX_CERTIFICATES {
                    return None;
                }
                certificates.push(elements.expect(tag::SEQUENCE)?.der);
            }
        }
        fields.end()?;
        Some(Self { data, scheme, signature, certificates })
    }
}

/// The issuer itself, or a responder with a certificate directly from it (RFC 6960 section 4.2.2.2). Which certificate
/// the responderID means need not be read: the one under which the signature verifies is the one.
fn verify_signer(response: &Basic<'_>, issuer: &Issuer, now: UnixMillis) -> Result<(), &'static str> {
    let issuer_key = PublicKey { algorithm: issuer.algorithm, bits: &issuer.public_key };
    if issuer_key.verify(response.scheme, response.data.der, response.signature).is_ok() {
        return Ok(());
    }
    let signed_by_delegate = response.certificates.iter().any(|der| {
        let Some(certificate) = Certificate::from_der(der) else { return false };
        is_delegate(&certificate, issuer, &issuer_key, now)
            && PublicKey::from_spki(certificate.tbs.spki)
                .is_ok_and(|key| key.verify(response.scheme, response.data.der, response.signature).is_ok())
    });
    if signed_by_delegate { Ok(()) } else { Err("the answer is not signed by the issuer or its responder") }
}

fn is_delegate(certificate: &Certificate<'_>, issuer: &Issuer, issuer_key: &PublicKey<'_>, now: UnixMillis) -> bool {
    let tbs = &certificate.tbs;
    tbs.issuer == issuer.name.as_ref()
        && tbs.extensions.has_purpose(&oid::OCSP_SIGNING)
        && (tbs.not_before..=tbs.not_after).contains(&now)
        && certificate
            .scheme
            .is_some_and(|scheme| issuer_key.verify(scheme, certificate.tbs_der, certificate.signature).is_ok())
}

struct Data<'a> {
    responses: Elements<'a>,
    extensions: Extensions<'a>,
}

impl<'a> Data<'a> {
    fn of(element: &Element<'a>) -> Option<Self> {
        let mut fields = element.elements();
        let _version = fields.optional(tag::context_constructed(0));
        let _responder_by_name = fields.optional(tag::context_constructed(1));
        let _responder_by_key = fields.optional(tag::context_constructed(2));
        let _produced_at = fields.expect(tag::GENERALIZED_TIME)?;
        let responses = fields.expect(tag::SEQUENCE)?.elements();
        let extensions = match fields.optional(tag::context_constructed(1)) {
            Some(wrapper) => Extensions::of(only(wrapper.value, tag::SEQUENCE)?.elements())?,
            None => Extensions::default(),
        };
        fields.end().map(|()| Self { responses, extensions })
    }
}

fn status_of(
    data: &Data<'_>,
    issuer: &Issuer,
    serial: SerialNumber,
    now: UnixMillis,
) -> Result<CertStatus, &'static str> {
    let hashes = IssuerHashes::of(issuer);
    let mut responses = data.responses;
    while let Some(single) = responses.expect(tag::SEQUENCE) {
        let single = Single::of(&single).ok_or("the answer's data are malformed")?;
        if single.cert_id.serial != Some(serial) || !single.cert_id.names(&hashes) {
            continue;
        }
        if single.this_update > now.plus(CLOCK_SKEW) || single.next_update.is_none_or(|next| next < now) {
            return Err("the answer is not of now");
        }
        let says_never_issued = data.extensions.get(&oid::OCSP_EXTENDED_REVOKE).is_some();
        let at_the_epoch =
            CertStatus::Revoked { at: UnixMillis(0), reason: RevocationReason::CertificateHold } == single.status;
        return Ok(if says_never_issued && at_the_epoch { CertStatus::NeverIssued } else { single.status });
    }
    Err("the answer is about another certificate")
}

struct Single {
    cert_id: CertId,
    status: CertStatus,
    this_update: UnixMillis,
    next_update: Option<UnixMillis>,
}

impl Single {
    fn of(element: &Element<'_>) -> Option<Self> {
        const GOOD: u8 = tag::context(0);
        const REVOKED: u8 = tag::context_constructed(1);
        const UNKNOWN: u8 = tag::context(2);
        let mut fields = element.elements();
        let cert_id = CertId::of(&fields.expect(tag::SEQUENCE)?)?;
        let status = fields.any()?;
        let status = match status.tag {
            GOOD => CertStatus::Good,
            REVOKED => revoked(status.elements())?,
            UNKNOWN => CertStatus::Unknown,
            _ => return None,
        };
        let this_update = time_of(&fields.expect(tag::GENERALIZED_TIME)?)?;
        let next_update = match fields.optional(tag::context_constructed(0)) {
            Some(wrapper) => Some(time_of(&only(wrapper.value, tag::GENERALIZED_TIME)?)?),
            None => None,
        };
        let _extensions = fields.optional(tag::context_constructed(1));
        fields.end().map(|()| Self { cert_id, status, this_update, next_update })
    }
}

fn revoked(mut fields: Elements<'_>) -> Option<CertStatus> {
    let at = time_of(&fields.expect(tag::GENERALIZED_TIME)?)?;
    let reason = match fields.optional(tag::context_constructed(0)) {
        Some(wrapper) => {
            let code = only(wrapper.value, tag::ENUMERATED)?.value;
            <[u8; 1]>::try_from(code).ok().and_then(|[code]| RevocationReason::from_code(code))?
        }
        None => RevocationReason::Unspecified,
    };
    fields.end().map(|()| CertStatus::Revoked { at, reason })
}
