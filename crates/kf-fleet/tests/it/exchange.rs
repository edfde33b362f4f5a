//! Devices that get their keys from a fleet: first delivery, new epochs, claims, and everything that may go wrong.

use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_api::epoch::{DeviceKeyState, EpochState};
use kf_api::operator::Role;
use kf_api::proposal::{ProposalDecision, ProposalState};
use kf_crypto::PrivateKey;
use kf_exchange::{
    AwaitChallenge, AwaitDelivery, AwaitDone, Ephemeral, IdentityKey, KeyPlace, Message, PublicKey, Purpose,
    signature_from_der,
};
use kf_fleet::FleetError;
use kf_key::{DeviceId, SecretArray, UnixMillis};

use crate::scratch::{Identity, Scratch, csr, field_of, issued};

/// A device as its firmware would be: an identity key, a pin, and what it stored.
pub(crate) struct Firmware {
    pub(crate) device: DeviceId,
    pub(crate) key: PrivateKey,
    pub(crate) pin: PublicKey,
    pub(crate) held: Option<KeyPlace>,
}

pub(crate) struct Chip<'a>(pub(crate) &'a PrivateKey);

impl IdentityKey for Chip<'_> {
    type Error = kf_crypto::CryptoError;

    fn public_key(&self) -> PublicKey {
        PublicKey::from_spki(&self.0.spki()).unwrap()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], kf_crypto::CryptoError> {
        Ok(signature_from_der(&self.0.sign(message)?).unwrap())
    }
}

pub(crate) fn pin(pem: &str) -> PublicKey {
    PublicKey::from_spki(&kf_pki::pem::decode_all("PUBLIC KEY", pem).unwrap()[0]).unwrap()
}

fn hello() -> (AwaitChallenge<Ephemeral>, Message) {
    let random = SecretArray::fill(|octets| *octets = kf_crypto::random_array().unwrap());
    let ephemeral = Ephemeral::from_random(random).unwrap();
    AwaitChallenge::start(Purpose::Delivery, ephemeral, kf_crypto::random_array().unwrap()).unwrap()
}

impl Firmware {
    pub(crate) async fn enrolled(scratch: &Scratch, name: &str) -> Self {
        let device = scratch.device(name).await;
        let Identity { key, .. } = scratch.enrol(name).await;
        Self { device: device.id, key, pin: pin(&scratch.fleet.device_pins().unwrap().delivery_key_pem), held: None }
    }

    async fn prove(&self, scratch: &Scratch) -> (AwaitDelivery, Message) {
        let (waiting, hello) = hello();
        let challenge = scratch.fleet.device_exchange(hello.as_bytes()).await.unwrap();
        waiting.prove(&challenge, &[self.pin], self.device, &Chip(&self.key)).unwrap()
    }

    /// As far as the key is stored, and not acknowledged.
    pub(crate) async fn receive(&mut self, scratch: &Scratch) -> Result<(AwaitDone, Message), FleetError> {
        let (waiting, proof) = self.prove(scratch).await;
        let delivery = scratch.fleet.device_exchange(proof.as_bytes()).await?;
        let delivered = waiting.open(&delivery, self.held.as_ref()).unwrap();
        self.held = Some(delivered.place());
        let (_, done, acknowledgement) = delivered.acknowledge().unwrap();
        Ok((done, acknowledgement))
    }

    pub(crate) async fn exchange(&mut self, scratch: &Scratch) -> Result<KeyPlace, FleetError> {
        let (done, acknowledgement) = self.receive(scratch).await?;
        let answer = scratch.fleet.device_exchange(acknowledgement.as_bytes()).await?;
        done.finish(&answer).unwrap();
        Ok(self.held.unwrap())
    }
}

pub(crate) fn is_refused<T: std::fmt::Debug>(outcome: Result<T, FleetError>) -> bool {
    matches!(outcome, Err(FleetError::Forbidden { .. }))
}

async fn act(scratch: &Scratch, device: &str, act: DeviceAct) {
    let request = DeviceActRequest { act, why: "test".into(), departure: Default::default(), dry_run: false };
    assert!(scratch.fleet.device_act(&scratch.owner, device, request).await.unwrap().done);
}

async fn states(scratch: &Scratch, facility: &str) -> Vec<(u32, EpochState, u64)> {
    let epochs = scratch.fleet.epoch_list(&scratch.owner, facility).await.unwrap();
    epochs.into_iter().map(|epoch| (epoch.epoch, epoch.state, epoch.devices)).collect()
}

async fn acts(scratch: &Scratch, device: &str) -> Vec<String> {
    let history = scratch.fleet.device_show(&scratch.owner, device).await.unwrap();
    history.events.into_iter().map(|event| event.entry["act"].as_str().unwrap().to_owned()).collect()
}

const WHY: fn() -> String = || "rotation".to_owned();

#[tokio::test]
async fn a_device_is_sent_its_first_key_and_acknowledges_it() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    let before = scratch.fleet.device_keys(&scratch.owner, "thermo-1").await.unwrap();
    assert_eq!((before.up_to_date, before.epochs.len()), (false, 0));
    let place = device.exchange(&scratch).await.unwrap();
    assert_eq!((place.facility_epoch, place.device_epoch), (1, 1));
    let after = scratch.fleet.device_keys(&scratch.owner, "thermo-1").await.unwrap();
    assert!(after.up_to_date);
    assert_eq!(after.epochs[0].state, DeviceKeyState::Held);
    let acts = acts(&scratch, "thermo-1").await;
    assert_eq!(acts[acts.len() - 2..], ["key.deliver", "key.acknowledge"]);
}

#[tokio::test]
async fn a_device_that_lost_power_before_acknowledging_gets_the_same_key_again() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    let (_, lost) = device.receive(&scratch).await.unwrap();
    // The server restarts as well: no session is left, the offer is.
    let scratch = scratch.reopen().await;
    let place = device.exchange(&scratch).await.unwrap();
    assert_eq!(place.device_epoch, 1);
    // The acknowledgement of before comes late, and is only repeated.
    let size = scratch.fleet.status(&scratch.owner).await.unwrap().log_size;
    scratch.fleet.device_exchange(lost.as_bytes()).await.unwrap();
    assert_eq!(scratch.fleet.status(&scratch.owner).await.unwrap().log_size, size);
}

#[tokio::test]
async fn an_acknowledgement_survives_a_restart_of_the_server() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    let (done, acknowledgement) = device.receive(&scratch).await.unwrap();
    let scratch = scratch.reopen().await;
    let answer = scratch.fleet.device_exchange(acknowledgement.as_bytes()).await.unwrap();
    done.finish(&answer).unwrap();
    assert!(scratch.fleet.device_keys(&scratch.owner, "thermo-1").await.unwrap().up_to_date);
}

#[tokio::test]
async fn a_proof_that_a_restart_left_without_session_is_refused_and_changes_nothing() {
    let scratch = Scratch::new().await;
    let device = Firmware::enrolled(&scratch, "thermo-1").await;
    let (_, proof) = device.prove(&scratch).await;
    let scratch = scratch.reopen().await;
    assert!(is_refused(scratch.fleet.device_exchange(proof.as_bytes()).await));
    let keys = scratch.fleet.device_keys(&scratch.owner, "thermo-1").await.unwrap();
    assert!(keys.epochs.is_empty());
}

#[tokio::test]
async fn whoever_cannot_prove_it_learns_nothing() {
    let scratch = Scratch::new().await;
    let device = Firmware::enrolled(&scratch, "thermo-1").await;
    let other = Firmware::enrolled(&scratch, "thermo-2").await;
    let mut answers = Vec::new();
    // No such device; another device's key; a key that nobody has; a suspended device; a revoked certificate.
    let stranger = Firmware { device: DeviceId::from_bytes([9; 16]), ..Firmware::enrolled(&scratch, "thermo-3").await };
    let thief = Firmware { device: device.device, key: other.key, ..Firmware::enrolled(&scratch, "thermo-4").await };
    let fresh = PrivateKey::generate(kf_key::KeyAlgorithm::P256).unwrap();
    let unknown = Firmware { device: device.device, key: fresh, ..Firmware::enrolled(&scratch, "thermo-5").await };
    let suspended = Firmware::enrolled(&scratch, "thermo-6").await;
    act(&scratch, "thermo-6", DeviceAct::Suspend).await;
    for firmware in [&stranger, &thief, &unknown, &suspended] {
        let (_, proof) = firmware.prove(&scratch).await;
        let error = scratch.fleet.device_exchange(proof.as_bytes()).await.unwrap_err();
        answers.push(format!("{error:?}"));
    }
    let (_, proof) = device.prove(&scratch).await;
    let mut forged = proof.as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    answers.push(format!("{:?}", scratch.fleet.device_exchange(&forged).await.unwrap_err()));
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].starts_with("Forbidden"));
    // The honest proof still holds.
    scratch.fleet.device_exchange(proof.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn what_is_no_message_or_not_the_servers_to_read_is_invalid() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    let (_, proof) = device.prove(&scratch).await;
    let delivery = scratch.fleet.device_exchange(proof.as_bytes()).await.unwrap();
    device.held = None;
    let cut = &proof.as_bytes()[..proof.as_bytes().len() - 1];
    for message in [&[][..], &[0xff; 20], &[0; 1_000], &delivery, cut] {
        let error = scratch.fleet.device_exchange(message).await.unwrap_err();
        assert_eq!(field_of(&error), "message", "{error}");
        assert!(matches!(error, FleetError::Invalid { .. }));
    }
}

#[tokio::test]
async fn a_new_epoch_stays_pending_until_all_have_it_or_are_barred() {
    let scratch = Scratch::new().await;
    let mut devices = Vec::new();
    for name in ["thermo-1", "thermo-2", "thermo-3"] {
        let mut device = Firmware::enrolled(&scratch, name).await;
        device.exchange(&scratch).await.unwrap();
        devices.push(device);
    }
    let outcome = scratch.fleet.epoch_advance_facility(&scratch.owner, "plant-a", WHY()).await.unwrap();
    assert_eq!((outcome.done, outcome.epoch, outcome.devices), (true, Some(2), 3));
    assert_eq!(states(&scratch, "plant-a").await, [(2, EpochState::Pending, 0), (1, EpochState::Current, 3)]);
    let again = scratch.fleet.epoch_advance_facility(&scratch.owner, "plant-a", WHY()).await.unwrap_err();
    assert_eq!(field_of(&again), "facility");
    assert_eq!(devices[0].exchange(&scratch).await.unwrap().facility_epoch, 2);
    let refused = scratch.fleet.epoch_retire(&scratch.owner, "plant-a", 1, WHY()).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("thermo-2") && text.contains("thermo-3") && !text.contains("thermo-1"), "{refused}");
    assert_eq!(devices[1].exchange(&scratch).await.unwrap().facility_epoch, 2);
    act(&scratch, "thermo-3", DeviceAct::Quarantine).await;
    let outcome = scratch.fleet.epoch_retire(&scratch.owner, "plant-a", 1, WHY()).await.unwrap();
    assert_eq!((outcome.done, outcome.devices), (true, 1));
    assert_eq!(states(&scratch, "plant-a").await, [(2, EpochState::Current, 2), (1, EpochState::Retired, 1)]);
    // Once released, the device that was away comes back by one exchange.
    assert!(is_refused(devices[2].exchange(&scratch).await));
    act(&scratch, "thermo-3", DeviceAct::Resume).await;
    assert_eq!(devices[2].exchange(&scratch).await.unwrap().facility_epoch, 2);
}

#[tokio::test]
async fn an_advance_for_many_devices_waits_for_a_second_person() {
    let scratch = Scratch::with(|config| config.dual_control_above = 1).await;
    for name in ["thermo-1", "thermo-2"] {
        scratch.device(name).await;
    }
    let waiting = scratch.fleet.epoch_advance_facility(&scratch.owner, "plant-a", WHY()).await.unwrap();
    assert_eq!((waiting.done, waiting.devices), (false, 2));
    assert_eq!(states(&scratch, "plant-a").await.len(), 1);
    let second = scratch.operator("pavel", Role::FacilityOperator, &["plant-a"]).await;
    let yes = ProposalDecision { approve: true, why: "agreed".into() };
    let done = scratch.fleet.proposal_decide(&second, waiting.proposal.unwrap(), yes).await.unwrap();
    assert_eq!(done.state, ProposalState::Done);
    assert_eq!(states(&scratch, "plant-a").await.len(), 2);
}

#[tokio::test]
async fn a_device_epoch_advances_alone() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    let none = scratch.fleet.epoch_advance_device(&scratch.owner, "thermo-1", WHY()).await;
    assert_eq!(field_of(&none.unwrap_err()), "device");
    device.exchange(&scratch).await.unwrap();
    let outcome = scratch.fleet.epoch_advance_device(&scratch.owner, "thermo-1", WHY()).await.unwrap();
    assert_eq!((outcome.done, outcome.epoch), (true, Some(2)));
    let place = device.exchange(&scratch).await.unwrap();
    assert_eq!((place.facility_epoch, place.device_epoch), (1, 2));
}

#[tokio::test]
async fn a_moved_device_is_claimed_by_its_new_facility_when_it_acknowledges() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    let factory = device.exchange(&scratch).await.unwrap();
    let waiting = scratch.fleet.device_move(&scratch.owner, "thermo-1", "plant-b", "sold".into()).await.unwrap();
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let yes = ProposalDecision { approve: true, why: "agreed".into() };
    scratch.fleet.proposal_decide(&second, waiting.proposal.unwrap(), yes).await.unwrap();
    // The registry knows it as moved; the key that it holds is the factory's until it says otherwise.
    let keys = scratch.fleet.device_keys(&scratch.owner, "thermo-1").await.unwrap();
    assert_ne!(keys.facility, factory.facility);
    assert_eq!((keys.up_to_date, keys.epochs[0].state), (false, DeviceKeyState::Held));
    scratch.fleet.epoch_advance_facility(&scratch.owner, "plant-a", WHY()).await.unwrap();
    let refused = scratch.fleet.epoch_retire(&scratch.owner, "plant-a", 1, WHY()).await.unwrap_err();
    assert!(refused.to_string().contains("thermo-1"), "{refused}");
    let claimed = device.exchange(&scratch).await.unwrap();
    assert_eq!((claimed.facility, claimed.device_epoch), (keys.facility, 2));
    let acts = acts(&scratch, "thermo-1").await;
    assert_eq!(acts[acts.len() - 3..], ["device.move", "key.deliver", "device.claim"]);
    assert!(scratch.fleet.epoch_retire(&scratch.owner, "plant-a", 1, WHY()).await.unwrap().done);
}

#[tokio::test]
async fn an_acknowledgement_of_a_key_that_was_never_sent_or_is_gone_is_refused() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    let (_, first) = device.receive(&scratch).await.unwrap();
    scratch.fleet.epoch_advance_facility(&scratch.owner, "plant-a", WHY()).await.unwrap();
    device.exchange(&scratch).await.unwrap();
    let late = scratch.fleet.device_exchange(first.as_bytes()).await;
    assert!(matches!(late, Err(FleetError::Conflict { .. })), "{late:?}");
    scratch.fleet.epoch_retire(&scratch.owner, "plant-a", 1, WHY()).await.unwrap();
    assert!(is_refused(scratch.fleet.device_exchange(first.as_bytes()).await));
    // Another device's acknowledgement, with the name changed.
    let (_, acknowledgement) = device.receive(&scratch).await.unwrap();
    let other = Firmware::enrolled(&scratch, "thermo-2").await;
    let mut octets = acknowledgement.as_bytes().to_vec();
    let at = octets.windows(16).position(|window| window == device.device.as_bytes()).unwrap();
    octets[at..at + 16].copy_from_slice(other.device.as_bytes());
    assert!(is_refused(scratch.fleet.device_exchange(&octets).await));
}

#[tokio::test]
async fn an_expired_or_revoked_certificate_opens_no_exchange_and_a_renewed_one_does() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    device.exchange(&scratch).await.unwrap();
    // A new identity key, certified with the old one: the old one is good as long as its certificate is.
    let identity = scratch.enrol_again("thermo-1").await;
    let old = std::mem::replace(&mut device.key, identity);
    device.exchange(&scratch).await.unwrap();
    let mut by_old = Firmware { device: device.device, key: old, pin: device.pin, held: device.held };
    by_old.exchange(&scratch).await.unwrap();
    scratch.pass(10 * 366 * UnixMillis::DAY);
    assert!(is_refused(device.exchange(&scratch).await));
}

#[tokio::test]
async fn an_operator_of_another_facility_sees_and_moves_nothing() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    device.exchange(&scratch).await.unwrap();
    let other = scratch.operator("berta", Role::FacilityOperator, &["plant-b"]).await;
    let auditor = scratch.operator("arno", Role::Auditor, &[]).await;
    let missing = |error: FleetError| matches!(error, FleetError::NotFound(_));
    assert!(missing(scratch.fleet.epoch_list(&other, "plant-a").await.unwrap_err()));
    assert!(missing(scratch.fleet.device_keys(&other, "thermo-1").await.unwrap_err()));
    assert!(missing(scratch.fleet.epoch_advance_facility(&other, "plant-a", WHY()).await.unwrap_err()));
    assert!(missing(scratch.fleet.epoch_advance_device(&other, "thermo-1", WHY()).await.unwrap_err()));
    assert!(missing(scratch.fleet.epoch_retire(&other, "plant-a", 1, WHY()).await.unwrap_err()));
    assert!(scratch.fleet.epoch_list(&auditor, "plant-a").await.is_ok());
    let denied = scratch.fleet.epoch_advance_facility(&auditor, "plant-a", WHY()).await;
    assert!(matches!(denied, Err(FleetError::Denied(_))));
}

impl Scratch {
    /// A renewal under a fresh key; the key.
    pub(crate) async fn enrol_again(&self, device: &str) -> PrivateKey {
        let key = PrivateKey::generate(kf_key::KeyAlgorithm::P256).unwrap();
        let code = self.code(device).await;
        issued(self.enrol_with(device, &code, &csr(&key)).await.unwrap());
        key
    }
}
