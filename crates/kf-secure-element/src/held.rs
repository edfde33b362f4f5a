//! Keys in the chip as the device SDK uses them: an identity key, an ephemeral key for an exchange, and a key that offers
//! one HMAC. Without an allocator and for one thread; the chip is shared by a [`RefCell`].

use core::cell::RefCell;
use core::fmt;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;
use kf_derive::KeyedHmac;
use kf_exchange::{IdentityKey, KeyAgreement, PublicKey};
use kf_key::SecretArray;
use sha2::{Digest, Sha256};

use crate::config::Slot;
use crate::element::Element;
use crate::error::Error;

/// A chip that several keys share.
pub type Shared<I, D> = RefCell<Element<I, D>>;

fn ask<I, D, T>(element: &Shared<I, D>, work: impl FnOnce(&mut Element<I, D>) -> Result<T, Error>) -> Result<T, Error> {
    work(&mut *element.try_borrow_mut().map_err(|_borrowed| Error::InUse)?)
}

macro_rules! shows_slot {
    ($($name:ident)+) => {$(
        impl<I, D> fmt::Debug for $name<'_, I, D> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.slot).finish()
            }
        }
    )+};
}

shows_slot! { HeldHmac HeldIdentity HeldAgreement }

/// A key for HMAC in a slot. A slot that is locked is a fused key: wrap it in `kf_derive::FusedKey`.
pub struct HeldHmac<'a, I, D> {
    element: &'a Shared<I, D>,
    slot: Slot,
}

impl<'a, I: I2c, D: DelayNs> HeldHmac<'a, I, D> {
    /// The key in `slot`.
    pub const fn new(element: &'a Shared<I, D>, slot: Slot) -> Self {
        Self { element, slot }
    }
}

impl<I: I2c, D: DelayNs> KeyedHmac for HeldHmac<'_, I, D> {
    type Error = Error;

    fn hmac_sha256(&self, message: &[u8], tag: &mut [u8; 32]) -> Result<(), Error> {
        let found = ask(self.element, |element| element.hmac(self.slot, message))?;
        // Exposed to the caller's own secret.
        tag.copy_from_slice(found.expose());
        Ok(())
    }
}

/// A P-256 signature key in a slot.
pub struct HeldIdentity<'a, I, D> {
    element: &'a Shared<I, D>,
    slot: Slot,
    public_key: PublicKey,
}

impl<'a, I: I2c, D: DelayNs> HeldIdentity<'a, I, D> {
    /// The key that is in `slot`.
    ///
    /// # Errors
    /// [`Error::Execution`] when there is none.
    pub fn open(element: &'a Shared<I, D>, slot: Slot) -> Result<Self, Error> {
        let public_key = ask(element, |element| element.public_key(slot))?;
        Ok(Self { element, slot, public_key })
    }

    /// A new key in `slot`, in place of what is there.
    ///
    /// # Errors
    /// [`Error`].
    pub fn generate(element: &'a Shared<I, D>, slot: Slot) -> Result<Self, Error> {
        let public_key = ask(element, |element| element.generate_key(slot))?;
        Ok(Self { element, slot, public_key })
    }

    /// Where it is.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        self.slot
    }
}

impl<I: I2c, D: DelayNs> IdentityKey for HeldIdentity<'_, I, D> {
    type Error = Error;

    fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// A signature that does not verify is not given out: the chip computed wrongly, or the key in the slot is another one.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Error> {
        let digest = Sha256::digest(message).into();
        let signature = ask(self.element, |element| element.sign(self.slot, &digest))?;
        if self.public_key.verifies(message, &signature) { Ok(signature) } else { Err(Error::Mismatch) }
    }
}

/// A fresh key pair for one exchange, made in a slot in place of the one before.
pub struct HeldAgreement<'a, I, D> {
    element: &'a Shared<I, D>,
    slot: Slot,
    public_key: PublicKey,
}

impl<'a, I: I2c, D: DelayNs> HeldAgreement<'a, I, D> {
    /// Makes the pair.
    ///
    /// # Errors
    /// [`Error`].
    pub fn generate(element: &'a Shared<I, D>, slot: Slot) -> Result<Self, Error> {
        let public_key = ask(element, |element| element.generate_key(slot))?;
        Ok(Self { element, slot, public_key })
    }
}

impl<I: I2c, D: DelayNs> KeyAgreement for HeldAgreement<'_, I, D> {
    type Error = Error;

    fn public_key(&self) -> PublicKey {
        self.public_key
    }

    fn agree(&self, other: &PublicKey) -> Result<SecretArray<32>, Error> {
        ask(self.element, |element| element.agree(self.slot, other))
    }
}
