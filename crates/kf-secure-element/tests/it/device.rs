//! The device SDK over a chip: identity in hardware in two slots, the device key wrapped under a locked one, an exchange.

use std::cell::RefCell;

use kf_derive::FusedKey;
use kf_device::derivation::{HeldKey, Injected};
use kf_device::entropy::{Alphabet, Assessment, Noise, NoiseState, Profile, Source, SourceId};
use kf_device::identity::{Candidate, InUse, Slot as Side};
use kf_device::storage::simulated::SimulatedFlash;
use kf_device::storage::{Checksum, Geometry, Medium, Store};
use kf_entropy::Cutoffs;
use kf_exchange::{Ephemeral, IdentityKey as _, KeyAgreement as _, KeyPlace};
use kf_key::{DeviceId, FacilityId, SecretArray};
use kf_secure_element::Error;
use kf_secure_element::config::Slot;
use kf_secure_element::held::{HeldAgreement, HeldHmac, HeldIdentity, Shared};
use kf_secure_element::layout::{self, Layout};
use kf_testkit::{ElementBus, ElementDelay, Fault, ForeignAuthority};

use crate::bench::{finished_with, open, secret};

type Chip = Shared<ElementBus, ElementDelay>;

const DEVICE: DeviceId = DeviceId::from_bytes([7; 16]);

/// Noise from the chip's generator, octet by octet.
struct ChipNoise<'a> {
    chip: &'a Chip,
    octets: Vec<u8>,
}

impl Noise for ChipNoise<'_> {
    type Error = Error;

    fn sample(&mut self) -> Result<u8, Error> {
        if self.octets.is_empty() {
            let drawn = self.chip.try_borrow_mut().map_err(|_busy| Error::InUse)?.random()?;
            self.octets = drawn.expose().to_vec();
        }
        Ok(self.octets.pop().unwrap_or_default())
    }
}

const CUTOFFS: Cutoffs = match Cutoffs::new(Assessment { alphabet: Alphabet::Octet, millibits: 6_000, alpha: 30 }) {
    Ok(cutoffs) => cutoffs,
    Err(_) => panic!("the assessment is out of range"),
};

/// Where the SDK's two sides are in the chip.
const fn slot_of(side: Side) -> Slot {
    match side {
        Side::A => layout::GENERATED[0],
        Side::B => layout::GENERATED[1],
    }
}

#[test]
fn a_device_enrols_renews_and_keeps_its_key_with_the_chip() {
    let (chip, element) = finished_with(&Layout::keyfleet(), &secret(0x55), true);
    let element: Chip = RefCell::new(element);
    let authority = ForeignAuthority::new();
    let mut flash = SimulatedFlash::<16_384>::new(Geometry { word: 4, sector: 4_096, sectors: 4 }, Medium::Raw);
    Store::format(&mut flash, Checksum).unwrap();
    let mut store = Store::open(&mut flash, Checksum).unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let side = Side::spare(&mut store).unwrap();
        let key = HeldIdentity::generate(&element, slot_of(side)).unwrap();
        let point = key.public_key().to_sec1();
        let certificate = authority.certify_client("meter-1", &point, (2020, 1, 1), (2049, 1, 1));
        let candidate = Candidate::in_hardware(&mut store, key).unwrap();
        let certified = candidate.certify(&mut store, &certificate).unwrap();
        let (in_use, _) = certified.adopt(&mut store).unwrap();
        let signature = in_use.key().sign(b"challenge").unwrap();
        assert!(in_use.public_key().verifies(b"challenge", &signature));
        seen.push((side, in_use.public_key()));
    }
    assert!(seen[0] != seen[1] && seen[0].0 != seen[1].0, "renewed into the other slot");

    // The device key, wrapped under the locked root.
    let profile = Profile { source: SourceId(*b"secure-element.."), state: NoiseState::PhysicalOn, cutoffs: CUTOFFS };
    let noise = ChipNoise { chip: &element, octets: Vec::new() };
    let mut source = Source::new(noise, profile).start_up().unwrap();
    let wrap = FusedKey::new(HeldHmac::new(&element, layout::ROOT));
    let place = KeyPlace { facility: FacilityId::from_bytes([1; 16]), facility_epoch: 1, device_epoch: 1 };
    let injected = Injected { device: DEVICE, place, key: &secret(0x41) };
    HeldKey::inject(&mut store, &wrap, injected, source.nonce().unwrap()).unwrap();

    // Another power-on.
    chip.set_power(false);
    chip.set_power(true);
    let element: Chip = RefCell::new(open(&chip));
    let wrap = FusedKey::new(HeldHmac::new(&element, layout::ROOT));
    let mut octets = [0; 2_048];
    let side = Side::in_use(&mut store).unwrap().unwrap();
    let key = HeldIdentity::open(&element, slot_of(side)).unwrap();
    assert_eq!(InUse::in_hardware(&mut store, key, &mut octets).unwrap().public_key(), seen[1].1);
    let held = HeldKey::load(&mut store, &wrap, DEVICE).unwrap().unwrap();
    assert!(held.into_key().into_secret().equals(&secret(0x41)));
    let other_slot = HeldIdentity::open(&element, slot_of(side.other())).unwrap();
    assert!(InUse::in_hardware(&mut store, other_slot, &mut octets).is_err(), "another key than the certificate's");
}

#[test]
fn an_exchange_agrees_in_the_chip() {
    let (_chip, element) = finished_with(&Layout::keyfleet(), &secret(0x55), false);
    let element: Chip = RefCell::new(element);
    let ours = HeldAgreement::generate(&element, layout::AGREEMENT).unwrap();
    let server = Ephemeral::from_random(secret(9)).unwrap();
    let shared: SecretArray<32> = ours.agree(&server.public_key()).unwrap();
    assert!(shared.equals(&server.agree(&ours.public_key()).unwrap()));
}

#[test]
fn a_call_within_a_call_is_refused_and_a_wrong_signature_is_kept_back() {
    let (chip, element) = finished_with(&Layout::keyfleet(), &secret(0x55), false);
    let element: Chip = RefCell::new(element);
    let key = HeldIdentity::open(&element, layout::IDENTITY).unwrap();
    let busy = element.borrow_mut();
    assert_eq!(key.sign(b"message"), Err(Error::InUse));
    drop(busy);
    chip.fault(Fault::WrongSignature);
    assert_eq!(key.sign(b"message"), Err(Error::Mismatch));
    key.sign(b"message").unwrap();
}
