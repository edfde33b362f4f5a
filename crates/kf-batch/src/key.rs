//! Public keys on P-256, as they stand in documents.

use core::fmt;

use kf_key::KeyAlgorithm;

use crate::frame::FormatError;

/// Octets of an uncompressed point.
pub const POINT_OCTETS: usize = 65;

/// A public key on P-256: an uncompressed point of the curve. There is no value that is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct P256Key([u8; POINT_OCTETS]);

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Key(")?;
        self.spki_sha256().iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
        f.write_str(")")
    }
}

impl P256Key {
    /// From an uncompressed point (SEC 1 section 2.3.4).
    ///
    /// # Errors
    /// [`FormatError::Field`] for what is no point of the curve.
    pub fn from_point(point: [u8; POINT_OCTETS]) -> Result<Self, FormatError> {
        let is_one = point.first() == Some(&4) && kf_crypto::is_public_key(KeyAlgorithm::P256, &point);
        if is_one { Ok(Self(point)) } else { Err(FormatError::Field("public key")) }
    }

    /// From a SubjectPublicKeyInfo, DER.
    ///
    /// # Errors
    /// [`FormatError::Field`] for another algorithm, curve or encoding.
    pub fn from_spki(spki: &[u8]) -> Result<Self, FormatError> {
        match kf_crypto::public_key_of_spki(spki) {
            Ok((KeyAlgorithm::P256, point)) => {
                let point = point.try_into().map_err(|_other_length| FormatError::Field("public key"))?;
                Self::from_point(point)
            }
            _ => Err(FormatError::Field("public key")),
        }
    }

    /// The uncompressed point.
    #[must_use]
    pub const fn point(&self) -> &[u8; POINT_OCTETS] {
        &self.0
    }

    /// The SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        kf_crypto::spki_of_public_key(KeyAlgorithm::P256, &self.0).unwrap_or_default()
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        kf_crypto::sha256(&self.spki())
    }
}
