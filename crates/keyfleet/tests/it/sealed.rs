//! What a device seals is opened on the command line and by the relay, between two real Mosquittos; what the server seals
//! is opened by the device.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs;
use std::rc::Rc;

use kf_crypto::PrivateKey;
use kf_derive::{ApplicationKey, DeviceKey, Sender, SessionKey, SoftwareKey};
use kf_exchange::{
    AwaitChallenge, Ephemeral, IdentityKey, KeyAgreement, KeyPlace, Message, PublicKey, Purpose, signature_from_der,
};
use kf_key::{DeviceId, KeyAlgorithm, SecretArray, SecretBytes};
use kf_seal::{Boot, KeyId, MAX_ENVELOPE_OCTETS, Opener, Replay, SESSION, SealAlgorithm, Sealed, Sealer, Service};
use kf_testkit::{Running, Tool, free_port};

use crate::console::{Fleet, Succeeds as _, json, private};

struct Chip(PrivateKey);

impl IdentityKey for Chip {
    type Error = kf_crypto::CryptoError;

    fn public_key(&self) -> PublicKey {
        PublicKey::from_spki(&self.0.spki()).unwrap()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], kf_crypto::CryptoError> {
        Ok(signature_from_der(&self.0.sign(message)?).unwrap())
    }
}

/// A device that enrolled and fetched its key.
pub(crate) struct Device {
    chip: Chip,
    pin: PublicKey,
    id: DeviceId,
    place: KeyPlace,
    key: DeviceKey,
    secret: SecretArray<32>,
}

/// An ephemeral key pair that shows what was agreed with it.
struct Shown(Ephemeral, Rc<RefCell<Vec<u8>>>);

impl KeyAgreement for Shown {
    type Error = Infallible;

    fn public_key(&self) -> PublicKey {
        self.0.public_key()
    }

    fn agree(&self, other: &PublicKey) -> Result<SecretArray<32>, Infallible> {
        let shared = self.0.agree(other)?;
        self.1.borrow_mut().extend_from_slice(shared.expose());
        Ok(shared)
    }
}

/// A mixed session that a device agreed.
pub(crate) struct Mixed {
    key_id: KeyId,
    /// What both ephemeral keys make.
    pub(crate) shared: Vec<u8>,
    /// Its key.
    pub(crate) secret: SecretArray<32>,
}

impl Mixed {
    pub(crate) fn sealer(&self, boot: Boot) -> Sealer {
        Sealer::new(&self.application(), self.key_id, boot, SealAlgorithm::Aes128Ccm).unwrap()
    }

    /// The key of its telemetry.
    pub(crate) fn application(&self) -> ApplicationKey {
        let key = SecretArray::fill(|octets| *octets = *self.secret.expose());
        SessionKey::from_keyed_hmac(SoftwareKey::new(key)).application(b"telemetry", 0).unwrap()
    }
}

/// A boot of sealing.
pub(crate) fn boot(number: u32) -> Boot {
    Boot::new(number, kf_crypto::random_array().unwrap()).unwrap()
}

fn ephemeral() -> Ephemeral {
    Ephemeral::from_random(SecretArray::fill(|octets| *octets = kf_crypto::random_array().unwrap())).unwrap()
}

fn pem_key(fleet: &Fleet, name: &str, label: &str) -> Vec<u8> {
    let pem = fs::read_to_string(fleet.path(name)).unwrap();
    kf_pki::pem::decode_all(label, &pem).unwrap().remove(0)
}

/// A certificate for a key of openssl.
pub(crate) fn certified(fleet: &Fleet, name: &str, profile: &[&str]) {
    let csr = fleet.request(name);
    let (out, issue) = (format!("{name}.pem"), ["certificate", "issue", "--csr", &csr]);
    fleet.run(&[&issue[..], profile, &["--out", &out]].concat()).succeeds();
}

fn post(fleet: &Fleet, kind: &str, message: &[u8]) -> Vec<u8> {
    fs::write(fleet.path("message.cbor"), message).unwrap();
    let url = format!("{}/v1/device/{kind}", server(fleet));
    let root = fleet.data().join("root.pem");
    let curl = ["-sSf", "--cacert", root.to_str().unwrap(), "-H", "Content-Type: application/cbor"];
    let arguments = [&curl[..], &["--data-binary", "@message.cbor", &url]].concat();
    Tool::new("curl").directory(fleet.scratch.path()).run(&arguments).expect_success().stdout
}

pub(crate) fn server(fleet: &Fleet) -> String {
    fleet.json(&["profile", "show"])["server"].as_str().unwrap().to_owned()
}

impl Device {
    /// Enrols `thermo-0001` and exchanges keys, as firmware does.
    pub(crate) fn start(fleet: &Fleet) -> Self {
        certified(fleet, "thermo", &["--profile", "ldevid", "--device", "thermo-0001"]);
        let chip = pem_key(fleet, "thermo.key", "PRIVATE KEY");
        let chip = Chip(PrivateKey::from_pkcs8(KeyAlgorithm::P256, &SecretBytes::from_vec(chip)).unwrap());
        let shown = fleet.json(&["device", "show", "thermo-0001"]);
        let id: DeviceId = shown["device"]["id"].as_str().unwrap().parse().unwrap();
        let root = fleet.data().join("root.pem");
        let url = format!("{}/v1/device/pins", server(fleet));
        let pins = Tool::new("curl").run(&["-sSf", "--cacert", root.to_str().unwrap(), &url]);
        let pins = json(&pins.expect_success());
        let pin = kf_pki::pem::decode_all("PUBLIC KEY", pins["delivery_key_pem"].as_str().unwrap()).unwrap();
        let pin = PublicKey::from_spki(&pin[0]).unwrap();
        let (waiting, hello) = AwaitChallenge::start(Purpose::Delivery, ephemeral(), [7; 16]).unwrap();
        let say = |message: Message| post(fleet, "exchange", message.as_bytes());
        let (waiting, proof) = waiting.prove(&say(hello), &[pin], id, &chip).unwrap();
        let delivered = waiting.open(&say(proof), None).unwrap();
        let place = delivered.place();
        let (key, done, acknowledgement) = delivered.acknowledge().unwrap();
        done.finish(&say(acknowledgement)).unwrap();
        let secret = key.into_secret();
        let key = SecretArray::fill(|octets| *octets = *secret.expose());
        Self { chip, pin, id, place, key: DeviceKey::from_keyed_hmac(SoftwareKey::new(key)), secret }
    }

    /// Agrees a mixed session, which takes the place of the one before.
    pub(crate) fn agree(&self, fleet: &Fleet) -> Mixed {
        let shown = Rc::<RefCell<Vec<u8>>>::default();
        let ephemeral = Shown(ephemeral(), Rc::clone(&shown));
        let (waiting, hello) = AwaitChallenge::start(Purpose::Session, ephemeral, [8; 16]).unwrap();
        let say = |message: Message| post(fleet, "session", message.as_bytes());
        let (waiting, proof) = waiting.prove(&say(hello), &[self.pin], self.id, &self.chip).unwrap();
        let (key, done, acknowledgement) = waiting.open_session(&say(proof), &self.place, &self.key).unwrap();
        let session = Some(done.session());
        done.finish(&say(acknowledgement)).unwrap();
        let key_id = KeyId { session, ..self.key_id(Sender::Device, "telemetry") };
        Mixed { key_id, shared: shown.take(), secret: key.into_secret() }
    }

    fn key_id(&self, sender: Sender, service: &str) -> KeyId {
        let KeyPlace { facility_epoch, device_epoch, .. } = self.place;
        let service = Service::new(service).unwrap();
        KeyId { device: self.id, facility_epoch, device_epoch, session: None, sender, service }
    }

    fn application(&self, service: &str) -> ApplicationKey {
        self.key.session(SESSION, 0).unwrap().application(service.as_bytes(), 0).unwrap()
    }

    /// The key as it was delivered.
    pub(crate) fn secret(&self) -> &SecretArray<32> {
        &self.secret
    }

    /// What lies below it for the telemetry.
    pub(crate) fn below(&self) -> [(&'static str, SecretArray<32>); 2] {
        let session = self.key.session(SESSION, 0).unwrap().into_secret();
        [("session key", session), ("application key", self.application("telemetry").into_secret())]
    }

    pub(crate) fn sealer(&self, number: u32) -> Sealer {
        let boot = boot(number);
        let key_id = self.key_id(Sender::Device, "telemetry");
        Sealer::new(&self.application("telemetry"), key_id, boot, SealAlgorithm::Aes128Ccm).unwrap()
    }
}

/// Seals to a file.
pub(crate) fn seal(fleet: &Fleet, sealer: &mut Sealer, plaintext: &str, external_aad: &str, file: &str) -> Vec<u8> {
    let mut out = vec![0; MAX_ENVELOPE_OCTETS];
    let envelope = sealer.seal(plaintext.as_bytes(), external_aad.as_bytes(), &mut out).unwrap();
    fs::write(fleet.path(file), envelope).unwrap();
    envelope.to_vec()
}

#[test]
fn a_payload_is_opened_once_from_a_file_in_any_encoding() {
    let fleet = Fleet::start(&[]).with_device();
    let device = Device::start(&fleet);
    let mut sealer = device.sealer(1);
    seal(&fleet, &mut sealer, "21.5 C", "", "octets");
    let opened = fleet.run(&["open", "octets"]).expect_success();
    assert_eq!(opened.stdout, b"21.5 C");
    assert!(opened.stderr_text().contains("telemetry of thermo-0001"), "{}", opened.text());
    let again = fleet.run(&["open", "octets"]);
    assert_eq!((again.code, again.stdout.len()), (Some(5), 0), "{}", again.text());
    assert!(again.stderr_text().contains("accepted before"), "{}", again.text());

    let envelope = seal(&fleet, &mut sealer, "22.0 C", "devices/thermo-0001/up", "octets");
    fs::write(fleet.path("hex"), hex::encode(&envelope) + "\n").unwrap();
    let unbound = fleet.run(&["open", "hex"]);
    assert!(unbound.code == Some(5) && unbound.stderr_text().contains("does not open"), "{}", unbound.text());
    let opened = fleet.json(&["open", "hex", "--external-aad", "devices/thermo-0001/up"]);
    assert_eq!((opened["device_name"].as_str(), opened["plaintext"].as_str()), (Some("thermo-0001"), Some("MjIuMCBD")));
    assert_eq!((opened["boot_number"].as_u64(), opened["counter"].as_u64()), (Some(1), Some(1)));

    seal(&fleet, &mut sealer, "22.5 C", "", "octets");
    fleet.run(&["open", "octets", "--out", "plain"]).succeeds();
    assert_eq!(fs::read(fleet.path("plain")).unwrap(), b"22.5 C");
    fs::write(fleet.path("octets"), b"\xd0\x83nonsense").unwrap();
    assert_eq!(fleet.run(&["open", "octets"]).code, Some(2));
}

#[test]
fn a_command_of_the_server_opens_on_the_device() {
    let fleet = Fleet::start(&[]).with_device();
    let device = Device::start(&fleet);
    fs::write(fleet.path("command"), "valve open").unwrap();
    fleet.run(&["seal", "thermo-0001", "commands", "command", "--why", "test", "--out", "sealed"]).succeeds();
    let envelope = fs::read(fleet.path("sealed")).unwrap();
    let sealed = Sealed::parse(&envelope).unwrap();
    let key_id = device.key_id(Sender::Server, "commands");
    let mut opener = Opener::new(&device.application("commands"), &key_id, &sealed).unwrap();
    let mut out = [0; 64];
    let authentic = opener.open(&sealed, b"", &mut out).unwrap();
    let accepted = Replay::<2>::new().accept(authentic.mark()).unwrap();
    assert_eq!(authentic.release(&accepted).unwrap(), b"valve open");
    let audit = fleet.json(&["audit", "list", "--subject", &device.id.to_string()]).to_string();
    assert!(audit.contains("payload.seal") && !audit.contains("valve"), "{audit}");
}

/// A broker that lets in whoever has a certificate of the fleet.
pub(crate) fn start_broker(fleet: &Fleet, name: &str, port: u16) -> Running {
    let authorities = fleet.json(&["authority", "list"]);
    let authorities = authorities["items"].as_array().unwrap().iter();
    let authorities: String = authorities.map(|a| a["certificate_pem"].as_str().unwrap()).collect();
    fs::write(fleet.path("authorities.pem"), authorities).unwrap();
    let path = |file: &str| fleet.path(file).display().to_string();
    let (authorities, cert, key) = (path("authorities.pem"), path("broker.pem"), path("broker.key"));
    let config = format!(
        "user root\nlistener {port} 127.0.0.1\ncafile {authorities}\ncertfile {cert}\nkeyfile {key}\n\
         require_certificate true\nuse_identity_as_username true\nlog_type all\n"
    );
    fs::write(fleet.path(name), config).unwrap();
    let mut broker = Tool::new("mosquitto").start(&["-c", &path(name)]);
    broker.wait_for_line(|line| line.contains("running"));
    broker
}

/// Arguments of Mosquitto's clients, as the device.
fn client(fleet: &Fleet, port: u16) -> Vec<String> {
    let root = fleet.data().join("root.pem").display().to_string();
    let port = port.to_string();
    ["-h", "localhost", "-p", &port, "--cafile", &root, "--cert", "thermo.pem", "--key", "thermo.key", "-q", "1"]
        .map(str::to_owned)
        .to_vec()
}

fn publish(fleet: &Fleet, port: u16, topic: &str, file: &str) {
    let mut arguments = client(fleet, port);
    arguments.extend(["-t", topic, "-f", file].map(str::to_owned));
    Tool::new("mosquitto_pub").directory(fleet.scratch.path()).run(&arguments).succeeds();
}

fn start_relay(fleet: &Fleet, from: u16, to: u16) -> Running {
    let root = fleet.data().join("root.pem").display().to_string();
    let (from, to) = (format!("localhost:{from}"), format!("localhost:{to}"));
    let relay = ["relay", "--broker", &from, "--ca", &root, "--cert", "relay.pem", "--key", "relay.key"];
    let topics = ["--from", "sealed/#", "--to", "plain", "--to-broker", &to];
    fleet.tool().start(&[&["--profile", "relay.toml"][..], &relay, &topics].concat())
}

#[test]
fn the_relay_turns_sealed_topics_into_plain_ones_and_counts_what_does_not_open() {
    let fleet = Fleet::start(&[]).with_device();
    let device = Device::start(&fleet);
    let mut sealer = device.sealer(1);
    certified(&fleet, "broker", &["--profile", "tls-server", "--dns-name", "localhost"]);
    fleet.register("relay");
    certified(&fleet, "relay", &["--profile", "ldevid", "--device", "relay"]);
    fleet.run(&["operator", "create", "relay", "--role", "relay", "--facility", "lyon"]).succeeds();
    fleet.run(&["token", "create", "relay", "--out", "relay.token"]).succeeds();
    let root = fleet.data().join("root.pem");
    let profile = format!("server = {:?}\nroot = {root:?}\ntoken_file = \"relay.token\"\n", server(&fleet));
    private(&fleet.path("relay.toml"), &profile);

    let (far, near) = (free_port(), free_port());
    let (far_broker, mut near_broker) =
        (start_broker(&fleet, "far.conf", far), start_broker(&fleet, "near.conf", near));
    let mut listener = client(&fleet, near);
    listener.extend(["-t", "plain/#", "-v", "-C", "3", "-W", "60"].map(str::to_owned));
    let listener = Tool::new("mosquitto_sub").directory(fleet.scratch.path()).within_a_minute(listener);
    near_broker.wait_for_line(|line| line.contains("SUBACK"));
    let mut relay = start_relay(&fleet, far, near);
    relay.wait_for_line(|line| line.contains("receiving"));

    seal(&fleet, &mut sealer, "21.5 C", "", "first");
    publish(&fleet, far, "sealed/anything", "first");
    publish(&fleet, far, "sealed/anything", "first");
    fs::write(fleet.path("garbage"), "garbage").unwrap();
    publish(&fleet, far, "sealed/x", "garbage");
    // Each reason is told once, so both lines mean that both were judged.
    let mut told = [relay.wait_for_line(is_refusal), relay.wait_for_line(is_refusal)];
    told.sort();
    assert!(told[0].contains("malformed") && told[1].contains("replayed"), "{told:?}");

    // The far broker goes away and comes back: the relay does too.
    drop(far_broker);
    relay.wait_for_line(|line| line.contains("nothing is received"));
    let _far_broker = start_broker(&fleet, "far.conf", far);
    relay.wait_for_line(|line| line.contains("receiving"));
    for text in ["22.0 C", "22.5 C"] {
        seal(&fleet, &mut sealer, text, "", "next");
        publish(&fleet, far, "sealed/anything", "next");
    }
    let heard = listener.join().unwrap().expect_success().stdout_text();
    let expected = ["21.5 C", "22.0 C", "22.5 C"].map(|text| format!("plain/thermo-0001/telemetry {text}\n")).concat();
    assert_eq!(heard, expected);
    Tool::new("kill").run(&["-TERM", &relay.id().to_string()]).succeeds();
    let totals = relay.wait_for_line(|line| line.starts_with("received="));
    assert_eq!(totals, "received=5 relayed=3 dropped=0 refused=2 refused.malformed=1 refused.replayed=1");
    assert!(relay.wait().success());
}

fn is_refusal(line: &str) -> bool {
    line.starts_with("refused, and counted")
}

/// Runs beside the test.
trait WithinAMinute {
    fn within_a_minute(self, arguments: Vec<String>) -> std::thread::JoinHandle<kf_testkit::Output>;
}

impl WithinAMinute for Tool {
    fn within_a_minute(self, arguments: Vec<String>) -> std::thread::JoinHandle<kf_testkit::Output> {
        std::thread::spawn(move || self.run(&arguments))
    }
}

#[test]
fn a_relay_that_may_not_open_or_is_asked_for_a_wildcard_says_so_at_once() {
    let fleet = Fleet::start(&[]).with_device();
    let relay = ["relay", "--broker", "localhost:1", "--ca", "x", "--cert", "x", "--key", "x", "--from", "sealed/#"];
    let wildcard = fleet.run(&[&relay[..], &["--to", "plain/#"]].concat());
    assert!(wildcard.code == Some(2) && wildcard.stderr_text().contains("--to"), "{}", wildcard.text());
    let missing = fleet.run(&[&relay[..], &["--to", "plain"]].concat());
    assert_eq!(missing.code, Some(3), "{}", missing.text());
}
