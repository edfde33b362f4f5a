//! The identity key: two slots, and a pointer to the one in use.
//!
//! ```text
//! generate --> Candidate --certify--> Certified --adopt--> InUse
//!              (spare slot)           (spare slot)         (the old slot is erased)
//! ```
//! A key is replaced in steps, each of which leaves the old one or the new one usable whatever the power does. The key
//! is whatever implements [`IdentityKey`]: one in software, wrapped under a key of the chip, or one in a secure element
//! or TPM, whose two slots the firmware manages by [`Slot`].

use core::convert::Infallible;

use kf_exchange::{P256IdentityKey, PublicKey};
use kf_key::{DeviceId, SecretArray};

use crate::certificate::{Certificate, CertificateError};
use crate::enrolment::machine::Validity;
use crate::enrolment::validity_of;
use crate::entropy::{Nonce, Seed};
use crate::error::KeyError;
use crate::record;
use crate::storage::{Change, Erasure, Flash, Integrity, RecordId, StorageError, Store};
use crate::wrap::{WRAPPED_OCTETS, What, WrapKey, Wrapped};

pub use kf_exchange::IdentityKey;

/// One of the two places for an identity key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }

    const fn of(self, [a, b]: [RecordId; 2]) -> RecordId {
        match self {
            Self::A => a,
            Self::B => b,
        }
    }

    /// The slot in use; `None` before the first certificate was adopted.
    ///
    /// # Errors
    /// Of the store.
    pub fn in_use<F: Flash, I: Integrity>(store: &mut Store<F, I>) -> Result<Option<Self>, StorageError<F::Error>> {
        match store.read_array(record::IDENTITY_IN_USE)? {
            None => Ok(None),
            Some([1]) => Ok(Some(Self::A)),
            Some([2]) => Ok(Some(Self::B)),
            Some([_]) => Err(StorageError::Corrupt),
        }
    }

    /// The slot for the next key.
    ///
    /// # Errors
    /// Of the store.
    pub fn spare<F: Flash, I: Integrity>(store: &mut Store<F, I>) -> Result<Self, StorageError<F::Error>> {
        Ok(Self::in_use(store)?.map_or(Self::A, Self::other))
    }

    /// Its key and its certificate.
    pub(crate) const fn records(self) -> [RecordId; 2] {
        [self.of(record::IDENTITY_KEYS), self.of(record::CERTIFICATES)]
    }

    /// Whether a software key lies in the slot.
    pub(crate) fn has_key<F: Flash, I: Integrity>(
        self,
        store: &mut Store<F, I>,
    ) -> Result<bool, StorageError<F::Error>> {
        is_there(store, self.of(record::IDENTITY_KEYS))
    }

    /// The validity of the certificate of the slot; `None` when there is none.
    pub(crate) fn validity<F: Flash, I: Integrity>(
        self,
        store: &mut Store<F, I>,
        octets: &mut [u8],
    ) -> Result<Option<Validity>, StorageError<F::Error>> {
        if !is_there(store, self.of(record::CERTIFICATES))? {
            return Ok(None);
        }
        let certificate = Certificate::from_der(read_certificate(store, self, octets)?);
        certificate.map(|certificate| Some(validity_of(&certificate))).map_err(|_malformed| StorageError::Corrupt)
    }
}

/// A key that waits for its certificate, in the spare slot.
#[derive(Debug)]
pub struct Candidate<K> {
    slot: Slot,
    key: K,
}

/// A certificate that was not taken.
#[derive(Debug)]
pub struct NotCertified<K, F> {
    /// The candidate, to go on with.
    pub candidate: Candidate<K>,
    /// Why.
    pub error: KeyError<F, Infallible>,
}

/// A key with its certificate, in the spare slot, not yet in use.
#[derive(Debug)]
pub struct Certified<K> {
    slot: Slot,
    key: K,
}

/// The identity in use: a key with its certificate.
#[derive(Debug)]
pub struct InUse<K> {
    slot: Slot,
    key: K,
}

macro_rules! states {
    ($($name:ident)+) => {$(
        impl<K: IdentityKey> $name<K> {
            /// Where the key is.
            #[must_use]
            pub const fn slot(&self) -> Slot {
                self.slot
            }

            /// The key, to sign with.
            #[must_use]
            pub const fn key(&self) -> &K {
                &self.key
            }

            /// Its public half.
            #[must_use]
            pub fn public_key(&self) -> PublicKey {
                self.key.public_key()
            }
        }
    )+};
}

states! { Candidate Certified InUse }

macro_rules! with_certificate {
    ($($name:ident)+) => {$(
        impl<K: IdentityKey> $name<K> {
            /// Reads its certificate, DER, into `octets`.
            ///
            /// # Errors
            /// [`StorageError::Buffer`], or of the store.
            pub fn certificate<'a, F: Flash, I: Integrity>(
                &self,
                store: &mut Store<F, I>,
                octets: &'a mut [u8],
            ) -> Result<&'a [u8], StorageError<F::Error>> {
                read_certificate(store, self.slot, octets)
            }
        }
    )+};
}

with_certificate! { Certified InUse }

/// An identity key in software: P-256, wrapped at rest.
#[derive(Debug)]
pub struct SoftwareIdentity {
    key: P256IdentityKey,
    is_for_production: bool,
}

impl SoftwareIdentity {
    /// Whether its seed was drawn from noise that was declared as physical and on.
    #[must_use]
    pub const fn is_for_production(&self) -> bool {
        self.is_for_production
    }

    /// Signs a SHA-256 digest, for a TLS library that hashes by itself: r and s, 32 octets each.
    ///
    /// # Errors
    /// [`Refusal`](kf_exchange::Refusal), which no digest is known to bring about.
    pub fn sign_digest(&self, digest: &[u8; 32]) -> Result<[u8; 64], kf_exchange::Refusal> {
        self.key.sign_digest(digest)
    }
}

impl IdentityKey for SoftwareIdentity {
    type Error = Infallible;

    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Infallible> {
        self.key.sign(message)
    }
}

/// Version, grade, wrapped key.
const RECORD_OCTETS: usize = 2 + WRAPPED_OCTETS;
const VERSION: u8 = 1;

type Outcome<T, F, W> = Result<T, KeyError<<F as Flash>::Error, <W as WrapKey>::Error>>;

/// What a seed is good for, as it is recorded beside the key.
pub trait Grade: sealed::Grade {}

impl Grade for crate::entropy::Production {}
impl Grade for crate::entropy::Trial {}

mod sealed {
    pub trait Grade {
        const CODE: u8;
    }

    impl Grade for crate::entropy::Production {
        const CODE: u8 = 1;
    }

    impl Grade for crate::entropy::Trial {
        const CODE: u8 = 2;
    }
}

impl Candidate<SoftwareIdentity> {
    /// Makes a key of a seed (FIPS 186-5 appendix A.2.2), stores it wrapped in the spare slot in place of what was there,
    /// and reads it back.
    ///
    /// # Errors
    /// [`KeyError::DrawAgain`], or of the store or the wrapping key.
    pub fn generate<F: Flash, I: Integrity, W: WrapKey, G: Grade>(
        store: &mut Store<F, I>,
        wrap: &W,
        device: DeviceId,
        seed: Seed<G>,
        nonce: Nonce,
    ) -> Outcome<Self, F, W> {
        let secret: SecretArray<32> = seed.into_octets();
        P256IdentityKey::from_secret(&secret).map_err(|_no_scalar| KeyError::DrawAgain)?;
        let slot = Slot::spare(store)?;
        let wrapped = wrap.wrap(context(device, slot), nonce, &secret)?;
        drop(secret);
        let mut octets = [0; RECORD_OCTETS];
        let parts = [VERSION, G::CODE].into_iter().chain(wrapped);
        octets.iter_mut().zip(parts).for_each(|(place, octet)| *place = octet);
        let (key, certificate) = (slot.of(record::IDENTITY_KEYS), slot.of(record::CERTIFICATES));
        // A certificate that was left there belongs to the key before.
        store.update(&[Change::Put(key, &octets), Change::Remove(certificate)])?;
        Self::load(store, wrap, device)?.ok_or(KeyError::Missing)
    }

    /// The key that was waiting for its certificate when the power went; `None` when there is none.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load<F: Flash, I: Integrity, W: WrapKey>(
        store: &mut Store<F, I>,
        wrap: &W,
        device: DeviceId,
    ) -> Outcome<Option<Self>, F, W> {
        let slot = Slot::spare(store)?;
        if is_there(store, slot.of(record::CERTIFICATES))? {
            return Ok(None);
        }
        Ok(load_key(store, wrap, device, slot)?.map(|key| Self { slot, key }))
    }
}

impl<K: IdentityKey> Candidate<K> {
    /// A key that a secure element or TPM has made in the spare slot ([`Slot::spare`]).
    ///
    /// # Errors
    /// Of the store.
    pub fn in_hardware<F: Flash, I: Integrity>(
        store: &mut Store<F, I>,
        key: K,
    ) -> Result<Self, StorageError<F::Error>> {
        let slot = Slot::spare(store)?;
        store.update(&[Change::Remove(slot.of(record::CERTIFICATES))])?;
        Ok(Self { slot, key })
    }

    /// Stores the certificate, if it is for this key.
    ///
    /// # Errors
    /// [`NotCertified`], with the candidate as it was: [`KeyError::Certificate`], [`KeyError::OtherKey`], or of the store.
    pub fn certify<F: Flash, I: Integrity>(
        self,
        store: &mut Store<F, I>,
        certificate: &[u8],
    ) -> Result<Certified<K>, NotCertified<K, F::Error>> {
        let stored = Certificate::from_der(certificate)
            .and_then(|certificate| certificate.require_key(&self.key.public_key()))
            .map_err(|error| match error {
                CertificateError::OtherKey => KeyError::OtherKey,
                _ => KeyError::Certificate,
            })
            .and_then(|()| store.put(self.slot.of(record::CERTIFICATES), certificate).map_err(KeyError::Storage));
        match stored {
            Ok(()) => Ok(Certified { slot: self.slot, key: self.key }),
            Err(error) => Err(NotCertified { candidate: self, error }),
        }
    }
}

impl Certified<SoftwareIdentity> {
    /// The key that had its certificate and was not in use when the power went; `None` when there is none.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load<F: Flash, I: Integrity, W: WrapKey>(
        store: &mut Store<F, I>,
        wrap: &W,
        device: DeviceId,
    ) -> Outcome<Option<Self>, F, W> {
        let slot = Slot::spare(store)?;
        if !is_there(store, slot.of(record::CERTIFICATES))? {
            return Ok(None);
        }
        Ok(load_key(store, wrap, device, slot)?.map(|key| Self { slot, key }))
    }
}

impl<K: IdentityKey> Certified<K> {
    /// Puts the key into use in one step, then erases the one before from the store. A hardware key before it is in
    /// [`Slot::other`] of the new slot; the firmware erases it.
    ///
    /// # Errors
    /// Of the store. After one of them open it again: the old or the new key is in use.
    pub fn adopt<F: Flash, I: Integrity>(
        self,
        store: &mut Store<F, I>,
    ) -> Result<(InUse<K>, Erasure), StorageError<F::Error>> {
        let before = self.slot.other();
        store.update(&[
            Change::Put(record::IDENTITY_IN_USE, &[self.slot.code()]),
            Change::Remove(before.of(record::IDENTITY_KEYS)),
            Change::Remove(before.of(record::CERTIFICATES)),
        ])?;
        let erasure = store.destroy(&[])?;
        Ok((InUse { slot: self.slot, key: self.key }, erasure))
    }

    /// Gives the new key up and erases it; the one in use stays.
    ///
    /// # Errors
    /// Of the store.
    pub fn discard<F: Flash, I: Integrity>(self, store: &mut Store<F, I>) -> Result<Erasure, StorageError<F::Error>> {
        store.destroy(&[self.slot.of(record::IDENTITY_KEYS), self.slot.of(record::CERTIFICATES)])
    }
}

impl InUse<SoftwareIdentity> {
    /// The identity in use; `None` before the first enrolment.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load<F: Flash, I: Integrity, W: WrapKey>(
        store: &mut Store<F, I>,
        wrap: &W,
        device: DeviceId,
    ) -> Outcome<Option<Self>, F, W> {
        let Some(slot) = Slot::in_use(store)? else { return Ok(None) };
        let key = load_key(store, wrap, device, slot)?.ok_or(KeyError::Missing)?;
        Ok(Some(Self { slot, key }))
    }
}

impl<K: IdentityKey> InUse<K> {
    /// A key that a secure element or TPM holds in the slot in use ([`Slot::in_use`]), compared with its certificate.
    /// `octets` takes the certificate.
    ///
    /// # Errors
    /// [`KeyError::Missing`], [`KeyError::OtherKey`], [`KeyError::Certificate`], or of the store.
    pub fn in_hardware<F: Flash, I: Integrity>(
        store: &mut Store<F, I>,
        key: K,
        octets: &mut [u8],
    ) -> Result<Self, KeyError<F::Error, Infallible>> {
        let slot = Slot::in_use(store)?.ok_or(KeyError::Missing)?;
        let certificate = read_certificate(store, slot, octets)?;
        let certificate = Certificate::from_der(certificate).map_err(|_malformed| KeyError::Certificate)?;
        certificate.require_key(&key.public_key()).map_err(|_other| KeyError::OtherKey)?;
        Ok(Self { slot, key })
    }
}

const fn context(device: DeviceId, slot: Slot) -> Wrapped {
    let number = match slot {
        Slot::A => 1,
        Slot::B => 2,
    };
    Wrapped { device, what: What::IdentityKey, number }
}

fn is_there<F: Flash, I: Integrity>(store: &mut Store<F, I>, id: RecordId) -> Result<bool, StorageError<F::Error>> {
    match store.read(id, &mut []) {
        Ok(found) => Ok(found.is_some()),
        Err(StorageError::Buffer { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

fn read_certificate<'a, F: Flash, I: Integrity>(
    store: &mut Store<F, I>,
    slot: Slot,
    octets: &'a mut [u8],
) -> Result<&'a [u8], StorageError<F::Error>> {
    let length = store.read(slot.of(record::CERTIFICATES), octets)?.ok_or(StorageError::Corrupt)?;
    octets.get(..length).ok_or(StorageError::Corrupt)
}

fn load_key<F: Flash, I: Integrity, W: WrapKey>(
    store: &mut Store<F, I>,
    wrap: &W,
    device: DeviceId,
    slot: Slot,
) -> Outcome<Option<SoftwareIdentity>, F, W> {
    let Some(octets) = store.read_array::<RECORD_OCTETS>(slot.of(record::IDENTITY_KEYS))? else { return Ok(None) };
    let corrupt = || KeyError::Storage(StorageError::Corrupt);
    let ([version, grade], wrapped) = octets.split_first_chunk().ok_or_else(corrupt)?;
    let is_for_production = match (*version, *grade) {
        (VERSION, 1) => true,
        (VERSION, 2) => false,
        _ => return Err(corrupt()),
    };
    let secret = wrap.unwrap(context(device, slot), wrapped.try_into().map_err(|_length| corrupt())?)?;
    let key = P256IdentityKey::from_secret(&secret).map_err(|_no_scalar| corrupt())?;
    Ok(Some(SoftwareIdentity { key, is_for_production }))
}
