//! The key back end: the suite that every back end passes, the published vectors, power cuts.

use kf_backend::{
    BackendError, KeyBackend, RootUse, SoftwareBackend, TokenFault, conformance, unwrap_replaceable, wrap_replaceable,
};
use kf_key::{KeyAlgorithm, KeyId, SecretArray};
use kf_secure_element::layout::{self, Layout};
use kf_secure_element::{Counter, ElementBackend, Roles};
use kf_testkit::{ElementBus, ElementDelay, Fault, Moment, SecureElement};

use crate::bench::{finished_with, open, secret, transport};

type Backend = ElementBackend<ElementBus, ElementDelay>;

fn key(octet: u8) -> KeyId {
    KeyId::from_bytes([octet; 16])
}

fn backend(root: &SecretArray<32>, is_fused: bool) -> (SecureElement, Backend) {
    let (chip, element) = finished_with(&Layout::keyfleet(), root, is_fused);
    (chip, ElementBackend::new(element, Roles::default()).unwrap())
}

fn reopen(chip: &SecureElement) -> Backend {
    ElementBackend::new(open(chip), Roles::default()).unwrap()
}

#[test]
fn a_secure_element_conforms() {
    let (chip, backend) = backend(&secret(1), false);
    assert_eq!(backend.capabilities().root_use, RootUse::Derives);
    conformance::check(&backend, [key(1), key(2)]).unwrap();
    assert!(backend.keys().unwrap().is_empty());
    assert!(chip.is_asleep());
}

#[test]
fn a_secure_element_with_a_locked_root_conforms_and_only_wraps() {
    let (chip, backend) = backend(&secret(1), true);
    assert_eq!(backend.capabilities().root_use, RootUse::OnlyWraps);
    conformance::check(&backend, [key(1), key(2)]).unwrap();
    let before = chip.executed();
    let info = kf_derive::Info::new(
        kf_derive::Level::Facility,
        kf_derive::Algorithm::HkdfSha256,
        kf_derive::Purpose::Derive,
        b"",
        1,
    );
    assert_eq!(backend.expand_root(&info.unwrap()).err(), Some(BackendError::OnlyWraps));
    assert_eq!(chip.executed(), before, "refused before the chip is asked");
}

#[test]
fn the_published_tree_is_derived_in_the_chip_at_every_level() {
    let covered = conformance::check_vectors(&mut |key| Ok(Box::new(backend(key, false).1))).unwrap();
    assert_eq!(covered.refused, 0);
    assert!(covered.hosts >= 10 && covered.steps >= 40, "{covered:?}");
}

#[test]
fn a_locked_root_gives_the_published_wrapping_keys_and_refuses_the_tree() {
    let covered = conformance::check_vectors(&mut |key| Ok(Box::new(backend(key, true).1))).unwrap();
    assert!(covered.steps >= 5 && covered.refused >= 35, "{covered:?}");
}

#[test]
fn the_root_in_the_chip_is_the_root_in_software() {
    let software = SoftwareBackend::new(secret(1), "software".to_owned()).unwrap();
    conformance::check_same_root(&backend(&secret(1), false).1, &software).unwrap();
    assert!(conformance::check_same_root(&backend(&secret(2), false).1, &software).is_err());
}

#[test]
fn a_root_is_replaced_encrypted_unless_its_slot_is_locked() {
    let (chip, before) = backend(&secret(1), false);
    before.replace_root(&secret(2), &transport()).unwrap();
    let software = SoftwareBackend::new(secret(2), "software".to_owned()).unwrap();
    conformance::check_same_root(&reopen(&chip), &software).unwrap();
    let (_chip, fused) = backend(&secret(1), true);
    assert_eq!(fused.replace_root(&secret(2), &transport()), Err(BackendError::OnlyWraps));
}

#[test]
fn the_key_below_a_locked_root_is_replaced() {
    let (_chip, chip) = backend(&secret(1), true);
    let wrapped = wrap_replaceable(&chip, 1, &secret(7)).unwrap();
    assert!(unwrap_replaceable(&chip, 1, &wrapped).unwrap().equals(&secret(7)));
    let (_other, other) = backend(&secret(2), true);
    assert_eq!(unwrap_replaceable(&other, 1, &wrapped).err(), Some(BackendError::Handle));
}

#[test]
fn a_chip_whose_root_could_be_read_is_refused() {
    let (_chip, element) = finished_with(&Layout::keyfleet(), &secret(1), false);
    let roles = Roles { root: layout::CERTIFICATE, ..Roles::default() };
    assert!(matches!(ElementBackend::new(element, roles), Err(BackendError::WeakObject { .. })));
}

#[test]
fn keys_are_found_after_a_restart_and_the_chip_takes_no_more_than_it_has_slots() {
    let (chip, backend) = backend(&secret(1), false);
    let pairs = [1, 2, 3].map(|octet| backend.generate_key_pair(key(octet), KeyAlgorithm::P256).unwrap());
    let full = backend.generate_key_pair(key(4), KeyAlgorithm::P256);
    assert_eq!(full, Err(BackendError::Full { keys: 3 }));
    let twice = backend.generate_key_pair(key(1), KeyAlgorithm::P256);
    assert!(matches!(twice, Err(BackendError::KeyExists { .. })));
    chip.set_power(false);
    chip.set_power(true);
    let backend = reopen(&chip);
    assert_eq!(backend.keys().unwrap(), [1, 2, 3].map(key));
    for (octet, pair) in (1..).zip(&pairs) {
        assert_eq!(backend.open_key(key(octet), &pair.handle).unwrap().spki(), pair.spki);
    }
    backend.destroy_key(key(2), &pairs[1].handle).unwrap();
    let fourth = backend.generate_key_pair(key(4), KeyAlgorithm::P256).unwrap();
    assert_ne!(fourth.spki, pairs[1].spki);
    assert_eq!(backend.keys().unwrap(), [1, 4, 3].map(key));
}

#[test]
fn power_cut_around_any_command_a_key_is_there_or_not_and_its_slot_is_not_lost() {
    for moment in [Moment::Before, Moment::After] {
        for command in 0.. {
            let (chip, backend) = backend(&secret(1), false);
            let kept = backend.generate_key_pair(key(1), KeyAlgorithm::P256).unwrap();
            let doomed = backend.generate_key_pair(key(2), KeyAlgorithm::P256).unwrap();
            chip.cut_power(command, moment);
            let outcome = backend
                .destroy_key(key(2), &doomed.handle)
                .and_then(|()| backend.generate_key_pair(key(3), KeyAlgorithm::P256).map(drop));
            chip.set_power(true);
            let backend = reopen(&chip);
            assert_eq!(backend.open_key(key(1), &kept.handle).unwrap().spki(), kept.spki, "{moment:?} {command}");
            for octet in [3, 4, 5] {
                let made = backend.generate_key_pair(key(octet), KeyAlgorithm::P256);
                let is_good = match &made {
                    Ok(_) | Err(BackendError::KeyExists { .. }) => true,
                    // Unless the cut came before the destruction, there is room for two.
                    Err(BackendError::Full { .. }) => octet == 5 || backend.keys().unwrap().contains(&key(2)),
                    Err(_) => false,
                };
                assert!(is_good, "{moment:?} {command}: {made:?}");
            }
            if outcome.is_ok() {
                assert!(command > 10);
                break;
            }
        }
    }
}

#[test]
fn a_destruction_that_was_cut_short_is_finished_by_the_next_one_and_leaves_no_label() {
    let mut was_missing = 0;
    for moment in [Moment::Before, Moment::After] {
        for command in 0.. {
            let (chip, backend) = backend(&secret(1), false);
            let doomed = backend.generate_key_pair(key(2), KeyAlgorithm::P256).unwrap();
            chip.cut_power(command, moment);
            let outcome = backend.destroy_key(key(2), &doomed.handle);
            chip.set_power(true);
            let backend = reopen(&chip);
            match backend.destroy_key(key(2), &doomed.handle) {
                Err(BackendError::MissingKey { .. }) => was_missing += 1,
                again => again.unwrap(),
            }
            assert_eq!(backend.keys().unwrap(), [], "{moment:?} {command}");
            if outcome.is_ok() {
                break;
            }
        }
    }
    assert!(was_missing >= 2, "only once there is nothing left");
}

#[test]
fn a_wrong_signature_of_the_chip_does_not_get_out() {
    let (chip, backend) = backend(&secret(1), false);
    let pair = backend.generate_key_pair(key(1), KeyAlgorithm::P256).unwrap();
    let opened = backend.open_key(key(1), &pair.handle).unwrap();
    chip.fault(Fault::WrongSignature);
    assert!(opened.sign(b"message").is_err());
    opened.sign(b"message").unwrap();
}

#[test]
fn faults_of_the_chip_are_told_apart() {
    let (chip, backend) = backend(&secret(1), false);
    chip.fault(Fault::Late);
    assert!(matches!(backend.health(), Err(BackendError::Token(TokenFault::Late { .. }))));
    chip.fault(Fault::Vanish);
    assert!(matches!(backend.health(), Err(BackendError::Token(TokenFault::Gone { .. }))));
    assert!(matches!(backend.health(), Err(BackendError::Token(TokenFault::Gone { .. }))));
    chip.set_power(true);
    backend.health().unwrap();
    assert_eq!(backend.increment(Counter::Zero), Ok(1));
    assert_eq!(backend.count(Counter::Zero), Ok(1));
    assert!(!backend.random().unwrap().equals(&backend.random().unwrap()));
}
