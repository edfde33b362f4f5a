//! Mixed sessions: agreed, used, ended; and the thief who comes afterwards with the root key.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_api::sealed::{OpenOutcome, OpenRefusal, OpenRequest, Opened, SealedPayload};
use kf_derive::{
    ApplicationKey, DeviceKey, FleetRoot, KeyedHmac, Purpose as Wrapping, Sender, SessionKey, SoftwareKey, extract,
};
use kf_exchange::{
    AwaitChallenge, AwaitDone, Ephemeral, IdentityKey, KeyAgreement, KeyPlace, Message, PublicKey, Purpose,
};
use kf_fleet::FleetError;
use kf_key::{DeviceId, SecretArray, UnixMillis};
use kf_seal::{Boot, KeyId, Opener, SESSION, SealAlgorithm, Sealed, Sealer, Service};

use crate::exchange::{Chip, Firmware, is_refused};
use crate::scratch::Scratch;

/// A device that holds its key.
struct Device {
    firmware: Firmware,
    place: KeyPlace,
    key: DeviceKey,
    boots: u32,
}

fn random() -> SecretArray<32> {
    SecretArray::fill(|octets| *octets = kf_crypto::random_array().unwrap())
}

fn copy(secret: &SecretArray<32>) -> SecretArray<32> {
    SecretArray::fill(|octets| *octets = *secret.expose())
}

/// An agreed session, with what a listener recorded.
struct Agreed {
    id: [u8; 16],
    key: SessionKey,
    ephemeral: SecretArray<32>,
    recorded: Vec<Vec<u8>>,
}

impl Device {
    async fn new(scratch: &Scratch, name: &str) -> Self {
        let firmware = Firmware::enrolled(scratch, name).await;
        let (place, key) = fetch(scratch, &firmware).await;
        Self { firmware, place, key, boots: 0 }
    }

    fn hello(ephemeral: &SecretArray<32>) -> (AwaitChallenge<Ephemeral>, Message) {
        let ephemeral = Ephemeral::from_random(copy(ephemeral)).unwrap();
        AwaitChallenge::start(Purpose::Session, ephemeral, kf_crypto::random_array().unwrap()).unwrap()
    }

    /// As far as the server has its proof answered.
    async fn opened(&self, scratch: &Scratch) -> Result<(Agreed, AwaitDone), FleetError> {
        let (fleet, ephemeral) = (&scratch.fleet, random());
        let (waiting, hello) = Self::hello(&ephemeral);
        let challenge = fleet.device_session(hello.as_bytes()).await?;
        let Firmware { device, key, pin, .. } = &self.firmware;
        let (waiting, proof) = waiting.prove(&challenge, &[*pin], *device, &Chip(key)).unwrap();
        let answer = fleet.device_session(proof.as_bytes()).await?;
        let (key, done, acknowledgement) = waiting.open_session(&answer, &self.place, &self.key).unwrap();
        let sent = [hello.as_bytes(), &challenge, proof.as_bytes(), &answer, acknowledgement.as_bytes()];
        let recorded: Vec<Vec<u8>> = sent.iter().map(|message| message.to_vec()).collect();
        let id = recorded[4][4..20].try_into().unwrap();
        Ok((Agreed { id, key, ephemeral, recorded }, done))
    }

    async fn agree(&self, scratch: &Scratch) -> Result<Agreed, FleetError> {
        let (mut agreed, done) = self.opened(scratch).await?;
        let answer = scratch.fleet.device_session(&agreed.recorded[4]).await?;
        done.finish(&answer).unwrap();
        agreed.recorded.push(answer);
        Ok(agreed)
    }

    fn key_id(&self, session: Option<[u8; 16]>) -> KeyId {
        let KeyPlace { facility_epoch, device_epoch, .. } = self.place;
        let service = Service::new("telemetry").unwrap();
        KeyId { device: self.firmware.device, facility_epoch, device_epoch, session, sender: Sender::Device, service }
    }

    fn seal(&mut self, application: &ApplicationKey, session: Option<[u8; 16]>, text: &str) -> Vec<u8> {
        self.boots += 1;
        let boot = Boot::new(self.boots, kf_crypto::random_array().unwrap()).unwrap();
        let mut sealer = Sealer::new(application, self.key_id(session), boot, SealAlgorithm::Aes128Ccm).unwrap();
        let mut out = [0; 256];
        sealer.seal(text.as_bytes(), b"", &mut out).unwrap().to_vec()
    }

    fn seal_in(&mut self, agreed: &Agreed, text: &str) -> Vec<u8> {
        self.seal(&application(&agreed.key), Some(agreed.id), text)
    }
}

async fn fetch(scratch: &Scratch, firmware: &Firmware) -> (KeyPlace, DeviceKey) {
    let ephemeral = Ephemeral::from_random(random()).unwrap();
    let nonce = kf_crypto::random_array().unwrap();
    let (waiting, hello) = AwaitChallenge::start(Purpose::Delivery, ephemeral, nonce).unwrap();
    let challenge = scratch.fleet.device_exchange(hello.as_bytes()).await.unwrap();
    let Firmware { device, key, pin, .. } = firmware;
    let (waiting, proof) = waiting.prove(&challenge, &[*pin], *device, &Chip(key)).unwrap();
    let delivery = scratch.fleet.device_exchange(proof.as_bytes()).await.unwrap();
    let delivered = waiting.open(&delivery, None).unwrap();
    let place = delivered.place();
    let (key, done, acknowledgement) = delivered.acknowledge().unwrap();
    done.finish(&scratch.fleet.device_exchange(acknowledgement.as_bytes()).await.unwrap()).unwrap();
    (place, key)
}

fn application(session: &SessionKey) -> ApplicationKey {
    session.application(b"telemetry", 0).unwrap()
}

async fn open(scratch: &Scratch, envelope: &[u8]) -> Result<Opened, OpenRefusal> {
    let payload = SealedPayload { envelope: BASE64_STANDARD.encode(envelope), external_aad: String::new() };
    let answer = scratch.fleet.open_sealed(&scratch.owner, OpenRequest { payloads: vec![payload] }).await.unwrap();
    match answer.payloads.into_iter().next().unwrap() {
        OpenOutcome::Opened(opened) => Ok(opened),
        OpenOutcome::Refused { refusal, .. } => Err(refusal),
    }
}

async fn act(scratch: &Scratch, act: DeviceAct) {
    let request = DeviceActRequest { act, why: "test".into(), departure: Default::default(), dry_run: false };
    scratch.fleet.device_act(&scratch.owner, "thermo-1", request).await.unwrap();
}

async fn acts(scratch: &Scratch) -> Vec<String> {
    let history = scratch.fleet.device_show(&scratch.owner, "thermo-1").await.unwrap();
    history.events.into_iter().map(|event| event.entry["act"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_sealed_in_a_session_opens_once_and_says_which_session() {
    let scratch = Scratch::new().await;
    let mut device = Device::new(&scratch, "thermo-1").await;
    let agreed = device.agree(&scratch).await.unwrap();
    let envelope = device.seal_in(&agreed, "21.5 C");
    let opened = open(&scratch, &envelope).await.unwrap();
    assert_eq!(BASE64_STANDARD.decode(&opened.plaintext).unwrap(), b"21.5 C");
    assert_eq!(opened.session, Some(agreed.id.iter().map(|octet| format!("{octet:02x}")).collect()));
    assert_eq!(open(&scratch, &envelope).await, Err(OpenRefusal::Replayed));
    let mut changed = device.seal_in(&agreed, "21.6 C");
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(open(&scratch, &changed).await, Err(OpenRefusal::NotAuthentic));
    // An acknowledgement whose answer was lost is answered again, and logged once.
    scratch.fleet.device_session(&agreed.recorded[4]).await.unwrap();
    assert_eq!(acts(&scratch).await.iter().filter(|act| *act == "session.open").count(), 1);
}

#[tokio::test]
async fn a_session_ends_with_its_time_its_successor_its_device_and_its_server() {
    let scratch = Scratch::new().await;
    let mut device = Device::new(&scratch, "thermo-1").await;
    // Not acknowledged: not in use.
    let (unanswered, _) = device.opened(&scratch).await.unwrap();
    let envelope = device.seal_in(&unanswered, "early");
    assert_eq!(open(&scratch, &envelope).await, Err(OpenRefusal::UnknownSession));
    // Its time.
    let first = device.agree(&scratch).await.unwrap();
    let envelope = device.seal_in(&first, "1");
    assert!(open(&scratch, &envelope).await.is_ok());
    scratch.pass(24 * UnixMillis::HOUR);
    let envelope = device.seal_in(&first, "2");
    assert_eq!(open(&scratch, &envelope).await, Err(OpenRefusal::UnknownSession));
    scratch.fleet.turn().await;
    assert_eq!(acts(&scratch).await.last().unwrap(), "session.end");
    // Its successor.
    let second = device.agree(&scratch).await.unwrap();
    let third = device.agree(&scratch).await.unwrap();
    let (old, new) = (device.seal_in(&second, "3"), device.seal_in(&third, "4"));
    assert_eq!(open(&scratch, &old).await, Err(OpenRefusal::UnknownSession));
    assert!(open(&scratch, &new).await.is_ok());
    // Its device.
    act(&scratch, DeviceAct::Suspend).await;
    let barred = device.seal_in(&third, "5");
    assert_eq!(open(&scratch, &barred).await, Err(OpenRefusal::Barred));
    assert!(is_refused(device.agree(&scratch).await.map(drop)));
    act(&scratch, DeviceAct::Resume).await;
    assert!(open(&scratch, &barred).await.is_ok());
    // Its server: neither the key nor the window is anywhere else.
    let scratch = scratch.reopen().await;
    let late = device.seal_in(&third, "6");
    assert_eq!(open(&scratch, &late).await, Err(OpenRefusal::UnknownSession));
    assert!(is_refused(scratch.fleet.device_session(&third.recorded[4]).await), "a recorded acknowledgement");
}

#[tokio::test]
async fn messages_that_are_replayed_of_the_wrong_purpose_or_no_points_are_refused() {
    let scratch = Scratch::new().await;
    let device = Device::new(&scratch, "thermo-1").await;
    let agreed = device.agree(&scratch).await.unwrap();
    let session = async |message: &[u8]| scratch.fleet.device_session(message).await;
    assert!(is_refused(session(&agreed.recorded[2]).await), "the proof was answered");
    // A challenge that was asked for again is another one, which the recorded proof does not fit.
    assert_ne!(session(&agreed.recorded[0]).await.unwrap(), agreed.recorded[1]);
    assert!(is_refused(session(&agreed.recorded[2]).await));
    let words = async |message: &[u8]| session(message).await.unwrap_err().to_string();
    assert!(words(&agreed.recorded[1]).await.contains("not the message that is due"));
    assert!(words(&[0; 385]).await.contains("too long"));
    assert!(words(&agreed.recorded[0][..50]).await.contains("not a message"));
    // P-256 has no point of small order; what is no point of the curve, the origin among it, is refused.
    for point in [[0; 64], [0xff; 64]] {
        let mut hello = agreed.recorded[0].clone();
        let start = hello.len() - 64;
        hello[start..].copy_from_slice(&point);
        assert!(words(&hello).await.contains("not a public key on P-256"));
    }
    // A proof that asks for a session is no good for a delivery, and the other way round.
    for purpose in [Purpose::Session, Purpose::Delivery] {
        let ephemeral = Ephemeral::from_random(random()).unwrap();
        let (waiting, hello) = AwaitChallenge::start(purpose, ephemeral, [3; 16]).unwrap();
        let challenge = session(hello.as_bytes()).await.unwrap();
        let Firmware { device, key, pin, .. } = &device.firmware;
        let (_, proof) = waiting.prove(&challenge, &[*pin], *device, &Chip(key)).unwrap();
        let crossed = match purpose {
            Purpose::Session => scratch.fleet.device_exchange(proof.as_bytes()).await,
            Purpose::Delivery => session(proof.as_bytes()).await,
        };
        assert!(is_refused(crossed));
    }
}

#[tokio::test]
async fn a_device_without_a_key_or_with_one_of_another_facility_gets_no_session() {
    let scratch = Scratch::new().await;
    let keyless = Firmware::enrolled(&scratch, "thermo-2").await;
    let mut device = Device::new(&scratch, "thermo-1").await;
    let pretender = Device {
        firmware: keyless,
        place: device.place,
        key: DeviceKey::from_keyed_hmac(SoftwareKey::new(random())),
        boots: 0,
    };
    assert!(is_refused(pretender.opened(&scratch).await.map(drop)));
    // The device holds to the key that it has: of another facility it opens none.
    let ephemeral = random();
    let (waiting, hello) = Device::hello(&ephemeral);
    let challenge = scratch.fleet.device_session(hello.as_bytes()).await.unwrap();
    let (waiting, proof) =
        waiting.prove(&challenge, &[device.firmware.pin], device.firmware.device, &Chip(&device.firmware.key)).unwrap();
    let answer = scratch.fleet.device_session(proof.as_bytes()).await.unwrap();
    let elsewhere = KeyPlace { facility: kf_key::FacilityId::from_bytes([9; 16]), ..device.place };
    let refused = waiting.open_session(&answer, &elsewhere, &device.key).unwrap_err();
    assert_eq!(refused.error, kf_exchange::Refusal::OlderKey.into());
    // Nor does an acknowledgement that names another facility hold.
    let (_, _, acknowledgement) = refused.state.open_session(&answer, &device.place, &device.key).unwrap();
    let mut moved = acknowledgement.as_bytes().to_vec();
    let facility = device.place.facility;
    let at = moved.windows(16).position(|window| window == facility.as_bytes()).unwrap();
    moved[at] ^= 1;
    assert!(is_refused(scratch.fleet.device_session(&moved).await));
    scratch.fleet.device_session(acknowledgement.as_bytes()).await.unwrap();
    // A payload of one device's session under another's name.
    let agreed = device.agree(&scratch).await.unwrap();
    device.firmware.device = pretender.firmware.device;
    let forged = device.seal_in(&agreed, "x");
    assert!(open(&scratch, &forged).await.is_err());
}

/// Everything below is what a thief computes who has the root key, the registry as it lies on the disk, every message of
/// the exchange and the long-lived private key of the device.
struct Thief {
    device_key: DeviceKey,
    /// The transcript up to the challenge's signature, and after the proof.
    agreed: [u8; 32],
    proved: [u8; 32],
}

fn then(hash: [u8; 32], message: &[u8]) -> [u8; 32] {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    kf_crypto::sha256(&[&hash[..], &length, message].concat())
}

impl Thief {
    /// Unwraps the device's salt from the registry, and derives its key.
    fn new(root: [u8; 32], device: DeviceId, place: KeyPlace, wrapped_salt: &[u8], recorded: &[Vec<u8>]) -> Self {
        let root = FleetRoot::from_keyed_hmac(SoftwareKey::new(SecretArray::fill(|octets| *octets = root)));
        let wrapping = root.wrapping(Wrapping::WrapRegistry, 1).unwrap().into_secret();
        let (header, sealed) = wrapped_salt.split_at(5);
        let context = [header, b"device salt ", device.as_bytes()].concat();
        let salt = kf_crypto::open(&wrapping, &context, sealed).unwrap();
        let facility = root.facility(place.facility, place.facility_epoch).unwrap();
        let device_key = facility.device(device, salt.expose().try_into().unwrap(), place.device_epoch).unwrap();
        let [hello, challenge, proof, ..] = recorded else { panic!("not an exchange") };
        let begun = then(kf_crypto::sha256(b"keyfleet exchange v1"), hello);
        let signed = |message: &[u8]| message[..message.len() - (2 + 64) - (2 + 32)].to_vec();
        let proved = then(then(then(begun, challenge), &signed(proof)), proof);
        Self { device_key, agreed: then(begun, &signed(challenge)), proved }
    }

    /// The session key, were `guess` what the two sides agreed.
    fn as_shared_secret(&self, guess: &SecretArray<32>) -> SessionKey {
        let schedule = extract(&self.agreed, guess.expose());
        let info = [&b"keyfleet exchange v1mixed session..."[..], &self.proved, &[1]].concat();
        let mix = SecretArray::fill(|mix| schedule.hmac_sha256(&info, mix).unwrap());
        self.device_key.mixed_session(mix, &self.proved, 0).unwrap()
    }

    /// The session key, were `guess` the secret that was mixed in.
    fn as_mixed_in(&self, guess: SecretArray<32>) -> Option<SessionKey> {
        self.device_key.mixed_session(guess, &self.proved, 0).ok()
    }
}

fn opens(session: &SessionKey, key_id: &KeyId, envelope: &[u8]) -> bool {
    let sealed = Sealed::parse(envelope).unwrap();
    let mut opener = Opener::new(&application(session), key_id, &sealed).unwrap();
    opener.open(&sealed, b"", &mut [0; 256]).is_ok()
}

#[tokio::test]
async fn a_thief_with_root_key_registry_and_record_opens_the_plain_session_and_not_the_mixed_one() {
    let scratch = Scratch::new().await;
    let mut device = Device::new(&scratch, "thermo-1").await;
    let agreed = device.agree(&scratch).await.unwrap();
    let (mixed, mixed_id) = (device.seal_in(&agreed, "forward secret"), device.key_id(Some(agreed.id)));
    assert!(open(&scratch, &mixed).await.is_ok());
    let plain_session = device.key.session(SESSION, 0).unwrap();
    let plain = device.seal(&application(&plain_session), None, "derived");
    assert!(open(&scratch, &plain).await.is_ok());

    // The theft.
    let (root, id, place) = (scratch.root, device.firmware.device, device.place);
    let (scratch, salt) = scratch.edited(async |store, _| store.newest_held_key(id).unwrap().unwrap().1).await;
    // The database and its journal.
    let files = ["registry.sqlite", "registry.sqlite-wal"].map(|name| scratch.dir.path().join("data").join(name));
    let registry: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).unwrap_or_default()).collect();
    assert!(registry.windows(salt.len()).any(|window| window == salt), "the registry is what was stolen");
    let thief = Thief::new(root, id, place, &salt, &agreed.recorded);

    // That the thief is able: the plain session falls.
    let recomputed = thief.device_key.session(SESSION, 0).unwrap();
    assert!(opens(&recomputed, &device.key_id(None), &plain));
    assert!(!opens(&recomputed, &mixed_id, &mixed));
    // And the mixed one would, had he an ephemeral secret.
    let theirs = PublicKey::from_sec1(agreed.recorded[1][3 + 17 + 2..][..65].try_into().unwrap()).unwrap();
    let ephemeral = Ephemeral::from_random(copy(&agreed.ephemeral)).unwrap();
    assert!(opens(&thief.as_shared_secret(&ephemeral.agree(&theirs).unwrap()), &mixed_id, &mixed));

    // Every 32 octets of the record and of the registry, and what static keys can compute, in each place of a secret.
    let mut guesses: Vec<SecretArray<32>> = Vec::new();
    let octets = agreed.recorded.iter().map(Vec::as_slice).chain([registry.as_slice()]);
    for window in octets.flat_map(|octets| octets.windows(32)) {
        guesses.push(SecretArray::fill(|guess| guess.copy_from_slice(window)));
    }
    guesses.push(SecretArray::fill(|guess| *guess = root));
    guesses.push(thief.device_key.session(SESSION, 0).unwrap().into_secret());
    let ours = PublicKey::from_sec1(agreed.recorded[0].last_chunk().unwrap()).unwrap();
    let private = identity_scalar(&device);
    for public in [ours, theirs, Chip(&device.firmware.key).public_key(), device.firmware.pin] {
        guesses.push(Ephemeral::from_random(copy(&private)).unwrap().agree(&public).unwrap());
    }
    let wanted = application(&agreed.key).into_secret();
    for guess in guesses {
        assert!(!application(&thief.as_shared_secret(&guess)).into_secret().equals(&wanted));
        if let Some(session) = thief.as_mixed_in(guess) {
            assert!(!application(&session).into_secret().equals(&wanted));
        }
    }
    // Nothing of the session's keys is in the registry, or in any other file of the server.
    for secret in [wanted.expose(), agreed.ephemeral.expose()] {
        assert!(!secret.windows(8).any(|part| registry.windows(8).any(|found| found == part)));
    }
    assert_eq!(open(&scratch, &mixed).await, Err(OpenRefusal::UnknownSession));
    assert_eq!(open(&scratch, &plain).await, Err(OpenRefusal::Replayed));
}

/// The private scalar of the device's identity key: the last 32 octets of ECPrivateKey's privateKey field.
fn identity_scalar(device: &Device) -> SecretArray<32> {
    let pkcs8 = device.firmware.key.to_pkcs8().unwrap();
    let at = pkcs8.expose().windows(4).position(|window| window == [0x02, 0x01, 0x01, 0x04]).unwrap() + 5;
    SecretArray::fill(|octets| octets.copy_from_slice(&pkcs8.expose()[at..at + 32]))
}
