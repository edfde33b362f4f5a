//! Keys of the server that succeed those in the firmware.

use kf_device::exchange::kf_exchange::succession::Succession;
use kf_device::exchange::kf_exchange::{IdentityKey as _, P256IdentityKey};
use kf_device::pin::Pin;
use kf_device::storage::{Checksum, Medium, StorageError, Store};
use kf_key::{KeyRole, SecretArray, UnixMillis};

use crate::device::{Chip, chip, format};

fn key(octet: u8) -> P256IdentityKey {
    P256IdentityKey::from_secret(&SecretArray::fill(|secret| secret.fill(octet))).unwrap()
}

fn link(before: u8, after: u8, version: u32) -> Vec<u8> {
    let key_after = key(after).public_key();
    let link = Succession { role: KeyRole::Order, version, key: key_after, made: UnixMillis(1) };
    link.sign(&key(before)).unwrap().as_bytes().to_vec()
}

fn formatted() -> Chip {
    let mut chip = chip(8, Medium::Raw);
    format(&mut chip).unwrap();
    chip
}

#[test]
fn what_was_taken_up_is_held_after_a_start_until_the_firmware_pins_another_key() {
    let mut chip = formatted();
    let mut store = Store::open(&mut chip, Checksum).unwrap();
    let mut pin = Pin::load(&mut store, KeyRole::Order, key(1).public_key()).unwrap();
    assert_eq!(*pin.key(), key(1).public_key());
    assert!(!pin.take_up(&mut store, &link(2, 3, 3)).unwrap(), "nothing leads there");
    assert!(pin.take_up(&mut store, &[link(2, 3, 3), link(1, 2, 2)].concat()).unwrap());
    assert!(!pin.take_up(&mut store, &[link(2, 3, 3), link(1, 2, 2)].concat()).unwrap());
    let mut store = Store::open(&mut chip, Checksum).unwrap();
    let load = |store: &mut Store<&mut Chip, Checksum>, role, factory| {
        *Pin::load(store, role, key(factory).public_key()).unwrap().key()
    };
    assert_eq!(load(&mut store, KeyRole::Order, 1), key(3).public_key());
    assert_eq!(load(&mut store, KeyRole::Delivery, 1), key(1).public_key(), "each role has its own");
    assert_eq!(load(&mut store, KeyRole::Order, 9), key(9).public_key(), "by hand");
    assert_eq!(load(&mut store, KeyRole::Order, 1), key(3).public_key());
}

#[test]
fn a_power_cut_at_any_step_leaves_the_key_before_or_the_one_after() {
    let (mut before, mut after) = (0, 0);
    for cut in 0..200 {
        let mut chip = formatted();
        chip.cut_after(cut, [0, u32::MAX, cut + 1][usize::try_from(cut % 3).unwrap()]);
        let outcome = Store::open(&mut chip, Checksum).and_then(|mut store| {
            let mut pin = Pin::load(&mut store, KeyRole::Order, key(1).public_key())?;
            pin.take_up(&mut store, &link(1, 2, 2))
        });
        chip.power_on();
        let mut store = Store::open(&mut chip, Checksum).unwrap();
        let held = *Pin::load(&mut store, KeyRole::Order, key(1).public_key()).unwrap().key();
        if held == key(1).public_key() {
            before += 1;
            assert!(outcome.is_err(), "what was said to be held is held");
        } else {
            assert_eq!(held, key(2).public_key());
            after += 1;
        }
        if outcome.is_ok() {
            assert!(before > 2 && after > 0, "{before} {after}");
            return;
        }
        assert!(matches!(outcome, Err(StorageError::Flash(_))), "{outcome:?}");
    }
    panic!("no end of the steps");
}
