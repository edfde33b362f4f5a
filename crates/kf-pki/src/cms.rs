//! The CMS subset of EST: certs-only SignedData (RFC 7030 section 4.1.3, RFC 5652), and CSR attributes (RFC 9908).

use kf_key::KeyAlgorithm;

/// A degenerate SignedData that carries certificates, DER ContentInfo.
#[must_use]
pub fn certs_only(certificates: &[&[u8]]) -> Vec<u8> {
    let _ = certificates;
    todo!()
}

/// The certificates of a certs-only SignedData, at most 16 of at most 16 KiB each.
///
/// # Errors
/// `None` when it is not one.
#[must_use]
pub fn certificates_of(der: &[u8]) -> Option<Vec<Vec<u8>>> {
    let _ = der;
    todo!()
}

/// CsrAttrs (RFC 8951 section 3.5, RFC 9908): the key algorithm a device should use (first of `algorithms`), the hash
/// of its request's signature, and an extension request with the extensions that the CA will set.
#[must_use]
pub fn csr_attributes(algorithms: &[KeyAlgorithm]) -> Vec<u8> {
    let _ = algorithms;
    todo!()
}
