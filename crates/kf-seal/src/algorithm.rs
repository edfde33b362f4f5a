//! The algorithms of sealed payloads, as COSE numbers them (RFC 9053 section 4; IANA "COSE Algorithms").

use kf_derive::AeadAlgorithm;

/// An algorithm of authenticated encryption with a tag of 16 octets. A tag of 8 would save 8 octets and would let a
/// forger succeed once in 2^64 attempts on a fleet that answers every one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealAlgorithm {
    /// AES-CCM-16-128-128: a nonce of 13 octets; needs only the forward direction of AES, so it is the smallest.
    Aes128Ccm,
    /// A128GCM: a nonce of 12 octets.
    Aes128Gcm,
    /// ChaCha20/Poly1305: a key of 32 octets and a nonce of 12; for processors without an AES engine.
    ChaCha20Poly1305,
}

/// Octets of the tag of every algorithm.
pub(crate) const TAG_OCTETS: usize = 16;

/// The longest nonce.
pub(crate) const MAX_NONCE_OCTETS: usize = 13;

impl SealAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Aes128Ccm, Self::Aes128Gcm, Self::ChaCha20Poly1305];

    /// The value of the header parameter `alg`.
    #[must_use]
    pub const fn cose(self) -> u8 {
        match self {
            Self::Aes128Gcm => 1,
            Self::ChaCha20Poly1305 => 24,
            Self::Aes128Ccm => 30,
        }
    }

    /// The algorithm of a value of `alg`; `None` for every other one.
    #[must_use]
    pub fn from_cose(value: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| u64::from(algorithm.cose()) == value)
    }

    /// Octets of the nonce.
    #[must_use]
    pub const fn nonce_octets(self) -> usize {
        match self {
            Self::Aes128Ccm => 13,
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => 12,
        }
    }

    /// The name in files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Ccm => "aes-128-ccm",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

impl From<SealAlgorithm> for AeadAlgorithm {
    fn from(algorithm: SealAlgorithm) -> Self {
        match algorithm {
            SealAlgorithm::Aes128Ccm => Self::Aes128Ccm,
            SealAlgorithm::Aes128Gcm => Self::Aes128Gcm,
            SealAlgorithm::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
        }
    }
}
