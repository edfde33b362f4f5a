//! Enrolment bound to a TPM: a stolen code brings nothing without the device's own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kf_agent::{Config, Event, EventSink};
use kf_api::device::NewDevice;
use kf_api::product_line::{ENDORSEMENT_ATTRIBUTE, EndorsementPolicy, EnrolmentPolicy};
use kf_pki::certificate::PresentedCertificate;
use kf_server::Limits;
use kf_testkit::SoftwareTpm;

use crate::agent::open_agent;
use crate::rig::{Rig, hours_from};

/// SHA-256 of the endorsement key, as an operator would read it off the device's papers.
fn endorsement_sha256(tpm: &SoftwareTpm) -> String {
    let open = kf_tpm::Tpm::open(tpm.address().parse().unwrap(), Duration::from_secs(60)).unwrap();
    let certificate = open.endorsement_certificate().unwrap().certificate;
    hex::encode(kf_crypto::sha256(&PresentedCertificate::from_der(&certificate).unwrap().spki))
}

async fn register(rig: &Rig, attributes: BTreeMap<String, String>) {
    let new = NewDevice {
        name: "pump-1".into(),
        facility: "factory-a".into(),
        product_line: "pumps".into(),
        batch: None,
        attributes,
    };
    rig.fleet.device_register(&rig.owner, new).await.unwrap();
    let code = rig.code("pump-1").await;
    std::fs::write(rig.file("code"), code.split_once(':').unwrap().1).unwrap();
}

/// One start of an agent with its state in `place`; whether it holds a certificate, and why it was refused.
async fn once(rig: &Rig, place: &str, key: &str) -> (bool, Vec<(u16, String)>) {
    let text = format!(
        "server = \"{}\"\nlabel = \"pumps\"\ndevice_name = \"pump-1\"\nstate_dir = \"{}\"\n[trust]\nroot_file = \"{}\"\n\
         [bootstrap]\ncode_file = \"{}\"\n[key]\n{key}\n",
        rig.https_url(""),
        rig.file(place).display(),
        rig.root().display(),
        rig.file("code").display()
    );
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&events);
    let sink = EventSink::new(move |event: &Event| log.lock().unwrap().push(event.clone()));
    let outcome = open_agent(&Config::parse(&text).unwrap(), &sink).once().await;
    let events = events.lock().unwrap();
    let refusals = events.iter().filter_map(|event| match event {
        Event::EnrolmentRefused { status, reason, .. } => Some((*status, reason.clone())),
        _ => None,
    });
    (outcome.is_valid, refusals.collect())
}

fn in_tpm(tpm: &SoftwareTpm) -> String {
    format!("kind = \"tpm\"\n[key.tpm]\naddress = \"{}\"\ndeadline_seconds = 60", tpm.address())
}

fn policy(tpms: &[&SoftwareTpm], bind_first: bool) -> EnrolmentPolicy {
    let authorities = tpms.iter().flat_map(|tpm| tpm.authority_certificates()).collect();
    let endorsement = EndorsementPolicy { bind_first, authorities, keys: Vec::new() };
    EnrolmentPolicy { ldevid_lifetime_hours: 2, endorsement: Some(endorsement), ..EnrolmentPolicy::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_code_brings_no_certificate_without_the_devices_tpm() {
    let (own, thiefs) = (SoftwareTpm::with_endorsement(), SoftwareTpm::with_endorsement());
    let rig = Rig::start_with(Limits::default(), policy(&[&own, &thiefs], true)).await;
    let registered = endorsement_sha256(&own);
    register(&rig, BTreeMap::from([(ENDORSEMENT_ATTRIBUTE.to_owned(), registered)])).await;
    // The thief has the code, and a key in a file.
    let (is_valid, refusals) = once(&rig, "file", "allow_plain_key = true").await;
    assert!(!is_valid);
    assert!(refusals.iter().any(|(status, reason)| *status == 403 && reason.contains("TPM")), "{refusals:?}");
    // The thief has the code, and a TPM of a maker that the line trusts.
    let (is_valid, refusals) = once(&rig, "thief", &in_tpm(&thiefs)).await;
    assert!(!is_valid);
    let is_told = |(status, reason): &(u16, String)| *status == 403 && reason.contains("not the one of this device");
    assert!(refusals.iter().any(is_told), "{refusals:?}");
    // Neither used the code up: the device itself enrols with it, and renews with another key of its TPM.
    let (is_valid, refusals) = once(&rig, "device", &in_tpm(&own)).await;
    assert!(is_valid, "{refusals:?}");
    let slot = || std::fs::read_to_string(rig.file("device/current")).unwrap();
    let before = slot();
    let later = hours_from(kf_fleet::Clock::now(rig.clock.as_ref()), 1).plus(30 * 60_000);
    rig.clock.set(later);
    std::fs::write(rig.file("device/last-seen"), later.0.to_string()).unwrap();
    let (is_valid, refusals) = once(&rig, "device", &in_tpm(&own)).await;
    assert!(is_valid && slot() != before, "{refusals:?}");
    let history = rig.fleet.device_show(&rig.owner, "pump-1").await.unwrap();
    let proofs = history.events.iter().filter(|event| event.entry.to_string().contains("endorsement.prove")).count();
    assert_eq!(proofs, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_registered_tpm_is_bound_to_its_first_where_the_line_allows_it() {
    let (own, other, foreign) =
        (SoftwareTpm::with_endorsement(), SoftwareTpm::with_endorsement(), SoftwareTpm::with_endorsement());
    let rig = Rig::start_with(Limits::default(), policy(&[&own, &other], true)).await;
    register(&rig, BTreeMap::new()).await;
    let (is_valid, refusals) = once(&rig, "foreign", &in_tpm(&foreign)).await;
    assert!(!is_valid && refusals.iter().any(|(_, reason)| reason.contains("maker")), "{refusals:?}");
    assert!(once(&rig, "device", &in_tpm(&own)).await.0);
    // Afterwards a fresh code and another TPM of a trusted maker do not help.
    let code = rig.code("pump-1").await;
    std::fs::write(rig.file("code"), code.split_once(':').unwrap().1).unwrap();
    let (is_valid, refusals) = once(&rig, "thief", &in_tpm(&other)).await;
    assert!(!is_valid && refusals.iter().any(|(status, _)| *status == 403), "{refusals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_registered_tpm_is_refused_where_the_line_is_strict() {
    let own = SoftwareTpm::with_endorsement();
    let rig = Rig::start_with(Limits::default(), policy(&[&own], false)).await;
    register(&rig, BTreeMap::new()).await;
    let (is_valid, refusals) = once(&rig, "device", &in_tpm(&own)).await;
    assert!(!is_valid && refusals.iter().any(|(_, reason)| reason.contains("registered")), "{refusals:?}");
}
