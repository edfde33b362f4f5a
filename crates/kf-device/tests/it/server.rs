//! The other side: a certification authority, the key hierarchy, exchanges, orders, and an opener of sealed payloads.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kf_derive::{DeviceKey, FleetRoot, Sender, SoftwareKey};
use kf_device::certificate::Anchor;
use kf_device::order::OrderKey;
use kf_exchange::order::{Order, OrderAct, OrderOutcome, OrderReport};
use kf_exchange::{
    Acknowledgement, AwaitProof, Ephemeral, IdentityKey, KeyPlace, Kind, P256IdentityKey, PublicKey, Purpose, peek,
};
use kf_key::{DeviceId, FacilityId, SecretArray, UnixMillis};
use kf_seal::{Boot, KeyId, Opener, Replay, SealAlgorithm, Sealed, Sealer, Service};
use kf_testkit::ForeignAuthority;

pub(crate) const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);
pub(crate) const FACILITY: FacilityId = FacilityId::from_bytes([0xfa; 16]);
pub(crate) const NOW: UnixMillis = UnixMillis(1_795_424_400_000);
pub(crate) const CODE: &[u8] = b"one-time-code";
const SALT: [u8; 16] = [0x5a; 16];

/// A request that has crossed the transport.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) authorization: Option<&'a str>,
    /// Of the client certificate, if TLS had one.
    pub(crate) client_key: Option<PublicKey>,
    pub(crate) body: &'a [u8],
}

pub(crate) struct Server {
    authority: ForeignAuthority,
    root: FleetRoot,
    delivery_key: P256IdentityKey,
    order_key: P256IdentityKey,
    /// The newest epoch of the device; older ones are retired by an acknowledgement.
    pub(crate) device_epoch: u32,
    pub(crate) acknowledged_epoch: u32,
    /// Keys that were certified, newest last.
    pub(crate) certified: Vec<PublicKey>,
    sessions: BTreeMap<[u8; 16], AwaitProof>,
    fresh: u8,
    replay: Replay<8>,
    /// Payloads sealed for the device.
    sealed: u32,
    /// Every boot that a payload was sealed under, with the highest counter.
    pub(crate) boots: BTreeMap<(u32, [u8; 16]), u32>,
    pub(crate) opened: Vec<Vec<u8>>,
    pub(crate) reports: Vec<OrderReport>,
    /// Certificates asked for by a code.
    pub(crate) codes_used: Vec<PublicKey>,
}

fn secret(octet: u8) -> SecretArray<32> {
    SecretArray::fill(|key| key.fill(octet))
}

impl Server {
    pub(crate) fn new() -> Self {
        Self {
            authority: ForeignAuthority::new(),
            root: FleetRoot::from_keyed_hmac(SoftwareKey::new(secret(1))),
            delivery_key: P256IdentityKey::from_secret(&secret(2)).unwrap(),
            order_key: P256IdentityKey::from_secret(&secret(3)).unwrap(),
            device_epoch: 1,
            acknowledged_epoch: 0,
            certified: Vec::new(),
            sessions: BTreeMap::new(),
            fresh: 0,
            replay: Replay::new(),
            sealed: 0,
            boots: BTreeMap::new(),
            opened: Vec::new(),
            reports: Vec::new(),
            codes_used: Vec::new(),
        }
    }

    pub(crate) fn anchor(&self) -> Anchor {
        let root = self.authority.root_der();
        Anchor(kf_device::certificate::Certificate::from_der(&root).unwrap().fingerprint())
    }

    pub(crate) fn delivery_pin(&self) -> PublicKey {
        self.delivery_key.public_key()
    }

    pub(crate) fn order_pin(&self) -> PublicKey {
        self.order_key.public_key()
    }

    /// The order key as firmware pins it, which nothing succeeded.
    pub(crate) fn order_key(&self) -> OrderKey {
        OrderKey { key: self.order_pin(), factory: self.order_pin(), device: DEVICE }
    }

    pub(crate) fn place(&self) -> KeyPlace {
        KeyPlace { facility: FACILITY, facility_epoch: 1, device_epoch: self.device_epoch }
    }

    fn device_key(&self, epoch: u32) -> DeviceKey {
        self.root.facility(FACILITY, 1).unwrap().device(DEVICE, &SALT, epoch).unwrap()
    }

    /// What the factory injects.
    pub(crate) fn injected_key(&self) -> SecretArray<32> {
        self.device_key(self.device_epoch).into_secret()
    }

    /// EST: status and body.
    pub(crate) fn est(&mut self, request: &Received<'_>) -> (u16, Vec<u8>) {
        match (request.method, request.path) {
            ("GET", "/.well-known/est/pumps/cacerts") => {
                let (root, issuing) = (self.authority.root_der(), self.authority.issuing_der());
                (200, wrapped(&[&issuing, &root]))
            }
            ("POST", "/.well-known/est/pumps/simpleenroll") => {
                let expected = format!("Basic {}", BASE64_STANDARD.encode([b"pump-7:", CODE].concat()));
                if request.authorization != Some(expected.as_str()) {
                    return (401, Vec::new());
                }
                let (status, body, key) = self.certify(request);
                self.codes_used.extend(key);
                (status, body)
            }
            ("POST", "/.well-known/est/pumps/simplereenroll") => {
                if request.client_key.is_none_or(|key| self.certified.last() != Some(&key)) {
                    return (403, Vec::new());
                }
                let (status, body, _) = self.certify(request);
                (status, body)
            }
            _ => (404, Vec::new()),
        }
    }

    fn certify(&mut self, request: &Received<'_>) -> (u16, Vec<u8>, Option<PublicKey>) {
        assert_eq!(request.content_type, Some("application/pkcs10"));
        let Ok(parsed) = kf_pki::request::CertificationRequest::from_body(request.body) else {
            return (400, Vec::new(), None);
        };
        let key = PublicKey::from_spki(&parsed.key.spki).unwrap();
        let leaf = self.authority.certify_client("pump-7", &key.to_sec1(), (2026, 11, 1), (2027, 11, 1));
        if !self.certified.contains(&key) {
            self.certified.push(key);
        }
        (200, wrapped(&[&leaf]), Some(key))
    }

    /// One message of an exchange, and the answer.
    pub(crate) fn exchange(&mut self, message: &[u8]) -> Vec<u8> {
        match peek(message).unwrap() {
            Kind::Hello => {
                self.fresh += 1;
                let session = [self.fresh; 16];
                let ephemeral = Ephemeral::from_random(secret(100 + self.fresh % 100)).unwrap();
                let (state, challenge) =
                    AwaitProof::challenge(message, &self.delivery_key, session, ephemeral).unwrap();
                self.sessions.insert(session, state);
                challenge.as_bytes().to_vec()
            }
            Kind::Proof => {
                let claimed = kf_exchange::ClaimedIdentity::read(message).unwrap();
                let identity = *self.certified.iter().find(|key| key.spki_sha256() == claimed.spki_sha256).unwrap();
                let state = self.sessions.remove(&claimed.session).unwrap();
                let proved = state.verify(message, DEVICE, &identity).unwrap();
                match proved.purpose() {
                    Purpose::Delivery => {
                        let key = self.device_key(self.device_epoch).into_secret();
                        proved.deliver(self.place(), &key).unwrap().as_bytes().to_vec()
                    }
                    Purpose::Session => {
                        let key = self.device_key(self.device_epoch);
                        proved.open_session(self.place(), &key).unwrap().1.as_bytes().to_vec()
                    }
                }
            }
            Kind::Acknowledgement => {
                let said = Acknowledgement::read(message).unwrap();
                let done = said.verify(&self.device_key(said.place().device_epoch)).unwrap();
                self.acknowledged_epoch = said.place().device_epoch;
                done.as_bytes().to_vec()
            }
            other => panic!("not for a server: {other:?}"),
        }
    }

    /// Seals a payload for the device, under a boot of its own.
    pub(crate) fn seal(&mut self, service: &str, plaintext: &[u8]) -> Vec<u8> {
        self.sealed += 1;
        let mut random = [0xb0; 16];
        random[..4].copy_from_slice(&self.sealed.to_be_bytes());
        let service = Service::new(service).unwrap();
        let key_id = KeyId {
            device: DEVICE,
            facility_epoch: 1,
            device_epoch: self.device_epoch,
            session: None,
            sender: Sender::Server,
            service,
        };
        let key = self.device_key(self.device_epoch);
        let application = key.session(kf_seal::SESSION, 0).unwrap().application(service.as_bytes(), 0).unwrap();
        let boot = Boot::new(self.sealed, random).unwrap();
        let mut sealer = Sealer::new(&application, key_id, boot, SealAlgorithm::Aes128Ccm).unwrap();
        let mut out = [0; 512];
        sealer.seal(plaintext, b"topic", &mut out).unwrap().to_vec()
    }

    /// Opens a payload as the server does: from what the payload names, the epoch being one that is not retired.
    pub(crate) fn open(&mut self, envelope: &[u8]) -> Result<Vec<u8>, &'static str> {
        let sealed = Sealed::parse(envelope).map_err(|_malformed| "malformed")?;
        let epoch = sealed.key_id().device_epoch;
        if epoch != self.device_epoch && epoch != self.acknowledged_epoch {
            return Err("retired epoch");
        }
        let service = Service::new("telemetry").unwrap();
        let expected = KeyId {
            device: DEVICE,
            facility_epoch: 1,
            device_epoch: epoch,
            session: None,
            sender: Sender::Device,
            service,
        };
        let key = self.device_key(epoch);
        let application = key.session(kf_seal::SESSION, 0).unwrap().application(service.as_bytes(), 0).unwrap();
        let mut opener = Opener::new(&application, &expected, &sealed).map_err(|_refused| "other key")?;
        let mut plaintext = [0; 256];
        let authentic = opener.open(&sealed, b"topic", &mut plaintext).map_err(|_refused| "does not open")?;
        let accepted = self.replay.accept(authentic.mark()).map_err(|_replay| "replay")?;
        let plaintext = authentic.release(&accepted).unwrap().to_vec();
        let boot = (sealed.boot().number(), *sealed.boot().random());
        assert!(
            self.boots.keys().all(|known| *known == boot || (known.0 != boot.0 && known.1 != boot.1)),
            "no two boots share a number or random bits"
        );
        self.boots.insert(boot, sealed.counter());
        self.opened.push(plaintext.clone());
        Ok(plaintext)
    }

    pub(crate) fn order(&self, act: OrderAct, counter: u64) -> Vec<u8> {
        let order = Order { act, device: DEVICE, counter, expires: NOW.plus(UnixMillis::HOUR) };
        order.sign(&self.order_key).unwrap().as_bytes().to_vec()
    }

    /// Takes a report, signed by the newest or a former identity of the device.
    pub(crate) fn report(&mut self, message: &[u8]) {
        let report = self.certified.iter().find_map(|key| OrderReport::verify(message, key).ok());
        let report = report.expect("a report signed by the device");
        assert_eq!((report.device, report.outcome), (DEVICE, OrderOutcome::Done));
        self.reports.push(report);
    }
}

fn wrapped(certificates: &[&[u8]]) -> Vec<u8> {
    // In lines, as many servers send it.
    let text = BASE64_STANDARD.encode(kf_pki::cms::certs_only(certificates));
    text.as_bytes().chunks(64).flat_map(|line| line.iter().copied().chain(*b"\r\n")).collect()
}
