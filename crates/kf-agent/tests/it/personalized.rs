//! A secure element as the factory station hands it over.

use kf_key::SecretArray;
use kf_secure_element::certificate::Stored;
use kf_secure_element::layout::{self, Layout};
use kf_secure_element::personalize::{Recipe, personalize};
use kf_secure_element::{DEFAULT_ADDRESS, Element, TransportKey};
use kf_testkit::{ElementBus, ElementDelay, SecureElement};

pub(crate) fn element(chip: &SecureElement) -> Element<ElementBus, ElementDelay> {
    Element::open(chip.bus(), chip.delay(), DEFAULT_ADDRESS).unwrap()
}

pub(crate) fn personalized() -> SecureElement {
    let chip = SecureElement::blank(11);
    let secret = |octet| SecretArray::fill(|key: &mut [u8; 32]| key.fill(octet));
    let transport = TransportKey::new(layout::TRANSPORT, secret(6));
    let (layout, root) = (Layout::keyfleet(), secret(5));
    let recipe =
        Recipe { layout: &layout, transport: &transport, root: &root, is_root_fused: true, is_certificate_fixed: true };
    let mut element = element(&chip);
    let typed = element.config().serial_number().to_string();
    personalize(&mut element, &recipe, Some(Stored::Plain(&[0x30; 200])), &typed, &[7; 20]).unwrap();
    chip
}
