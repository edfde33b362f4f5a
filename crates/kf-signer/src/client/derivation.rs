//! Requests for symmetric keys below the root.

use kf_key::{DeviceId, SecretArray};
use zeroize::Zeroize;

use super::SignerClient;
use crate::derivation::{SealingKey, is_service};
use crate::protocol::{RequestKind, bug, prefix};
use crate::{SignerError, SignerRefusal};

/// More than any wrapped salt has.
pub(super) const MAX_WRAPPED_SALT_OCTETS: usize = 256;

impl SignerClient {
    /// Sixteen fresh octets for a device, wrapped under the root and bound to the device. Only the signer unwraps them.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn new_device_salt(&self, device: DeviceId) -> Result<Vec<u8>, SignerError> {
        self.ready().await?.call(RequestKind::NewSalt, &[device.as_bytes()]).await
    }

    /// The application key of a service in a device's sealed payloads: a leaf, from which nothing above can be found.
    /// Whether its epochs may still be used is the caller's to ask.
    ///
    /// # Errors
    /// [`SignerError::Wrapped`] for the salt of another device or root; [`SignerRefusal::Content`] for a label that is none.
    pub async fn derive_sealing(&self, wanted: SealingKey<'_>) -> Result<SecretArray<32>, SignerError> {
        let SealingKey { place, wrapped_salt, service } = wanted;
        if !is_service(service.as_bytes()) {
            return Err(SignerError::Refused(SignerRefusal::Content("not a label of a service".to_owned())));
        }
        if wrapped_salt.len() > MAX_WRAPPED_SALT_OCTETS {
            return Err(SignerError::Wrapped);
        }
        let length = prefix(service.as_bytes())?;
        let request = [&place.to_octets()[..], &length, service.as_bytes(), wrapped_salt];
        secret(self.ready().await?.call(RequestKind::DeriveSealing, &request).await?)
    }

    /// The application key of a service in a mixed session that the device has acknowledged.
    ///
    /// # Errors
    /// [`SignerRefusal::Exchange`] when the session is over, or was of an earlier life of the signer;
    /// [`SignerRefusal::Content`] for a label that is none.
    pub async fn derive_session(
        &self,
        session: &[u8; 16],
        device: DeviceId,
        service: &str,
    ) -> Result<SecretArray<32>, SignerError> {
        let request = [&session[..], device.as_bytes(), service.as_bytes()];
        secret(self.ready().await?.call(RequestKind::DeriveSession, &request).await?)
    }
}

/// The key in an answer, which is wiped.
fn secret(mut body: Vec<u8>) -> Result<SecretArray<32>, SignerError> {
    let key = SecretArray::try_fill(|key: &mut [u8; 32]| {
        key.copy_from_slice(body.first_chunk::<32>().filter(|_| body.len() == 32).ok_or_else(|| bug("key length"))?);
        Ok(())
    });
    body.zeroize();
    key
}
