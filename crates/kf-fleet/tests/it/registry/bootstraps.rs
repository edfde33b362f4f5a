//! Bootstrap by a station's voucher and by IDevID, end to end.

use kf_api::certificate::IssueRequest;
use kf_api::operator::{NewOperator, Operator, Role};
use kf_api::product_line::EnrolmentPolicy;
use kf_crypto::PrivateKey;
use kf_enrol::voucher::{Voucher, make};
use kf_fleet::{EnrolCredential, EnrolOutcome, EstLabel, FleetError, TlsClient};
use kf_key::{CertificateProfile, DeviceState, KeyAlgorithm, UnixMillis};

use crate::scratch::{HERE, Identity, START, Scratch, csr, field_of, fresh_csr, issued, serial_of};

fn key() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::P256).unwrap()
}

async fn station(scratch: &Scratch, facility: &str, signing: &PrivateKey) -> Operator {
    let new = NewOperator {
        name: format!("station-{facility}"),
        role: Role::Station,
        facilities: vec![facility.into()],
        voucher_key_pem: Some(kf_pki::pem::encode("PUBLIC KEY", &signing.spki())),
    };
    scratch.fleet.operator_create(&scratch.owner, new).await.unwrap()
}

fn voucher(station: &Operator, device: &str, key: &PrivateKey) -> Voucher {
    Voucher {
        device: device.into(),
        spki_sha256: kf_crypto::sha256(&key.spki()),
        station: station.id,
        issued: START,
        expires: START.plus(UnixMillis::DAY),
        id: format!("for-{device}"),
    }
}

fn password(voucher: &Voucher, signing: &PrivateKey) -> String {
    format!("voucher.{}", make(voucher, signing).unwrap())
}

fn is_out(outcome: Result<EnrolOutcome, FleetError>) -> bool {
    matches!(outcome, Err(FleetError::Unauthenticated))
}

#[tokio::test]
async fn a_voucher_gives_its_device_a_certificate_for_its_key_once() {
    let scratch = Scratch::new().await;
    scratch.device("t-1").await;
    let (signing, device_key) = (key(), key());
    let station = station(&scratch, "plant-a", &signing).await;
    let password = password(&voucher(&station, "t-1", &device_key), &signing);
    assert!(is_out(scratch.enrol_with("t-1", &password, &fresh_csr()).await), "a voucher served another key");
    let first = issued(scratch.enrol_with("t-1", &password, &csr(&device_key)).await.unwrap());
    let again = issued(scratch.enrol_with("t-1", &password, &csr(&device_key)).await.unwrap());
    assert_eq!(serial_of(&first), serial_of(&again), "a retry made another certificate");
    let shown = scratch.fleet.device_show(&scratch.owner, "t-1").await.unwrap();
    assert_eq!((shown.device.state, shown.certificates.len()), (DeviceState::Active, 1));
}

#[tokio::test]
async fn a_voucher_of_another_facilitys_or_a_disabled_station_or_a_strangers_key_is_not_accepted() {
    let scratch = Scratch::new().await;
    scratch.device("t-1").await;
    let (signing_a, signing_b, device_key) = (key(), key(), key());
    let here = station(&scratch, "plant-a", &signing_a).await;
    let there = station(&scratch, "plant-b", &signing_b).await;
    let enrol = async |password: String| scratch.enrol_with("t-1", &password, &csr(&device_key)).await;
    assert!(is_out(enrol(password(&voucher(&there, "t-1", &device_key), &signing_b)).await));
    assert!(is_out(enrol(password(&voucher(&here, "t-1", &device_key), &signing_b)).await));
    let good = password(&voucher(&here, "t-1", &device_key), &signing_a);
    scratch.fleet.operator_enable(&scratch.owner, "station-plant-a", false, String::new()).await.unwrap();
    assert!(is_out(enrol(good.clone()).await));
    scratch.fleet.operator_enable(&scratch.owner, "station-plant-a", true, String::new()).await.unwrap();
    assert!(enrol(good).await.is_ok());
}

#[tokio::test]
async fn a_voucher_for_another_device_or_past_its_end_is_not_accepted() {
    let scratch = Scratch::new().await;
    scratch.device("t-1").await;
    scratch.device("t-2").await;
    let (signing, device_key) = (key(), key());
    let station = station(&scratch, "plant-a", &signing).await;
    let password = password(&voucher(&station, "t-1", &device_key), &signing);
    assert!(is_out(scratch.enrol_with("t-2", &password, &csr(&device_key)).await));
    scratch.pass(UnixMillis::DAY + 1);
    assert!(is_out(scratch.enrol_with("t-1", &password, &csr(&device_key)).await));
}

/// An IDevID for a device, as the factory gives it.
async fn idevid(scratch: &Scratch, device: &str) -> Identity {
    let key = key();
    let request = IssueRequest {
        profile: CertificateProfile::IDevId,
        csr_pem: kf_pki::pem::encode("CERTIFICATE REQUEST", &csr(&key)),
        device: Some(device.into()),
        operator: None,
        dns_names: Vec::new(),
        authority: None,
        lifetime_hours: None,
        dry_run: false,
    };
    let made = scratch.fleet.certificate_issue(&scratch.owner, request).await.unwrap();
    let ders = |pem: &str| kf_pki::pem::decode_all("CERTIFICATE", pem).unwrap();
    let chain = [ders(&made.pem), ders(&made.chain_pem)].concat();
    Identity { key, serial: made.certificate.serial, chain }
}

async fn enrol_by_certificate(scratch: &Scratch, identity: &Identity, label: &str) -> Result<EnrolOutcome, FleetError> {
    let certificate = scratch.client(identity);
    let client = TlsClient::with_certificate(&certificate, HERE);
    scratch.fleet.est_simple_enroll(EstLabel::Line(label), client, EnrolCredential::Certificate, &fresh_csr()).await
}

#[tokio::test]
async fn an_idevid_bootstraps_its_device_and_does_not_renew_itself() {
    let scratch = Scratch::new().await;
    scratch.device("t-1").await;
    let idevid = idevid(&scratch, "t-1").await;
    let error = scratch.renew(&idevid, &fresh_csr()).await.unwrap_err();
    assert!(matches!(error, FleetError::Forbidden { .. }));
    assert_eq!(field_of(&error), "client certificate");
    let chain = issued(enrol_by_certificate(&scratch, &idevid, "thermo").await.unwrap());
    let shown = scratch.fleet.device_show(&scratch.owner, "t-1").await.unwrap();
    let ldevid = shown.certificates.iter().find(|certificate| certificate.serial == serial_of(&chain)).unwrap();
    assert_eq!(ldevid.profile, CertificateProfile::LDevId);
    assert_eq!(shown.device.state, DeviceState::Active);
}

#[tokio::test]
async fn an_ldevid_does_not_bootstrap_and_a_wrong_label_is_named() {
    let scratch = Scratch::new().await;
    scratch.line("flow", EnrolmentPolicy::default()).await;
    scratch.device("t-1").await;
    let idevid = idevid(&scratch, "t-1").await;
    let error = enrol_by_certificate(&scratch, &idevid, "flow").await.unwrap_err();
    assert_eq!(field_of(&error), "label");
    let ldevid = scratch.enrol("t-1").await;
    assert!(is_out(enrol_by_certificate(&scratch, &ldevid, "thermo").await));
}

#[tokio::test]
async fn a_line_that_does_not_take_idevids_says_so() {
    let scratch = Scratch::new().await;
    scratch.line("codes", EnrolmentPolicy { bootstrap_by_idevid: false, ..EnrolmentPolicy::default() }).await;
    scratch.device_at("c-1", "plant-a", "codes").await;
    let idevid = idevid(&scratch, "c-1").await;
    let error = enrol_by_certificate(&scratch, &idevid, "codes").await.unwrap_err();
    assert!(matches!(error, FleetError::Forbidden { .. }));
    assert_eq!(field_of(&error), "credential");
}
