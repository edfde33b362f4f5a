//! A device of a factory batch at the door: curl brings its record over REST, and then its IDevID over TLS.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kf_api::batch::{CancelBatch, NewBatch, Outcome};
use kf_api::operator::{NewOperator, Role, TokenRequest};
use kf_batch::P256Key;
use kf_batch::quota::{Quota, quota_hash, stored_terms};
use kf_batch::record::{EntropyEvidence, KeyOrigin, MadeKey, Record};
use kf_batch::station_request::StationRequest;
use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, KeyAlgorithm, SerialNumber};
use kf_pki::certificate::{IssuanceRequest, Subject, check_issuance};
use kf_pki::request::{RequestedKey, make_request};

use crate::rig::{Ends as _, Rig, openssl};

fn fresh() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::P256).unwrap()
}

fn public(key: &PrivateKey) -> P256Key {
    P256Key::from_spki(&key.spki()).unwrap()
}

/// Authorises batch `b-1` of one device; returns the keys of batch CA and records, and the quota.
async fn authorised(rig: &Rig) -> (PrivateKey, PrivateKey, Vec<u8>) {
    let (identity, authority, record) = (fresh(), fresh(), fresh());
    let new = NewOperator {
        name: "line-1".into(),
        role: Role::Station,
        facilities: vec!["factory-a".into()],
        voucher_key_pem: Some(kf_pki::pem::encode("PUBLIC KEY", &identity.spki())),
    };
    rig.fleet.operator_create(&rig.owner, new).await.unwrap();
    let request = StationRequest {
        station: "line-1".into(),
        authority_csr: make_request(&authority, "").unwrap(),
        transport_key: public(&fresh()),
        record_key: public(&record),
        made: rig.fleet.clock().now(),
        nonce: [1; 16],
    };
    let unsigned = request.prepare(&public(&identity)).unwrap();
    let signature = identity.sign(&unsigned.to_be_signed()).unwrap();
    let new = NewBatch {
        name: "b-1".into(),
        product_line: "pumps".into(),
        facility: "factory-a".into(),
        profile: None,
        count: 1,
        name_prefix: None,
        first_number: None,
        digits: None,
        station_request: STANDARD.encode(unsigned.complete(&signature).unwrap()),
        recipe_sha256: "00".repeat(32),
        lifetime_hours: None,
        allow_unsafe: false,
        allow_early_enrolment: false,
        why: String::new(),
        dry_run: false,
    };
    assert!(rig.fleet.batch_create(&rig.owner, new).await.unwrap().done);
    let quota = rig.fleet.batch_quota(&rig.owner, "b-1").await.unwrap();
    (authority, record, quota)
}

/// The IDevID of the one device for the key in a request that openssl made, and the record of it.
fn made(spki: &[u8], keys: (&PrivateKey, &PrivateKey), quota: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let terms = stored_terms(quota).unwrap();
    let device = terms.devices.device(0).unwrap();
    let request = IssuanceRequest {
        profile: CertificateProfile::IDevId,
        subject: Subject::Device {
            organization: terms.organization.clone(),
            device,
            name: terms.devices.name(device).unwrap(),
            product_line: terms.product_line_name.clone(),
        },
        key: RequestedKey::from_spki(spki).unwrap(),
        serial: SerialNumber::from_parts(terms.issued, [7; 16]),
        not_before: terms.issued,
        not_after: None,
    };
    let checked = check_issuance(&terms.issuer().unwrap(), request).unwrap();
    let signature = keys.0.sign(checked.tbs()).unwrap();
    let certificate = checked.complete(&signature).unwrap().der;
    let record = Record {
        batch: terms.batch,
        sequence: 1,
        previous: quota_hash(quota),
        device,
        outcome: Outcome::Passed,
        at: terms.issued,
        fixture: "fixture-1".into(),
        operator: "Ana".into(),
        recipe: terms.recipe,
        firmware: None,
        key: Some(MadeKey { origin: KeyOrigin::Device, spki_sha256: kf_crypto::sha256(spki) }),
        certificate: Some(certificate.clone()),
        fingerprints: Vec::new(),
        salt: None,
        entropy: Some(EntropyEvidence { source: "token".into(), samples: 0, failures: 0 }),
        hardware: Vec::new(),
        checks: Vec::new(),
        unsafe_marks: Vec::new(),
        reason: None,
    };
    let unsigned = record.prepare(&public(keys.1)).unwrap();
    let signature = keys.1.sign(&unsigned.to_be_signed()).unwrap();
    (certificate, unsigned.complete(&signature).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_a_batch_enrols_with_curl_once_its_record_was_merged_and_no_more_when_the_batch_is_cancelled() {
    const ENROLL: &str = "/.well-known/est/pumps/simpleenroll";
    let rig = Rig::start().await;
    let (authority, record_key, quota) = authorised(&rig).await;
    let request = rig.request("idevid");
    let spki = rig.file("idevid.spki");
    let of_key = ["pkey", "-in", request.key.to_str().unwrap(), "-pubout", "-outform", "DER", "-out"];
    openssl(&[&of_key[..], &[spki.to_str().unwrap()]].concat()).succeeds();
    let spki = std::fs::read(spki).unwrap();
    let (certificate, record) = made(&spki, (&authority, &record_key), &quota);
    std::fs::write(rig.file("records.cbor"), &record).unwrap();
    let chain = rig.file("chain.pem");
    let issuer = stored_terms(&quota).unwrap().authority_certificate;
    let pem = [&certificate, &issuer].map(|der| kf_pki::pem::certificate(der)).concat();
    std::fs::write(&chain, pem).unwrap();

    let token = TokenRequest { operator: "line-1".into(), lifetime_days: None };
    let token = rig.fleet.token_create(&rig.owner, token).await.unwrap().token;
    // Exposed to be used by the client under test.
    let bearer = format!("Authorization: Bearer {}", token.expose());
    let url = rig.https_url("/v1/batches/b-1/records");
    let data = format!("@{}", rig.file("records.cbor").display());
    let import = ["-H", &bearer, "-H", "Content-Type: application/cbor-seq", "--data-binary", &data, &url];
    let report = rig.curl(&import).expect(200).json();
    assert_eq!((report["merged"].clone(), report["conflict_count"].clone()), (1.into(), 0.into()), "{report}");
    let fetched = rig.curl(&["-H", &bearer, &rig.https_url("/v1/batches/b-1/quota")]);
    assert_eq!(fetched.header("content-type"), Some("application/cose"));
    let pins = rig.curl(&["-H", &bearer, &rig.https_url("/v1/station/pins")]).expect(200).json();
    let server = kf_pki::pem::decode_all("PUBLIC KEY", pins["batch_key_pem"].as_str().unwrap()).unwrap();
    assert!(Quota::open(&fetched.body, &P256Key::from_spki(&server[0]).unwrap()).is_ok());

    let pair = ["--cert", chain.to_str().unwrap(), "--key", request.key.to_str().unwrap()];
    let answer = rig.est(ENROLL, &pair, &rig.request("ldevid"));
    let ldevid = rig.certificate("ldevid", answer.expect(200));
    let (root, issuing) = (rig.root(), rig.issuer().await);
    let verify = ["verify", "-CAfile", root.to_str().unwrap(), "-untrusted", issuing.to_str().unwrap()];
    openssl(&[&verify[..], &[ldevid.to_str().unwrap()]].concat()).succeeds();

    let stolen = CancelBatch { compromised: true, ..CancelBatch::default() };
    assert!(rig.fleet.batch_cancel(&rig.owner, "b-1", stolen).await.unwrap().done);
    let refused = rig.est(ENROLL, &pair, &rig.request("again"));
    assert!(matches!(refused.status, 401 | 403), "{}{}", refused.head, refused.text());
}
