//! The handle of a key as the registry stores it: where the private key is and what it is for, authenticated under
//! the root, so that nobody who can write to the registry turns an issuing CA into a root.

use core::fmt;
use core::str::FromStr;

use kf_backend::{BackendError, KeyBackend};
use kf_derive::{Algorithm, Info, Level, Purpose};
use kf_key::{KeyAlgorithm, KeyId, SecretArray};
use subtle::ConstantTimeEq;

use crate::KeyPurpose;

const VERSION: u8 = 1;
const TAG_OCTETS: usize = 32;
const TEXT_PREFIX: &str = "handle_";

/// Octets that are not a handle of a version we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key handle of a known version")]
pub struct HandleError;

/// Opaque; the registry stores [`KeyHandle::to_bytes`]. Holds no secret in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHandle {
    purpose: KeyPurpose,
    inner: kf_backend::KeyHandle,
    tag: [u8; TAG_OCTETS],
}

impl KeyHandle {
    /// What the key is for.
    #[must_use]
    pub const fn purpose(&self) -> KeyPurpose {
        self.purpose
    }

    /// The algorithm of the key.
    #[must_use]
    pub const fn algorithm(&self) -> KeyAlgorithm {
        self.inner.algorithm()
    }

    /// Whether the private key lives in hardware that never releases it.
    #[must_use]
    pub const fn is_hardware(&self) -> bool {
        self.inner.is_hardware()
    }

    /// The stored form: version, purpose, tag, handle of the back end.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[VERSION, self.purpose.code()], self.tag.as_slice(), &self.inner.to_bytes()].concat()
    }

    /// Reads the stored form. The tag is checked when the key is loaded.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HandleError> {
        let [VERSION, purpose, rest @ ..] = bytes else { return Err(HandleError) };
        let purpose = KeyPurpose::from_code(*purpose).ok_or(HandleError)?;
        let (tag, inner) = rest.split_first_chunk::<TAG_OCTETS>().ok_or(HandleError)?;
        let inner = kf_backend::KeyHandle::from_bytes(inner).map_err(|_other| HandleError)?;
        Ok(Self { purpose, inner, tag: *tag })
    }

    pub(crate) const fn inner(&self) -> &kf_backend::KeyHandle {
        &self.inner
    }
}

/// Text form: `handle_` and the stored form in hexadecimal digits.
impl fmt::Display for KeyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TEXT_PREFIX}{}", hex::encode(self.to_bytes()))
    }
}

impl FromStr for KeyHandle {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        let digits = text.strip_prefix(TEXT_PREFIX).ok_or(HandleError)?;
        let bytes = hex::decode(digits).map_err(|_not_hexadecimal| HandleError)?;
        Self::from_bytes(&bytes)
    }
}

/// Makes and checks the tags of handles.
pub(crate) struct HandleSeal(SecretArray<32>);

impl HandleSeal {
    pub(crate) fn new(backend: &dyn KeyBackend) -> Result<Self, BackendError> {
        let info = Info::new(Level::Wrapping, Algorithm::HmacSha256, Purpose::Authenticate, b"key handle", 1)
            .map_err(|_too_long| BackendError::Bug("handle seal info"))?;
        backend.expand_root(&info).map(Self)
    }

    pub(crate) fn seal(&self, key: KeyId, purpose: KeyPurpose, inner: kf_backend::KeyHandle) -> KeyHandle {
        let tag = self.tag(key, purpose, &inner);
        KeyHandle { purpose, inner, tag }
    }

    pub(crate) fn is_ours(&self, key: KeyId, handle: &KeyHandle) -> bool {
        self.tag(key, handle.purpose, &handle.inner).ct_eq(&handle.tag).into()
    }

    fn tag(&self, key: KeyId, purpose: KeyPurpose, inner: &kf_backend::KeyHandle) -> [u8; TAG_OCTETS] {
        let message = [key.as_bytes().as_slice(), &[purpose.code()], &inner.to_bytes()].concat();
        // Exposed to HMAC.
        kf_crypto::hmac_sha256(self.0.expose(), &message)
    }
}
