//! Keys of the server that a device pins, and their succession: a newer one is believed because the one that is held has signed it,
//! never for being offered.
//!
//! ```text
//! GET /v1/device/successions -> take_up      the newest key that the held one leads to is held from now on, durably
//! ```
//! The key before is forgotten at once: the server serves a device by the newest key that it has proved to hold, and what waits
//! for it is signed again. Whoever pins another key in the firmware, by hand, ends what was taken up from the key before.

use kf_exchange::PublicKey;
use kf_exchange::succession::follow;
use kf_key::KeyRole;

use crate::record::{DELIVERY_PIN, ORDER_PIN};
use crate::storage::{Flash, Integrity, RecordId, StorageError, Store};

const NAME_OCTETS: usize = 32;
const KEY_OCTETS: usize = 65;

/// The key of a role that a device holds. Devices pin keys of the roles delivery and order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    role: KeyRole,
    factory: PublicKey,
    key: PublicKey,
}

/// The record of a role; a device pins no key of stations, so that its record is that of orders, which it never is asked for.
const fn record_of(role: KeyRole) -> RecordId {
    match role {
        KeyRole::Delivery => DELIVERY_PIN,
        KeyRole::Order | KeyRole::Batch => ORDER_PIN,
    }
}

impl Pin {
    /// What the store holds; `factory`, the key in the firmware, when it holds nothing that came from that.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`]: a damaged record is never taken for none.
    pub fn load<F: Flash, I: Integrity>(
        store: &mut Store<F, I>,
        role: KeyRole,
        factory: PublicKey,
    ) -> Result<Self, StorageError<F::Error>> {
        let pin = Self { role, factory, key: factory };
        let Some(octets) = store.read_array::<{ NAME_OCTETS + KEY_OCTETS }>(record_of(role))? else { return Ok(pin) };
        let (name, key) = octets.split_first_chunk::<NAME_OCTETS>().ok_or(StorageError::Corrupt)?;
        if *name != factory.spki_sha256() {
            return Ok(pin);
        }
        let key = key.first_chunk().ok_or(StorageError::Corrupt)?;
        let key = PublicKey::from_sec1(key).map_err(|_not_a_point| StorageError::Corrupt)?;
        Ok(Self { key, ..pin })
    }

    /// The key: by which the server is verified, and which a hello names.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The key in the firmware or the configuration, which it goes back to.
    #[must_use]
    pub const fn factory(&self) -> &PublicKey {
        &self.factory
    }

    /// Takes up the newest key that the held one leads to, over at most 16 links; whether there was one. It is durable when this
    /// returns. Whoever was away for longer calls it again until it says no.
    ///
    /// # Errors
    /// [`StorageError`], with everything as it was.
    pub fn take_up<F: Flash, I: Integrity>(
        &mut self,
        store: &mut Store<F, I>,
        links: &[u8],
    ) -> Result<bool, StorageError<F::Error>> {
        let Some(newest) = follow(links, self.role, &self.key) else { return Ok(false) };
        let mut octets = [0; NAME_OCTETS + KEY_OCTETS];
        let parts = self.factory.spki_sha256().into_iter().chain(newest.key.to_sec1());
        octets.iter_mut().zip(parts).for_each(|(place, octet)| *place = octet);
        store.put(record_of(self.role), &octets)?;
        self.key = newest.key;
        Ok(true)
    }
}
