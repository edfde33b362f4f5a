//! What is left of a key in raw flash after it was overwritten, erased, trimmed, purged, destroyed.
//!
//! Raw flash is looked through by our own scanner, for fragments of 8 octets and more. Each test has a positive control,
//! because a scanner that finds nothing anywhere proves nothing.

use kf_flash::flash_encryption::FlashCipher;
use kf_flash::nvs::{Partition, RemnantKind, remnants};
use kf_flash::scan::{FindingKind, NamedSecret, Scanner, Secrets};
use kf_key::{SecretArray, SecretBytes};
use kf_testkit::{CardShape, SECTOR_OCTETS, TranslatedFlash};

use crate::chip_flash::{ChipFlash, key, start};

const OLD: &[u8; 32] = b"\x8aold key, thirty-two octets long";
const NEW: &[u8; 32] = b"\x3cnew key, thirty-two octets long";

/// Names of the secrets of which `raw` holds a fragment.
fn found(raw: &[u8], secrets: &[(&str, &[u8])]) -> Vec<String> {
    let named = |(name, octets): &(&str, &[u8])| NamedSecret {
        name: (*name).to_owned(),
        octets: SecretBytes::from_vec(octets.to_vec()),
    };
    let mut scanner = Scanner::new(Secrets::new(secrets.iter().map(named).collect(), Vec::new()).unwrap());
    scanner.push(raw).unwrap();
    let mut names: Vec<String> = scanner
        .finish()
        .findings
        .into_iter()
        .filter_map(|finding| match finding.kind {
            FindingKind::Secret { name, .. } => Some(name),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn keys_in(flash: &ChipFlash) -> Vec<String> {
    found(flash.0.raw(), &[("old", OLD), ("new", NEW)])
}

/// A device that stored a key, and then another one in its place.
fn device(is_purging: bool) -> ChipFlash {
    let mut flash = ChipFlash::blank(4);
    let mut nvs = start(&mut flash);
    nvs.set_purge_mode(is_purging);
    let (namespace, name) = (key("factory"), key("key"));
    nvs.set(&namespace, &name, OLD.as_slice()).unwrap();
    nvs.set(&namespace, &key("other"), 7_u32).unwrap();
    nvs.set(&namespace, &name, NEW.as_slice()).unwrap();
    flash
}

#[test]
fn erasing_a_key_in_nvs_leaves_it_and_its_predecessor_in_flash() {
    let mut flash = device(false);
    assert_eq!(keys_in(&flash), ["new", "old"]);
    start(&mut flash).delete(&key("factory"), &key("key")).unwrap();
    assert_eq!(keys_in(&flash), ["new", "old"], "erased, and both still there");
    let left: Vec<_> = remnants(Partition::new(flash.0.raw()).unwrap()).collect();
    let values = left.iter().filter(|remnant| remnant.kind == RemnantKind::ErasedItem).filter_map(|remnant| {
        let item = remnant.item.unwrap();
        assert_eq!(item.key.octets(), b"key");
        flash.0.raw().get(item.value_offset..item.value_offset + item.value_octets).filter(|value| value.len() == 32)
    });
    assert_eq!(values.collect::<Vec<_>>(), [OLD, NEW]);
}

#[test]
fn purging_leaves_neither_whether_at_once_or_afterwards() {
    let mut flash = device(true);
    assert_eq!(keys_in(&flash), ["new"]);
    let mut nvs = start(&mut flash);
    nvs.set_purge_mode(true);
    nvs.delete(&key("factory"), &key("key")).unwrap();
    assert_eq!(keys_in(&flash), [""; 0]);
    assert_eq!(remnants(Partition::new(flash.0.raw()).unwrap()).count(), 0);

    let mut later = device(false);
    start(&mut later).delete(&key("factory"), &key("key")).unwrap();
    start(&mut later).purge_all(&key("factory")).unwrap();
    assert_eq!(keys_in(&later), [""; 0]);
    assert_eq!(remnants(Partition::new(later.0.raw()).unwrap()).count(), 0);
}

#[test]
fn what_a_destruction_that_lost_power_leaves_after_doing_it_again_is_listed_as_a_remnant() {
    let destroy = |flash: &mut ChipFlash| {
        let mut nvs = start(flash);
        nvs.set_purge_mode(true);
        let deleted = nvs.delete(&key("factory"), &key("key"));
        deleted.and_then(|()| nvs.purge_all(&key("factory")))
    };
    let operations = {
        let mut flash = device(false);
        let before = flash.0.operations();
        destroy(&mut flash).unwrap();
        flash.0.operations() - before
    };
    assert!(operations > 2);
    let mut kept = 0;
    for cut in 0..operations {
        let mut flash = device(false);
        let (namespace, name) = (key("factory"), key("key"));
        flash.0.cut_power_after(cut);
        let octets = flash.0.raw().len();
        let interrupted = esp_nvs::Nvs::new(0, octets, &mut flash).and_then(|mut nvs| {
            nvs.set_purge_mode(true);
            nvs.delete(&namespace, &name)?;
            nvs.purge_all(&namespace)
        });
        kept += usize::from(interrupted.is_err() && !keys_in(&flash).is_empty());
        destroy(&mut flash).unwrap();
        // What a torn delete left without its entry, no purge finds again: only a look at the raw flash shows it.
        let left = keys_in(&flash);
        let octets_left = remnants(Partition::new(flash.0.raw()).unwrap()).count();
        assert!(left.is_empty() || octets_left > 0, "after a cut at {cut}: {left:?} and no remnant");
        assert_eq!(start(&mut flash).get::<u32>(&namespace, &key("other")).unwrap(), 7);
    }
    assert!(kept > 0, "some cuts leave the key: that is what doing it again is for");
}

/// A sector that holds `secret` among other things.
fn sector_with(secret: &[u8]) -> [u8; SECTOR_OCTETS] {
    let mut sector = [0x20; SECTOR_OCTETS];
    sector[100..100 + secret.len()].copy_from_slice(secret);
    sector
}

/// A card of 113 blocks of 8 pages and 469 sectors, of which so many percent are in use.
fn card(percent: usize) -> TranslatedFlash {
    let mut card = TranslatedFlash::new(113, 8, 469, 10_000);
    (1..469 * percent / 100).for_each(|sector| card.write(sector, &[0x11; SECTOR_OCTETS]).unwrap());
    card
}

#[test]
fn overwriting_35_times_and_trimming_leave_a_key_on_a_card() {
    for overwrites in [1_u8, 7, 35] {
        let mut card = card(50);
        card.write(0, &sector_with(OLD)).unwrap();
        assert_eq!(card.copies(OLD), 1);
        (0..overwrites).for_each(|number| card.write(0, &[number; SECTOR_OCTETS]).unwrap());
        card.trim(0);
        assert_eq!(card.read(0), [0; SECTOR_OCTETS], "as far as any program can see it is gone");
        assert_eq!(card.copies(OLD), 1, "after {overwrites} overwrites");
        assert_eq!(found(card.flash().raw(), &[("old", OLD)]), ["old"]);
    }
}

/// How many copies of a key there are on a card that is so full, after it was overwritten 35 times and so many other sectors
/// were written.
fn copies_after(percent: usize, seed: u64, writes: usize) -> usize {
    let shape = CardShape { blocks: 113, pages_per_block: 8, sectors: 469, endurance: 10_000, bad_per_mille: 20 };
    let mut card = TranslatedFlash::manufactured(shape, seed);
    let others = 1..469 * percent / 100;
    others.clone().for_each(|sector| card.write(sector, &[0x11; SECTOR_OCTETS]).unwrap());
    card.write(0, &sector_with(OLD)).unwrap();
    (0..35_u8).for_each(|number| card.write(0, &[number; SECTOR_OCTETS]).unwrap());
    others.cycle().take(writes).for_each(|sector| card.write(sector, &[0x12; SECTOR_OCTETS]).unwrap());
    card.copies(OLD)
}

#[test]
fn a_key_overwritten_35_times_outlives_many_unrelated_writes_on_any_card_and_fewer_the_fuller_it_is() {
    for (percent, outlives) in [(10, 300), (50, 150), (90, 60)] {
        for seed in 0..3 {
            assert_eq!(copies_after(percent, seed, outlives), 1, "{percent} % full, seed {seed}");
            assert_eq!(copies_after(percent, seed, 3_000), 0, "{percent} % full, seed {seed}");
        }
    }
}

#[test]
fn sanitizing_removes_it_but_not_from_a_worn_out_block() {
    let mut healthy = card(50);
    healthy.write(0, &sector_with(OLD)).unwrap();
    healthy.trim(0);
    healthy.sanitize().unwrap();
    assert_eq!(healthy.copies(OLD), 0);

    let mut worn = TranslatedFlash::new(12, 8, 20, 0);
    worn.write(0, &sector_with(OLD)).unwrap();
    worn.trim(0);
    worn.sanitize().unwrap();
    assert_eq!((worn.bad_blocks().len(), worn.copies(OLD)), (1, 1));
}

#[test]
fn a_key_that_is_destroyed_first_makes_every_copy_of_what_it_encrypted_worthless() {
    let secret = b"what the device must never give away";
    // The data lies on a card, encrypted; its key lies in NVS, which can be purged.
    let data_key = SecretArray::<32>::fill(|octets| *octets = *NEW);
    let mut card = card(50);
    let mut sector = sector_with(secret);
    FlashCipher::aes_128(&data_key).encrypt(0, &mut sector).unwrap();
    (0..5).for_each(|_| card.write(0, &sector).unwrap());
    let mut flash = device(true);
    let everything = |card: &mut TranslatedFlash, flash: &ChipFlash| [card.flash().raw(), flash.0.raw()].concat();
    let secrets: [(&str, &[u8]); 2] = [("data", secret), ("key", NEW)];

    // Positive control: with both in hand, the data opens.
    let before = everything(&mut card, &flash);
    assert_eq!(found(&before, &secrets), ["key"]);
    let mut copy = card.read(0);
    FlashCipher::aes_128(&data_key).decrypt(0, &mut copy).unwrap();
    assert_eq!(copy, sector_with(secret));

    // Crypto-erase first, then purge, then read back raw.
    let mut nvs = start(&mut flash);
    nvs.set_purge_mode(true);
    nvs.delete(&key("factory"), &key("key")).unwrap();
    card.trim(0);
    let after = everything(&mut card, &flash);
    assert_eq!(found(&after, &secrets), [""; 0]);
    assert!(card.copies(&sector[..32]) > 0, "the ciphertext is still there, and that is all");
    assert_eq!(remnants(Partition::new(flash.0.raw()).unwrap()).count(), 0);
}
