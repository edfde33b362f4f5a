//! What a device's keys leave in its flash memory.
//!
//! Whoever holds the chip's key can read the store from the outside, and does it here: every key that the device ever
//! stored is collected, as it lies in the cells (wrapped) and as it is (unwrapped). A fragment is any eight octets in a
//! row of either form. In the clear there must never be one; when the device was destroyed there must be none at all.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use kf_derive::{AeadAlgorithm, DeviceKey, FusedKey, Sender, SoftwareKey};
use kf_device::sealed::kf_seal::SESSION;
use kf_device::storage::{Checksum, Flash, Geometry, Medium, RecordId, Store};
use kf_device::wrap::{WRAPPED_OCTETS, What, WrapKey as _, Wrapped};
use kf_key::{DeviceId, SecretArray};
use kf_testkit::KnownSecret;

use crate::flash_chip::{SECTOR_OCTETS, SECTORS, WORD_OCTETS};
use crate::fuses::Fuses;

const FRAGMENT_OCTETS: usize = 8;
/// The most octets of a secret that `keyfleet image` looks for.
const MAX_SECRET_OCTETS: usize = 4096;
/// Names of what is looked for in memory.
pub(crate) const KEY: &str = "key";
pub(crate) const CHIP: &str = "chip";

/// Where the SDK keeps wrapped keys. Its ids never change, because devices in the field keep them.
const KEYS: [(RecordId, What); 7] = [
    (RecordId(0x0010), What::DeviceKey),
    (RecordId(0x0011), What::DeviceKey),
    (RecordId(0x0012), What::Ratchet),
    (RecordId(0x0021), What::IdentityKey),
    (RecordId(0x0022), What::IdentityKey),
    (RecordId(0x0030), What::StorageKey),
    (RecordId(0x0031), What::StorageKey),
];
/// Certificates, whose fragments are looked for as well.
const CERTIFICATES: [RecordId; 2] = [RecordId(0x0023), RecordId(0x0024)];

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Everything that a device has stored so far.
pub(crate) struct Remains {
    chip: FusedKey<SoftwareKey>,
    device: DeviceId,
    /// Keys as they are.
    keys: Vec<SecretArray<32>>,
    /// Keys and certificates as they lie in the cells.
    stored: BTreeSet<Vec<u8>>,
    /// Versions of the storage key, as they lie in the cells, with their places among `keys`.
    storage: BTreeMap<u32, (Vec<u8>, usize)>,
}

/// Fragments found, in octets that begin one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) in_the_clear: usize,
    pub(crate) stored: usize,
}

impl Remains {
    /// Of the device in `folder`.
    ///
    /// # Errors
    /// When its chip's key cannot be read.
    pub(crate) fn of(folder: &Path, device: DeviceId) -> Outcome<Self> {
        let chip = FusedKey::new(SoftwareKey::new(Fuses::chip_key(folder)?));
        Ok(Self { chip, device, keys: Vec::new(), stored: BTreeSet::new(), storage: BTreeMap::new() })
    }

    /// How many keys are known.
    pub(crate) const fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Takes note of the keys and certificates that are in use now.
    ///
    /// # Errors
    /// When the store cannot be read, or a key does not unwrap.
    pub(crate) fn collect(&mut self, cells: &[u8]) -> Outcome<()> {
        let mut store = Store::open(Cells(cells.to_vec()), Checksum)?;
        let mut octets = vec![0; SECTORS * SECTOR_OCTETS];
        for (id, what) in KEYS {
            let Some(length) = store.read(id, &mut octets)? else { continue };
            let record = octets.get(..length).unwrap_or_default();
            let (front, wrapped) = record.split_last_chunk::<WRAPPED_OCTETS>().ok_or("a key record is too short")?;
            let number = number_of(id, front)?;
            let context = Wrapped { device: self.device, what, number };
            let key = self.chip.unwrap(context, wrapped).map_err(|_opaque| "a key does not unwrap")?;
            let place = self.keys.iter().position(|known| known.equals(&key)).unwrap_or(self.keys.len());
            if place == self.keys.len() {
                self.keys.push(key);
            }
            self.stored.insert(wrapped.to_vec());
            if what == What::StorageKey {
                self.storage.insert(number, (wrapped.to_vec(), place));
            }
        }
        for id in CERTIFICATES {
            if let Some(length) = store.read(id, &mut octets)? {
                self.stored.insert(octets.get(..length).unwrap_or_default().to_vec());
            }
        }
        Ok(())
    }

    /// Counts fragments of everything collected.
    pub(crate) fn found_in(&self, cells: &[u8]) -> Found {
        let cells: BTreeSet<&[u8]> = cells.windows(FRAGMENT_OCTETS).collect();
        let count = |what: &[u8]| what.windows(FRAGMENT_OCTETS).filter(|window| cells.contains(window)).count();
        // Exposed to the search.
        let in_the_clear = self.keys.iter().map(|key| count(key.expose())).sum();
        Found { in_the_clear, stored: self.stored.iter().map(|stored| count(stored)).sum() }
    }

    /// Counts fragments of one version of the storage key, as it is and as it lies in the cells; `None` when the device never had it.
    pub(crate) fn storage_key_in(&self, version: u32, cells: &[u8]) -> Option<usize> {
        let (wrapped, place) = self.storage.get(&version)?;
        let cells: BTreeSet<&[u8]> = cells.windows(FRAGMENT_OCTETS).collect();
        let count = |what: &[u8]| what.windows(FRAGMENT_OCTETS).filter(|window| cells.contains(window)).count();
        // Exposed to the search.
        Some(count(wrapped) + count(self.keys.get(*place)?.expose()))
    }

    /// What is to be looked for in the device's memory: every key that it stored, the keys below them that it derived for these
    /// services and boots, and the chip's own, which is always there.
    ///
    /// # Errors
    /// When the chip's key cannot be read.
    pub(crate) fn in_memory<'b>(
        &self,
        folder: &Path,
        services: &[&[u8]],
        boots: impl Iterator<Item = &'b [u8; 16]> + Clone,
    ) -> Outcome<Vec<KnownSecret>> {
        let chip = Fuses::chip_key(folder)?;
        // Exposed to the search, here and below.
        let mut known = vec![KnownSecret::new(CHIP, chip.expose())];
        for key in &self.keys {
            known.push(KnownSecret::new(KEY, key.expose()));
            let copy = || SoftwareKey::new(SecretArray::fill(|octets| *octets = *key.expose()));
            // What is no device key has no keys below it, and those of nothing are found nowhere.
            let session = || DeviceKey::from_keyed_hmac(copy()).session(SESSION, 0);
            known.push(KnownSecret::new(KEY, session()?.into_secret().expose()));
            for service in services {
                let application = session()?.application(service, 0)?;
                for boot in boots.clone() {
                    let sealing = application.boot(boot, Sender::Device, AeadAlgorithm::Aes128Ccm)?;
                    known.push(KnownSecret::new(KEY, sealing.expose()));
                }
                known.push(KnownSecret::new(KEY, application.into_secret().expose()));
            }
        }
        Ok(known)
    }

    /// Writes what is looked for into files, as hexadecimal text: every key as it is, and as it lies wrapped.
    ///
    /// # Errors
    /// Of the files.
    pub(crate) fn write(&self, folder: &Path) -> Outcome<Vec<String>> {
        std::fs::create_dir_all(folder)?;
        // Exposed to files of a test that are thrown away.
        let all = self.keys.iter().map(|key| key.expose().to_vec()).chain(self.stored.iter().cloned());
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut arguments = Vec::new();
        for (number, octets) in all.enumerate() {
            let path = folder.join(format!("key-{number}"));
            let octets = octets.get(..octets.len().min(MAX_SECRET_OCTETS)).unwrap_or_default();
            options.open(&path)?.write_all(hex::encode(octets).as_bytes())?;
            arguments.extend(["--secret".to_owned(), format!("key-{number}={}", path.display())]);
        }
        Ok(arguments)
    }

    /// Whether the search sees eight octets of a key, at an odd place, in `cells`.
    pub(crate) fn would_be_seen_in(&self, cells: &[u8]) -> bool {
        let mut cells = cells.to_vec();
        let place = cells.len() / 2 + 3;
        let Some((key, planted)) = self.keys.last().zip(cells.get_mut(place..place + FRAGMENT_OCTETS)) else {
            return false;
        };
        // Exposed to the copy in which it must be found.
        planted.copy_from_slice(key.expose().get(20..20 + FRAGMENT_OCTETS).unwrap_or_default());
        self.found_in(&cells).in_the_clear == 1
    }
}

/// The number that a wrapped key is bound to: its epoch, its position, or its slot.
fn number_of(id: RecordId, front: &[u8]) -> Outcome<u32> {
    match id {
        RecordId(0x0021) => Ok(1),
        RecordId(0x0022) => Ok(2),
        _ => Ok(u32::from_be_bytes(*front.last_chunk().ok_or("a key record is too short")?)),
    }
}

/// A copy of a flash memory. Opening the store may write to it, as it would on the device.
struct Cells(Vec<u8>);

impl Cells {
    fn place(&mut self, offset: u32, octets: usize) -> Result<&mut [u8], std::fmt::Error> {
        let start = usize::try_from(offset).map_err(|_outside| std::fmt::Error)?;
        self.0.get_mut(start..start.saturating_add(octets)).ok_or(std::fmt::Error)
    }
}

impl Flash for Cells {
    type Error = std::fmt::Error;

    fn geometry(&self) -> Geometry {
        let number = |size: usize| u32::try_from(size).unwrap_or(0);
        Geometry { word: number(WORD_OCTETS), sector: number(SECTOR_OCTETS), sectors: number(SECTORS) }
    }

    fn medium(&self) -> Medium {
        Medium::Raw
    }

    fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), Self::Error> {
        octets.copy_from_slice(self.place(offset, octets.len())?);
        Ok(())
    }

    fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), Self::Error> {
        self.place(offset, octets.len())?.copy_from_slice(octets);
        Ok(())
    }

    fn erase(&mut self, sector: u32) -> Result<(), Self::Error> {
        let offset = sector.checked_mul(self.geometry().sector).ok_or(std::fmt::Error)?;
        self.place(offset, SECTOR_OCTETS)?.fill(0xff);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_octets_of_a_key_are_found_wherever_they_lie_and_seven_are_not() {
        let mut key = [0; 32];
        key.iter_mut().zip(1_u8..).for_each(|(octet, value)| *octet = value);
        let remains = Remains {
            chip: FusedKey::new(SoftwareKey::new(SecretArray::fill(|chip| chip.fill(1)))),
            device: DeviceId::from_bytes([1; 16]),
            keys: vec![SecretArray::fill(|octets| *octets = key)],
            stored: BTreeSet::from([vec![0xc0; 9], b"certificate".to_vec()]),
            storage: BTreeMap::new(),
        };
        let blank = [0xff; 256];
        assert_eq!(remains.found_in(&blank), Found { in_the_clear: 0, stored: 0 });
        assert!(remains.would_be_seen_in(&blank));
        for place in 0..=blank.len() - 8 {
            let mut cells = blank;
            cells[place..place + 8].copy_from_slice(&key[24..]);
            assert_eq!(remains.found_in(&cells), Found { in_the_clear: 1, stored: 0 }, "at {place}");
            cells[place] ^= 1;
            assert_eq!(remains.found_in(&cells).in_the_clear, 0, "seven at {place}");
        }
        let mut cells = blank;
        cells[5..13].copy_from_slice(b"rtificat");
        assert_eq!(remains.found_in(&cells), Found { in_the_clear: 0, stored: 1 });
    }
}
