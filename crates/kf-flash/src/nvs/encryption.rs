//! XTS-AES-256 over entries (IEEE 1619). Headers and states stay in clear.
//!
//! Decryption is the crate's. Encryption works on many entries at a time, because the crate hands the cipher one block after the other,
//! and wide AES units spend most of such a call on spreading the round keys: what it makes, the crate decrypts, in every test
//! here.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes256, Block};
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
pub struct NvsCipher {
    decryption: Xts128<Aes256>,
    data: Aes256,
    tweak: Aes256,
}

/// Entries that are encrypted at a time: a page has not quite eight times as many.
const ENTRIES_AT_A_TIME: usize = 16;
/// An entry is two blocks.
const BLOCKS_AT_A_TIME: usize = 2 * ENTRIES_AT_A_TIME;

impl NvsCipher {
    pub(super) fn new(keys: &[u8; 64]) -> Self {
        let (encryption, tweak) = keys.split_at(32);
        let aes = |key: &[u8]| Aes256::new(&aes::cipher::Array(crate::octets::field(key, 0)));
        let decryption = Xts128::new(aes(encryption), aes(tweak));
        Self { decryption, data: aes(encryption), tweak: aes(tweak) }
    }

    /// Encrypts every slot that is not marked empty.
    ///
    /// # Errors
    /// [`NvsError::PartitionSize`].
    pub fn encrypt(&self, partition: &mut [u8]) -> Result<(), NvsError> {
        check_size(partition.len())?;
        for (index, page) in partition.chunks_exact_mut(PAGE_OCTETS).enumerate() {
            let states = states_of(index, page);
            let start = index * PAGE_OCTETS + FIRST_ENTRY_OFFSET;
            let slots = page.get_mut(FIRST_ENTRY_OFFSET..).unwrap_or_default().chunks_exact_mut(ENTRY_OCTETS);
            let written = slots.zip(states).enumerate().filter(|(_, (_, state))| *state != EntryState::Empty);
            let mut written = written.map(|(slot, (octets, _))| (start + slot * ENTRY_OCTETS, octets));
            while self.encrypt_some(&mut written) {}
        }
        Ok(())
    }

    /// Encrypts the next entries, by their offsets; whether there were any.
    fn encrypt_some<'a>(&self, entries: &mut impl Iterator<Item = (usize, &'a mut [u8])>) -> bool {
        let mut places: [&mut [u8]; ENTRIES_AT_A_TIME] = Default::default();
        let mut tweaks = [Block::default(); ENTRIES_AT_A_TIME];
        let mut count = 0;
        for ((place, tweak), (offset, octets)) in places.iter_mut().zip(&mut tweaks).zip(entries) {
            *tweak = Block::from(get_tweak_default(u128::try_from(offset).unwrap_or_default()));
            *place = octets;
            count += 1;
        }
        let (places, tweaks) = (places.get_mut(..count), tweaks.get_mut(..count));
        let (Some(places), Some(tweaks)) = (places, tweaks) else { return false };
        self.tweak.encrypt_blocks(tweaks);
        let mut masks = [0_u128; BLOCKS_AT_A_TIME];
        let mut blocks = [Block::default(); BLOCKS_AT_A_TIME];
        for ((tweak, place), (masks, blocks)) in
            tweaks.iter().zip(&*places).zip(masks.chunks_exact_mut(2).zip(blocks.chunks_exact_mut(2)))
        {
            let first = u128::from_le_bytes((*tweak).into());
            for ((mask, block), (wanted, half)) in
                masks.iter_mut().zip(blocks).zip([first, times_alpha(first)].into_iter().zip(place.as_chunks::<16>().0))
            {
                *mask = wanted;
                *block = Block::from((u128::from_le_bytes(*half) ^ wanted).to_le_bytes());
            }
        }
        self.data.encrypt_blocks(blocks.get_mut(..2 * count).unwrap_or_default());
        let halves = places.iter_mut().flat_map(|place| place.as_chunks_mut::<16>().0);
        for (half, (block, mask)) in halves.zip(blocks.iter().zip(masks)) {
            *half = (u128::from_le_bytes((*block).into()) ^ mask).to_le_bytes();
        }
        count > 0
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
        each_slot(partition, |slot, offset| {
            if !is_blank(slot) && !is_purged(slot) {
                self.decryption.decrypt_sector(slot, get_tweak_default(offset));
            }
        });
        Ok(())
    }
}

/// Multiplication by x in GF(2^128), the first octet holding the lowest powers (IEEE 1619 section 5.2).
const fn times_alpha(tweak: u128) -> u128 {
    let carry = if tweak >> 127 == 1 { 0x87 } else { 0 };
    (tweak << 1) ^ carry
}

fn states_of(index: usize, octets: &[u8]) -> [EntryState; ENTRIES_PER_PAGE] {
    let page = Page::new(index, octets);
    core::array::from_fn(|slot| page.entry_state(slot))
}

fn each_slot(partition: &mut [u8], mut each: impl FnMut(&mut [u8], u128)) {
    for (index, octets) in partition.chunks_exact_mut(PAGE_OCTETS).enumerate() {
        let slots = octets.get_mut(FIRST_ENTRY_OFFSET..).unwrap_or_default().chunks_exact_mut(ENTRY_OCTETS);
        let start = u128::try_from(index * PAGE_OCTETS + FIRST_ENTRY_OFFSET).unwrap_or_default();
        for (slot, offset) in slots.zip((start..).step_by(ENTRY_OCTETS)) {
            each(slot, offset);
        }
    }
}
