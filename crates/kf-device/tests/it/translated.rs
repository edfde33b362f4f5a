//! Keys on a card that levels its wear. Overwriting leaves them in its cells, and the SDK says so; ending the chip's key,
//! purging the card and reading all of it back does not, wherever the power goes.

use std::collections::BTreeSet;

use kf_device::derivation::{HeldKey, Injected};
use kf_device::destruction::{RevocableKey as _, Target, destroy};
use kf_device::order::{Accepted, wipe_report};
use kf_device::storage::{Checksum, Erasure, Flash, Geometry, Medium, RecordId, Store};
use kf_exchange::order::OrderAct;
use kf_exchange::{IdentityKey as _, P256IdentityKey};
use kf_key::SecretArray;
use kf_testkit::{CardShape, FlashFault, SECTOR_OCTETS, TranslatedFlash};

use crate::device::{source, wrap};
use crate::refusals::Slotted;
use crate::server::{DEVICE, NOW, Server};

const SHAPE: CardShape =
    CardShape { blocks: 40, pages_per_block: 8, sectors: 100, endurance: 5_000, bad_per_mille: 40 };
/// Sectors of the card below one sector of the journal.
const PER_SECTOR: usize = 8;
const JOURNAL_SECTORS: usize = 4;
const FRAGMENT_OCTETS: usize = 8;
/// The record of the device key.
const DEVICE_KEY: RecordId = RecordId(0x0010);

/// The first sectors of a card, as the memory of the journal.
struct Journal<'a>(&'a mut TranslatedFlash);

impl Journal<'_> {
    fn pieces(offset: u32, octets: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>, usize)> {
        let start = usize::try_from(offset).unwrap();
        let mut done = 0;
        std::iter::from_fn(move || {
            let (sector, within) = ((start + done) / SECTOR_OCTETS, (start + done) % SECTOR_OCTETS);
            let length = (octets - done).min(SECTOR_OCTETS - within);
            let piece = (sector, within..within + length, done);
            done += length;
            (length > 0).then_some(piece)
        })
    }
}

impl Flash for Journal<'_> {
    type Error = FlashFault;

    fn geometry(&self) -> Geometry {
        Geometry { word: 16, sector: 4_096, sectors: u32::try_from(JOURNAL_SECTORS).unwrap() }
    }

    fn medium(&self) -> Medium {
        Medium::Remapped
    }

    fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), FlashFault> {
        for (sector, within, at) in Self::pieces(offset, octets.len()) {
            octets[at..at + within.len()].copy_from_slice(&self.0.read(sector)[within]);
        }
        Ok(())
    }

    fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), FlashFault> {
        for (sector, within, at) in Self::pieces(offset, octets.len()) {
            let mut contents = self.0.read(sector);
            contents[within.clone()].copy_from_slice(&octets[at..at + within.len()]);
            self.0.write(sector, &contents)?;
        }
        Ok(())
    }

    fn erase(&mut self, sector: u32) -> Result<(), FlashFault> {
        let first = usize::try_from(sector).unwrap() * PER_SECTOR;
        (first..first + PER_SECTOR).try_for_each(|sector| self.0.write(sector, &[0xff; SECTOR_OCTETS]))
    }
}

fn open(card: &mut TranslatedFlash) -> Store<Journal<'_>> {
    Store::open(Journal(card), Checksum).unwrap()
}

fn device_key() -> SecretArray<32> {
    SecretArray::fill(|key| key.iter_mut().zip(0x61_u8..).for_each(|(octet, value)| *octet = value.wrapping_mul(7)))
}

fn identity() -> P256IdentityKey {
    P256IdentityKey::from_secret(&SecretArray::fill(|secret| secret.fill(0x1d))).unwrap()
}

/// A device on a card that is half full of other things, with its device key in use. The key as it lies in the journal.
fn device() -> (TranslatedFlash, Slotted, Vec<u8>) {
    device_on(SHAPE)
}

fn device_on(shape: CardShape) -> (TranslatedFlash, Slotted, Vec<u8>) {
    let mut card = TranslatedFlash::manufactured(shape, 6);
    (50..100).for_each(|sector| card.write(sector, &[0x2a; SECTOR_OCTETS]).unwrap());
    let chip = Slotted { key: Some(wrap()), lies: false };
    let mut store = Store::format(Journal(&mut card), Checksum).unwrap();
    let place = Server::new().place();
    let nonce = source(1).unwrap().nonce().unwrap();
    HeldKey::inject(&mut store, &chip, Injected { device: DEVICE, place, key: &device_key() }, nonce).unwrap();
    let mut record = [0; 128];
    let length = store.read(DEVICE_KEY, &mut record).unwrap().unwrap();
    // What is in front of the ciphertext is no secret.
    let wrapped = record[length - 48..length].to_vec();
    (card, chip, wrapped)
}

/// Runs of 8 octets of `key` in the cells.
fn fragments(card: &mut TranslatedFlash, key: &[u8]) -> usize {
    let wanted: BTreeSet<&[u8]> = key.windows(FRAGMENT_OCTETS).collect();
    let begins: BTreeSet<u8> = wanted.iter().map(|run| run[0]).collect();
    let runs = card.flash().raw().windows(FRAGMENT_OCTETS).filter(|run| begins.contains(&run[0]));
    runs.filter(|run| wanted.contains(run)).collect::<BTreeSet<_>>().len()
}

fn holds_key(card: &mut TranslatedFlash, chip: &Slotted) -> bool {
    matches!(HeldKey::load(&mut open(card), chip, DEVICE), Ok(Some(_)))
}

#[test]
fn a_key_that_is_destroyed_and_overwritten_35_times_lies_in_the_cells_of_a_card() {
    let (mut card, chip, wrapped) = device_on(CardShape { blocks: 113, ..SHAPE });
    assert_eq!(fragments(&mut card, &wrapped), wrapped.len() - 7, "the search finds what is there");
    let mut store = open(&mut card);
    assert_eq!(destroy(&mut store, Target::DeviceKeys).unwrap(), Erasure::Overwritten, "and it is called no more");
    (0..35).for_each(|number| store.put(DEVICE_KEY, &[number; 85]).unwrap());
    assert_eq!(destroy(&mut store, Target::DeviceKeys).unwrap(), Erasure::Overwritten);
    assert!(!holds_key(&mut card, &chip), "as far as any program can see it is gone");
    assert_eq!(fragments(&mut card, &wrapped), wrapped.len() - 7);
}

/// What a firmware does whose journal lies on a card. The report in the journal is the intent, and each step can be
/// repeated; whether all of it is done.
fn wiped(card: &mut TranslatedFlash, chip: &mut Slotted, order: &[u8], server: &Server) -> bool {
    let mut octets = [0; kf_exchange::MAX_MESSAGE_OCTETS];
    let Ok(mut store) = Store::open(Journal(card), Checksum) else { return false };
    let Ok(report) = wipe_report(&mut store, &mut octets) else { return false };
    if report.is_none() {
        let key = server.order_key();
        let Ok(Accepted::Wipe(wipe)) = key.accept(order, NOW, &mut store) else { return false };
        let Ok((_, erasure)) = wipe.carry_out(NOW, &identity(), &mut store) else { return false };
        assert_eq!(erasure, Erasure::Overwritten);
    }
    chip.revoke().unwrap();
    card.sanitize().is_ok()
}

#[test]
fn ending_the_chips_key_and_purging_leaves_no_fragment_wherever_the_power_goes() {
    let server = Server::new();
    let order = server.order(OrderAct::Wipe, 1);
    let operations = {
        let (mut card, mut chip, wrapped) = device();
        let before = card.flash().operations();
        assert!(wiped(&mut card, &mut chip, &order, &server));
        assert_eq!(fragments(&mut card, &wrapped), 0);
        card.flash().operations() - before
    };
    assert!(operations > 40, "{operations}");
    let (mut before_the_wipe, mut in_the_middle) = (0, 0);
    for cut in 0..operations {
        let (mut card, mut chip, wrapped) = device();
        card.flash().cut_power_after(cut);
        assert!(!wiped(&mut card, &mut chip, &order, &server), "cut at {cut}: not believed done");
        card = card.mount();
        let mut octets = [0; kf_exchange::MAX_MESSAGE_OCTETS];
        let is_begun = wipe_report(&mut open(&mut card), &mut octets).unwrap().is_some();
        assert_eq!(holds_key(&mut card, &chip), !is_begun, "cut at {cut}: the whole key, or none and a report");
        before_the_wipe += usize::from(!is_begun);
        in_the_middle += usize::from(is_begun && fragments(&mut card, &wrapped) > 0);
        assert!(wiped(&mut card, &mut chip, &order, &server), "cut at {cut}: the restart finishes");
        assert_eq!(fragments(&mut card, &wrapped), 0, "cut at {cut}");
        assert!(!holds_key(&mut card, &chip));
        let report = wipe_report(&mut open(&mut card), &mut octets).unwrap().unwrap().to_vec();
        let report = kf_exchange::order::OrderReport::verify(&report, &identity().public_key()).unwrap();
        assert_eq!((report.act, report.counter), (OrderAct::Wipe, 1));
    }
    assert!(before_the_wipe > 3 && in_the_middle > 3, "{before_the_wipe}, {in_the_middle} of {operations}");
}

#[test]
fn what_a_worn_out_block_keeps_opens_with_no_key_any_more() {
    // No block can be erased a second time.
    let (mut card, mut chip, wrapped) = device_on(CardShape { endurance: 0, bad_per_mille: 0, ..SHAPE });
    let server = Server::new();
    let order = server.order(OrderAct::Wipe, 1);
    assert!(wiped(&mut card, &mut chip, &order, &server) || !card.bad_blocks().is_empty());
    assert!(fragments(&mut card, &wrapped) > 0, "no purge reaches a block that is worn out");
    assert!(!holds_key(&mut card, &chip));
    assert_eq!(fragments(&mut card, device_key().expose()), 0, "what lies there is ciphertext, and its key has ended");
}
