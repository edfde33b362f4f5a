//! The handle of a key as the registry stores it: where the private key is and what it is for, authenticated under
//! the root, so that nobody who can write to the registry turns an issuing CA into a root.

use core::fmt;
use core::str::FromStr;

use kf_backend::{BackendError, KeyBackend};
use kf_derive::{Algorithm, Info, Level, Purpose};
use kf_key::{KeyAlgorithm, KeyId, SecretArray};
use subtle::ConstantTimeEq;

use crate::KeyPurpose;
use crate::wrapping::FIRST_VERSION;

/// Of a handle whose private key lies under the root alone.
const VERSION: u8 = 1;
/// Of one whose private key lies under a version of the wrapping key besides: the version follows the purpose.
const VERSION_WRAPPED: u8 = 2;
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
    /// 1: under the root alone.
    wrapping: u32,
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

    /// The version of the wrapping key that it lies under; 1 for one that lies under the root alone, or in hardware.
    #[must_use]
    pub const fn wrapping_version(&self) -> u32 {
        self.wrapping
    }

    /// The stored form: version, purpose, version of the wrapping key (4 octets, unless it is 1), tag, handle of the back end.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&head(self.purpose, self.wrapping)[..], self.tag.as_slice(), &self.inner.to_bytes()].concat()
    }

    /// Reads the stored form. The tag is checked when the key is loaded.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HandleError> {
        let (purpose, wrapping, rest) = match bytes {
            [VERSION, purpose, rest @ ..] => (purpose, FIRST_VERSION, rest),
            [VERSION_WRAPPED, purpose, v0, v1, v2, v3, rest @ ..] => {
                (purpose, u32::from_be_bytes([*v0, *v1, *v2, *v3]), rest)
            }
            _ => return Err(HandleError),
        };
        let purpose = KeyPurpose::from_code(*purpose).ok_or(HandleError)?;
        let (tag, inner) = rest.split_first_chunk::<TAG_OCTETS>().ok_or(HandleError)?;
        let inner = kf_backend::KeyHandle::from_bytes(inner).map_err(|_other| HandleError)?;
        Ok(Self { purpose, wrapping, inner, tag: *tag })
    }

    pub(crate) const fn inner(&self) -> &kf_backend::KeyHandle {
        &self.inner
    }
}

/// What stands in front of the tag.
fn head(purpose: KeyPurpose, wrapping: u32) -> Vec<u8> {
    if wrapping == FIRST_VERSION {
        return vec![VERSION, purpose.code()];
    }
    [&[VERSION_WRAPPED, purpose.code()][..], &wrapping.to_be_bytes()].concat()
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

    /// The handle of a key whose private part, in `inner`, lies under this version of the wrapping key.
    pub(crate) fn seal(
        &self,
        key: KeyId,
        purpose: KeyPurpose,
        wrapping: u32,
        inner: kf_backend::KeyHandle,
    ) -> KeyHandle {
        let tag = self.tag(key, purpose, wrapping, &inner);
        KeyHandle { purpose, wrapping, inner, tag }
    }

    pub(crate) fn is_ours(&self, key: KeyId, handle: &KeyHandle) -> bool {
        self.tag(key, handle.purpose, handle.wrapping, &handle.inner).ct_eq(&handle.tag).into()
    }

    fn tag(&self, key: KeyId, purpose: KeyPurpose, wrapping: u32, inner: &kf_backend::KeyHandle) -> [u8; TAG_OCTETS] {
        let head = if wrapping == FIRST_VERSION { vec![purpose.code()] } else { head(purpose, wrapping) };
        let message = [key.as_bytes().as_slice(), &head, &inner.to_bytes()].concat();
        // Exposed to HMAC.
        kf_crypto::hmac_sha256(self.0.expose(), &message)
    }
}
