//! Path validation, by rustls-webpki alone, and what TLS client certificates mean to us.

use kf_key::UnixMillis;

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
    let _ = (leaf, intermediates, anchors, now);
    todo!()
}
