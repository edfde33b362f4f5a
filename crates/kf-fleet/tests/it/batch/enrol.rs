use kf_api::batch::Outcome;
use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_fleet::{ClientCertificate, EnrolCredential, EnrolOutcome, EstLabel, FleetError, TlsClient};
use kf_key::{CertificateProfile, DeviceState, UnixMillis};

use super::station::{Line, Made, Station, fresh, import};
use crate::scratch::{HERE, Scratch, csr, issued};

fn handshake(scratch: &Scratch, line: &Line, made: &Made) -> Result<ClientCertificate, FleetError> {
    let authority = line.quota.terms.authority_certificate.as_slice();
    scratch.fleet.verify_client_path(&made.certificate, &[authority])
}

async fn enrol(scratch: &Scratch, line: &Line, made: &Made) -> Result<EnrolOutcome, FleetError> {
    let client = handshake(scratch, line, made)?;
    let client = TlsClient::with_certificate(&client, HERE);
    let credential = EnrolCredential::Certificate;
    scratch.fleet.est_simple_enroll(EstLabel::Line("thermo"), client, credential, &csr(&fresh())).await
}

#[tokio::test]
async fn a_merged_idevid_bootstraps_long_after_its_batch_ca_has_ended() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::start(&scratch, &station, "b-1", 5).await;
    let made = line.make(0, Outcome::Passed);
    assert!(handshake(&scratch, &line, &made).is_err(), "not merged, and the batch allows nothing before that");
    import(&scratch, &station, "b-1", [&made.document]).await;
    scratch.pass(400 * UnixMillis::DAY);
    issued(enrol(&scratch, &line, &made).await.unwrap());
    let shown = scratch.fleet.device_show(&scratch.owner, "b-1-000001").await.unwrap();
    assert_eq!(shown.device.state, DeviceState::Active);
    // One that was made after the end, or never reported, does not get in.
    let backdated = line.make(1, Outcome::Passed);
    assert!(handshake(&scratch, &line, &backdated).is_err());
}

#[tokio::test]
async fn before_merge_a_device_enrols_only_where_its_batch_allows_and_only_once() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::with(&scratch, &station, "b-1", 5, |new| new.allow_early_enrolment = true).await;
    let made = line.make(0, Outcome::Passed);
    issued(enrol(&scratch, &line, &made).await.unwrap());
    issued(enrol(&scratch, &line, &made).await.unwrap());
    let shown = scratch.fleet.device_show(&scratch.owner, "b-1-000001").await.unwrap();
    let idevids = shown.certificates.iter().filter(|one| one.profile == CertificateProfile::IDevId).count();
    assert_eq!(idevids, 1);
    // The record that comes later says the same, and is no conflict.
    let report = import(&scratch, &station, "b-1", [&made.document]).await;
    assert_eq!((report.merged, report.conflict_count), (1, 0), "{report:?}");
    // A second device of that name, or one outside the quota, is nobody.
    let twin = line.make(0, Outcome::Passed);
    assert!(enrol(&scratch, &line, &twin).await.is_err());
    let stranger = Made {
        certificate: line.certify(kf_key::DeviceId::from_bytes([3; 16]), &twin.key, line.quota.terms.issued),
        ..twin
    };
    assert!(enrol(&scratch, &line, &stranger).await.is_err());
    scratch.pass(30 * UnixMillis::DAY);
    let late = line.make(2, Outcome::Passed);
    assert!(enrol(&scratch, &line, &late).await.is_err(), "the quota has ended");
}

#[tokio::test]
async fn a_device_that_enrolled_early_with_another_key_than_its_record_is_held() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::with(&scratch, &station, "b-1", 5, |new| new.allow_early_enrolment = true).await;
    let mut copy = line.copied();
    let (honest, clone) = (line.make(0, Outcome::Passed), copy.make(0, Outcome::Passed));
    issued(enrol(&scratch, &line, &clone).await.unwrap());
    let report = import(&scratch, &station, "b-1", [&honest.document]).await;
    assert_eq!(report.conflict_count, 1, "{report:?}");
    let shown = scratch.fleet.device_show(&scratch.owner, "b-1-000001").await.unwrap();
    assert_eq!(shown.device.state, DeviceState::Quarantined);
    assert!(enrol(&scratch, &line, &clone).await.is_err());
    assert!(enrol(&scratch, &line, &honest).await.is_err());
}

#[tokio::test]
async fn a_person_may_release_a_device_in_conflict() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::start(&scratch, &station, "b-1", 5).await;
    let first = line.make(0, Outcome::Passed);
    let late = line.make_with(1, Outcome::Passed, |record| record.at = first.record.at.minus(1));
    import(&scratch, &station, "b-1", [&first.document, &late.document]).await;
    assert!(enrol(&scratch, &line, &late).await.is_err());
    let resume = DeviceActRequest {
        act: DeviceAct::Resume,
        why: "the clock's battery was changed".into(),
        departure: Default::default(),
        dry_run: false,
    };
    scratch.fleet.device_act(&scratch.owner, "b-1-000002", resume).await.unwrap();
    issued(enrol(&scratch, &line, &late).await.unwrap());
    // Sending the record again does not undo what a person decided.
    import(&scratch, &station, "b-1", [&late.document]).await;
    issued(enrol(&scratch, &line, &late).await.unwrap());
}
