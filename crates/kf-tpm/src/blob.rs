//! An object as it rests outside the TPM: what the TPM gave out, readable by this TPM alone.
//!
//! ```text
//! 1   version, 1
//! 32  SHA-256 of the public area of the storage key above it
//! 2   length of the public area, then the public area (TPMT_PUBLIC)
//! 2   length of the private area, then the private area (TPM2B_PRIVATE without its length)
//! ```

use tss_esapi::structures::{Private, Public};
use tss_esapi::traits::{Marshall as _, UnMarshall as _};

use crate::TpmError;

const VERSION: u8 = 1;
/// The most octets of a stored object.
pub const MAX_BLOB_OCTETS: usize = 2048;

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    storage_fingerprint: [u8; 32],
    public: Vec<u8>,
    private: Vec<u8>,
}

impl Blob {
    pub(crate) fn new(storage_fingerprint: [u8; 32], public: &Public, private: &Private) -> Result<Self, TpmError> {
        let public = public.marshall().map_err(|_unmarshallable| TpmError::Bug("public area"))?;
        Ok(Self { storage_fingerprint, public, private: private.to_vec() })
    }

    pub(crate) const fn storage_fingerprint(&self) -> &[u8; 32] {
        &self.storage_fingerprint
    }

    /// The public area, as the TPM marshals it (TPMT_PUBLIC).
    #[must_use]
    pub fn public_area(&self) -> &[u8] {
        &self.public
    }

    pub(crate) fn public(&self) -> Result<Public, TpmError> {
        Public::unmarshall(&self.public).map_err(|_malformed| TpmError::Damaged("public area"))
    }

    pub(crate) fn private(&self) -> Result<Private, TpmError> {
        Private::try_from(self.private.clone()).map_err(|_length| TpmError::Damaged("private area"))
    }

    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.storage_fingerprint);
        for part in [&self.public, &self.private] {
            // Both come from TPM structures, whose lengths are 16-bit numbers.
            bytes.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`TpmError::Damaged`] naming the part.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TpmError> {
        if bytes.len() > MAX_BLOB_OCTETS {
            return Err(TpmError::Damaged("too long"));
        }
        let [VERSION, rest @ ..] = bytes else { return Err(TpmError::Damaged("unknown version")) };
        let (fingerprint, rest) = rest.split_first_chunk::<32>().ok_or(TpmError::Damaged("cut off"))?;
        let (public, rest) = part(rest)?;
        let (private, rest) = part(rest)?;
        if !rest.is_empty() {
            return Err(TpmError::Damaged("octets at the end"));
        }
        let blob = Self { storage_fingerprint: *fingerprint, public: public.to_vec(), private: private.to_vec() };
        blob.public().map(|_readable| blob)
    }
}

fn part(bytes: &[u8]) -> Result<(&[u8], &[u8]), TpmError> {
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(TpmError::Damaged("cut off"))?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 {
        return Err(TpmError::Damaged("empty part"));
    }
    rest.split_at_checked(length).ok_or(TpmError::Damaged("cut off"))
}
