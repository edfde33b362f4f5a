//! What a device refuses, and that its state is then as before.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kf_device::KeyError;
use kf_device::certificate::{Anchor, CertificateError};
use kf_device::derivation::{HeldKey, Injected};
use kf_device::destruction::{RevocableKey, RevokeError, Target, crypto_erase, destroy};
use kf_device::enrolment::{Answer, Authorities, EstError, issued};
use kf_device::entropy::Nonce;
use kf_device::identity::{Candidate, Certified, InUse, Slot, SoftwareIdentity};
use kf_device::order::{OrderError, OrderKey};
use kf_device::session::StoredRatchet;
use kf_device::storage::{Erasure, Medium};
use kf_device::wrap::{WRAPPED_OCTETS, WrapError, WrapKey, Wrapped};
use kf_exchange::order::{OrderAct, OrderRefusal};
use kf_exchange::{IdentityKey, P256IdentityKey};
use kf_key::{DeviceId, SecretArray, UnixMillis};
use kf_testkit::ForeignAuthority;

use crate::device::{Chip, Device, Wrap, chip, format, wrap};
use crate::server::{DEVICE, NOW, Server};

fn blank() -> Chip {
    let mut chip = chip(8, Medium::Raw);
    format(&mut chip).unwrap();
    chip
}

fn key(octet: u8) -> P256IdentityKey {
    P256IdentityKey::from_secret(&SecretArray::fill(|secret| secret.fill(octet))).unwrap()
}

fn certs_only(certificates: &[&[u8]]) -> Vec<u8> {
    BASE64_STANDARD.encode(kf_pki::cms::certs_only(certificates)).into_bytes()
}

fn answer(body: &mut [u8]) -> Answer<'_> {
    Answer { status: 200, retry_after_seconds: None, body }
}

fn anchor_of(authority: &ForeignAuthority) -> Anchor {
    Anchor(kf_device::certificate::Certificate::from_der(&authority.root_der()).unwrap().fingerprint())
}

const DAYS: ((i32, u8, u8), (i32, u8, u8)) = ((2026, 1, 1), (2027, 1, 1));

#[test]
fn only_a_certificate_of_the_own_key_below_the_pinned_root_is_taken() {
    let (ours, foreign) = (ForeignAuthority::new(), ForeignAuthority::new());
    let (root, issuing) = (ours.root_der(), ours.issuing_der());
    let public_key = key(1).public_key();
    let leaf = ours.certify_client("x", &public_key.to_sec1(), DAYS.0, DAYS.1);
    let check = |authorities: &[&[u8]], certificates: &[&[u8]]| {
        let (mut authorities, mut certificates) = (certs_only(authorities), certs_only(certificates));
        let authorities = Authorities::read(answer(&mut authorities), anchor_of(&ours))?;
        issued(answer(&mut certificates), &public_key, &authorities).map(|found| found.as_der().to_vec())
    };
    let not_anchored = Err(EstError::Certificate(CertificateError::NotAnchored));
    let other_key = Err(EstError::Certificate(CertificateError::OtherKey));
    assert_eq!(check(&[&root, &issuing], &[&issuing, &leaf]), Ok(leaf.clone()));
    assert_eq!(check(&[&issuing], &[&leaf]), not_anchored, "the root is not there");
    assert_eq!(check(&[&root], &[&leaf]), not_anchored, "a link is missing");
    assert_eq!(check(&[&root, &issuing], &[&issuing]), other_key);
    let others = ours.certify_client("x", &key(2).public_key().to_sec1(), DAYS.0, DAYS.1);
    assert_eq!(check(&[&root, &issuing], &[&others]), other_key);
    let forged = foreign.certify_client("x", &public_key.to_sec1(), DAYS.0, DAYS.1);
    assert_eq!(check(&[&root, &issuing, &foreign.issuing_der(), &foreign.root_der()], &[&forged]), not_anchored);
    // The issuing CA of the stranger has our issuer's name, and the certificate of a device is no CA.
    let client = ours.issue_client("device");
    let below_a_device = [root.as_slice(), issuing.as_slice(), client.chain[0].as_slice()];
    assert_eq!(check(&below_a_device, &[&forged]), not_anchored);
}

#[test]
fn every_damaged_octet_of_a_certificate_or_answer_is_refused() {
    let ours = ForeignAuthority::new();
    let public_key = key(1).public_key();
    let leaf = ours.certify_client("x", &public_key.to_sec1(), DAYS.0, DAYS.1);
    let whole = kf_pki::cms::certs_only(&[&leaf]);
    let take = |der: &[u8]| {
        let mut authorities = certs_only(&[&ours.root_der(), &ours.issuing_der()]);
        let authorities = Authorities::read(answer(&mut authorities), anchor_of(&ours)).unwrap();
        let mut body = BASE64_STANDARD.encode(der).into_bytes();
        issued(answer(&mut body), &public_key, &authorities).map(|found| found.as_der().to_vec())
    };
    assert_eq!(take(&whole), Ok(leaf.clone()));
    for place in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x01;
        // What is taken is the certificate itself: damage to the wrapping may be harmless.
        assert!(take(&damaged).map_or(true, |taken| taken == leaf), "octet {place}");
    }
    for length in 0..whole.len() {
        assert!(take(&whole[..length]).is_err(), "{length} octets");
    }
    let status = |status| {
        let mut body = certs_only(&[&leaf]);
        Authorities::read(Answer { status, retry_after_seconds: None, body: &mut body }, anchor_of(&ours)).map(|_| ())
    };
    assert_eq!(status(404), Err(EstError::Status(404)));
}

#[test]
fn a_certificate_of_another_key_leaves_the_candidate_as_it_was() {
    let (server, mut chip) = (Server::new(), blank());
    let mut device = Device::start(&mut chip, &server, 1).unwrap();
    let (seed, nonce) = (device.source.seed().unwrap(), device.source.nonce().unwrap());
    let candidate =
        Candidate::<SoftwareIdentity>::generate(&mut device.store, &device.wrap, DEVICE, seed, nonce).unwrap();
    let ours = ForeignAuthority::new();
    let other = ours.certify_client("x", &key(9).public_key().to_sec1(), DAYS.0, DAYS.1);
    let refused = candidate.certify(&mut device.store, &other).unwrap_err();
    assert_eq!(refused.error, KeyError::OtherKey);
    let refused = refused.candidate.certify(&mut device.store, b"no certificate").unwrap_err();
    assert_eq!(refused.error, KeyError::Certificate);
    let right = ours.certify_client("x", &refused.candidate.public_key().to_sec1(), DAYS.0, DAYS.1);
    let certified = refused.candidate.certify(&mut device.store, &right).unwrap();
    assert_eq!(certified.certificate(&mut device.store, &mut [0; 2_048]).unwrap(), right);
    assert_eq!(certified.slot(), Slot::A);
    assert_eq!(certified.discard(&mut device.store), Ok(Erasure::Erased { read_back: true }));
    let certified = Certified::<SoftwareIdentity>::load(&mut device.store, &device.wrap, DEVICE).unwrap();
    let candidate = Candidate::<SoftwareIdentity>::load(&mut device.store, &device.wrap, DEVICE).unwrap();
    assert!(certified.is_none() && candidate.is_none());
}

#[test]
fn a_key_in_hardware_is_compared_with_its_certificate() {
    let (server, mut chip) = (Server::new(), blank());
    let mut device = Device::start(&mut chip, &server, 1).unwrap();
    let ours = ForeignAuthority::new();
    let certificate = ours.certify_client("x", &key(1).public_key().to_sec1(), DAYS.0, DAYS.1);
    let candidate = Candidate::in_hardware(&mut device.store, key(1)).unwrap();
    let certified = candidate.certify(&mut device.store, &certificate).unwrap();
    let (_, erasure) = certified.adopt(&mut device.store).unwrap();
    assert_eq!(erasure, Erasure::Erased { read_back: true });
    let octets = &mut [0; 2_048];
    assert_eq!(InUse::in_hardware(&mut device.store, key(1), octets).unwrap().slot(), Slot::A);
    let other = InUse::in_hardware(&mut device.store, key(2), octets).map(|_| ());
    assert_eq!(other, Err(KeyError::OtherKey));
    assert_eq!(Slot::spare(&mut device.store), Ok(Slot::B));
}

#[test]
fn an_order_that_is_forged_misdirected_late_or_old_changes_nothing() {
    let (mut server, mut chip) = (Server::new(), blank());
    let mut device = Device::start(&mut chip, &server, 1).unwrap();
    device.enrol(&mut server, false).unwrap();
    let pinned = server.order_key();
    let order = server.order(OrderAct::Wipe, 7);
    let room = device.store.room();
    let mut refusal = |key: &OrderKey, message: &[u8], now| match key.accept(message, now, &mut device.store) {
        Err(OrderError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(&OrderKey { key: key(5).public_key(), ..pinned }, &order, NOW), OrderRefusal::OtherKey);
    let other_device = OrderKey { device: DeviceId::from_bytes([0; 16]), ..pinned };
    assert_eq!(refusal(&other_device, &order, NOW), OrderRefusal::OtherDevice);
    assert_eq!(refusal(&pinned, &order, NOW.plus(UnixMillis::DAY)), OrderRefusal::Expired);
    for place in 0..order.len() {
        let mut damaged = order.clone();
        damaged[place] ^= 1;
        refusal(&pinned, &damaged, NOW);
    }
    assert_eq!(device.store.room(), room, "nothing was written");
    device.obey(&server.order(OrderAct::Rotate, 7), &mut server).unwrap();
    let mut refusal = |message: &[u8]| pinned.accept(message, NOW, &mut device.store).map(|_| ()).unwrap_err();
    assert_eq!(refusal(&order), OrderError::Refused(OrderRefusal::Replayed));
    let older = server.order(OrderAct::Wipe, 6);
    assert_eq!(refusal(&older), OrderError::Refused(OrderRefusal::WentBackwards { last: 7 }));
}

#[test]
fn a_device_key_is_injected_once_and_unwraps_on_this_device_only() {
    let (server, mut chip) = (Server::new(), blank());
    let mut device = Device::start(&mut chip, &server, 1).unwrap();
    let secret = server.injected_key();
    let injected = || Injected { device: DEVICE, place: server.place(), key: &secret };
    let nonce = device.source.nonce().unwrap();
    HeldKey::inject(&mut device.store, &device.wrap, injected(), nonce).unwrap();
    let nonce = device.source.nonce().unwrap();
    let again = HeldKey::inject(&mut device.store, &device.wrap, injected(), nonce).map(|_| ());
    assert_eq!(again, Err(KeyError::Occupied));
    let other = HeldKey::load(&mut device.store, &device.wrap, DeviceId::from_bytes([1; 16])).map(|_| ());
    assert_eq!(other, Err(KeyError::Wrap(WrapError::Refused)));
    let stranger = kf_derive::FusedKey::new(kf_derive::SoftwareKey::new(SecretArray::fill(|key| key.fill(1))));
    let other = HeldKey::load(&mut device.store, &stranger, DEVICE).map(|_| ());
    assert_eq!(other, Err(KeyError::Wrap(WrapError::Refused)));
    assert_eq!(destroy(&mut device.store, Target::DeviceKeys), Ok(Erasure::Erased { read_back: true }));
    assert!(device.held().unwrap().is_none());
}

#[test]
fn a_ratchet_goes_forward_only_and_leaves_no_former_key_in_any_cell() {
    let (server, mut chip) = (Server::new(), blank());
    let mut device = Device::start(&mut chip, &server, 1).unwrap();
    let secret = server.injected_key();
    let nonce = device.source.nonce().unwrap();
    let injected = Injected { device: DEVICE, place: server.place(), key: &secret };
    let held = HeldKey::inject(&mut device.store, &device.wrap, injected, nonce).unwrap();
    let nonce = device.source.nonce().unwrap();
    let (ratchet, erasure) = StoredRatchet::begin(&mut device.store, &device.wrap, held, nonce).unwrap();
    assert_eq!(erasure, Erasure::Erased { read_back: true });
    assert!(device.held().unwrap().is_none(), "the device key is spent");

    let nonce = device.source.nonce().unwrap();
    let before = ratchet_record(device.store.into_flash());
    let mut device = Device::start(&mut chip, &server, 2).unwrap();
    let (ratchet, _) = ratchet.advance_to(3, &mut device.store, &device.wrap, nonce).unwrap();
    assert_eq!(ratchet.position(), 3);
    let nonce = device.source.nonce().unwrap();
    let back = ratchet.advance_to(3, &mut device.store, &device.wrap, nonce).map(|_| ());
    assert!(matches!(back, Err(KeyError::Ratchet(kf_derive::RatchetError::NotAhead { position: 3, requested: 3 }))));
    let kept = StoredRatchet::load(&mut device.store, &device.wrap, DEVICE).unwrap().unwrap();
    assert_eq!(kept.position(), 3);
    let cells = device.store.into_flash().cells();
    assert!(!cells.windows(16).any(|window| window == before), "the former key's ciphertext is still there");
}

/// 16 octets of the wrapped key of position 0: behind the version and the position.
fn ratchet_record(chip: &Chip) -> [u8; 16] {
    let cells = chip.cells();
    let head = [0x00, 0x12, 0, 65, 1, 0, 0, 0, 0];
    let at = cells.windows(head.len()).position(|window| window == head).expect("the record of the ratchet");
    cells[at + head.len()..at + head.len() + 16].try_into().unwrap()
}

/// A chip whose slot can be cleared.
pub(crate) struct Slotted {
    pub(crate) key: Option<Wrap>,
    pub(crate) lies: bool,
}

impl WrapKey for Slotted {
    type Error = &'static str;

    fn wrap(
        &self,
        context: Wrapped,
        nonce: Nonce,
        key: &SecretArray<32>,
    ) -> Result<[u8; WRAPPED_OCTETS], WrapError<&'static str>> {
        let holder = self.key.as_ref().ok_or(WrapError::Holder("empty slot"))?;
        holder.wrap(context, nonce, key).map_err(|_error| WrapError::Refused)
    }

    fn unwrap(
        &self,
        context: Wrapped,
        wrapped: &[u8; WRAPPED_OCTETS],
    ) -> Result<SecretArray<32>, WrapError<&'static str>> {
        let holder = self.key.as_ref().ok_or(WrapError::Holder("empty slot"))?;
        holder.unwrap(context, wrapped).map_err(|_error| WrapError::Refused)
    }
}

impl RevocableKey for Slotted {
    fn revoke(&mut self) -> Result<(), &'static str> {
        if !self.lies {
            self.key = None;
        }
        Ok(())
    }
}

#[test]
fn a_revoked_wrapping_key_is_tried_before_it_is_called_gone() {
    let (server, mut chip) = (Server::new(), blank());
    let mut device = Device::start(&mut chip, &server, 1).unwrap();
    let slotted = Slotted { key: Some(wrap()), lies: false };
    assert_eq!(crypto_erase(slotted, device.source.nonce().unwrap()), Ok(Erasure::CryptoErased));
    let liar = Slotted { key: Some(wrap()), lies: true };
    assert_eq!(crypto_erase(liar, device.source.nonce().unwrap()), Err(RevokeError::StillUnwraps));
    let empty = Slotted { key: None, lies: false };
    let refused = crypto_erase(empty, device.source.nonce().unwrap());
    assert_eq!(refused, Err(RevokeError::Wrap(WrapError::Holder("empty slot"))));
}
