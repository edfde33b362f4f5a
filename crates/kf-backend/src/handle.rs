//! How a back end finds a private key again: an opaque value for the registry.

use kf_key::KeyAlgorithm;

/// The most octets of an encoded handle.
pub const MAX_HANDLE_OCTETS: usize = 1024;

const VERSION: u8 = 1;
const WRAPPED: u8 = 1;
const TOKEN: u8 = 2;

/// Where a private key is. Holds no secret in the clear; the registry stores [`KeyHandle::to_bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyHandle {
    /// PKCS#8 wrapped under a key derived from the root.
    Wrapped {
        /// Algorithm.
        algorithm: KeyAlgorithm,
        /// IV, ciphertext and tag of AES-256-GCM, bound to key identifier and algorithm.
        sealed: Vec<u8>,
    },
    /// A key pair inside a token.
    Token {
        /// Algorithm.
        algorithm: KeyAlgorithm,
        /// CKA_LABEL of both halves, which is the text form of the key identifier.
        label: String,
    },
}

/// Octets that are not a handle of a version we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key handle of a known version")]
pub struct HandleError;

impl KeyHandle {
    /// The algorithm of the key.
    #[must_use]
    pub const fn algorithm(&self) -> KeyAlgorithm {
        match self {
            Self::Wrapped { algorithm, .. } | Self::Token { algorithm, .. } => *algorithm,
        }
    }

    /// Whether the private key lives in hardware that never releases it.
    #[must_use]
    pub const fn is_hardware(&self) -> bool {
        matches!(self, Self::Token { .. })
    }

    /// The stored form: version, kind, algorithm, then ciphertext or label.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Wrapped { sealed, .. } => (WRAPPED, sealed.as_slice()),
            Self::Token { label, .. } => (TOKEN, label.as_bytes()),
        };
        let mut bytes = vec![VERSION, kind, algorithm_code(self.algorithm())];
        bytes.extend_from_slice(body);
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`HandleError`] for another version, kind or algorithm, an empty body, or too many octets.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HandleError> {
        let [VERSION, kind, code, body @ ..] = bytes else { return Err(HandleError) };
        let algorithm = algorithm_of_code(*code).ok_or(HandleError)?;
        if body.is_empty() || bytes.len() > MAX_HANDLE_OCTETS {
            return Err(HandleError);
        }
        match *kind {
            WRAPPED => Ok(Self::Wrapped { algorithm, sealed: body.to_vec() }),
            TOKEN => {
                let label = core::str::from_utf8(body).map_err(|_not_text| HandleError)?;
                Ok(Self::Token { algorithm, label: label.to_owned() })
            }
            _ => Err(HandleError),
        }
    }
}

/// One octet per algorithm on disk and on the wire; zero is reserved.
#[must_use]
pub const fn algorithm_code(algorithm: KeyAlgorithm) -> u8 {
    match algorithm {
        KeyAlgorithm::P256 => 1,
        KeyAlgorithm::P384 => 2,
        KeyAlgorithm::Ed25519 => 3,
        KeyAlgorithm::Rsa2048 => 4,
        KeyAlgorithm::Rsa3072 => 5,
        KeyAlgorithm::Rsa4096 => 6,
        KeyAlgorithm::MlDsa44 => 7,
        KeyAlgorithm::MlDsa65 => 8,
        KeyAlgorithm::MlDsa87 => 9,
    }
}

/// The algorithm of such an octet.
#[must_use]
pub fn algorithm_of_code(code: u8) -> Option<KeyAlgorithm> {
    KeyAlgorithm::ALL.into_iter().find(|algorithm| algorithm_code(*algorithm) == code)
}
