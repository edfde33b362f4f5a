//! What a slot does not permit is refused before anything crosses the bus, and by the chip as well.

use kf_exchange::{IdentityKey as _, P256IdentityKey};
use kf_secure_element::config::Slot;
use kf_secure_element::layout::{self, Layout};
use kf_secure_element::policy::{Refusal, Use};
use kf_secure_element::{Element, Error};
use kf_testkit::SecureElement;

use crate::bench::{Driver, NUMBER, finished, finished_with, open, secret, slot, transport};

/// Every use, and what asks the chip for it.
fn attempt(element: &mut Driver, slot: Slot, wanted: Use) -> Result<(), Error> {
    let other = P256IdentityKey::from_secret(&secret(5)).unwrap().public_key();
    match wanted {
        Use::Sign => element.sign(slot, &[1; 32]).map(drop),
        Use::Agree => element.agree(slot, &other).map(drop),
        Use::Generate => element.generate_key(slot).map(drop),
        Use::PublicKey => element.public_key(slot).map(drop),
        Use::Hmac => element.hmac_by_sha(slot, b"message").map(drop),
        Use::Kdf => element.hmac_by_kdf(slot, b"message").map(drop),
        Use::Aes => element.aes_encrypt(slot, &[1; 16]).map(drop),
        Use::Read => element.read(slot, 0, &mut [0; 32]),
        Use::ReadEncrypted(_) => element.read_encrypted(slot, 0, &transport(), &NUMBER).map(drop),
        Use::Write => element.write(slot, 0, &[1; 32]),
        Use::WriteEncrypted(_) => element.write_encrypted(slot, &secret(1), &transport(), &NUMBER),
        other => panic!("{other:?}"),
    }
}

const USES: [Use; 11] = [
    Use::Sign,
    Use::Agree,
    Use::Generate,
    Use::PublicKey,
    Use::Hmac,
    Use::Kdf,
    Use::Aes,
    Use::Read,
    Use::ReadEncrypted(layout::TRANSPORT),
    Use::Write,
    Use::WriteEncrypted(layout::TRANSPORT),
];

#[test]
fn every_use_of_every_slot_is_either_refused_without_a_command_or_done_by_the_chip() {
    let (chip, mut element) = finished();
    for generated in layout::GENERATED.into_iter().chain([layout::AGREEMENT]) {
        element.generate_key(generated).unwrap();
    }
    let mut permitted = 0;
    for (slot, wanted) in Slot::ALL.into_iter().flat_map(|slot| USES.map(|wanted| (slot, wanted))) {
        let before = chip.executed();
        match element.permits(slot, wanted) {
            Err(refusal) => {
                assert_eq!(attempt(&mut element, slot, wanted), Err(Error::Refused(refusal)), "{slot} {wanted:?}");
                assert_eq!(chip.executed(), before, "{slot} {wanted:?}: nothing is sent");
            }
            Ok(()) => {
                assert_eq!(attempt(&mut element, slot, wanted), Ok(()), "{slot} {wanted:?}");
                permitted += 1;
            }
        }
    }
    // Identity (sign, public), agreement (agree, generate, public), three keys (sign, generate, public), root (two HMACs,
    // written), transport key (two HMACs), AES (used, written), eight data slots (read, written).
    assert_eq!(permitted, 2 + 3 + 9 + 3 + 2 + 2 + 16);
}

#[test]
fn in_no_state_of_a_chip_does_the_driver_permit_what_the_chip_refuses() {
    let states: [fn(&SecureElement); 3] = [|_chip| {}, |chip| configured(chip, false), |chip| configured(chip, true)];
    for (index, prepare) in states.into_iter().enumerate() {
        let chip = SecureElement::blank(7);
        prepare(&chip);
        let mut element = open(&chip);
        for (slot, wanted) in Slot::ALL.into_iter().flat_map(|slot| USES.map(|wanted| (slot, wanted))) {
            if wanted == Use::PublicKey || element.permits(slot, wanted).is_err() {
                continue;
            }
            let outcome = attempt(&mut element, slot, wanted);
            let has_no_key = wanted == Use::Sign || wanted == Use::Agree;
            assert!(outcome.is_ok() || has_no_key, "state {index}, {slot} {wanted:?}: {outcome:?}");
        }
    }
}

/// Configuration locked, and the data zone too if asked.
fn configured(chip: &SecureElement, with_data: bool) {
    use kf_secure_element::lock::{ConfigLock, DataLock};
    let mut element = open(chip);
    let typed = element.config().serial_number().to_string();
    element.write_config(&Layout::keyfleet()).unwrap();
    ConfigLock::order(&mut element, &Layout::keyfleet(), &typed).unwrap().execute(&mut element).unwrap();
    if with_data {
        element.inject(layout::TRANSPORT, &secret(0x66)).unwrap();
        DataLock::order(&mut element, &typed).unwrap().execute(&mut element).unwrap();
    }
}

#[test]
fn a_locked_slot_keeps_its_key_for_good() {
    let (chip, mut element) = finished_with(&Layout::keyfleet(), &secret(0x55), true);
    let before = chip.executed();
    let refused = element.write_encrypted(layout::ROOT, &secret(1), &transport(), &NUMBER);
    assert_eq!(refused, Err(Error::Refused(Refusal::SlotLocked(layout::ROOT))));
    let refused = element.generate_key(layout::IDENTITY).map(drop);
    assert_eq!(refused, Err(Error::Refused(Refusal::SlotLocked(layout::IDENTITY))));
    assert_eq!(chip.executed(), before);
}

#[test]
fn places_that_a_slot_does_not_have_are_refused() {
    let (_chip, mut element) = finished();
    let extent = |slot| Err(Error::Refused(Refusal::Extent(slot)));
    assert_eq!(element.read(layout::CERTIFICATE, 0, &mut [0; 420]), extent(layout::CERTIFICATE));
    assert_eq!(element.read(slot(10), 72, &mut [0; 4]), extent(slot(10)));
    assert_eq!(element.write(slot(10), 2, &[0; 4]), extent(slot(10)), "not at a word");
    assert_eq!(element.write(slot(10), 0, &[0; 3]), extent(slot(10)), "not whole words");
    assert_eq!(element.write(slot(10), usize::MAX - 3, &[0; 4]), extent(slot(10)));
}

#[test]
fn nothing_at_the_address_is_said_so() {
    let chip = SecureElement::blank(1);
    assert_eq!(Element::open(chip.bus(), chip.delay(), 0x35).err(), Some(Error::Asleep));
    chip.set_power(false);
    assert_eq!(Element::open(chip.bus(), chip.delay(), 0x60).err(), Some(Error::Asleep));
}
