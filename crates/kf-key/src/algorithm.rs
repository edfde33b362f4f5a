//! Key algorithms.

use core::fmt;
use core::str::FromStr;

/// A public-key algorithm with its size. CA keys are P-256, P-384 or Ed25519; RSA is accepted in requests only, and
/// only where a product line's policy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256 with SHA-256 (FIPS 186-5).
    #[cfg_attr(feature = "serde", serde(rename = "p-256"))]
    P256,
    /// ECDSA on NIST P-384 with SHA-384 (FIPS 186-5).
    #[cfg_attr(feature = "serde", serde(rename = "p-384"))]
    P384,
    /// Ed25519 (RFC 8032, RFC 8410).
    #[cfg_attr(feature = "serde", serde(rename = "ed25519"))]
    Ed25519,
    /// RSA with a modulus of 2048 bits.
    #[cfg_attr(feature = "serde", serde(rename = "rsa-2048"))]
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    #[cfg_attr(feature = "serde", serde(rename = "rsa-3072"))]
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    #[cfg_attr(feature = "serde", serde(rename = "rsa-4096"))]
    Rsa4096,
    /// ML-DSA-44 (FIPS 204, RFC 9881), pure, without context.
    #[cfg_attr(feature = "serde", serde(rename = "ml-dsa-44"))]
    MlDsa44,
    /// ML-DSA-65.
    #[cfg_attr(feature = "serde", serde(rename = "ml-dsa-65"))]
    MlDsa65,
    /// ML-DSA-87.
    #[cfg_attr(feature = "serde", serde(rename = "ml-dsa-87"))]
    MlDsa87,
}

/// An algorithm name that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm;

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected p-256, p-384, ed25519, rsa-2048, rsa-3072, rsa-4096, ml-dsa-44, ml-dsa-65 or ml-dsa-87")
    }
}

impl core::error::Error for UnknownAlgorithm {}

impl KeyAlgorithm {
    /// Every algorithm, in the order of the vocabulary.
    pub const ALL: [Self; 9] = [
        Self::P256,
        Self::P384,
        Self::Ed25519,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::MlDsa44,
        Self::MlDsa65,
        Self::MlDsa87,
    ];

    /// The name used in configuration, requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p-256",
            Self::P384 => "p-384",
            Self::Ed25519 => "ed25519",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::MlDsa44 => "ml-dsa-44",
            Self::MlDsa65 => "ml-dsa-65",
            Self::MlDsa87 => "ml-dsa-87",
        }
    }

    /// Security strength in bits (SP 800-57 Part 1 section 5.6.1).
    #[must_use]
    pub const fn strength_bits(self) -> u16 {
        match self {
            Self::P256 | Self::Ed25519 | Self::Rsa3072 => 128,
            // FIPS 204 table 1: categories 2, 3 and 5; as hard to break as SHA-256 (collision), AES-192, AES-256.
            Self::MlDsa44 => 128,
            Self::P384 | Self::MlDsa65 => 192,
            Self::MlDsa87 => 256,
            Self::Rsa2048 => 112,
            // Between the table's rows for 3072 (128) and 7680 bits (192): counts as the lower one.
            Self::Rsa4096 => 128,
        }
    }

    /// Whether a certification authority of ours may hold such a key.
    #[must_use]
    pub const fn may_sign_certificates(self) -> bool {
        matches!(self, Self::P256 | Self::P384 | Self::Ed25519) || self.is_post_quantum()
    }

    /// Whether a quantum computer that breaks elliptic curves and RSA leaves it standing.
    #[must_use]
    pub const fn is_post_quantum(self) -> bool {
        matches!(self, Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87)
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeyAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or(UnknownAlgorithm)
    }
}
