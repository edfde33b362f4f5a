//! Sealed payloads: opened once, by those whose they are, as long as the device may be heard.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_access::Visibility;
use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_api::operator::Role;
use kf_api::sealed::{OpenOutcome, OpenRefusal, OpenRequest, Opened, SealRequest, SealedPayload};
use kf_derive::{ApplicationKey, Sender, SoftwareKey};
use kf_fleet::{FleetError, Principal};
use kf_key::{DeviceId, FacilityId, UnixMillis};
use kf_log::{Actor, AuditEntry, Phase};
use kf_seal::{Boot, KeyId, OpenError, Opener, Replay, SealAlgorithm, Sealed, Sealer, Service};
use kf_signer::{DeviceKeyPlace, SealingKey, SignerClient};
use kf_store::Store;
use kf_store::device_key::KeyPlace;

use crate::scratch::{START, Scratch, field_of};

pub(crate) fn entry() -> AuditEntry {
    let who = Actor { id: "test".into(), name: "test".into(), role: "owner".into(), by: "token".into(), token: None };
    AuditEntry {
        v: 1,
        at: START,
        who,
        act: "test".into(),
        phase: Phase::Done,
        facility: None,
        subjects: Vec::new(),
        why: String::new(),
        detail: Default::default(),
    }
}

/// A device that holds its key, as after an exchange.
struct Device {
    id: DeviceId,
    key_id: KeyId,
    telemetry: ApplicationKey,
    commands: ApplicationKey,
    boots: u32,
}

async fn application(signer: &SignerClient, place: DeviceKeyPlace, salt: &[u8], service: &str) -> ApplicationKey {
    let secret = signer.derive_sealing(SealingKey { place, wrapped_salt: salt, service }).await.unwrap();
    ApplicationKey::from_keyed_hmac(SoftwareKey::new(secret))
}

/// Delivers the next key to a device, as an exchange would.
async fn deliver(store: &Store, signer: &SignerClient, id: DeviceId, facility: FacilityId) -> Device {
    let wanted = store.delivery(id).unwrap().unwrap();
    let salt = match wanted.salt {
        Some(salt) => salt,
        None => signer.new_device_salt(id).await.unwrap(),
    };
    let KeyPlace { facility_epoch, device_epoch, .. } = wanted.place;
    store.offer_device_key(id, wanted.place, salt.clone(), START, entry()).await.unwrap();
    store.acknowledge_device_key(id, wanted.place, START, entry()).await.unwrap();
    let place = DeviceKeyPlace { facility, facility_epoch, device: id, device_epoch };
    let service = Service::new("telemetry").unwrap();
    Device {
        id,
        key_id: KeyId { device: id, facility_epoch, device_epoch, session: None, sender: Sender::Device, service },
        telemetry: application(signer, place, &salt, "telemetry").await,
        commands: application(signer, place, &salt, "commands").await,
        boots: 0,
    }
}

async fn with_device() -> (Scratch, Device) {
    let scratch = Scratch::new().await;
    let device = scratch.device("thermo-1").await;
    scratch.edited(async |store, signer| deliver(store, signer, device.id, device.facility).await).await
}

impl Device {
    fn boot(&mut self) -> Sealer {
        self.boots += 1;
        let random = kf_crypto::random_array().unwrap();
        let boot = Boot::new(self.boots, random).unwrap();
        Sealer::new(&self.telemetry, self.key_id, boot, SealAlgorithm::Aes128Ccm).unwrap()
    }
}

fn seal(sealer: &mut Sealer, plaintext: &str) -> SealedPayload {
    let mut out = [0; 512];
    let envelope = BASE64_STANDARD.encode(sealer.seal(plaintext.as_bytes(), b"", &mut out).unwrap());
    SealedPayload { envelope, external_aad: String::new() }
}

async fn open(scratch: &Scratch, who: &Principal, payloads: &[SealedPayload]) -> Vec<OpenOutcome> {
    let request = OpenRequest { payloads: payloads.to_vec() };
    scratch.fleet.open_sealed(who, request).await.unwrap().payloads
}

async fn open_one(scratch: &Scratch, payload: &SealedPayload) -> Result<Opened, OpenRefusal> {
    match open(scratch, &scratch.owner, std::slice::from_ref(payload)).await.remove(0) {
        OpenOutcome::Opened(opened) => Ok(opened),
        OpenOutcome::Refused { refusal, .. } => Err(refusal),
    }
}

fn plaintext(opened: &Opened) -> String {
    String::from_utf8(BASE64_STANDARD.decode(&opened.plaintext).unwrap()).unwrap()
}

async fn act(scratch: &Scratch, act: DeviceAct) {
    let request = DeviceActRequest { act, why: "test".into(), departure: Default::default(), dry_run: false };
    scratch.fleet.device_act(&scratch.owner, "thermo-1", request).await.unwrap();
}

#[tokio::test]
async fn a_payload_opens_once_and_says_whose_it_is() {
    let (scratch, mut device) = with_device().await;
    let payload = seal(&mut device.boot(), "21.5 C");
    let opened = open_one(&scratch, &payload).await.unwrap();
    assert_eq!(plaintext(&opened), "21.5 C");
    assert_eq!((opened.device, opened.device_name.as_str()), (device.id, "thermo-1"));
    assert_eq!((opened.service.as_str(), opened.boot_number, opened.counter), ("telemetry", 1, 0));
    assert_eq!(open_one(&scratch, &payload).await, Err(OpenRefusal::Replayed));
}

#[tokio::test]
async fn a_restart_does_not_make_a_replay_look_new() {
    let (scratch, mut device) = with_device().await;
    let mut sealer = device.boot();
    let (first, second) = (seal(&mut sealer, "1"), seal(&mut sealer, "2"));
    assert!(open_one(&scratch, &first).await.is_ok());
    let scratch = scratch.reopen().await;
    assert_eq!(open_one(&scratch, &first).await, Err(OpenRefusal::Replayed));
    assert!(open_one(&scratch, &second).await.is_ok());
}

#[tokio::test]
async fn a_batch_is_judged_payload_by_payload_and_a_replay_within_it_is_one() {
    let (scratch, mut device) = with_device().await;
    let mut sealer = device.boot();
    let (first, second) = (seal(&mut sealer, "1"), seal(&mut sealer, "2"));
    let malformed = SealedPayload { envelope: "AAAA".into(), external_aad: String::new() };
    let bound = SealedPayload { external_aad: "AAAA".into(), ..seal(&mut sealer, "3") };
    let found = open(&scratch, &scratch.owner, &[second, malformed, first.clone(), first, bound]).await;
    let found: Vec<_> = found
        .iter()
        .map(|outcome| match outcome {
            OpenOutcome::Opened(opened) => Ok(plaintext(opened)),
            OpenOutcome::Refused { refusal, .. } => Err(*refusal),
        })
        .collect();
    use OpenRefusal::{Malformed, NotAuthentic, Replayed};
    assert_eq!(found, [Ok("2".into()), Err(Malformed), Ok("1".into()), Err(Replayed), Err(NotAuthentic)]);
}

#[tokio::test]
async fn a_changed_payload_is_not_authentic_and_leaves_the_true_one_openable() {
    let (scratch, mut device) = with_device().await;
    let payload = seal(&mut device.boot(), "21.5 C");
    let mut octets = BASE64_STANDARD.decode(&payload.envelope).unwrap();
    *octets.last_mut().unwrap() ^= 1;
    let changed = SealedPayload { envelope: BASE64_STANDARD.encode(octets), external_aad: String::new() };
    assert_eq!(open_one(&scratch, &changed).await, Err(OpenRefusal::NotAuthentic));
    assert!(open_one(&scratch, &payload).await.is_ok());
}

#[tokio::test]
async fn a_device_that_is_suspended_or_gone_is_not_heard() {
    let (scratch, mut device) = with_device().await;
    let mut sealer = device.boot();
    act(&scratch, DeviceAct::Suspend).await;
    assert_eq!(open_one(&scratch, &seal(&mut sealer, "1")).await, Err(OpenRefusal::Barred));
    act(&scratch, DeviceAct::Resume).await;
    assert!(open_one(&scratch, &seal(&mut sealer, "2")).await.is_ok());
    act(&scratch, DeviceAct::Decommission).await;
    assert_eq!(open_one(&scratch, &seal(&mut sealer, "3")).await, Err(OpenRefusal::Barred));
}

#[tokio::test]
async fn the_key_that_a_newer_one_superseded_opens_nothing() {
    let (scratch, mut old) = with_device().await;
    let id = old.id;
    let (scratch, mut new) = scratch
        .edited(async |store, signer| {
            store.advance_device_epoch(id, 1, entry()).await.unwrap();
            let facility = store.device(id, &Visibility::Fleet).unwrap().unwrap().facility;
            deliver(store, signer, id, facility).await
        })
        .await;
    assert_eq!(open_one(&scratch, &seal(&mut old.boot(), "1")).await, Err(OpenRefusal::Superseded));
    assert_eq!(open_one(&scratch, &seal(&mut new.boot(), "2")).await.unwrap().device_epoch, 2);
    new.key_id.device_epoch = 3;
    assert_eq!(open_one(&scratch, &seal(&mut new.boot(), "3")).await, Err(OpenRefusal::UnknownKey));
}

#[tokio::test]
async fn a_boot_older_than_those_remembered_is_too_old_for_ever() {
    let (scratch, mut device) = with_device().await;
    let mut first = device.boot();
    assert!(open_one(&scratch, &seal(&mut first, "1")).await.is_ok());
    let held_back = seal(&mut first, "2");
    for _ in 0..8 {
        assert!(open_one(&scratch, &seal(&mut device.boot(), "x")).await.is_ok());
    }
    assert_eq!(open_one(&scratch, &held_back).await, Err(OpenRefusal::TooOld));
    let scratch = scratch.reopen().await;
    assert_eq!(open_one(&scratch, &held_back).await, Err(OpenRefusal::TooOld));
}

#[tokio::test]
async fn a_payload_sealed_by_the_server_is_not_opened_by_the_server() {
    let (scratch, _device) = with_device().await;
    let sealed = scratch.fleet.seal_payload(&scratch.owner, command("reboot")).await.unwrap();
    let payload = SealedPayload { envelope: sealed.envelope, external_aad: String::new() };
    assert_eq!(open_one(&scratch, &payload).await, Err(OpenRefusal::Direction));
}

#[tokio::test]
async fn an_operator_of_another_facility_learns_nothing_of_the_device() {
    let (scratch, mut device) = with_device().await;
    let mut sealer = device.boot();
    let payload = seal(&mut sealer, "21.5 C");
    let elsewhere = scratch.operator("bert", Role::FacilityOperator, &["plant-b"]).await;
    let mut unknown = device.key_id;
    unknown.device = DeviceId::from_bytes([9; 16]);
    let boot = Boot::new(1, kf_crypto::random_array().unwrap()).unwrap();
    let stranger = Sealer::new(&device.telemetry, unknown, boot, SealAlgorithm::Aes128Ccm);
    let found = open(&scratch, &elsewhere, &[payload.clone(), seal(&mut stranger.unwrap(), "1")]).await;
    assert_eq!(found[0], found[1], "the two can be told apart");
    assert!(matches!(&found[0], OpenOutcome::Refused { refusal: OpenRefusal::UnknownKey, .. }));
    let relay = scratch.operator("relay", Role::Relay, &["plant-a"]).await;
    assert!(matches!(&open(&scratch, &relay, &[payload]).await[0], OpenOutcome::Opened(_)));
    let auditor = scratch.operator("aude", Role::Auditor, &[]).await;
    let request = OpenRequest { payloads: vec![seal(&mut sealer, "2")] };
    assert!(matches!(scratch.fleet.open_sealed(&auditor, request).await, Err(FleetError::Denied(_))));
}

#[tokio::test]
async fn a_relay_may_do_nothing_else() {
    let (scratch, _device) = with_device().await;
    let relay = scratch.operator("relay", Role::Relay, &["plant-a"]).await;
    assert!(matches!(scratch.fleet.seal_payload(&relay, command("x")).await, Err(FleetError::Denied(_))));
    assert!(matches!(scratch.fleet.device_show(&relay, "thermo-1").await, Err(FleetError::Denied(_))));
}

#[tokio::test]
async fn what_is_not_base64_or_too_many_is_refused_by_name() {
    let (scratch, _device) = with_device().await;
    let payload = |envelope: &str| SealedPayload { envelope: envelope.into(), external_aad: String::new() };
    for (payloads, field) in
        [(vec![payload("?")], "envelope"), (vec![], "payloads"), (vec![payload(""); 33], "payloads")]
    {
        let error = scratch.fleet.open_sealed(&scratch.owner, OpenRequest { payloads }).await.unwrap_err();
        assert_eq!(field_of(&error), field);
    }
}

fn command(text: &str) -> SealRequest {
    SealRequest {
        device: "thermo-1".into(),
        service: "commands".into(),
        plaintext: BASE64_STANDARD.encode(text),
        external_aad: String::new(),
        algorithm: "aes-128-ccm".into(),
        why: "test".into(),
    }
}

#[tokio::test]
async fn a_command_opens_on_the_device_once_and_an_older_server_boot_does_not() {
    let (scratch, device) = with_device().await;
    let key_id = KeyId { sender: Sender::Server, service: Service::new("commands").unwrap(), ..device.key_id };
    let mut replay = Replay::<2>::new();
    let mut envelopes = Vec::new();
    for text in ["1", "2", "3", "4"] {
        let sealed = scratch.fleet.seal_payload(&scratch.owner, command(text)).await.unwrap();
        envelopes.push(BASE64_STANDARD.decode(sealed.envelope).unwrap());
    }
    let mut listen = |envelope: &[u8]| -> Result<String, String> {
        let sealed = Sealed::parse(envelope).unwrap();
        let mut out = [0; 64];
        let mut opener =
            Opener::new(&device.commands, &key_id, &sealed).map_err(|error: OpenError| error.to_string())?;
        let authentic = opener.open(&sealed, b"", &mut out).map_err(|error| error.to_string())?;
        let accepted = replay.accept(authentic.mark()).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(authentic.release(&accepted).unwrap().to_vec()).unwrap())
    };
    for (envelope, text) in envelopes.iter().skip(1).zip(["2", "3", "4"]) {
        assert_eq!(listen(envelope), Ok(text.to_owned()));
        assert_eq!(listen(envelope), Err("the message was accepted before".into()));
    }
    assert!(listen(&envelopes[0]).unwrap_err().contains("too old"), "held back by the broker");
}

#[tokio::test]
async fn a_command_needs_a_device_that_holds_a_key_and_a_service_that_is_one() {
    let (scratch, _device) = with_device().await;
    scratch.device("thermo-2").await;
    let cases = [
        (SealRequest { device: "thermo-2".into(), ..command("x") }, "device"),
        (SealRequest { service: "Commands".into(), ..command("x") }, "service"),
        (SealRequest { algorithm: "rot13".into(), ..command("x") }, "algorithm"),
        (SealRequest { plaintext: "?".into(), ..command("x") }, "plaintext"),
    ];
    for (request, field) in cases {
        let error = scratch.fleet.seal_payload(&scratch.owner, request).await.unwrap_err();
        assert_eq!(field_of(&error), field);
    }
    act(&scratch, DeviceAct::Suspend).await;
    let error = scratch.fleet.seal_payload(&scratch.owner, command("x")).await.unwrap_err();
    assert_eq!(field_of(&error), "device");
}

#[tokio::test]
async fn uses_are_logged_as_counts_after_their_interval() {
    let (scratch, mut device) = with_device().await;
    let mut sealer = device.boot();
    for _ in 0..3 {
        open_one(&scratch, &seal(&mut sealer, "x")).await.unwrap();
    }
    let counted = async |scratch: &Scratch| {
        let filter = kf_api::audit::AuditFilter { subject: Some(device.id.to_string()), ..Default::default() };
        let page = scratch.fleet.audit_list(&scratch.owner, filter).await.unwrap();
        let entries = page.items.into_iter().filter(|record| record.entry["act"] == "payload.open");
        entries.map(|record| record.entry["detail"].clone()).collect::<Vec<_>>()
    };
    scratch.fleet.turn().await;
    assert!(counted(&scratch).await.is_empty(), "logged before its interval");
    scratch.pass(UnixMillis::HOUR);
    scratch.fleet.turn().await;
    scratch.fleet.turn().await;
    let found = counted(&scratch).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0][format!("from {} telemetry 1.1", device.id)], "3");
    open_one(&scratch, &seal(&mut sealer, "x")).await.unwrap();
    scratch.pass(UnixMillis::HOUR);
    scratch.fleet.turn().await;
    assert_eq!(counted(&scratch).await.len(), 2);
}
