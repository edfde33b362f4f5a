//! Rotation by policy: what is due is done once, whoever asks and whatever is cut short.

use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_api::epoch::EpochState;
use kf_api::rotation::{RotateRequest, RotationOperation, RotationOutcome, RotationReport};
use kf_fleet::Principal;
use kf_key::UnixMillis;

use crate::exchange::Firmware;
use crate::scratch::Scratch;

const DAY: u64 = UnixMillis::DAY;

async fn rotate(scratch: &Scratch, request: RotateRequest) -> RotationReport {
    scratch.fleet.rotate(&scratch.owner, request).await.unwrap()
}

fn all() -> RotateRequest {
    RotateRequest::default()
}

fn outcomes(report: &RotationReport) -> Vec<(RotationOperation, RotationOutcome)> {
    report.items.iter().map(|step| (step.operation, step.outcome)).collect()
}

async fn epochs(scratch: &Scratch, facility: &str) -> Vec<(u32, EpochState)> {
    let epochs = scratch.fleet.epoch_list(&scratch.owner, facility).await.unwrap();
    epochs.into_iter().map(|epoch| (epoch.epoch, epoch.state)).collect()
}

async fn advances(scratch: &Scratch, who: &Principal) -> usize {
    let entries = scratch.fleet.audit_list(who, Default::default()).await.unwrap().items;
    entries.iter().filter(|entry| entry.entry["act"] == "epoch.advance").count()
}

#[tokio::test]
async fn a_facility_goes_from_due_to_retired_by_runs_that_each_do_what_is_left() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    device.exchange(&scratch).await.unwrap();
    assert_eq!(outcomes(&rotate(&scratch, all()).await), []);
    scratch.pass(300 * DAY);
    let dry = rotate(&scratch, RotateRequest { dry_run: true, ..all() }).await;
    let make = RotationOperation::MakeSuccessor;
    assert_eq!(outcomes(&dry), [(make, RotationOutcome::Planned); 2]);
    assert_eq!(epochs(&scratch, "plant-a").await, [(1, EpochState::Current)], "a dry run changes nothing");

    let report = rotate(&scratch, all()).await;
    assert_eq!(outcomes(&report), [(make, RotationOutcome::Done); 2]);
    assert!(report.items[0].log_index.is_some() && report.items[0].because.contains("period"));
    // At plant-b nobody holds the old key; at plant-a a device does, until it has fetched the new one.
    let retire = (RotationOperation::Retire, RotationOutcome::Done);
    let awaits = (RotationOperation::AwaitDevices, RotationOutcome::Waits);
    let mut second = outcomes(&rotate(&scratch, all()).await);
    second.sort_by_key(|one| format!("{one:?}"));
    assert_eq!(second, [awaits, retire]);
    assert_eq!(outcomes(&rotate(&scratch, all()).await), [awaits], "what is done is not done again");
    device.key = scratch.enrol_again("thermo-1").await;
    device.exchange(&scratch).await.unwrap();
    assert_eq!(outcomes(&rotate(&scratch, all()).await), [retire]);
    assert_eq!(epochs(&scratch, "plant-a").await, [(2, EpochState::Current), (1, EpochState::Retired)]);
    assert_eq!(outcomes(&rotate(&scratch, all()).await), []);
}

/// Each act is one transaction, so that a crash leaves some of them done: every number of them is tried.
#[tokio::test]
async fn a_run_that_is_cut_short_after_any_act_is_finished_by_the_next() {
    for done in 0..=4 {
        let mut scratch = Scratch::new().await;
        scratch.pass(300 * DAY);
        for _ in 0..done {
            let one = rotate(&scratch, RotateRequest { limit: Some(1), ..all() }).await;
            assert_eq!(one.items.iter().filter(|step| step.outcome == RotationOutcome::Done).count(), 1);
            scratch = scratch.reopen().await;
        }
        for _ in 0..3 {
            rotate(&scratch, all()).await;
        }
        for facility in ["plant-a", "plant-b"] {
            let expected = [(2, EpochState::Current), (1, EpochState::Retired)];
            assert_eq!(epochs(&scratch, facility).await, expected, "after {done} acts");
        }
        assert_eq!(advances(&scratch, &scratch.owner).await, 2, "after {done} acts");
    }
}

#[tokio::test]
async fn of_two_operators_who_rotate_the_same_key_one_wins_and_the_other_is_told() {
    let scratch = Scratch::new().await;
    scratch.pass(300 * DAY);
    let only = RotateRequest { facility: Some("plant-a".into()), ..all() };
    let (one, other) =
        tokio::join!(scratch.fleet.rotate(&scratch.owner, only.clone()), scratch.fleet.rotate(&scratch.owner, only));
    let reports = [one.unwrap(), other.unwrap()];
    let steps: Vec<_> = reports.iter().flat_map(|report| &report.items).collect();
    let done = steps.iter().filter(|step| step.outcome == RotationOutcome::Done).count();
    assert!(steps.iter().filter(|step| step.operation == RotationOperation::MakeSuccessor).count() >= 1);
    for refused in steps.iter().filter(|step| step.outcome == RotationOutcome::Refused) {
        assert!(refused.problem.contains("epoch"), "{}", refused.problem);
    }
    assert!(done >= 1 && epochs(&scratch, "plant-a").await[0].0 == 2, "{steps:?}");
    assert_eq!(advances(&scratch, &scratch.owner).await, 1);
}

#[tokio::test]
async fn many_devices_wait_for_a_second_person_and_the_server_acts_only_where_it_may() {
    let scratch = Scratch::with(|config| config.dual_control_above = 0).await;
    Firmware::enrolled(&scratch, "thermo-1").await.exchange(&scratch).await.unwrap();
    scratch.pass(300 * DAY);
    scratch.fleet.turn().await;
    assert_eq!(epochs(&scratch, "plant-a").await, [(1, EpochState::Current)], "the default is that people act");
    let only = RotateRequest { facility: Some("plant-a".into()), ..all() };
    let report = rotate(&scratch, only).await;
    assert_eq!(outcomes(&report), [(RotationOperation::MakeSuccessor, RotationOutcome::WaitsForApproval)]);
    assert!(report.items[0].proposal.is_some());

    let scratch = Scratch::with(|config| {
        config.dual_control_above = 0;
        config.rotation_automatic = true;
    })
    .await;
    scratch.pass(300 * DAY);
    scratch.fleet.turn().await;
    assert_eq!(epochs(&scratch, "plant-a").await, [(2, EpochState::Pending), (1, EpochState::Current)]);
    scratch.fleet.turn().await;
    assert_eq!(epochs(&scratch, "plant-a").await.len(), 2, "it looks once an hour");
    scratch.pass(UnixMillis::HOUR);
    scratch.fleet.turn().await;
    assert_eq!(epochs(&scratch, "plant-a").await, [(2, EpochState::Current), (1, EpochState::Retired)]);
    // A clock that goes back makes keys younger, and undoes nothing.
    scratch.clock.set(crate::scratch::START);
    scratch.fleet.turn().await;
    assert_eq!(epochs(&scratch, "plant-a").await, [(2, EpochState::Current), (1, EpochState::Retired)]);
}

#[tokio::test]
async fn what_barred_devices_would_lose_is_given_up_by_people_and_never_by_the_server() {
    let scratch = Scratch::with(|config| config.rotation_automatic = true).await;
    Firmware::enrolled(&scratch, "thermo-1").await.exchange(&scratch).await.unwrap();
    let request =
        DeviceActRequest { act: DeviceAct::Suspend, why: "lost".into(), departure: Default::default(), dry_run: false };
    scratch.fleet.device_act(&scratch.owner, "thermo-1", request).await.unwrap();
    scratch.pass(300 * DAY);
    for _ in 0..3 {
        scratch.fleet.turn().await;
        scratch.pass(UnixMillis::HOUR);
    }
    assert_eq!(epochs(&scratch, "plant-a").await, [(2, EpochState::Pending), (1, EpochState::Current)]);
    assert_eq!(epochs(&scratch, "plant-b").await, [(2, EpochState::Current), (1, EpochState::Retired)]);
    assert_eq!(outcomes(&rotate(&scratch, all()).await), [(RotationOperation::Retire, RotationOutcome::Done)]);
    assert_eq!(epochs(&scratch, "plant-a").await, [(2, EpochState::Current), (1, EpochState::Retired)]);
}

#[tokio::test]
async fn a_device_whose_own_key_is_due_is_given_a_new_one_when_it_asks_and_no_row_changes_before() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    assert_eq!(device.exchange(&scratch).await.unwrap().device_epoch, 1);
    scratch.pass(60 * DAY);
    device.key = scratch.enrol_again("thermo-1").await;
    assert_eq!(device.exchange(&scratch).await.unwrap().device_epoch, 1, "it is not due");
    for _ in 0..4 {
        scratch.pass(60 * DAY);
        device.key = scratch.enrol_again("thermo-1").await;
    }
    assert_eq!(scratch.fleet.device_keys(&scratch.owner, "thermo-1").await.unwrap().device_epoch, 1);
    assert_eq!(device.exchange(&scratch).await.unwrap().device_epoch, 2);
    assert_eq!(device.exchange(&scratch).await.unwrap().device_epoch, 2, "and once");
}

#[tokio::test]
async fn what_a_run_succeeds_and_what_people_do_is_told_apart_when_it_is_due() {
    let scratch = Scratch::new().await;
    scratch.pass(3 * 365 * DAY);
    let report = rotate(&scratch, RotateRequest { dry_run: true, ..all() }).await;
    let of = |operation: RotationOperation| -> Vec<_> {
        report.items.iter().filter(|step| step.operation == operation).map(|step| step.class.as_str()).collect()
    };
    for class in ["delivery-key", "order-key", "log-key", "wrapping-key"] {
        assert!(of(RotationOperation::MakeSuccessor).contains(&class), "{class}: {report:?}");
    }
    assert!(!of(RotationOperation::ByHand).contains(&"fleet-root-key"), "ten years are not over");
    scratch.pass(5 * 365 * DAY);
    let later = rotate(&scratch, RotateRequest { dry_run: true, ..all() }).await;
    let problem = |class: &str| later.items.iter().find(|step| step.class == class).map(|step| step.problem.as_str());
    assert!(problem("issuing-authority-key").unwrap().contains("authority succeed"), "{later:?}");
    assert!(problem("fleet-root-key").unwrap().contains("no mechanism"), "{later:?}");
}
