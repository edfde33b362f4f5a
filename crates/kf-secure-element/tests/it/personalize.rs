//! From blank to finished, with the power cut around every command.

use kf_exchange::PublicKey;
use kf_secure_element::certificate::{Compressed, Dates, MAX_PLAIN_OCTETS, Stored, decode_plain};
use kf_secure_element::layout::{self, Layout};
use kf_secure_element::lock::{ConfigLock, DataLock, SlotLock};
use kf_secure_element::personalize::{PersonalizeError, Progress, Recipe, Step, personalize, plan};
use kf_secure_element::{Element, Error, TransportKey};
use kf_testkit::{Moment, SecureElement};

use crate::bench::{CERTIFICATE, Driver, NUMBER, open, secret, slot, transport};

const COMPRESSED: Compressed = Compressed {
    signature: [0x5a; 64],
    dates: Dates { year: 2026, month: 11, day: 29, hour: 23, years: 0 },
    signer_id: 1,
    template: 0,
    chain: 0,
    serial_number_source: 10,
};

/// A station: issues the certificate when it is asked for, and tries again after a power cut.
fn run(chip: &SecureElement, certificate: Stored<'_>) -> Result<PublicKey, PersonalizeError> {
    let mut element = Element::open(chip.bus(), chip.delay(), 0x60)?;
    let transport = transport();
    let layout = Layout::keyfleet();
    let root = secret(0x55);
    let recipe =
        Recipe { layout: &layout, transport: &transport, root: &root, is_root_fused: true, is_certificate_fixed: true };
    let typed = element.config().serial_number().to_string();
    let Progress::NeedsCertificate(key) = personalize(&mut element, &recipe, None, &typed, &NUMBER)? else {
        panic!("finished without a certificate")
    };
    match personalize(&mut element, &recipe, Some(certificate), &typed, &NUMBER)? {
        Progress::Finished(finished) => {
            assert_eq!(finished, key);
            Ok(key)
        }
        Progress::NeedsCertificate(_) => panic!("it has one"),
    }
}

fn assert_finished(chip: &SecureElement, key: &PublicKey) {
    let mut element = open(chip);
    let zone = *element.config();
    assert!(zone.is_config_locked() && zone.is_data_locked() && Layout::keyfleet().is_of(&zone));
    for locked in [layout::IDENTITY, layout::ROOT, layout::CERTIFICATE] {
        assert!(zone.is_slot_locked(locked), "{locked}");
    }
    let signature = element.sign(layout::IDENTITY, &kf_crypto::sha256(b"challenge")).unwrap();
    assert!(key.verifies(b"challenge", &signature));
    let mut content = [0; 416];
    element.read(layout::CERTIFICATE, 0, &mut content).unwrap();
    let mut der = [0; MAX_PLAIN_OCTETS];
    assert_eq!(decode_plain(&content, key, &mut der), Ok(CERTIFICATE));
    assert!(chip.slot(5).starts_with(&[0x55; 32]) && chip.slot(6).starts_with(&[0x66; 32]));
}

#[test]
fn a_blank_chip_becomes_a_finished_one_and_the_root_key_never_crosses_the_bus_in_the_clear() {
    let chip = SecureElement::blank(1);
    let key = run(&chip, Stored::Plain(CERTIFICATE)).unwrap();
    assert_finished(&chip, &key);
    assert!(!chip.traffic().windows(8).any(|window| window == [0x55; 8]), "the root key");
    assert!(chip.traffic().windows(8).any(|window| window == [0x66; 8]), "the transport key does, before the lock");
}

#[test]
fn a_finished_chip_is_left_as_it_is() {
    let chip = SecureElement::blank(1);
    run(&chip, Stored::Plain(CERTIFICATE)).unwrap();
    let (config, writes) = (chip.config(), [0x12, 0x17, 0x40].map(|opcode| chip.executed_of(opcode)));
    let transport = transport();
    let (layout, root) = (Layout::keyfleet(), secret(0x55));
    let recipe =
        Recipe { layout: &layout, transport: &transport, root: &root, is_root_fused: true, is_certificate_fixed: true };
    let mut element = open(&chip);
    let typed = element.config().serial_number().to_string();
    let again = personalize(&mut element, &recipe, Some(Stored::Plain(CERTIFICATE)), &typed, &NUMBER).unwrap();
    assert!(matches!(again, Progress::Finished(_)));
    assert_eq!(chip.config(), config);
    assert_eq!([chip.executed_of(0x12), chip.executed_of(0x17)], writes[..2]);
}

#[test]
fn power_cut_around_any_command_the_same_recipe_finishes_the_chip() {
    let whole = SecureElement::blank(1);
    run(&whole, Stored::Plain(CERTIFICATE)).unwrap();
    let commands = whole.executed();
    assert!(commands > 100, "{commands}");
    for moment in [Moment::Before, Moment::After] {
        for command in 0..commands {
            let chip = SecureElement::blank(1);
            chip.cut_power(command, moment);
            let cut = run(&chip, Stored::Plain(CERTIFICATE)).map(drop);
            assert!(matches!(cut, Err(PersonalizeError::Element(_))), "{moment:?} command {command}: {cut:?}");
            chip.set_power(true);
            let key = run(&chip, Stored::Plain(CERTIFICATE));
            let key = key.unwrap_or_else(|error| panic!("{moment:?} command {command}: {error:?}"));
            assert_finished(&chip, &key);
        }
    }
}

#[test]
fn a_certificate_in_compressed_form_goes_into_its_own_slot() {
    let chip = SecureElement::blank(1);
    run(&chip, Stored::Compressed(&COMPRESSED)).unwrap();
    let mut content = [0; 72];
    open(&chip).read(layout::COMPRESSED_CERTIFICATE, 0, &mut content).unwrap();
    assert_eq!(Compressed::decode(&content), Ok(COMPRESSED));
}

fn personalize_with(
    element: &mut Driver,
    layout: &Layout,
    under: &TransportKey,
    typed: &str,
) -> Result<Progress, PersonalizeError> {
    let root = secret(0x55);
    let recipe = Recipe { layout, transport: under, root: &root, is_root_fused: false, is_certificate_fixed: false };
    personalize(element, &recipe, None, typed, &NUMBER)
}

#[test]
fn nothing_is_locked_for_a_serial_number_that_is_another_chips() {
    let chip = SecureElement::blank(1);
    let mut element = open(&chip);
    let other = open(&SecureElement::blank(2)).config().serial_number().to_string();
    for typed in [other.as_str(), "", "yes"] {
        let refused = personalize_with(&mut element, &Layout::keyfleet(), &transport(), typed);
        assert_eq!(refused, Err(PersonalizeError::Element(Error::Confirmation)));
    }
    assert_eq!(chip.executed_of(0x17), 0, "no Lock was sent");
}

#[test]
fn an_unsound_recipe_is_refused_before_anything_is_sent() {
    let chip = SecureElement::blank(1);
    let mut element = open(&chip);
    let typed = element.config().serial_number().to_string();
    let before = chip.executed();
    let refused = personalize_with(&mut element, &Layout::trust_and_go(), &transport(), &typed);
    assert!(matches!(refused, Err(PersonalizeError::Layout(_))));
    let elsewhere = TransportKey::new(slot(7), secret(0x66));
    let refused = personalize_with(&mut element, &Layout::keyfleet(), &elsewhere, &typed);
    assert_eq!(refused, Err(PersonalizeError::TransportSlot(slot(7))));
    assert_eq!(chip.executed(), before);
}

#[test]
fn a_chip_that_was_locked_with_another_layout_or_key_is_told_to_be_scrap() {
    let chip = SecureElement::blank(1);
    let mut element = open(&chip);
    let typed = element.config().serial_number().to_string();
    let other = Layout::keyfleet().with_address(0x61);
    element.write_config(&other).unwrap();
    ConfigLock::order(&mut element, &other, &typed).unwrap().execute(&mut element).unwrap();
    let mut element = Element::open(chip.bus(), chip.delay(), 0x61).unwrap();
    let refused = personalize_with(&mut element, &Layout::keyfleet(), &transport(), &typed);
    assert_eq!(refused, Err(PersonalizeError::Element(Error::OtherLayout)));

    let chip = SecureElement::blank(1);
    let mut element = open(&chip);
    personalize_with(&mut element, &Layout::keyfleet(), &transport(), &typed).unwrap();
    SlotLock::order(&mut element, layout::ROOT, &typed).unwrap().execute(&mut element).unwrap();
    let root = secret(0x54);
    let (layout, transport) = (Layout::keyfleet(), transport());
    let recipe = Recipe {
        layout: &layout,
        transport: &transport,
        root: &root,
        is_root_fused: false,
        is_certificate_fixed: false,
    };
    let refused = personalize(&mut element, &recipe, None, &typed, &NUMBER);
    assert_eq!(refused, Err(PersonalizeError::Element(Error::Locked(Some(layout::ROOT)))));
}

#[test]
fn the_configuration_is_not_locked_when_it_changed_since_the_order() {
    let chip = SecureElement::blank(1);
    let mut element = open(&chip);
    let typed = element.config().serial_number().to_string();
    let layout = Layout::keyfleet();
    assert!(ConfigLock::order(&mut element, &layout, &typed).is_err(), "not written yet");
    element.write_config(&layout).unwrap();
    let order = ConfigLock::order(&mut element, &layout, &typed).unwrap();
    element.write_config(&layout.with_address(0x61)).unwrap();
    assert!(order.execute(&mut element).is_err());
    assert_eq!(chip.config()[87], 0x55, "the chip compares the checksum itself");
    assert!(DataLock::order(&mut element, &typed).is_err(), "not before the configuration");
    assert!(SlotLock::order(&mut element, layout::ROOT, &typed).is_err());
}

#[test]
fn the_plan_says_what_cannot_be_undone() {
    let transport = transport();
    let (layout, root) = (Layout::keyfleet(), secret(0x55));
    let recipe = Recipe {
        layout: &layout,
        transport: &transport,
        root: &root,
        is_root_fused: true,
        is_certificate_fixed: false,
    };
    let chip = SecureElement::blank(1);
    let zone = *open(&chip).config();
    let steps: Vec<Step> = plan(&recipe, &zone, layout::CERTIFICATE).collect();
    assert_eq!(steps.len(), 9);
    let final_ones: Vec<Step> = steps.into_iter().filter(|step| step.is_irreversible()).collect();
    let locks = [Step::LockSlot(layout::IDENTITY), Step::LockSlot(layout::ROOT)];
    assert_eq!(final_ones, [&[Step::LockConfig, Step::LockData], locks.as_slice()].concat());
    run(&chip, Stored::Plain(CERTIFICATE)).unwrap();
    let zone = *open(&chip).config();
    assert_eq!(plan(&recipe, &zone, layout::CERTIFICATE).count(), 0);
}
