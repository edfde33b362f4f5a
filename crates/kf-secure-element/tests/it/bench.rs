//! Chips in the states that tests begin with.

use kf_key::SecretArray;
use kf_secure_element::certificate::Stored;
use kf_secure_element::config::Slot;
use kf_secure_element::layout::{self, Layout};
use kf_secure_element::personalize::{Progress, Recipe, personalize};
use kf_secure_element::{DEFAULT_ADDRESS, Element, TransportKey};
use kf_testkit::{ElementBus, ElementDelay, SecureElement};

pub(crate) type Driver = Element<ElementBus, ElementDelay>;

pub(crate) const NUMBER: [u8; 20] = [0x77; 20];
pub(crate) const CERTIFICATE: &[u8] = &[0x30; 300];

pub(crate) fn secret(octet: u8) -> SecretArray<32> {
    SecretArray::fill(|key| key.fill(octet))
}

pub(crate) fn slot(number: u8) -> Slot {
    Slot::new(number).unwrap()
}

pub(crate) fn open(chip: &SecureElement) -> Driver {
    Element::open(chip.bus(), chip.delay(), DEFAULT_ADDRESS).unwrap()
}

pub(crate) fn transport() -> TransportKey {
    TransportKey::new(layout::TRANSPORT, secret(0x66))
}

pub(crate) fn finish(element: &mut Driver, layout: &Layout, root: &SecretArray<32>, is_root_fused: bool) {
    let transport = transport();
    let recipe = Recipe { layout, transport: &transport, root, is_root_fused, is_certificate_fixed: false };
    let typed = element.config().serial_number().to_string();
    let progress = personalize(element, &recipe, Some(Stored::Plain(CERTIFICATE)), &typed, &NUMBER).unwrap();
    assert!(matches!(progress, Progress::Finished(_)));
}

/// A finished chip with this root, and a driver for it.
pub(crate) fn finished_with(layout: &Layout, root: &SecretArray<32>, is_root_fused: bool) -> (SecureElement, Driver) {
    let chip = SecureElement::blank(1);
    let mut element = open(&chip);
    finish(&mut element, layout, root, is_root_fused);
    (chip, element)
}

pub(crate) fn finished() -> (SecureElement, Driver) {
    finished_with(&Layout::keyfleet(), &secret(0x55), false)
}
