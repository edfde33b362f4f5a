//! The key back end over a secure element.

use std::boxed::Box;
use std::format;
use std::string::ToString;
use std::sync::{Arc, Mutex, PoisonError};
use std::vec::Vec;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;
use kf_backend::{
    BackendError, BackendKind, Capabilities, GeneratedKeyPair, KeyBackend, KeyHandle, RootUse, SignatureKey,
    TokenFault, key_check_info, open_wrapped,
};
use kf_derive::{Info, Level};
use kf_exchange::PublicKey;
use kf_key::{KeyAlgorithm, KeyId, SecretArray};

use crate::config::{ReadAccess, Slot, WriteAccess};
use crate::directory::{self, Label, Place};
use crate::element::{Counter, Element};
use crate::error::Error;
use crate::layout;
use crate::memory::TransportKey;
use crate::policy::Use;

/// Longer than any command with its retries takes; said in errors only.
const LATE_SECONDS: u64 = 3;

/// Which slot does what. The default is that of [`layout::Layout::keyfleet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    /// The root key, for HMAC.
    pub root: Slot,
    /// Slots in which key pairs are generated and destroyed, each with the slot of its label.
    pub generated: Vec<(Slot, Slot)>,
}

impl Default for Roles {
    fn default() -> Self {
        Self { root: layout::ROOT, generated: layout::GENERATED.into_iter().zip(layout::LABELS).collect() }
    }
}

/// A back end whose root and keys are in a chip. As many P-256 keys as it has slots for them; a root that a locked slot holds
/// only wraps. Bound it by `kf_backend::Deadline` where a bus driver can hang.
pub struct ElementBackend<I, D> {
    element: Arc<Mutex<Element<I, D>>>,
    roles: Roles,
    key_check: SecretArray<32>,
    capabilities: Capabilities,
}

impl<I, D> std::fmt::Debug for ElementBackend<I, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ElementBackend").field(&self.capabilities).finish()
    }
}

fn ask<I, D, T>(
    element: &Mutex<Element<I, D>>,
    work: impl FnOnce(&mut Element<I, D>) -> Result<T, Error>,
) -> Result<T, BackendError> {
    // A panic elsewhere left no half-done command: each begins by waking the chip.
    let mut element = element.lock().unwrap_or_else(PoisonError::into_inner);
    work(&mut element).map_err(BackendError::from)
}

impl<I: I2c, D: DelayNs> ElementBackend<I, D> {
    /// A back end over a personalized chip.
    ///
    /// # Errors
    /// [`BackendError::WeakObject`] when the root's slot can be read, or written in the clear; what the chip reports.
    pub fn new(mut element: Element<I, D>, roles: Roles) -> Result<Self, BackendError> {
        let root_use = root_use(&element, roles.root)?;
        let key_check = element.hmac(roles.root, key_check_info()?.hmac_message())?;
        let capabilities = Capabilities {
            kind: BackendKind::SecureElement,
            key_algorithms: [KeyAlgorithm::P256].into(),
            is_hardware: true,
            root_use,
            description: format!("secure element {}", element.config().serial_number()),
        };
        Ok(Self { element: Arc::new(Mutex::new(element)), roles, key_check, capabilities })
    }

    /// Replaces the root, encrypted under the transport key. The back end is spent: open it again over the new root.
    ///
    /// # Errors
    /// [`BackendError::OnlyWraps`] when the slot is locked.
    pub fn replace_root(self, root: &SecretArray<32>, under: &TransportKey) -> Result<(), BackendError> {
        if self.capabilities.root_use == RootUse::OnlyWraps {
            return Err(BackendError::OnlyWraps);
        }
        let number = kf_crypto::random_array().map_err(|_opaque| BackendError::Crypto)?;
        ask(&self.element, |element| element.write_encrypted(self.roles.root, root, under, &number))
    }

    /// 32 octets of the chip's random number generator.
    ///
    /// # Errors
    /// [`BackendError::Token`].
    pub fn random(&self) -> Result<SecretArray<32>, BackendError> {
        ask(&self.element, Element::random)
    }

    /// The value of a monotonic counter.
    ///
    /// # Errors
    /// [`BackendError::Token`].
    pub fn count(&self, counter: Counter) -> Result<u32, BackendError> {
        ask(&self.element, |element| element.count(counter))
    }

    /// Counts one up for good.
    ///
    /// # Errors
    /// [`BackendError::Token`]; the counter may have counted.
    pub fn increment(&self, counter: Counter) -> Result<u32, BackendError> {
        ask(&self.element, |element| element.increment(counter))
    }

    /// The identifiers of the keys that were generated and not destroyed.
    ///
    /// # Errors
    /// [`BackendError::Token`].
    pub fn keys(&self) -> Result<Vec<KeyId>, BackendError> {
        ask(&self.element, |element| {
            let labels = self.roles.generated.iter().map(|place| directory::read(element, *place));
            labels.filter_map(|label| label.map(|label| label.map(|label| label.key)).transpose()).collect()
        })
    }

    fn find(&self, key: KeyId) -> Result<(Place, PublicKey), BackendError> {
        let found = ask(&self.element, |element| directory::find(element, &self.roles.generated, key))?;
        found.ok_or_else(|| BackendError::MissingKey { label: key.to_string() })
    }

    fn check_handle(&self, key: KeyId, algorithm: KeyAlgorithm, label: &str) -> Result<(), BackendError> {
        let is_ours = label == directory::text(key) && self.capabilities.holds(algorithm);
        if is_ours { Ok(()) } else { Err(BackendError::Handle) }
    }
}

/// A slot that can be written anew holds a root that can be replaced.
fn root_use<I: I2c, D: DelayNs>(element: &Element<I, D>, root: Slot) -> Result<RootUse, BackendError> {
    let policy = element.config().slot_config(root);
    let weak = |problem| BackendError::WeakObject { label: root.to_string(), problem };
    if !policy.is_secret() || policy.read() == ReadAccess::Clear {
        return Err(weak("readable"));
    }
    element.permits(root, Use::Hmac).map_err(|refusal| BackendError::from(Error::Refused(refusal)))?;
    match policy.write() {
        _ if element.config().is_slot_locked(root) => Ok(RootUse::OnlyWraps),
        WriteAccess::Encrypted { .. } => Ok(RootUse::Derives),
        WriteAccess::Never => Ok(RootUse::OnlyWraps),
        WriteAccess::Always | WriteAccess::PublicKeyInvalid => Err(weak("writable in the clear")),
    }
}

impl<I: I2c + Send + 'static, D: DelayNs + Send + 'static> ElementBackend<I, D> {
    /// The key that was made and locked in a slot before this back end: a device's identity.
    ///
    /// # Errors
    /// [`BackendError::Token`] when there is none.
    pub fn key_in(&self, slot: Slot) -> Result<Box<dyn SignatureKey>, BackendError> {
        let public_key = ask(&self.element, |element| element.public_key(slot))?;
        let element = Arc::clone(&self.element);
        Ok(Box::new(ElementKey { element, slot, public_key, spki: public_key.to_spki(), label: slot.to_string() }))
    }
}

impl<I: I2c + Send + 'static, D: DelayNs + Send + 'static> KeyBackend for ElementBackend<I, D> {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn expand_root(&self, info: &Info) -> Result<SecretArray<32>, BackendError> {
        if self.capabilities.root_use == RootUse::OnlyWraps && info.level() != Level::Wrapping {
            return Err(BackendError::OnlyWraps);
        }
        ask(&self.element, |element| element.hmac(self.roles.root, info.hmac_message()))
    }

    fn generate_key_pair(&self, key: KeyId, algorithm: KeyAlgorithm) -> Result<GeneratedKeyPair, BackendError> {
        if !self.capabilities.holds(algorithm) {
            return Err(BackendError::Algorithm(algorithm));
        }
        let label = directory::text(key);
        let made = ask(&self.element, |element| {
            if directory::find(element, &self.roles.generated, key)?.is_some() {
                return Ok(Err(BackendError::KeyExists { label: label.clone() }));
            }
            let Some(place) = directory::free(element, &self.roles.generated)? else {
                return Ok(Err(BackendError::Full { keys: self.roles.generated.len() }));
            };
            let public_key = element.generate_key(place.0)?;
            // Until the label is written nobody owns the key, and the slot is free.
            directory::write(element, place, Some(&Label::new(key, &public_key)))?;
            Ok(Ok(public_key))
        })??;
        Ok(GeneratedKeyPair { spki: made.to_spki().to_vec(), handle: KeyHandle::Token { algorithm, label } })
    }

    fn open_key(&self, key: KeyId, handle: &KeyHandle) -> Result<Box<dyn SignatureKey>, BackendError> {
        match handle {
            KeyHandle::Wrapped { algorithm, sealed } => open_wrapped(self, key, *algorithm, sealed),
            KeyHandle::Token { algorithm, label } => {
                self.check_handle(key, *algorithm, label)?;
                let ((slot, _), public_key) = self.find(key)?;
                let element = Arc::clone(&self.element);
                Ok(Box::new(ElementKey { element, slot, public_key, spki: public_key.to_spki(), label: label.clone() }))
            }
        }
    }

    fn destroy_key(&self, key: KeyId, handle: &KeyHandle) -> Result<(), BackendError> {
        match handle {
            KeyHandle::Wrapped { .. } => self.open_key(key, handle).map(drop),
            KeyHandle::Token { algorithm, label } => {
                self.check_handle(key, *algorithm, label)?;
                let was_there = ask(&self.element, |element| {
                    let places = &self.roles.generated;
                    let place = match directory::find(element, places, key)? {
                        Some((place, _)) => {
                            // Another key in its place is the end of it; the label goes afterwards, so that a power cut in
                            // between leaves a label of a key that is not there.
                            element.generate_key(place.0)?;
                            Some(place)
                        }
                        // That label goes now.
                        None => directory::labelled(element, places, key)?,
                    };
                    place.map(|place| directory::write(element, place, None)).transpose()
                })?;
                was_there.ok_or_else(|| BackendError::MissingKey { label: label.clone() })
            }
        }
    }

    fn health(&self) -> Result<(), BackendError> {
        let message = key_check_info()?;
        let now = ask(&self.element, |element| element.hmac(self.roles.root, message.hmac_message()))?;
        if now.equals(&self.key_check) { Ok(()) } else { Err(BackendError::OtherRoot) }
    }
}

struct ElementKey<I, D> {
    element: Arc<Mutex<Element<I, D>>>,
    slot: Slot,
    public_key: PublicKey,
    spki: [u8; 91],
    label: std::string::String,
}

impl<I: I2c + Send, D: DelayNs + Send> SignatureKey for ElementKey<I, D> {
    fn algorithm(&self) -> KeyAlgorithm {
        KeyAlgorithm::P256
    }

    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BackendError> {
        let digest = kf_crypto::sha256(message);
        let signature = ask(&self.element, |element| element.sign(self.slot, &digest))?;
        // Another key is in the slot by now: this one was destroyed.
        if !self.public_key.verifies(message, &signature) {
            return Err(BackendError::MissingKey { label: self.label.clone() });
        }
        kf_crypto::ecdsa_signature_to_der(&signature).ok_or(BackendError::Crypto)
    }
}

impl From<Error> for BackendError {
    fn from(error: Error) -> Self {
        let gone = |during: &str| TokenFault::Gone { during: during.to_string() };
        Self::Token(match error {
            Error::Asleep => gone("waking"),
            Error::Gone(command) => gone(&command.to_string()),
            Error::Bus(kind) => gone(&format!("the bus: {kind}")),
            Error::Late(_) | Error::Watchdog(_) => TokenFault::Late { seconds: LATE_SECONDS },
            Error::Refused(refusal) => TokenFault::Call { function: "policy".to_string(), code: refusal.to_string() },
            other => TokenFault::Call { function: "secure element".to_string(), code: other.to_string() },
        })
    }
}
