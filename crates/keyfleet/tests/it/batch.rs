//! A batch from its authorisation to its books, driven as an operator does. The station is a few lines here; openssl and pycose
//! judge what it and the server signed.

use std::fs;

use kf_api::batch::Outcome;
use kf_batch::P256Key;
use kf_batch::frame::document_hash;
use kf_batch::manifest::{Counts, Manifest};
use kf_batch::quota::{Quota, quota_hash};
use kf_batch::record::{CLAIM_CODE_SLOT, EntropyEvidence, Fingerprint, KeyOrigin, MadeKey, Record};
use kf_batch::station_request::StationRequest;
use kf_crypto::PrivateKey;
use kf_enrol::claim::claim_uri_of_key;
use kf_enrol::code::EnrolmentCode;
use kf_key::{CertificateProfile, KeyAlgorithm, SerialNumber, UnixMillis};
use kf_pki::certificate::{IssuanceRequest, Subject, check_issuance};
use kf_pki::request::{RequestedKey, make_request};
use kf_testkit::{Python, Tool};

use crate::console::{Fleet, Succeeds as _, json, private};
use crate::fleet::sign_up_for;

/// Verifies COSE_Sign1 documents with pycose: pairs of a file and the public key's file, with the kind that stands in the
/// external data. Fails when one does not hold, or when a changed one does.
const JUDGE: &str = r"
import sys
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pycose.messages import CoseMessage
from pycose.keys import EC2Key
from pycose.keys.curves import P256

for kind, document, pem in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    numbers = load_pem_public_key(open(pem, 'rb').read()).public_numbers()
    message = CoseMessage.decode(open(document, 'rb').read())
    message.external_aad = b'keyfleet ' + kind.encode() + b' v1'
    message.key = EC2Key(crv=P256, x=numbers.x.to_bytes(32, 'big'), y=numbers.y.to_bytes(32, 'big'))
    assert message.verify_signature(), document
    message.payload = message.payload + b'\x00'
    assert not message.verify_signature(), document
";

fn fresh() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::P256).unwrap()
}

fn public(key: &PrivateKey) -> P256Key {
    P256Key::from_spki(&key.spki()).unwrap()
}

fn now() -> UnixMillis {
    kf_fleet::Clock::now(&kf_fleet::SystemClock)
}

pub(crate) struct Station {
    authority: PrivateKey,
    record: PrivateKey,
    request: Vec<u8>,
}

/// A station that is known to the server, with what it hands in.
fn station(fleet: &Fleet) -> Station {
    let (identity, authority, record) = (fresh(), fresh(), fresh());
    fs::write(fleet.path("line-1.pem"), kf_pki::pem::encode("PUBLIC KEY", &identity.spki())).unwrap();
    fs::write(fleet.path("record.pem"), kf_pki::pem::encode("PUBLIC KEY", &record.spki())).unwrap();
    let create = ["operator", "create", "line-1", "--role", "station", "--facility", "lyon"];
    fleet.run(&[&create[..], &["--voucher-key", "line-1.pem"]].concat()).succeeds();
    let request = StationRequest {
        station: "line-1".into(),
        authority_csr: make_request(&authority, "").unwrap(),
        transport_key: public(&fresh()),
        record_key: public(&record),
        made: now(),
        nonce: [1; 16],
    };
    let unsigned = request.prepare(&public(&identity)).unwrap();
    let signature = identity.sign(&unsigned.to_be_signed()).unwrap();
    let request = unsigned.complete(&signature).unwrap();
    fs::write(fleet.path("request.cose"), &request).unwrap();
    Station { authority, record, request }
}

const CREATE: [&str; 13] = [
    "batch",
    "create",
    "b-1",
    "--product-line",
    "thermo",
    "--facility",
    "lyon",
    "--count",
    "5",
    "--station-request",
    "request.cose",
    "--recipe",
    "abababababababababababababababababababababababababababababababab",
];

fn certify(station: &Station, quota: &Quota, position: u32, key: &PrivateKey) -> Vec<u8> {
    let terms = &quota.terms;
    let device = terms.devices.device(position).unwrap();
    let subject = Subject::Device {
        organization: terms.organization.clone(),
        device,
        name: terms.devices.name(device).unwrap(),
        product_line: terms.product_line_name.clone(),
    };
    let request = IssuanceRequest {
        profile: CertificateProfile::IDevId,
        subject,
        key: RequestedKey::from_spki(&key.spki()).unwrap(),
        serial: SerialNumber::from_parts(terms.issued, kf_crypto::random_array().unwrap()),
        not_before: terms.issued,
        not_after: None,
    };
    let checked = check_issuance(&terms.issuer().unwrap(), request).unwrap();
    let signature = station.authority.sign(checked.tbs()).unwrap();
    checked.complete(&signature).unwrap().der
}

/// What the station prints on a label, `unit-N.label`, and the password that goes with it, `unit-N.code`.
fn labelled(fleet: &Fleet, quota: &Quota, position: u32, key: &PrivateKey) -> EnrolmentCode {
    let code = EnrolmentCode::from_random(&kf_crypto::random_secret().unwrap());
    let device = quota.terms.devices.device(position).unwrap();
    let name = quota.terms.devices.name(device).unwrap();
    let key = kf_crypto::sha256(&key.spki());
    let text = code.to_text();
    let uri = claim_uri_of_key("https://localhost:8443", &name, &text, &[7; 32], &key);
    private(&fleet.path(&format!("unit-{position}.label")), uri.expose());
    private(&fleet.path(&format!("unit-{position}.curl")), &format!("user = \"{name}:{}\"\n", text.expose()));
    code
}

/// The device's key, a request made with it, and its IDevID.
fn write_identity(fleet: &Fleet, name: &str, key: &PrivateKey, certificate: &[u8]) {
    let pkcs8 = key.to_pkcs8().unwrap();
    private(&fleet.path(&format!("{name}.key")), &kf_pki::pem::encode("PRIVATE KEY", pkcs8.expose()));
    fs::write(fleet.path(&format!("{name}.pem")), kf_pki::pem::certificate(certificate)).unwrap();
    fs::write(fleet.path(&format!("{name}.der")), make_request(key, "").unwrap()).unwrap();
}

/// EST simpleenroll by curl.
pub(crate) fn enrol(fleet: &Fleet, request: &str, more: &[&str]) -> kf_testkit::Output {
    let profile = fs::read_to_string(fleet.data().join("cli.toml")).unwrap();
    let server = profile.lines().next().unwrap().trim_start_matches("server = ").trim_matches('"').to_owned();
    let curl = Tool::new("curl").directory(fleet.scratch.path());
    Tool::new("openssl")
        .directory(fleet.scratch.path())
        .run(&["base64", "-in", request, "-out", "request.b64"])
        .succeeds();
    let root = fleet.data().join("root.pem");
    let arguments = ["--silent", "--cacert", root.to_str().unwrap(), "--data-binary", "@request.b64"];
    let form = ["--header", "Content-Type: application/pkcs10", "--write-out", "\nstatus %{http_code}"];
    let url = format!("{server}/.well-known/est/thermo/simpleenroll");
    curl.run(&[&arguments[..], &form, more, &[&url]].concat())
}

#[test]
fn a_label_makes_a_device_somebodys_once_it_was_let_go_claimed_and_has_proved_its_key() {
    let (fleet, station) = prepared();
    fleet.run(&["facility", "create", "paris"]).succeeds();
    sign_up_for(&fleet, "ines", "facility-operator", &["--facility", "paris"]);
    let (quota, document) = authorised(&fleet);
    fs::write(fleet.path("records.cbor"), shift(&fleet, &station, &quota, &document, false)).unwrap();
    fleet.run(&["batch", "import", "b-1", "records.cbor"]).succeeds();
    let claim = |label: &str| fleet.run_as("ines.toml", &["device", "claim", "--label", label, "--facility", "paris"]);
    let facility = |device: &str| fleet.json(&["device", "show", device])["facility_name"].as_str().unwrap().to_owned();

    claim("unit-0.label").expect_failure().expect_text("has not let it go");
    let released = fleet.json(&["device", "release", "--batch", "b-1", "--why", "sold"]);
    assert_eq!(released["devices"], 3);
    let own = fleet.run(&["device", "claim", "--label", "unit-0.label", "--facility", "paris"]);
    assert!(own.expect_failure().text().contains("somebody else"), "who lets go does not take");
    let elsewhere = fleet.run_as("ines.toml", &["device", "claim", "--label", "unit-0.label", "--facility", "lyon"]);
    assert!(!elsewhere.success(), "an installer claims for facilities of theirs: {}", elsewhere.text());
    let label = fs::read_to_string(fleet.path("unit-0.label")).unwrap();
    let (other, wrong) = (fs::read_to_string(fleet.path("unit-1.label")).unwrap(), fleet.path("wrong.label"));
    let code_of = |label: &str| label.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    private(&wrong, &label.replace(&code_of(&label), &code_of(&other)));
    assert_eq!(claim("wrong.label").code, Some(3), "a code of another label");

    claim("unit-0.label").expect_success().expect_text("claimed");
    claim("unit-1.label").succeeds();
    assert_eq!(facility("b-1-000001"), "lyon", "until the device has proved its key");
    let with_code = ["--config", "unit-1.curl"];
    enrol(&fleet, "unit-0.der", &with_code).expect_success().expect_text("status 401");
    enrol(&fleet, "unit-1.der", &with_code).expect_success().expect_text("status 200");
    assert_eq!(facility("b-1-000002"), "paris");
    let idevid = ["--cert", "unit-0.pem", "--key", "unit-0.key"];
    enrol(&fleet, "unit-0.der", &idevid).expect_success().expect_text("status 200");
    assert_eq!(facility("b-1-000001"), "paris");
    let shown =
        json(&fleet.run_as("ines.toml", &["device", "show", "b-1-000001", "--format", "json"]).expect_success());
    assert!(shown["certificates"].as_array().unwrap().iter().any(|one| one["profile"] == "ldevid"), "{shown}");
    claim("unit-0.label").expect_failure().expect_text("claimed before");
    assert_eq!(facility("b-1-000003"), "lyon", "what was let go and not claimed stays where it is");
}

/// Three devices and the end of the shift, as the station writes them; the third is made by another recipe when `cheats`.
pub(crate) fn shift(fleet: &Fleet, station: &Station, quota: &Quota, document: &[u8], cheats: bool) -> Vec<u8> {
    let mut head = quota_hash(document);
    let mut file = Vec::new();
    for position in 0..3u32 {
        let key = fresh();
        let certificate = certify(station, quota, position, &key);
        if position == 0 {
            fs::write(fleet.path("device.pem"), kf_pki::pem::certificate(&certificate)).unwrap();
        }
        let code = labelled(fleet, quota, position, &key);
        write_identity(fleet, &format!("unit-{position}"), &key, &certificate);
        let record = Record {
            batch: quota.terms.batch,
            sequence: u64::from(position) + 1,
            previous: head,
            device: quota.terms.devices.device(position).unwrap(),
            outcome: Outcome::Passed,
            at: quota.terms.issued.plus(u64::from(position)),
            fixture: "fixture-1".into(),
            operator: "Ana".into(),
            recipe: if cheats && position == 2 { [0; 32] } else { quota.terms.recipe },
            firmware: None,
            key: Some(MadeKey { origin: KeyOrigin::Device, spki_sha256: kf_crypto::sha256(&key.spki()) }),
            certificate: Some(certificate),
            fingerprints: vec![Fingerprint { slot: CLAIM_CODE_SLOT.to_owned(), value: code.hash() }],
            salt: None,
            entropy: Some(EntropyEvidence { source: "token".into(), samples: 1_024, failures: 0 }),
            hardware: Vec::new(),
            checks: Vec::new(),
            unsafe_marks: Vec::new(),
            reason: None,
        };
        let unsigned = record.prepare(&public(&station.record)).unwrap();
        let signature = station.record.sign(&unsigned.to_be_signed()).unwrap();
        let signed = unsigned.complete(&signature).unwrap();
        head = document_hash(&signed);
        fs::write(fleet.path("record.cose"), &signed).unwrap();
        file.extend(signed);
    }
    let manifest = Manifest {
        batch: quota.terms.batch,
        last: 3,
        head,
        counts: Counts { passed: 3, scrapped: 0, rework: 0 },
        at: now(),
        operator: "Ana".into(),
        is_final: true,
    };
    let unsigned = manifest.prepare(&public(&station.record)).unwrap();
    let signature = station.record.sign(&unsigned.to_be_signed()).unwrap();
    let signed = unsigned.complete(&signature).unwrap();
    fs::write(fleet.path("manifest.cose"), &signed).unwrap();
    file.extend(signed);
    file
}

pub(crate) fn prepared() -> (Fleet, Station) {
    let fleet = Fleet::start(&[]);
    fleet.run(&["facility", "create", "lyon"]).succeeds();
    fleet.run(&["product-line", "create", "thermo"]).succeeds();
    let station = station(&fleet);
    (fleet, station)
}

/// Authorises the batch; returns the quota as the station opens it, and as it was signed.
pub(crate) fn authorised(fleet: &Fleet) -> (Quota, Vec<u8>) {
    let made = fleet.json(&[&CREATE[..], &["--quota", "quota.cose"]].concat());
    assert_eq!((made["done"].clone(), made["batch"]["last_name"].clone()), (true.into(), "b-1-000005".into()));
    let pins = fleet.json(&["batch", "pins"]);
    let pem = pins["batch_key_pem"].as_str().unwrap();
    fs::write(fleet.path("server.pem"), pem).unwrap();
    let server = P256Key::from_spki(&kf_pki::pem::decode_all("PUBLIC KEY", pem).unwrap()[0]).unwrap();
    let document = fs::read(fleet.path("quota.cose")).unwrap();
    (Quota::open(&document, &server).unwrap(), document)
}

#[test]
fn a_batch_is_authorised_imported_reconciled_and_cancelled() {
    let (fleet, station) = prepared();
    let empty = fleet.run(&["batch", "list"]).expect_success();
    assert!(empty.stdout.is_empty() && empty.text().contains("nothing to list"), "{}", empty.text());
    let dry = fleet.json(&[&CREATE[..], &["--dry-run"]].concat());
    assert_eq!(dry["done"], false);
    let (quota, document) = authorised(&fleet);
    let again = fleet.run(&CREATE);
    assert!(!again.success(), "a request serves once: {}", again.text());
    let file = shift(&fleet, &station, &quota, &document, false);
    fs::write(fleet.path("records.cbor"), &file).unwrap();

    for (name, certificate) in
        [("factory.pem", &quota.terms.factory_certificate), ("batch.pem", &quota.terms.authority_certificate)]
    {
        fs::write(fleet.path(name), kf_pki::pem::certificate(certificate)).unwrap();
    }
    let openssl = |arguments: &[&str]| Tool::new("openssl").directory(fleet.scratch.path()).run(arguments);
    openssl(&["verify", "-x509_strict", "-CAfile", "factory.pem", "-untrusted", "batch.pem", "device.pem"]).succeeds();
    let root = fleet.data().join("root.pem");
    let by_root = openssl(&["verify", "-CAfile", root.to_str().unwrap(), "-untrusted", "batch.pem", "device.pem"]);
    assert!(!by_root.success(), "who trusts the fleet's root must not trust a station: {}", by_root.text());
    let path = |name: &str| fleet.path(name).to_str().unwrap().to_owned();
    let mut judged = vec!["-c".to_owned(), JUDGE.to_owned()];
    for (kind, document, key) in [
        ("quota", "quota.cose", "server.pem"),
        ("record", "record.cose", "record.pem"),
        ("manifest", "manifest.cose", "record.pem"),
        ("station request", "request.cose", "line-1.pem"),
    ] {
        judged.extend([kind.to_owned(), path(document), path(key)]);
    }
    Python::with_module("pycose").tool().run(&judged).succeeds();

    let dry = fleet.json(&["batch", "import", "b-1", "records.cbor", "--dry-run"]);
    assert_eq!((dry["merged"].clone(), dry["manifests"].clone()), (3.into(), 1.into()));
    let merged = fleet.json(&["batch", "import", "b-1", "records.cbor"]);
    assert_eq!((merged["merged"].clone(), merged["conflict_count"].clone()), (3.into(), 0.into()));
    let again = fleet.json(&["batch", "import", "b-1", "records.cbor"]);
    assert_eq!((again["merged"].clone(), again["already_there"].clone()), (0.into(), 4.into()));
    let books = fleet.json(&["batch", "reconcile", "b-1"]);
    assert_eq!(
        (books["balances"].clone(), books["passed"].clone(), books["missing"].clone()),
        (true.into(), 3.into(), 2.into())
    );

    let dry = fleet.json(&["batch", "cancel", "b-1", "--compromised", "--dry-run"]);
    assert_eq!((dry["certificates"].clone(), dry["devices"].clone()), (4.into(), 5.into()));
    fleet.run(&["batch", "cancel", "b-1", "--compromised", "--yes", "--why", "stolen"]).succeeds();
    assert_eq!(fleet.json(&["batch", "show", "b-1"])["state"], "compromised");
    assert_eq!(fleet.json(&["device", "show", "b-1-000001"])["device"]["state"], "decommissioned");
    assert_eq!(fleet.json(&["batch", "list"])["items"].as_array().unwrap().len(), 1);
    assert!(!station.request.is_empty());
}

#[test]
fn conflicts_and_damage_are_listed_and_told_by_the_exit_code() {
    let (fleet, station) = prepared();
    let (quota, document) = authorised(&fleet);
    let file = shift(&fleet, &station, &quota, &document, true);
    fs::write(fleet.path("records.cbor"), &file).unwrap();
    let output = fleet.run(&["--format", "json", "batch", "import", "b-1", "records.cbor"]);
    assert_eq!(output.code, Some(6), "{}", output.text());
    assert_eq!(json(&output)["conflicts"][0]["kind"], "unknown-recipe");
    let books = fleet.run(&["batch", "reconcile", "b-1"]);
    assert_eq!(books.code, Some(6));
    assert!(books.text().contains("unknown-recipe"), "{}", books.text());
    assert_eq!(fleet.json(&["device", "show", "b-1-000003"])["device"]["state"], "quarantined");
    fs::write(fleet.path("cut.cbor"), &file[..file.len() - 7]).unwrap();
    let cut = fleet.run(&["batch", "import", "b-1", "cut.cbor"]);
    assert!(!cut.success() && cut.text().contains("breaks off"), "{}", cut.text());
    let unknown = fleet.run(&["batch", "reconcile", "b-2"]);
    assert_eq!(unknown.code, Some(3), "{}", unknown.text());
}
