//! Keys at rest: wrapped under a key that the chip holds.
//!
//! A key burnt into eFuses or locked into a slot cannot be replaced, so it only wraps ([`FusedKey`]): the device key and
//! the identity key lie in the store as ciphertext and are replaceable. A chip that has no keyed HMAC but wraps by
//! itself implements [`WrapKey`].

use core::fmt;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use kf_derive::{FusedKey, KeyDerivationKey};
use kf_key::{DeviceId, SecretArray};
use zeroize::Zeroize;

use crate::entropy::Nonce;

/// Octets of a wrapped key: nonce 12, ciphertext 32, tag 16.
pub const WRAPPED_OCTETS: usize = 60;

/// Which key is wrapped, bound to the ciphertext: another one put in its place does not unwrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// Of which device.
    pub device: DeviceId,
    /// What it is.
    pub what: What,
    /// Of which epoch, position or slot.
    pub number: u32,
}

/// What a wrapped key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A device key, by its device epoch.
    DeviceKey,
    /// An identity key, by its slot.
    IdentityKey,
    /// A key of the ratchet, by its position.
    Ratchet,
    /// A storage key, by its version.
    StorageKey,
    /// No key: it only shows whether the chip unwraps.
    Probe,
}

impl Wrapped {
    /// What is wrapped only to see whether it unwraps.
    pub(crate) const PROBE: Self = Self { device: DeviceId::from_bytes([0; 16]), what: What::Probe, number: 0 };

    /// The additional authenticated data: version 1, what 1, number 4, device 16.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 22] {
        let what = match self.what {
            What::DeviceKey => 1,
            What::IdentityKey => 2,
            What::Ratchet => 3,
            What::Probe => 4,
            What::StorageKey => 5,
        };
        let mut octets = [0; 22];
        let parts = [1, what].into_iter().chain(self.number.to_be_bytes()).chain(*self.device.as_bytes());
        octets.iter_mut().zip(parts).for_each(|(place, octet)| *place = octet);
        octets
    }
}

/// Why a key was not wrapped or unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapError<E> {
    /// The holder of the wrapping key did not answer.
    Holder(E),
    /// It does not unwrap. No more is known, whatever the reason.
    Refused,
}

impl<E> fmt::Display for WrapError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holder(_) => "the holder of the wrapping key did not answer",
            Self::Refused => "the wrapped key does not unwrap",
        })
    }
}

impl<E: fmt::Debug> core::error::Error for WrapError<E> {}

/// A key that the chip holds and that wraps others.
pub trait WrapKey {
    /// Why the chip did not answer.
    type Error;

    /// Wraps a key.
    ///
    /// # Errors
    /// [`WrapError::Holder`].
    fn wrap(
        &self,
        context: Wrapped,
        nonce: Nonce,
        key: &SecretArray<32>,
    ) -> Result<[u8; WRAPPED_OCTETS], WrapError<Self::Error>>;

    /// Unwraps a key.
    ///
    /// # Errors
    /// [`WrapError`]; nothing of the key is released.
    fn unwrap(
        &self,
        context: Wrapped,
        wrapped: &[u8; WRAPPED_OCTETS],
    ) -> Result<SecretArray<32>, WrapError<Self::Error>>;
}

impl<W: WrapKey> WrapKey for &W {
    type Error = W::Error;

    fn wrap(
        &self,
        context: Wrapped,
        nonce: Nonce,
        key: &SecretArray<32>,
    ) -> Result<[u8; WRAPPED_OCTETS], WrapError<W::Error>> {
        (**self).wrap(context, nonce, key)
    }

    fn unwrap(&self, context: Wrapped, wrapped: &[u8; WRAPPED_OCTETS]) -> Result<SecretArray<32>, WrapError<W::Error>> {
        (**self).unwrap(context, wrapped)
    }
}

/// AES-256-GCM (SP 800-38D) under the wrapping key below the fused one. Nonces are random: a device wraps a few keys a
/// year, and section 8.3 allows 2^32.
impl<K: KeyDerivationKey> WrapKey for FusedKey<K> {
    type Error = K::Error;

    fn wrap(
        &self,
        context: Wrapped,
        nonce: Nonce,
        key: &SecretArray<32>,
    ) -> Result<[u8; WRAPPED_OCTETS], WrapError<K::Error>> {
        let (cipher, nonce) = (cipher(self)?, nonce.into_octets());
        let mut wrapped = [0; WRAPPED_OCTETS];
        let (place, rest) = wrapped.split_at_mut(12);
        let (text, tag) = rest.split_at_mut(32);
        place.copy_from_slice(&nonce);
        // Exposed to the cipher.
        text.copy_from_slice(key.expose());
        match cipher.encrypt_inout_detached(&nonce.into(), &context.to_bytes(), (&mut *text).into()) {
            Ok(found) => {
                tag.copy_from_slice(&found);
                Ok(wrapped)
            }
            Err(_opaque) => {
                wrapped.zeroize();
                Err(WrapError::Refused)
            }
        }
    }

    fn unwrap(&self, context: Wrapped, wrapped: &[u8; WRAPPED_OCTETS]) -> Result<SecretArray<32>, WrapError<K::Error>> {
        let cipher = cipher(self)?;
        let (nonce, rest) = wrapped.split_first_chunk::<12>().ok_or(WrapError::Refused)?;
        let (text, tag) = rest.split_last_chunk::<16>().ok_or(WrapError::Refused)?;
        SecretArray::try_fill(|key| {
            key.copy_from_slice(text);
            let opened =
                cipher.decrypt_inout_detached(nonce.into(), &context.to_bytes(), key.as_mut_slice().into(), tag.into());
            opened.map_err(|_opaque| WrapError::Refused)
        })
    }
}

fn cipher<K: KeyDerivationKey>(fused: &FusedKey<K>) -> Result<Aes256Gcm, WrapError<K::Error>> {
    let key = fused.wrapping(0).map_err(|error| match error {
        kf_derive::DeriveError::Holder(holder) => WrapError::Holder(holder),
        kf_derive::DeriveError::Context(_) => WrapError::Refused,
    })?;
    // Exposed to the cipher.
    Ok(Aes256Gcm::new(key.into_secret().expose().into()))
}

#[cfg(test)]
mod tests {
    use kf_derive::SoftwareKey;

    use super::*;

    fn fused(octet: u8) -> FusedKey<SoftwareKey> {
        FusedKey::new(SoftwareKey::new(SecretArray::fill(|key| key.fill(octet))))
    }

    const CONTEXT: Wrapped = Wrapped { device: DeviceId::from_bytes([1; 16]), what: What::DeviceKey, number: 7 };

    #[test]
    fn a_wrapped_key_comes_back_and_only_at_its_place_under_its_key_and_unchanged() {
        let key = SecretArray::fill(|key| key.fill(0x41));
        let wrapped = fused(1).wrap(CONTEXT, Nonce::of_test([9; 12]), &key).unwrap();
        assert!(!wrapped.windows(8).any(|window| window == [0x41; 8]));
        assert!(fused(1).unwrap(CONTEXT, &wrapped).unwrap().equals(&key));
        let refused = |fused: FusedKey<SoftwareKey>, context, wrapped: &[u8; WRAPPED_OCTETS]| {
            assert_eq!(fused.unwrap(context, wrapped).map(|_| ()), Err(WrapError::Refused));
        };
        refused(fused(2), CONTEXT, &wrapped);
        refused(fused(1), Wrapped { what: What::IdentityKey, ..CONTEXT }, &wrapped);
        refused(fused(1), Wrapped { number: 8, ..CONTEXT }, &wrapped);
        refused(fused(1), Wrapped { device: DeviceId::from_bytes([2; 16]), ..CONTEXT }, &wrapped);
        for place in 0..WRAPPED_OCTETS {
            let mut changed = wrapped;
            changed[place] ^= 1;
            refused(fused(1), CONTEXT, &changed);
        }
    }
}
