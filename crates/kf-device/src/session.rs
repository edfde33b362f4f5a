//! The ratchet, kept across power cuts: whoever takes the device learns nothing of the positions behind.

use kf_derive::{Ratchet, SessionKey, SoftwareKey};
use kf_key::DeviceId;

use crate::derivation::HeldKey;
use crate::entropy::Nonce;
use crate::error::KeyError;
use crate::record;
use crate::storage::{Change, Erasure, Flash, Integrity, StorageError, Store};
use crate::wrap::{WRAPPED_OCTETS, What, WrapKey, Wrapped};

const VERSION: u8 = 1;
const RECORD_OCTETS: usize = 1 + 4 + WRAPPED_OCTETS;

type Outcome<T, F, W> = Result<T, KeyError<<F as Flash>::Error, <W as WrapKey>::Error>>;

/// A ratchet whose position is durable. The key of a position is in no cell of the store once
/// [`advance_to`](Self::advance_to) has left it.
#[derive(Debug)]
pub struct StoredRatchet {
    device: DeviceId,
    ratchet: Ratchet,
}

impl StoredRatchet {
    /// The ratchet as it was left; `None` when none was begun.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load<F: Flash, I: Integrity, W: WrapKey>(
        store: &mut Store<F, I>,
        wrap: &W,
        device: DeviceId,
    ) -> Outcome<Option<Self>, F, W> {
        let Some(octets) = store.read_array::<RECORD_OCTETS>(record::RATCHET)? else { return Ok(None) };
        let (position, wrapped) = parse(&octets).ok_or(KeyError::Storage(StorageError::Corrupt))?;
        let key = wrap.unwrap(Wrapped { device, what: What::Ratchet, number: position }, wrapped)?;
        Ok(Some(Self { device, ratchet: Ratchet::<SoftwareKey>::resume(key, position) }))
    }

    /// Begins at position 0 below the device key, which is spent: in one step the ratchet takes its place in the store,
    /// and its cells are erased. A device that ratchets has no device key any more until an exchange brings another.
    ///
    /// # Errors
    /// [`KeyError::Occupied`] when a ratchet was begun before.
    pub fn begin<F: Flash, I: Integrity, W: WrapKey>(
        store: &mut Store<F, I>,
        wrap: &W,
        held: HeldKey,
        nonce: Nonce,
    ) -> Outcome<(Self, Erasure), F, W> {
        let device = held.device();
        if Self::load(store, wrap, device)?.is_some() {
            return Err(KeyError::Occupied);
        }
        let ratchet = Self { device, ratchet: held.into_key().into_ratchet()? };
        let octets = ratchet.wrapped::<F, W>(wrap, nonce)?;
        store.update(&[Change::Put(record::RATCHET, &octets), Change::Remove(record::DEVICE_KEY)])?;
        let erasure = store.destroy(&[])?;
        Ok((ratchet, erasure))
    }

    /// Goes forward to `position`. When it returns, the new key is durable and the old one is in no cell of the store;
    /// only then can a session of the new position be derived. After a power cut the ratchet is at the old position or
    /// at the new one.
    ///
    /// # Errors
    /// [`KeyError::Ratchet`] for a position behind or too far ahead: nothing has changed. After an error of the store
    /// open it again and [`load`](Self::load).
    pub fn advance_to<F: Flash, I: Integrity, W: WrapKey>(
        mut self,
        position: u32,
        store: &mut Store<F, I>,
        wrap: &W,
        nonce: Nonce,
    ) -> Outcome<(Self, Erasure), F, W> {
        self.ratchet.advance_to(position)?;
        let octets = self.wrapped::<F, W>(wrap, nonce)?;
        store.put(record::RATCHET, &octets)?;
        // Compaction leaves the superseded record behind and erases its bank.
        let erasure = store.destroy(&[])?;
        Ok((self, erasure))
    }

    /// Where it is.
    #[must_use]
    pub const fn position(&self) -> u32 {
        self.ratchet.position()
    }

    /// The key of a session at the present position.
    ///
    /// # Errors
    /// [`kf_derive::RatchetError::Context`].
    pub fn session(&self, session: &[u8]) -> Result<SessionKey, kf_derive::RatchetError> {
        self.ratchet.session(session)
    }

    fn wrapped<F: Flash, W: WrapKey>(&self, wrap: &W, nonce: Nonce) -> Outcome<[u8; RECORD_OCTETS], F, W> {
        let position = self.ratchet.position();
        let context = Wrapped { device: self.device, what: What::Ratchet, number: position };
        let wrapped = wrap.wrap(context, nonce, self.ratchet.key())?;
        let mut octets = [0; RECORD_OCTETS];
        let parts = [VERSION].into_iter().chain(position.to_be_bytes()).chain(wrapped);
        octets.iter_mut().zip(parts).for_each(|(place, octet)| *place = octet);
        Ok(octets)
    }
}

fn parse(octets: &[u8; RECORD_OCTETS]) -> Option<(u32, &[u8; WRAPPED_OCTETS])> {
    let (version, rest) = octets.split_first()?;
    let (position, rest) = rest.split_first_chunk()?;
    (*version == VERSION).then_some(())?;
    Some((u32::from_be_bytes(*position), rest.try_into().ok()?))
}
