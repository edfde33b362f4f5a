//! What should not be there.

use alloc::string::String;

/// Something that should not be in an image in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Where it begins in the image, in octets.
    pub offset: u64,
    /// How many octets of the image it takes.
    pub octets: u64,
}

/// What was found. Never with its octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// A private key between PEM lines (RFC 7468).
    PrivateKeyPem {
        /// The label of its first line, for example `EC PRIVATE KEY`.
        label: String,
        /// Whether its last line is missing, within 16 KiB.
        is_truncated: bool,
    },
    /// A private key in DER.
    PrivateKeyDer {
        /// Its form.
        format: KeyFormat,
    },
    /// Encryption keys of NVS with a valid CRC: in clear in an image that is dumped, harmless only in one that flash
    /// encryption will encrypt.
    NvsKeys,
    /// A secret of the caller's, or a fragment of it.
    Secret {
        /// The caller's name for it.
        name: String,
        /// How it is written.
        encoding: Encoding,
        /// Which octet of the secret the fragment begins with.
        secret_offset: usize,
        /// How many octets of the secret are there.
        secret_octets: usize,
        /// Whether that is all of it.
        is_whole: bool,
    },
    /// Octets with the digest of a secret of the caller's.
    SecretDigest {
        /// The caller's name for it.
        name: String,
    },
}

/// The form of a private key in DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyFormat {
    /// PKCS#8 (RFC 5958).
    Pkcs8,
    /// SEC1 (RFC 5915).
    Sec1,
    /// PKCS#1 (RFC 8017 appendix A.1.2).
    Pkcs1,
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// As it is.
    Raw,
    /// Last octet first, as some chips take keys.
    Reversed,
    /// In hexadecimal, in lower case.
    HexLower,
    /// In hexadecimal, in upper case.
    HexUpper,
    /// In base64, standard alphabet, at any alignment.
    Base64,
}

impl FindingKind {
    /// Its name in reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PrivateKeyPem { .. } => "private_key_pem",
            Self::PrivateKeyDer { .. } => "private_key_der",
            Self::NvsKeys => "nvs_keys",
            Self::Secret { is_whole: true, .. } => "secret",
            Self::Secret { is_whole: false, .. } => "secret_fragment",
            Self::SecretDigest { .. } => "secret_digest",
        }
    }
}

impl KeyFormat {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pkcs8 => "pkcs8",
            Self::Sec1 => "sec1",
            Self::Pkcs1 => "pkcs1",
        }
    }
}

impl Encoding {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Reversed => "reversed",
            Self::HexLower => "hex",
            Self::HexUpper => "hex_upper",
            Self::Base64 => "base64",
        }
    }
}
