//! XTS-AES-256 over entries (IEEE 1619). Headers and states stay in clear.

use aes_of_xts::Aes256;
use aes_of_xts::cipher::KeyInit;
use xts_mode::{Xts128, get_tweak_default};

use super::entry::EntryState;
use super::page::Page;
use super::partition::check_size;
use super::{ENTRIES_PER_PAGE, ENTRY_OCTETS, FIRST_ENTRY_OFFSET, NvsError, PAGE_OCTETS};
use crate::octets::{is_blank, is_purged};

/// Encrypts and decrypts whole partitions in place. The round keys are wiped when it is dropped.
///
/// Each entry of 32 octets is one data unit. Its number is the *true* offset of the entry from the start of the partition,
/// as on the chip. (The vendor's `decrypt` counts used entries only, so that it reads a partition wrongly in which a blank
/// entry stands before a used one.)
pub struct NvsCipher(Xts128<Aes256>);

impl NvsCipher {
    pub(super) fn new(keys: &[u8; 64]) -> Self {
        let (encryption, tweak) = keys.split_at(32);
        let aes = |key: &[u8]| Aes256::new(&crate::octets::field(key, 0).into());
        Self(Xts128::new(aes(encryption), aes(tweak)))
    }

    /// Encrypts one slot of 32 octets, which lies at `offset` from the start of the partition.
    pub fn encrypt_slot(&self, offset: u128, slot: &mut [u8; ENTRY_OCTETS]) {
        self.0.encrypt_sector(slot, get_tweak_default(offset));
    }

    /// Decrypts one slot. With the wrong keys it is noise, which no entry's CRC survives.
    pub fn decrypt_slot(&self, offset: u128, slot: &mut [u8; ENTRY_OCTETS]) {
        self.0.decrypt_sector(slot, get_tweak_default(offset));
    }

    /// Encrypts every slot that is not marked empty.
    ///
    /// # Errors
    /// [`NvsError::PartitionSize`].
    pub fn encrypt(&self, partition: &mut [u8]) -> Result<(), NvsError> {
        check_size(partition.len())?;
        each_slot(partition, |state, slot, offset| {
            if state != EntryState::Empty {
                self.0.encrypt_sector(slot, get_tweak_default(offset));
            }
        });
        Ok(())
    }

    /// Decrypts every slot that was written, whatever its page's state: live entries, erased ones, and those that a power
    /// cut left before they were marked. What a purge has zeroed stays zero.
    ///
    /// With the wrong keys this succeeds and leaves noise, which no entry's CRC survives: see [`super::Partition::items`].
    ///
    /// # Errors
    /// [`NvsError::PartitionSize`].
    pub fn decrypt(&self, partition: &mut [u8]) -> Result<(), NvsError> {
        check_size(partition.len())?;
        each_slot(partition, |_, slot, offset| {
            if !is_blank(slot) && !is_purged(slot) {
                self.0.decrypt_sector(slot, get_tweak_default(offset));
            }
        });
        Ok(())
    }
}

fn each_slot(partition: &mut [u8], mut each: impl FnMut(EntryState, &mut [u8], u128)) {
    for (index, octets) in partition.chunks_exact_mut(PAGE_OCTETS).enumerate() {
        if is_blank(octets) {
            continue;
        }
        let states: [EntryState; ENTRIES_PER_PAGE] = {
            let page = Page::new(index, octets);
            core::array::from_fn(|slot| page.entry_state(slot))
        };
        let slots = octets.get_mut(FIRST_ENTRY_OFFSET..).unwrap_or_default().chunks_exact_mut(ENTRY_OCTETS);
        let start = u128::try_from(index * PAGE_OCTETS + FIRST_ENTRY_OFFSET).unwrap_or_default();
        for ((state, slot), offset) in states.iter().zip(slots).zip((start..).step_by(ENTRY_OCTETS)) {
            each(*state, slot, offset);
        }
    }
}
