//! PEM (RFC 7468).

/// PEM of DER with label `CERTIFICATE`.
#[must_use]
pub fn certificate(der: &[u8]) -> String {
    encode("CERTIFICATE", der)
}

/// PEM of DER.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der).unwrap_or_default()
}

/// The DER of every PEM block with this label, at most 64 blocks in at most 1 MiB.
///
/// # Errors
/// `None` when the text is larger, or a block of this label is broken.
#[must_use]
pub fn decode_all(label: &str, text: &str) -> Option<Vec<Vec<u8>>> {
    let _ = (label, text);
    todo!()
}
