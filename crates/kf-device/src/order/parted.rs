//! Owners that this device left by a factory reset, so that none of their orders is obeyed again when the device comes back to them.
//!
//! A counter belongs to an order key: the next owner's begin at 1. So the one of the owner who leaves is set aside under the
//! digest of that owner's key, which is public. At most [`MAX_PARTED`]; the oldest goes, and who has had a device five times sees to
//! it that old orders have expired.

use kf_exchange::PublicKey;
use sha2::{Digest as _, Sha256};

use crate::record::{BOOTS, PARTED};
use crate::storage::{Change, Flash, Integrity, StorageError, Store};

/// The most owners that are remembered.
pub const MAX_PARTED: usize = 4;
/// Digest of the key, counter.
const ENTRY: usize = 32 + 8;

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

    /// The highest counter of this key that was obeyed; 0 for a key that was never parted from.
    pub(super) fn counter_of(&self, owner: &[u8; 32]) -> u64 {
        let found = self.entries().iter().find(|entry| entry.starts_with(owner));
        found.and_then(|entry| entry.last_chunk::<8>()).map_or(0, |counter| u64::from_be_bytes(*counter))
    }

    /// The same with this one as the newest.
    pub(super) fn with(&self, owner: &[u8; 32], counter: u64) -> Self {
        let others = self.entries().iter().filter(|entry| !entry.starts_with(owner));
        let too_many = others.clone().count().saturating_sub(MAX_PARTED.saturating_sub(1));
        let others = others.skip(too_many).flatten().copied();
        let all = others.chain(*owner).chain(counter.to_be_bytes());
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

    /// The counter of boots, 8 octets; then for each owner the digest of the order key, 32 octets, and a counter, 8.
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

pub(super) fn digest_of(key: &PublicKey) -> [u8; 32] {
    Sha256::digest(key.to_sec1()).into()
}

#[cfg(test)]
mod tests {
    use kf_exchange::{IdentityKey as _, P256IdentityKey};
    use kf_key::SecretArray;

    use super::*;

    fn key(octet: u8) -> [u8; 32] {
        digest_of(&P256IdentityKey::from_secret(&SecretArray::fill(|secret| secret.fill(octet))).unwrap().public_key())
    }

    #[test]
    fn counters_are_kept_by_key_and_the_oldest_owner_goes() {
        let mut parted = Parted { octets: [0; ENTRY * MAX_PARTED], length: 0 };
        assert_eq!(parted.counter_of(&key(1)), 0);
        for owner in 1..=4 {
            parted = parted.with(&key(owner), u64::from(owner) * 10);
        }
        parted = parted.with(&key(2), 25);
        let counters = |parted: &Parted| [1, 2, 3, 4, 5].map(|owner| parted.counter_of(&key(owner)));
        assert_eq!((counters(&parted), parted.as_bytes().len()), ([10, 25, 30, 40, 0], 4 * ENTRY));
        parted = parted.with(&key(5), 50);
        assert_eq!((counters(&parted), parted.as_bytes().len()), ([0, 25, 30, 40, 50], 4 * ENTRY));
    }
}
