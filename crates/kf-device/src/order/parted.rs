//! Owners that this device left by a factory reset, so that none of their orders is obeyed again when the device comes back to them.
//!
//! A counter belongs to an owner's order keys: the next owner's begin at 1. So the one of the owner who leaves is set aside under the
//! digests, which are public, of two keys: the one that was obeyed, and the one that the firmware or the configuration pins. Every key of a
//! succession goes back to the pinned one, so what is set aside under that counts for all of them, also after a reset, which forgets what
//! was taken up. At most [`MAX_PARTED`] keys; the oldest go, and who lets a device change hands more often sees to it that old orders have
//! expired.

use kf_exchange::PublicKey;
use sha2::{Digest as _, Sha256};

use super::OrderKey;
use crate::record::{BOOTS, PARTED};
use crate::storage::{Change, Flash, Integrity, StorageError, Store};

/// The most order keys that are remembered: of the last four owners, or of more whose keys had no successor.
pub const MAX_PARTED: usize = 8;
/// Digest of the key, counter.
const ENTRY: usize = 32 + 8;

/// Whoever signs the orders, by the digests of two keys.
#[derive(Debug)]
pub(super) struct Owner {
    obeyed: [u8; 32],
    factory: [u8; 32],
}

impl Owner {
    pub(super) fn of(key: &OrderKey) -> Self {
        Self { obeyed: digest_of(&key.key), factory: digest_of(&key.factory) }
    }

    /// Each once.
    fn digests(&self) -> impl Iterator<Item = [u8; 32]> {
        core::iter::once(self.factory).chain((self.obeyed != self.factory).then_some(self.obeyed))
    }

    fn owns(&self, entry: &[u8; ENTRY]) -> bool {
        entry.starts_with(&self.factory) || entry.starts_with(&self.obeyed)
    }
}

/// Counters by the digest of the order key, the oldest first.
#[derive(Debug)]
pub(super) struct Parted {
    octets: [u8; ENTRY * MAX_PARTED],
    length: usize,
}

impl Parted {
    /// # Errors
    /// [`StorageError::Corrupt`]: a damaged record is never taken for none.
    pub(super) fn load<F: Flash, I: Integrity>(store: &mut Store<F, I>) -> Result<Self, StorageError<F::Error>> {
        let mut octets = [0; ENTRY * MAX_PARTED];
        let length = match store.read(PARTED, &mut octets) {
            Ok(length) => length.unwrap_or(0),
            Err(StorageError::Buffer { .. }) => return Err(StorageError::Corrupt),
            Err(error) => return Err(error),
        };
        if length.is_multiple_of(ENTRY) { Ok(Self { octets, length }) } else { Err(StorageError::Corrupt) }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    fn entries(&self) -> &[[u8; ENTRY]] {
        self.as_bytes().as_chunks::<ENTRY>().0
    }

    /// The highest counter of this owner that was obeyed; 0 for one who was never parted from.
    pub(super) fn counter_of(&self, owner: &Owner) -> u64 {
        let found = self.entries().iter().filter(|entry| owner.owns(entry));
        let counters = found.filter_map(|entry| entry.last_chunk::<8>()).map(|counter| u64::from_be_bytes(*counter));
        counters.max().unwrap_or(0)
    }

    /// The same with this owner as the newest.
    pub(super) fn with(&self, owner: &Owner, counter: u64) -> Self {
        let others = self.entries().iter().filter(|entry| !owner.owns(entry));
        let added = owner.digests().count();
        let too_many = others.clone().count().saturating_add(added).saturating_sub(MAX_PARTED);
        let others = others.skip(too_many).flatten().copied();
        let all = others.chain(owner.digests().flat_map(|key| key.into_iter().chain(counter.to_be_bytes())));
        let (mut octets, mut length) = ([0; ENTRY * MAX_PARTED], 0_usize);
        for (place, octet) in octets.iter_mut().zip(all) {
            *place = octet;
            length = length.saturating_add(1);
        }
        Self { octets, length }
    }
}

/// The counters that a reset leaves, for a store that takes the place of the one that was reset. None of it is secret.
#[derive(Debug)]
pub struct Remembered {
    octets: [u8; 8 + ENTRY * MAX_PARTED],
    length: usize,
}

impl Remembered {
    /// What a store says.
    ///
    /// # Errors
    /// Of the store.
    pub fn of<F: Flash, I: Integrity>(store: &mut Store<F, I>) -> Result<Self, StorageError<F::Error>> {
        let boots = store.read_array::<8>(BOOTS)?.unwrap_or_default();
        let parted = Parted::load(store)?;
        let (mut octets, mut length) = ([0; 8 + ENTRY * MAX_PARTED], 0_usize);
        for (place, octet) in octets.iter_mut().zip(boots.iter().chain(parted.as_bytes())) {
            *place = *octet;
            length = length.saturating_add(1);
        }
        Ok(Self { octets, length })
    }

    /// The counter of boots, 8 octets; then for each order key that was parted from its digest, 32 octets, and a counter, 8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    /// What [`as_bytes`](Self::as_bytes) gave; `None` for what it cannot have given.
    #[must_use]
    pub fn from_bytes(given: &[u8]) -> Option<Self> {
        let entries = given.len().checked_sub(8)?;
        if !entries.is_multiple_of(ENTRY) || entries > ENTRY * MAX_PARTED {
            return None;
        }
        let mut octets = [0; 8 + ENTRY * MAX_PARTED];
        octets.iter_mut().zip(given).for_each(|(place, octet)| *place = *octet);
        Some(Self { octets, length: given.len() })
    }

    /// Puts it into a store that knows nothing yet.
    ///
    /// # Errors
    /// Of the store.
    pub fn put<F: Flash, I: Integrity>(&self, store: &mut Store<F, I>) -> Result<(), StorageError<F::Error>> {
        let (boots, parted) = self.as_bytes().split_at_checked(8).ok_or(StorageError::Corrupt)?;
        store.update(&[Change::Put(BOOTS, boots), Change::Put(PARTED, parted)])
    }
}

fn digest_of(key: &PublicKey) -> [u8; 32] {
    Sha256::digest(key.to_sec1()).into()
}

#[cfg(test)]
mod tests {
    use kf_exchange::{IdentityKey as _, P256IdentityKey};
    use kf_key::{DeviceId, SecretArray};

    use super::*;

    fn key(octet: u8) -> PublicKey {
        P256IdentityKey::from_secret(&SecretArray::fill(|secret| secret.fill(octet))).unwrap().public_key()
    }

    fn owner(factory: u8, obeyed: u8) -> Owner {
        Owner::of(&OrderKey { key: key(obeyed), factory: key(factory), device: DeviceId::from_bytes([7; 16]) })
    }

    fn none() -> Parted {
        Parted { octets: [0; ENTRY * MAX_PARTED], length: 0 }
    }

    #[test]
    fn counters_are_kept_by_key_and_the_oldest_owner_goes() {
        let mut parted = none();
        assert_eq!(parted.counter_of(&owner(1, 1)), 0);
        for number in 1..=8 {
            parted = parted.with(&owner(number, number), u64::from(number) * 10);
        }
        parted = parted.with(&owner(2, 2), 25);
        let counters = |parted: &Parted| [1, 2, 3, 8, 9].map(|number| parted.counter_of(&owner(number, number)));
        assert_eq!((counters(&parted), parted.as_bytes().len()), ([10, 25, 30, 80, 0], 8 * ENTRY));
        parted = parted.with(&owner(9, 9), 90);
        assert_eq!((counters(&parted), parted.as_bytes().len()), ([0, 25, 30, 80, 90], 8 * ENTRY));
    }

    #[test]
    fn the_counter_of_an_owner_counts_for_every_key_that_goes_back_to_the_pinned_one() {
        let mut parted = none().with(&owner(1, 13), 7);
        assert_eq!(parted.as_bytes().len(), 2 * ENTRY);
        let of = |parted: &Parted, factory, obeyed| parted.counter_of(&owner(factory, obeyed));
        assert_eq!([of(&parted, 1, 1), of(&parted, 1, 12), of(&parted, 1, 13), of(&parted, 13, 13)], [7; 4]);
        assert_eq!((of(&parted, 2, 2), of(&parted, 12, 12)), (0, 0), "another owner's begin anew");
        // The same owner again: its entries are replaced, not added to.
        parted = parted.with(&owner(1, 12), 9);
        assert_eq!([of(&parted, 1, 1), of(&parted, 1, 13), of(&parted, 12, 12)], [9; 3]);
        for number in 21..=24 {
            parted = parted.with(&owner(number, number + 10), 1);
        }
        assert_eq!((of(&parted, 1, 1), parted.as_bytes().len()), (0, 8 * ENTRY));
    }
}
