//! Digests and HMAC (FIPS 180-4, FIPS 198-1). SHA-1 serves identifiers only.

use aws_lc_rs::{digest, hmac};

fn fixed<const N: usize>(algorithm: &'static digest::Algorithm, message: &[u8]) -> [u8; N] {
    let digest = digest::digest(algorithm, message);
    let mut bytes = [0; N];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// SHA-256 of `message`.
#[must_use]
pub fn sha256(message: &[u8]) -> [u8; 32] {
    fixed(&digest::SHA256, message)
}

/// SHA-384 of `message`.
#[must_use]
pub fn sha384(message: &[u8]) -> [u8; 48] {
    fixed(&digest::SHA384, message)
}

/// SHA-512 of `message`.
#[must_use]
pub fn sha512(message: &[u8]) -> [u8; 64] {
    fixed(&digest::SHA512, message)
}

/// SHA-1 of `message`, for the OCSP CertIDs that clients send (RFC 6960) and nothing that needs collision resistance.
#[must_use]
pub fn sha1(message: &[u8]) -> [u8; 20] {
    fixed(&digest::SHA1_FOR_LEGACY_USE_ONLY, message)
}

/// HMAC-SHA-256 of `message` under `key`.
#[must_use]
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// SHA-256 over parts.
pub struct Sha256(digest::Context);

impl Sha256 {
    /// Nothing hashed yet.
    #[must_use]
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Hashes `part` as well.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// The digest of all parts.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        let digest = self.0.finish();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        bytes
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}
