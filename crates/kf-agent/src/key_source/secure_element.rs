//! Keys in a secure element. What is stored is the handle of the key; the chip belongs to one agent alone.

use std::fmt;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;
use kf_backend::{BackendError, KeyBackend as _, KeyHandle, TokenFault};
use kf_derive::{FleetRoot, Purpose, SoftwareKey};
use kf_key::{KeyAlgorithm, KeyId, SecretArray, SecretBytes, UnixMillis};
use kf_secure_element::{Element, ElementBackend, Roles, layout};

use super::pkcs11::device_key;
use super::{DeviceKey, HardwareFault, KeyError, KeySource, pkcs11};

const IN_ELEMENT: u8 = 5;
/// As a factory station stores it: the identity key of the chip, which was locked on the line.
const FROM_FACTORY: [u8; 1] = [7];
/// Of the key that wraps the agent's symmetric keys.
const WRAPPING_EPOCH: u32 = 1;
const KEY_ID_OCTETS: usize = 16;

/// Keys in one secure element that was personalized with our layout.
pub struct ElementKeys<I, D>(ElementBackend<I, D>);

impl<I, D> fmt::Debug for ElementKeys<I, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ElementKeys").field(&self.0).finish()
    }
}

impl<I: I2c + Send + 'static, D: DelayNs + Send + 'static> ElementKeys<I, D> {
    /// Keys in this chip.
    ///
    /// # Errors
    /// [`KeyError::Hardware`] when it is not personalized or does not answer.
    pub fn new(element: Element<I, D>) -> Result<Self, KeyError> {
        ElementBackend::new(element, Roles::default()).map(Self).map_err(|error| {
            tracing::error!(%error, "the secure element cannot be used");
            fault(&error)
        })
    }

    /// Key identifier and handle of what was stored.
    fn parse(stored: &SecretBytes) -> Result<(KeyId, KeyHandle), KeyError> {
        // Exposed to be read: a handle is no secret.
        let [IN_ELEMENT, rest @ ..] = stored.expose() else { return Err(KeyError::Open) };
        let (key, handle) = rest.split_first_chunk::<KEY_ID_OCTETS>().ok_or(KeyError::Open)?;
        let handle = KeyHandle::from_bytes(handle).map_err(|_damaged| KeyError::Open)?;
        Ok((KeyId::from_bytes(*key), handle))
    }

    fn open_key(&self, key: KeyId, handle: &KeyHandle) -> Result<Box<dyn DeviceKey>, KeyError> {
        self.0.open_key(key, handle).map(device_key).map_err(|error| fault(&error))
    }
}

impl<I: I2c + Send + 'static, D: DelayNs + Send + 'static> KeySource for ElementKeys<I, D> {
    fn generate(&self) -> Result<(Box<dyn DeviceKey>, SecretBytes), KeyError> {
        let random = kf_crypto::random_array().map_err(|_opaque| KeyError::Generate)?;
        let key = KeyId::from_parts(UnixMillis(0), random);
        let made = self.0.generate_key_pair(key, KeyAlgorithm::P256).map_err(|error| {
            tracing::error!(%error, "the secure element made no key");
            fault(&error)
        })?;
        let stored = [&[IN_ELEMENT], key.as_bytes().as_slice(), &made.handle.to_bytes()].concat();
        Ok((self.open_key(key, &made.handle)?, SecretBytes::from_vec(stored)))
    }

    fn load(&self, stored: &SecretBytes) -> Result<Box<dyn DeviceKey>, KeyError> {
        // Exposed to be read: a mark is no secret.
        if stored.expose() == FROM_FACTORY {
            return self.0.key_in(layout::IDENTITY).map(device_key).map_err(|error| fault(&error));
        }
        let (key, handle) = Self::parse(stored)?;
        self.open_key(key, &handle)
    }

    fn keep_only(&self, stored: &[&SecretBytes]) -> Result<(), KeyError> {
        let kept: Vec<KeyId> =
            stored.iter().filter_map(|stored| Self::parse(stored).ok()).map(|(key, _)| key).collect();
        for key in self.0.keys().map_err(|error| fault(&error))? {
            if !kept.contains(&key) {
                let handle = KeyHandle::Token { algorithm: KeyAlgorithm::P256, label: key.to_string() };
                self.0.destroy_key(key, &handle).map_err(|error| fault(&error))?;
            }
        }
        Ok(())
    }

    fn wrapping_key(&self) -> Result<Option<SecretArray<32>>, KeyError> {
        // The chip's root may be locked for good: it only wraps, and what it wraps is replaceable.
        let info = FleetRoot::<SoftwareKey>::wrapping_info(Purpose::WrapReplaceableKey, WRAPPING_EPOCH);
        let info = info.map_err(|_too_long| KeyError::Hardware(HardwareFault::Refused))?;
        self.0.expand_root(&info).map(Some).map_err(|error| fault(&error))
    }

    fn destroy_all(&self) -> Result<(), KeyError> {
        self.keep_only(&[])?;
        let left = self.0.keys().map_err(|error| fault(&error))?;
        if left.is_empty() { Ok(()) } else { Err(KeyError::Hardware(HardwareFault::Refused)) }
    }

    fn is_protected_at_rest(&self) -> bool {
        true
    }
}

fn fault(error: &BackendError) -> KeyError {
    match error {
        BackendError::Token(TokenFault::Call { .. }) => KeyError::Hardware(HardwareFault::Refused),
        other => pkcs11::fault(other),
    }
}
