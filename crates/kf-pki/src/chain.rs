//! Path validation, by rustls-webpki alone, and what TLS client certificates mean to us.

use core::time::Duration;

use kf_key::UnixMillis;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::certificate::Certificate;

/// The most intermediates that a client may send.
const MAX_INTERMEDIATES: usize = 8;

/// What manufacturers' CAs sign with; ours use the first six rows.
static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::aws_lc_rs::ECDSA_P256_SHA256,
    webpki::aws_lc_rs::ECDSA_P384_SHA384,
    webpki::aws_lc_rs::ED25519,
    webpki::aws_lc_rs::ML_DSA_44,
    webpki::aws_lc_rs::ML_DSA_65,
    webpki::aws_lc_rs::ML_DSA_87,
    webpki::aws_lc_rs::ECDSA_P256_SHA384,
    webpki::aws_lc_rs::ECDSA_P384_SHA256,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA256,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA384,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA512,
];

/// How a presented client certificate stands in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Currency {
    /// Inside its validity.
    Current,
    /// Its last moment has passed: renewal inside the grace window may still be allowed.
    Expired,
}

/// Why a path does not lead to an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Not yet valid.
    #[error("the certificate is not yet valid")]
    NotYetValid,
    /// No path to an anchor, or a broken signature, or a wrong usage.
    #[error("the certificate does not lead to a trust anchor for TLS clients")]
    Untrusted,
}

/// Validates a client certificate's path to one of `anchors` (CA certificates, DER): signatures, names, basic
/// constraints, path length, clientAuth. An end entity that has expired is validated as of its last moment and reported
/// as [`Currency::Expired`]; who asks decides whether that is good enough.
///
/// # Errors
/// [`PathError`].
pub fn verify_client(
    leaf: &[u8],
    intermediates: &[&[u8]],
    anchors: &[&[u8]],
    now: UnixMillis,
) -> Result<Currency, PathError> {
    let validity = Certificate::from_der(leaf).ok_or(PathError::Untrusted)?.tbs;
    if now < validity.not_before {
        return Err(PathError::NotYetValid);
    }
    let (at, currency) =
        if now > validity.not_after { (validity.not_after, Currency::Expired) } else { (now, Currency::Current) };
    verify(leaf, intermediates, anchors, at, KeyUsage::client_auth()).map(|()| currency)
}

/// Whether a certificate may be a trust anchor: it is one of a CA, and says so (RFC 5280 section 4.2.1.9). Whoever holds the key
/// of any other could make itself one.
#[must_use]
pub fn is_anchor(der: &[u8]) -> bool {
    let is_authority = Certificate::from_der(der)
        .and_then(|certificate| certificate.tbs.extensions.authority())
        .is_some_and(|constraints| constraints.is_authority);
    is_authority && anchor_from_trusted_cert(&CertificateDer::from(der)).is_ok()
}

/// Validates the path of a TPM's endorsement certificate to one of `anchors` (CA certificates, DER): as
/// [`verify_client`], with the key purpose tcg-kp-EKCertificate where the certificate names any. Makers let these
/// certificates end long after the TPM, or never; an expired one is refused.
///
/// # Errors
/// [`PathError`].
pub fn verify_endorsement(
    leaf: &[u8],
    intermediates: &[&[u8]],
    anchors: &[&[u8]],
    now: UnixMillis,
) -> Result<(), PathError> {
    /// tcg-kp-EKCertificate, 2.23.133.8.1 (TCG EK Credential Profile section 3.2.16), as the content of its encoding.
    const EK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
    verify(leaf, intermediates, anchors, now, KeyUsage::required_if_present(EK_CERTIFICATE))
}

fn verify(
    leaf: &[u8],
    intermediates: &[&[u8]],
    anchors: &[&[u8]],
    at: UnixMillis,
    usage: KeyUsage,
) -> Result<(), PathError> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(PathError::Untrusted);
    }
    let leaf = CertificateDer::from(leaf);
    let intermediates: Vec<CertificateDer<'_>> = intermediates.iter().map(|der| CertificateDer::from(*der)).collect();
    let anchors: Vec<CertificateDer<'_>> = anchors.iter().map(|der| CertificateDer::from(*der)).collect();
    // An anchor that cannot be read anchors nothing; the others still do.
    let anchors: Vec<TrustAnchor<'_>> = anchors.iter().filter_map(|der| anchor_from_trusted_cert(der).ok()).collect();
    let end_entity = EndEntityCert::try_from(&leaf).map_err(|_error| PathError::Untrusted)?;
    let at = UnixTime::since_unix_epoch(Duration::from_millis(at.0));
    match end_entity.verify_for_usage(ALGORITHMS, &anchors, &intermediates, at, usage, None, None) {
        Ok(_path) => Ok(()),
        Err(webpki::Error::CertNotValidYet { .. }) => Err(PathError::NotYetValid),
        Err(_untrusted) => Err(PathError::Untrusted),
    }
}
