//! What the signer checks by itself of the octets that it is asked to sign.

use const_oid::db::rfc5912::ID_KP_OCSP_SIGNING;
use der::{Decode, Encode};
use kf_pki::certificate::recheck_tbs_certificate;
use kf_pki::crl::recheck_tbs_cert_list;
use x509_cert::TbsCertificate;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage};

use crate::{SignerError, SignerRefusal};

/// The most octets of a log's origin.
const MAX_ORIGIN_OCTETS: usize = 255;

fn content(reason: &str) -> SignerError {
    SignerError::Refused(SignerRefusal::Content(reason.to_owned()))
}

fn parse(tbs: &[u8]) -> Result<TbsCertificate, SignerError> {
    TbsCertificate::from_der(tbs).map_err(|_reason| content("not a TBSCertificate"))
}

/// The name in a self-signed certificate over `spki`.
///
/// # Errors
/// When issuer and subject differ, the key is another one, or it is no CA certificate.
pub(crate) fn check_root(tbs: &[u8], spki: &[u8]) -> Result<Vec<u8>, SignerError> {
    let name = self_signed_name(tbs)?;
    let certificate = parse(tbs)?;
    let certified = certificate.subject_public_key_info().to_der().map_err(|_reason| content("public key"))?;
    if certified != spki {
        return Err(content("a root certificate certifies its own key"));
    }
    if !is_authority(&certificate) {
        return Err(content("a root certificate is a CA certificate"));
    }
    recheck_tbs_certificate(tbs, &name, true).map_err(content)?;
    Ok(name)
}

/// The name of issuer and subject.
pub(crate) fn self_signed_name(tbs: &[u8]) -> Result<Vec<u8>, SignerError> {
    let certificate = parse(tbs)?;
    if certificate.issuer() != certificate.subject() {
        return Err(content("a root certificate is issued to itself"));
    }
    certificate.subject().to_der().map_err(|_reason| content("name"))
}

/// A root signs CA certificates and delegated OCSP responders (RFC 6960 section 4.2.2.2), nothing else.
pub(crate) fn check_below_root(tbs: &[u8], issuer_name: &[u8]) -> Result<(), SignerError> {
    recheck_tbs_certificate(tbs, issuer_name, true).map_err(content)?;
    let certificate = parse(tbs)?;
    let is_responder = matches!(certificate.get_extension::<ExtendedKeyUsage>(), Ok(Some((_, usage)))
        if usage.0 == [ID_KP_OCSP_SIGNING]);
    if is_authority(&certificate) || is_responder {
        return Ok(());
    }
    Err(content("a root signs CA certificates and OCSP responders only"))
}

pub(crate) fn check_end_entity(tbs: &[u8], issuer_name: &[u8]) -> Result<(), SignerError> {
    recheck_tbs_certificate(tbs, issuer_name, false).map_err(content)
}

pub(crate) fn check_crl(tbs: &[u8], issuer_name: &[u8]) -> Result<(), SignerError> {
    recheck_tbs_cert_list(tbs, issuer_name).map_err(content)
}

fn is_authority(certificate: &TbsCertificate) -> bool {
    matches!(certificate.get_extension::<BasicConstraints>(), Ok(Some((_, constraints))) if constraints.ca)
}

/// An origin is one line of printable text (C2SP tlog-checkpoint).
pub(crate) fn check_origin(origin: &[u8]) -> Result<&str, SignerError> {
    core::str::from_utf8(origin)
        .ok()
        .filter(|origin| !origin.is_empty() && origin.len() <= MAX_ORIGIN_OCTETS)
        .filter(|origin| !origin.chars().any(char::is_control))
        .ok_or_else(|| content("an origin is one line of at most 255 octets"))
}
