use kf_api::batch::{BatchState, CancelBatch, ConflictKind, Outcome};
use kf_fleet::{EnrolCredential, EstLabel, FleetError, TlsClient};
use kf_key::{CertificateStatus, DeviceState};
use kf_pki::crl::CrlScope;

use super::station::{Line, Made, Station, fresh, import};
use crate::backup::{Rig, approve, restored_at};
use crate::scratch::{HERE, Scratch, csr, issued};

async fn bootstrap(scratch: &Scratch, line: &Line, made: &Made) -> Result<(), FleetError> {
    let authority = line.quota.terms.authority_certificate.as_slice();
    let client = scratch.fleet.verify_client_path(&made.certificate, &[authority])?;
    let client = TlsClient::with_certificate(&client, HERE);
    let credential = EnrolCredential::Certificate;
    let outcome = scratch.fleet.est_simple_enroll(EstLabel::Line("thermo"), client, credential, &csr(&fresh())).await?;
    issued(outcome);
    Ok(())
}

const COMPROMISED: fn() -> CancelBatch =
    || CancelBatch { compromised: true, why: "stolen at night".into(), ..CancelBatch::default() };

#[tokio::test]
async fn a_stolen_station_costs_its_open_batch_and_nothing_else() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let other = Station::new(&scratch, "line-2", "plant-a").await;
    let (mut finished, mut open) = (
        Line::start(&scratch, &other, "finished", 5).await,
        Line::with(&scratch, &station, "open", 5, |new| new.allow_early_enrolment = true).await,
    );
    scratch.device("bystander").await;
    scratch.enrol("bystander").await;
    let safe = finished.make(0, Outcome::Passed);
    import(&scratch, &other, "finished", [&safe.document]).await;
    let (made, enrolled) = (open.make(0, Outcome::Passed), open.make(1, Outcome::Passed));
    import(&scratch, &station, "open", [&made.document, &enrolled.document]).await;
    bootstrap(&scratch, &open, &enrolled).await.unwrap();

    let before =
        scratch.fleet.batch_cancel(&scratch.owner, "open", CancelBatch { dry_run: true, ..COMPROMISED() }).await;
    let before = before.unwrap();
    let outcome = scratch.fleet.batch_cancel(&scratch.owner, "open", COMPROMISED()).await.unwrap();
    assert!(outcome.done, "stopping a thief waits for nobody");
    // The batch CA, two IDevIDs and an LDevID; five devices.
    assert_eq!((outcome.certificates, outcome.devices), (4, 5));
    assert_eq!((before.certificates, before.devices), (4, 5));

    // What the thief goes on to make is nobody.
    let forged = open.make(2, Outcome::Passed);
    for made in [&made, &enrolled, &forged] {
        assert!(bootstrap(&scratch, &open, made).await.is_err());
    }
    let report = import(&scratch, &station, "open", [&forged.document]).await;
    assert!(report.conflicts.iter().any(|conflict| conflict.kind == ConflictKind::BatchCancelled), "{report:?}");
    for number in 1..=5 {
        let shown = scratch.fleet.device_show(&scratch.owner, &format!("open-00000{number}")).await.unwrap();
        assert_eq!(shown.device.state, DeviceState::Decommissioned);
        assert!(shown.certificates.iter().all(|one| one.status == CertificateStatus::Revoked));
    }
    // The batch CA stands on the CRL of the factory root.
    let batch = scratch.fleet.batch_show(&scratch.owner, "open").await.unwrap();
    assert_eq!(batch.state, BatchState::Compromised);
    let factory = scratch.fleet.authority_show(&scratch.owner, "factory").await.unwrap();
    let crl = scratch.fleet.crl(factory.id, CrlScope::Full).await.unwrap().unwrap();
    let serial = batch.authority_serial.as_bytes();
    assert!(crl.der.windows(serial.len()).any(|octets| octets == serial));

    // Nothing else is touched.
    bootstrap(&scratch, &finished, &safe).await.unwrap();
    let more = finished.make(1, Outcome::Passed);
    assert_eq!(import(&scratch, &other, "finished", [&more.document]).await.conflict_count, 0);
    let shown = scratch.fleet.device_show(&scratch.owner, "bystander").await.unwrap();
    assert_eq!(shown.device.state, DeviceState::Active);
    assert!(shown.certificates.iter().all(|one| one.status == CertificateStatus::Good));
    // And it stays so.
    let again = scratch.fleet.batch_cancel(&scratch.owner, "open", COMPROMISED()).await;
    assert!(matches!(again, Err(FleetError::Conflict { .. })), "{again:?}");
    let scratch = scratch.reopen().await;
    assert!(bootstrap(&scratch, &open, &made).await.is_err());
    bootstrap(&scratch, &finished, &safe).await.unwrap();
}

#[tokio::test]
async fn a_registry_of_before_a_station_was_stolen_ends_its_batch_again() {
    let rig = Rig::new().await;
    let station = Station::new(&rig.scratch, "line-1", "plant-a").await;
    let mut open = Line::start(&rig.scratch, &station, "open", 5).await;
    let made = open.make(0, Outcome::Passed);
    import(&rig.scratch, &station, "open", [&made.document]).await;
    let backup = rig.backup().await;
    rig.scratch.fleet.batch_cancel(&rig.scratch.owner, "open", COMPROMISED()).await.unwrap();
    let (closed, key, pavel) = rig.lost().await;
    let from = closed.path().join("backups").join(backup.id.to_string());
    let done = restored_at((&from, None), closed.path(), &key, true).unwrap();
    assert!(done.chain == [backup.id] && done.done);
    let scratch = Scratch::at(closed).await;
    let proposal = scratch.fleet.restored_accept(&scratch.owner, "we looked".into()).await.unwrap().proposal;
    approve(&scratch, &pavel, proposal).await;
    assert_eq!(scratch.fleet.batch_show(&scratch.owner, "open").await.unwrap().state, BatchState::Compromised);
    let forged = open.make(2, Outcome::Passed);
    let report = import(&scratch, &station, "open", [&forged.document]).await;
    assert!(report.conflicts.iter().any(|conflict| conflict.kind == ConflictKind::BatchCancelled), "{report:?}");
    for made in [&made, &forged] {
        assert!(bootstrap(&scratch, &open, made).await.is_err());
    }
    for number in 1..=5 {
        let shown = scratch.fleet.device_show(&scratch.owner, &format!("open-00000{number}")).await.unwrap();
        assert_eq!(shown.device.state, DeviceState::Decommissioned, "device {number}");
    }
}

#[tokio::test]
async fn once_its_quota_has_ended_a_batch_is_called_compromised_by_two_people() {
    let scratch = Scratch::with(|config| config.dual_control_above = 3).await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::start(&scratch, &station, "b-1", 5).await;
    let made = line.make(0, Outcome::Passed);
    import(&scratch, &station, "b-1", [&made.document]).await;
    let expires = scratch.fleet.batch_show(&scratch.owner, "b-1").await.unwrap().expires;
    scratch.clock.set(expires.plus(1));
    let waiting = scratch.fleet.batch_cancel(&scratch.owner, "b-1", COMPROMISED()).await.unwrap();
    assert!(!waiting.done && waiting.proposal.is_some(), "{waiting:?}");
    let shown = scratch.fleet.device_show(&scratch.owner, "b-1-000001").await.unwrap();
    assert!(shown.certificates.iter().all(|one| one.status == CertificateStatus::Good));
    bootstrap(&scratch, &line, &made).await.unwrap();
}

#[tokio::test]
async fn a_batch_that_is_given_up_may_keep_what_was_made() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::start(&scratch, &station, "b-1", 5).await;
    let made = line.make(0, Outcome::Passed);
    import(&scratch, &station, "b-1", [&made.document]).await;
    let request = CancelBatch { keep_made: true, why: "order withdrawn".into(), ..CancelBatch::default() };
    let outcome = scratch.fleet.batch_cancel(&scratch.owner, "b-1", request).await.unwrap();
    assert_eq!((outcome.done, outcome.certificates, outcome.devices), (true, 1, 4));
    bootstrap(&scratch, &line, &made).await.unwrap();
    let late = line.make(1, Outcome::Passed);
    import(&scratch, &station, "b-1", [&late.document]).await;
    assert!(bootstrap(&scratch, &line, &late).await.is_err());
    let both = CancelBatch { keep_made: true, ..COMPROMISED() };
    assert!(matches!(scratch.fleet.batch_cancel(&scratch.owner, "b-1", both).await, Err(FleetError::Invalid { .. })));
}
