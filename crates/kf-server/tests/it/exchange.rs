//! A device gets its key over HTTPS, with curl as its transport.

use std::fs;

use kf_api::operator::Role;
use kf_crypto::PrivateKey;
use kf_exchange::order::{Order, OrderAct, OrderOutcome, OrderReport};
use kf_exchange::{AwaitChallenge, Ephemeral, IdentityKey, KeyPlace, PublicKey, Purpose, signature_from_der};
use kf_fleet::Clock as _;
use kf_key::{DeviceId, KeyAlgorithm, SecretArray, SecretBytes};

use crate::rig::{Answer, Rig};

pub(crate) struct Chip(PrivateKey);

impl Chip {
    /// The private key that openssl made.
    pub(crate) fn read(pem: &std::path::Path) -> Self {
        let pem = fs::read_to_string(pem).unwrap();
        let der = kf_pki::pem::decode_all("PRIVATE KEY", &pem).unwrap().remove(0);
        Self(PrivateKey::from_pkcs8(KeyAlgorithm::P256, &SecretBytes::from_vec(der)).unwrap())
    }
}

impl IdentityKey for Chip {
    type Error = kf_crypto::CryptoError;

    fn public_key(&self) -> PublicKey {
        PublicKey::from_spki(&self.0.spki()).unwrap()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], kf_crypto::CryptoError> {
        Ok(signature_from_der(&self.0.sign(message)?).unwrap())
    }
}

impl Rig {
    /// POSTs a message without any credential.
    pub(crate) fn message(&self, path: &str, message: &[u8]) -> Answer {
        let file = self.file("message.cbor");
        fs::write(&file, message).unwrap();
        let (data, url) = (format!("@{}", file.display()), self.https_url(path));
        self.curl(&["-X", "POST", "-H", "Content-Type: application/cbor", "--data-binary", &data, &url])
    }

    fn exchange_message(&self, message: &[u8]) -> Vec<u8> {
        let answer = self.message("/v1/device/exchange", message);
        assert_eq!(answer.expect(200).header("content-type"), Some("application/cbor"));
        answer.body
    }

    /// The pinned key of this name, as a firmware engineer fetches it.
    pub(crate) fn pin(&self, field: &str) -> PublicKey {
        let pins = self.curl(&[&self.https_url("/v1/device/pins")]).expect(200).json();
        let der = kf_pki::pem::decode_all("PUBLIC KEY", pins[field].as_str().unwrap()).unwrap();
        PublicKey::from_spki(&der[0]).unwrap()
    }

    fn exchange(&self, device: DeviceId, chip: &Chip, held: Option<&KeyPlace>) -> KeyPlace {
        let ephemeral = SecretArray::fill(|octets| *octets = kf_crypto::random_array().unwrap());
        let ephemeral = Ephemeral::from_random(ephemeral).unwrap();
        let (waiting, hello) = AwaitChallenge::start(Purpose::Delivery, ephemeral, [7; 16]).unwrap();
        let challenge = self.exchange_message(hello.as_bytes());
        let (waiting, proof) = waiting.prove(&challenge, &[self.pin("delivery_key_pem")], device, chip).unwrap();
        let delivery = self.exchange_message(proof.as_bytes());
        let delivered = waiting.open(&delivery, held).unwrap();
        let place = delivered.place();
        let (_, done, acknowledgement) = delivered.acknowledge().unwrap();
        done.finish(&self.exchange_message(acknowledgement.as_bytes())).unwrap();
        place
    }

    pub(crate) fn device_id(&self, name: &str) -> DeviceId {
        let shown = self.api(&self.owner_token, "GET", &format!("/v1/devices/{name}"), None);
        shown.expect(200).json()["device"]["id"].as_str().unwrap().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_gets_each_epoch_over_https_and_the_old_one_is_retired() {
    let rig = Rig::start().await;
    let (request, _) = rig.enrolled("pump-1").await;
    let (chip, device) = (Chip::read(&request.key), rig.device_id("pump-1"));
    let token = rig.owner_token.clone();
    let first = rig.exchange(device, &chip, None);
    assert_eq!((first.facility_epoch, first.device_epoch), (1, 1));
    let epochs = "/v1/facilities/factory-a/epochs";
    rig.api(&token, "POST", epochs, Some(r#"{"why":"yearly"}"#)).expect(201);
    rig.api(&token, "POST", epochs, Some("{}")).expect(409);
    let retire = format!("{epochs}/1/retire");
    let refused = rig.api(&token, "POST", &retire, Some("{}"));
    assert!(refused.expect(409).text().contains("pump-1"), "{}", refused.text());
    let holders = rig.api(&token, "GET", &format!("{epochs}/1/holders"), None).expect(200).json();
    assert_eq!(holders["items"][0]["name"], "pump-1");
    let second = rig.exchange(device, &chip, Some(&first));
    assert_eq!((second.facility_epoch, second.device_epoch), (2, 1));
    rig.api(&token, "POST", &retire, Some("{}")).expect(200);
    let listed = rig.api(&token, "GET", epochs, None).expect(200).json();
    assert_eq!(listed["items"][0]["state"], "current");
    assert_eq!(listed["items"][1]["state"], "retired");
    let keys = rig.api(&token, "GET", "/v1/devices/pump-1/keys", None).expect(200).json();
    assert_eq!(keys["up_to_date"], true);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_refused_before_much_of_it_is_read() {
    let rig = Rig::start().await;
    let path = "/v1/device/exchange";
    rig.message(path, &[0; 513]).expect(413);
    rig.message(path, &[0; 512]).expect(400);
    rig.message(path, &[0x86, 1, 1]).expect(400);
    rig.message(path, &[]).expect(400);
    let url = rig.https_url(path);
    rig.curl(&["-X", "POST", "-H", "Content-Type: application/json", "--data-binary", "{}", &url]).expect(415);
    rig.curl(&[&url]).expect(405);
    for path in ["/v1/facilities/factory-a/epochs/x/retire", "/v1/facilities/factory-a/epochs/4294967296/retire"] {
        rig.api(&rig.owner_token, "POST", path, Some("{}")).expect(404);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_two_people_gave_reaches_its_device_over_mutual_tls_and_is_answered() {
    let rig = Rig::start().await;
    let (request, certificate) = rig.enrolled("pump-1").await;
    let (chip, device) = (Chip::read(&request.key), rig.device_id("pump-1"));
    let (key, certificate) = (request.key.to_str().unwrap(), certificate.to_str().unwrap());
    let url = rig.https_url("/v1/device/orders");
    let fetch = || rig.curl(&["--cert", certificate, "--key", key, &url]);
    fetch().expect(204);
    rig.curl(&[&url]).expect(401);
    let wanted = r#"{"device":"pump-1","act":"wipe","lifetime_hours":24,"why":"scrapped"}"#;
    let waiting = rig.api(&rig.owner_token, "POST", "/v1/orders", Some(wanted)).expect(201).json();
    let decision = format!("/v1/proposals/{}/decision", waiting["proposal"].as_str().unwrap());
    let yes = r#"{"approve":true,"why":"agreed"}"#;
    rig.api(&rig.owner_token, "POST", &decision, Some(yes)).expect(409);
    let second = rig.operator("pavel", Role::FleetOperator, &[]).await;
    rig.api(&second, "POST", &decision, Some(yes)).expect(200);
    let answer = fetch();
    assert_eq!(answer.expect(200).header("content-type"), Some("application/cbor"));
    let now = rig.clock.now();
    let order = Order::verify(&answer.body, &rig.pin("order_key_pem"), device, 0, now).unwrap();
    assert_eq!((order.act, order.counter), (OrderAct::Wipe, 1));
    let report = OrderReport { act: order.act, device, counter: order.counter, outcome: OrderOutcome::Done, at: now };
    let path = "/v1/device/orders/outcome";
    rig.message(path, report.sign(&chip).unwrap().as_bytes()).expect(204);
    rig.message(path, b"nothing").expect(400);
    fetch().expect(204);
    let listed = rig.api(&second, "GET", "/v1/orders?device=pump-1", None).expect(200).json();
    assert_eq!(listed["items"][0]["state"], "done");
    let id = listed["items"][0]["id"].as_str().unwrap();
    rig.api(&second, "GET", &format!("/v1/orders/{id}"), None).expect(200);
    rig.api(&second, "POST", &format!("/v1/orders/{id}/cancel"), Some("{}")).expect(409);
    rig.stop().await;
}
