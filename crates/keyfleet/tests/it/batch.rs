//! A batch from its authorisation to its books, driven as an operator does. The station is a few lines here; openssl and pycose
//! judge what it and the server signed.

use std::fs;

use kf_api::batch::Outcome;
use kf_batch::P256Key;
use kf_batch::frame::document_hash;
use kf_batch::manifest::{Counts, Manifest};
use kf_batch::quota::{Quota, quota_hash};
use kf_batch::record::{EntropyEvidence, KeyOrigin, MadeKey, Record};
use kf_batch::station_request::StationRequest;
use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, KeyAlgorithm, SerialNumber, UnixMillis};
use kf_pki::certificate::{IssuanceRequest, Subject, check_issuance};
use kf_pki::request::{RequestedKey, make_request};
use kf_testkit::{Python, Tool};

use crate::console::{Fleet, Succeeds as _, json};

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

struct Station {
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

/// Three devices and the end of the shift, as the station writes them; the third is made by another recipe when `cheats`.
fn shift(fleet: &Fleet, station: &Station, quota: &Quota, document: &[u8], cheats: bool) -> Vec<u8> {
    let mut head = quota_hash(document);
    let mut file = Vec::new();
    for position in 0..3u32 {
        let key = fresh();
        let certificate = certify(station, quota, position, &key);
        if position == 0 {
            fs::write(fleet.path("device.pem"), kf_pki::pem::certificate(&certificate)).unwrap();
        }
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
            fingerprints: Vec::new(),
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

fn prepared() -> (Fleet, Station) {
    let fleet = Fleet::start(&[]);
    fleet.run(&["facility", "create", "lyon"]).succeeds();
    fleet.run(&["product-line", "create", "thermo"]).succeeds();
    let station = station(&fleet);
    (fleet, station)
}

/// Authorises the batch; returns the quota as the station opens it, and as it was signed.
fn authorised(fleet: &Fleet) -> (Quota, Vec<u8>) {
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
