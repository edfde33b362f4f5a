//! What the signer checks by itself of the octets that it is asked to sign.

use der::{Decode, Encode};
use kf_key::CertificateProfile;
use kf_pki::certificate::{facts_of_tbs, recheck_tbs_certificate};
use kf_pki::crl::recheck_tbs_cert_list;
use x509_cert::TbsCertificate;

use crate::{SignerError, SignerRefusal};

/// The most octets of a log's origin.
const MAX_ORIGIN_OCTETS: usize = 255;

fn content(reason: &str) -> SignerError {
    SignerError::Refused(SignerRefusal::Content(reason.to_owned()))
}

/// The name in a self-signed root certificate over `spki`.
///
/// # Errors
/// When issuer and subject differ, the key is another one, or it is no CA certificate.
pub(crate) fn check_root(tbs: &[u8], spki: &[u8]) -> Result<Vec<u8>, SignerError> {
    let name = self_signed_name(tbs)?;
    recheck_tbs_certificate(tbs, &name, true).map_err(content)?;
    let facts = facts_of_tbs(tbs).ok_or_else(|| content("a certificate of no profile of ours"))?;
    if facts.profile != CertificateProfile::Root {
        return Err(content("a root signs no other self-signed certificate than a root's"));
    }
    if facts.spki_sha256 != kf_crypto::sha256(spki) {
        return Err(content("a root certificate certifies its own key"));
    }
    Ok(name)
}

/// The name of issuer and subject, which must be one.
pub(crate) fn self_signed_name(tbs: &[u8]) -> Result<Vec<u8>, SignerError> {
    let certificate = TbsCertificate::from_der(tbs).map_err(|_reason| content("not a TBSCertificate"))?;
    if certificate.issuer() != certificate.subject() {
        return Err(content("a root certificate is issued to itself"));
    }
    certificate.subject().to_der().map_err(|_reason| content("name"))
}

/// A root signs issuing CAs, links to other roots (RFC 9810 section 4.4) and delegated OCSP responders (RFC 6960 section
/// 4.2.2.2), nothing else. Its own certificate is [`check_root`]'s.
pub(crate) fn check_below_root(tbs: &[u8], issuer_name: &[u8]) -> Result<(), SignerError> {
    recheck_tbs_certificate(tbs, issuer_name, true).map_err(content)?;
    match facts_of_tbs(tbs).map(|facts| facts.profile) {
        Some(CertificateProfile::IssuingCa | CertificateProfile::LinkCa | CertificateProfile::OcspSigner) => Ok(()),
        _ => Err(content("a root signs issuing CAs, link certificates and OCSP responders only")),
    }
}

pub(crate) fn check_end_entity(tbs: &[u8], issuer_name: &[u8]) -> Result<(), SignerError> {
    recheck_tbs_certificate(tbs, issuer_name, false).map_err(content)
}

pub(crate) fn check_crl(tbs: &[u8], issuer_name: &[u8]) -> Result<(), SignerError> {
    recheck_tbs_cert_list(tbs, issuer_name).map_err(content)
}

/// An origin is one line of printable text (C2SP tlog-checkpoint).
pub(crate) fn check_origin(origin: &[u8]) -> Result<&str, SignerError> {
    core::str::from_utf8(origin)
        .ok()
        .filter(|origin| !origin.is_empty() && origin.len() <= MAX_ORIGIN_OCTETS)
        .filter(|origin| !origin.chars().any(char::is_control))
        .ok_or_else(|| content("an origin is one line of at most 255 octets"))
}
