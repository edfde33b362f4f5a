//! Keys that die: two people, one receipt, and nothing that brings them back.

use std::path::Path;

use kf_api::destruction::{
    DestructionRequest, DestructionResult, DestructionTarget, HeldElsewhere, Receipt, Sanitization, Statement,
};
use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_api::epoch::EpochState;
use kf_api::operator::Role;
use kf_api::proposal::{ProposalDecision, ProposalState};
use kf_fleet::{FleetError, Principal};
use kf_key::{ProposalId, UnixMillis};
use kf_store::proposal::ProposalChange;
use kf_store::{Options, Store};

use crate::crash::{copied, killed_child};
use crate::exchange::Firmware;
use crate::rollback::copy;
use crate::scratch::{Scratch, field_of};

pub(crate) async fn decommission(scratch: &Scratch, device: &str) {
    let request = DeviceActRequest {
        act: DeviceAct::Decommission,
        why: "sold".into(),
        departure: Default::default(),
        dry_run: false,
    };
    assert!(scratch.fleet.device_act(&scratch.owner, device, request).await.unwrap().done);
}

pub(crate) fn of_device(device: &str) -> DestructionRequest {
    DestructionRequest {
        target: DestructionTarget::DeviceKey { device: device.into() },
        why: "the device was sold".into(),
        station_records_erased: false,
        dry_run: false,
    }
}

async fn propose(scratch: &Scratch, request: DestructionRequest) -> ProposalId {
    scratch.fleet.destroy(&scratch.owner, request).await.unwrap().proposal.unwrap()
}

pub(crate) async fn approve(scratch: &Scratch, who: &Principal, proposal: ProposalId) -> Result<(), FleetError> {
    let yes = ProposalDecision { approve: true, why: "agreed".into() };
    scratch.fleet.proposal_decide(who, proposal, yes).await.map(drop)
}

pub(crate) async fn receipts(scratch: &Scratch) -> Vec<Receipt> {
    scratch.fleet.destruction_list(&scratch.owner, Default::default()).await.unwrap().items
}

/// Whether a salt lies in the registry, and whether the device has a key by what the API shows.
async fn has_salt(scratch: &Scratch, device: &str) -> bool {
    // Whether there is anything to destroy is what a dry run says.
    let asked = scratch.fleet.destroy(&scratch.owner, DestructionRequest { dry_run: true, ..of_device(device) }).await;
    match asked {
        Ok(outcome) => outcome.plan.salts == 1,
        Err(FleetError::Conflict { problem, .. }) if problem.contains("has no key here") => false,
        Err(other) => panic!("{other}"),
    }
}

async fn sold_device(scratch: &Scratch, name: &str) {
    Firmware::enrolled(scratch, name).await.exchange(scratch).await.unwrap();
    decommission(scratch, name).await;
}

#[tokio::test]
async fn a_device_key_dies_by_two_people_with_a_receipt_that_is_in_the_log() {
    let scratch = Scratch::new().await;
    Firmware::enrolled(&scratch, "thermo-1").await.exchange(&scratch).await.unwrap();
    let early = scratch.fleet.destroy(&scratch.owner, of_device("thermo-1")).await.unwrap_err();
    assert!(early.to_string().contains("may still need its keys"), "{early}");
    decommission(&scratch, "thermo-1").await;
    let dry = DestructionRequest { dry_run: true, ..of_device("thermo-1") };
    let plan = scratch.fleet.destroy(&scratch.owner, dry).await.unwrap();
    assert_eq!((plan.proposal, plan.plan.salts, plan.plan.result), (None, 1, DestructionResult::Destroyed));
    let silent = DestructionRequest { why: " ".into(), ..of_device("thermo-1") };
    assert_eq!(field_of(&scratch.fleet.destroy(&scratch.owner, silent).await.unwrap_err()), "why");
    let proposal = propose(&scratch, of_device("thermo-1")).await;
    assert!(approve(&scratch, &scratch.owner, proposal).await.is_err(), "nobody approves an own proposal");
    let elsewhere = scratch.operator("berta", Role::FacilityOperator, &["plant-b"]).await;
    assert!(matches!(approve(&scratch, &elsewhere, proposal).await, Err(FleetError::NotFound(_))));
    assert!(matches!(scratch.fleet.destroy(&elsewhere, of_device("thermo-1")).await, Err(FleetError::NotFound(_))));
    assert!(receipts(&scratch).await.is_empty() && has_salt(&scratch, "thermo-1").await);
    let pavel = scratch.operator("pavel", Role::FacilityOperator, &["plant-a"]).await;
    approve(&scratch, &pavel, proposal).await.unwrap();
    assert!(!has_salt(&scratch, "thermo-1").await);
    let [receipt] = receipts(&scratch).await.try_into().unwrap();
    assert_eq!((receipt.result, receipt.salts, receipt.proposal), (DestructionResult::Destroyed, 1, proposal));
    assert!(receipt.proposed_by.starts_with("olga (op_") && receipt.approved_by.starts_with("pavel (op_"));
    assert!(receipt.tool.contains("SQLite 3."), "{}", receipt.tool);
    let scan = receipt.verification.unwrap();
    assert!(scan.fragments_before.unwrap() > 0 && scan.fragments_after == 0 && scan.octets > 10_000, "{scan:?}");
    assert!(receipt.exceptions.iter().any(|exception| exception.contains("copies that devices hold")));
    let logged = scratch.fleet.device_show(&scratch.owner, "thermo-1").await.unwrap();
    let entry = logged.events.iter().find(|event| Some(event.index) == receipt.log_index).unwrap();
    assert_eq!(entry.entry["act"], "key.destroy");
    assert_eq!(entry.entry["detail"]["result"], "destroyed");
    assert_eq!(entry.entry["detail"]["approved_by"], receipt.approved_by.as_str());
    let again = scratch.fleet.destroy(&scratch.owner, of_device("thermo-1")).await.unwrap_err();
    assert!(again.to_string().contains("destroyed before"), "{again}");
    assert!(scratch.fleet.destruction_show(&elsewhere, receipt.id).await.is_err());
    assert_eq!(scratch.fleet.destruction_show(&pavel, receipt.id).await.unwrap(), receipt);
}

#[tokio::test]
async fn one_person_alone_waits_a_day_and_the_receipt_says_so() {
    let scratch = Scratch::with(|config| config.single_control = true).await;
    sold_device(&scratch, "thermo-1").await;
    propose(&scratch, of_device("thermo-1")).await;
    scratch.fleet.turn().await;
    assert!(receipts(&scratch).await.is_empty());
    scratch.pass(UnixMillis::DAY + 1);
    scratch.fleet.turn().await;
    let [receipt] = receipts(&scratch).await.try_into().unwrap();
    assert_eq!(receipt.approved_by, "nobody: the delay of single control was over");
}

#[tokio::test]
async fn an_epoch_dies_with_the_salts_of_devices_that_left_and_is_barred_for_the_others() {
    let scratch = Scratch::new().await;
    let mut staying = Firmware::enrolled(&scratch, "thermo-1").await;
    staying.exchange(&scratch).await.unwrap();
    sold_device(&scratch, "thermo-2").await;
    let request = DestructionRequest {
        target: DestructionTarget::FacilityEpoch { facility: "plant-a".into(), epoch: 1 },
        ..of_device("")
    };
    let early = scratch.fleet.destroy(&scratch.owner, request.clone()).await.unwrap_err();
    assert!(early.to_string().contains("not retired"), "{early}");
    scratch.fleet.epoch_advance_facility(&scratch.owner, "plant-a", "yearly".into()).await.unwrap();
    staying.exchange(&scratch).await.unwrap();
    scratch.fleet.epoch_retire(&scratch.owner, "plant-a", 1, "yearly".into()).await.unwrap();
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    approve(&scratch, &pavel, propose(&scratch, request).await).await.unwrap();
    let [receipt] = receipts(&scratch).await.try_into().unwrap();
    assert_eq!((receipt.result, receipt.salts), (DestructionResult::Barred, 1));
    assert!(receipt.exceptions.iter().any(|exception| exception.starts_with("1 devices are in service")));
    assert!(!has_salt(&scratch, "thermo-2").await);
    // Who is in service is not disturbed.
    assert_eq!(staying.exchange(&scratch).await.unwrap().facility_epoch, 2);
}

#[tokio::test]
async fn a_registry_of_before_gives_no_destroyed_key_back() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    device.exchange(&scratch).await.unwrap();
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    scratch.fleet.close().await;
    let data = scratch.dir.path().join("data");
    let old = scratch.dir.path().join("old");
    copy(&data, &old);
    let scratch = scratch.reopen().await;
    decommission(&scratch, "thermo-1").await;
    scratch.fleet.epoch_advance_facility(&scratch.owner, "plant-a", "sold".into()).await.unwrap();
    scratch.fleet.epoch_retire(&scratch.owner, "plant-a", 1, "sold".into()).await.unwrap();
    let request = DestructionRequest {
        target: DestructionTarget::FacilityEpoch { facility: "plant-a".into(), epoch: 1 },
        ..of_device("")
    };
    approve(&scratch, &pavel, propose(&scratch, request).await).await.unwrap();
    scratch.fleet.close().await;
    std::fs::remove_dir_all(&data).unwrap();
    copy(&old, &data);
    let scratch = scratch.reopen().await;
    let found = scratch.fleet.device_show(&scratch.owner, "thermo-1").await.unwrap();
    assert_eq!(found.device.state, kf_key::DeviceState::Decommissioned, "it had left before its keys died");
    assert!(!has_salt(&scratch, "thermo-1").await);
    assert!(device.exchange(&scratch).await.is_err());
    let epochs = scratch.fleet.epoch_list(&scratch.owner, "plant-a").await.unwrap();
    let states: Vec<_> = epochs.iter().map(|epoch| (epoch.epoch, epoch.state)).collect();
    assert_eq!(states, [(2, EpochState::Current), (1, EpochState::Retired)]);
}

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_DESTRUCTION_CHILD";
#[tokio::test]
async fn a_crash_at_any_durable_step_of_a_destruction_is_finished_by_the_next_start() {
    if let Some(directory) = std::env::var_os(CHILD) {
        // Opening finishes what was approved.
        Scratch::open_in(Path::new(&directory)).await.unwrap();
        return;
    }
    let scratch = Scratch::new().await;
    sold_device(&scratch, "thermo-1").await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let proposal = propose(&scratch, of_device("thermo-1")).await;
    let closed = scratch.closed().await;
    // Approved, and the machine stops before anything else.
    let store = Store::open(&closed.path().join("data/registry.sqlite"), Options::default()).unwrap();
    let change = ProposalChange { id: proposal, to: ProposalState::Done, by: pavel.id.parse().ok() };
    let entry = store.log_entries(0..1).unwrap().remove(0);
    let entry: kf_log::AuditEntry = serde_json::from_slice(&entry).unwrap();
    store.change_proposal(change, entry).await.unwrap();
    store.close().await;
    drop(store);
    let test = "destruction::a_crash_at_any_durable_step_of_a_destruction_is_finished_by_the_next_start";
    let mut crashes = 0;
    for when in 1..200 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        assert!(!has_salt(&survivor, "thermo-1").await, "crash {when}");
        let found = receipts(&survivor).await;
        assert_eq!(found.len(), 1, "crash {when}: one receipt, whatever happened");
        assert_eq!((found[0].result, found[0].salts), (DestructionResult::Destroyed, 1));
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((8..190).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}

fn stated(scratch: &Scratch) -> Statement {
    Statement {
        keys: HeldElsewhere::Station,
        holder: "station 3, token SoftHSM 1234".into(),
        method: Sanitization::Purge,
        technique: "both halves of every pair deleted, state directory removed".into(),
        tool: "pkcs11-tool 0.23".into(),
        carried_out_by: "Ana".into(),
        carried_out: scratch.clock_now().minus(UnixMillis::DAY),
        verification: "the token lists no object".into(),
        verified_by: "Ben".into(),
    }
}

fn elsewhere(facility: Option<&str>, statement: Statement) -> DestructionRequest {
    let target = DestructionTarget::Elsewhere { facility: facility.map(str::to_owned), statement };
    DestructionRequest { target, ..of_device("") }
}

#[tokio::test]
async fn what_people_destroyed_elsewhere_has_a_receipt_that_says_it_is_their_word() {
    let scratch = Scratch::new().await;
    for (field, statement) in [
        ("verification", Statement { verification: " ".into(), ..stated(&scratch) }),
        ("holder", Statement { holder: "x".repeat(501), ..stated(&scratch) }),
        ("tool", Statement { tool: "a\nb".into(), ..stated(&scratch) }),
        ("verified_by", Statement { verified_by: "ANA ".into(), ..stated(&scratch) }),
        ("carried_out", Statement { carried_out: scratch.clock_now().plus(1), ..stated(&scratch) }),
    ] {
        let refused = scratch.fleet.destroy(&scratch.owner, elsewhere(None, statement)).await.unwrap_err();
        assert_eq!(field_of(&refused), field, "{refused}");
    }
    let berta = scratch.operator("berta", Role::FacilityOperator, &["plant-b"]).await;
    assert!(scratch.fleet.destroy(&berta, elsewhere(None, stated(&scratch))).await.is_err());
    assert!(scratch.fleet.destroy(&berta, elsewhere(Some("plant-a"), stated(&scratch))).await.is_err());
    let proposal = propose(&scratch, elsewhere(Some("plant-a"), stated(&scratch))).await;
    assert!(approve(&scratch, &scratch.owner, proposal).await.is_err(), "it takes two");
    assert!(receipts(&scratch).await.is_empty());
    let pavel = scratch.operator("pavel", Role::FacilityOperator, &["plant-a"]).await;
    approve(&scratch, &pavel, proposal).await.unwrap();
    let scratch = scratch.reopen().await;
    let [receipt] = receipts(&scratch).await.try_into().unwrap();
    assert_eq!((receipt.result, receipt.salts, receipt.proposal), (DestructionResult::Stated, 0, proposal));
    assert_eq!(receipt.target, "elsewhere station: station 3, token SoftHSM 1234");
    assert_eq!(receipt.tool, "pkcs11-tool 0.23");
    assert!(receipt.method.starts_with("purge"));
    assert_eq!(receipt.holder.as_deref(), Some("the token lists no object (verified by Ben)"));
    assert!(receipt.exceptions[0].contains("saw nothing of it"), "{:?}", receipt.exceptions);
    assert!(receipt.log_index.is_some() && receipt.settled.is_none() && receipt.verification.is_none());
}
