//! Devices that leave who has them: which keys die, which live on, and what the customer has in hand.

use std::path::Path;

use kf_api::batch::Outcome;
use kf_api::destruction::DestructionResult;
use kf_api::device::{DeviceAct, DeviceActRequest, DeviceHistory};
use kf_api::label::{ClaimRequest, LabelState};
use kf_api::operator::Role;
use kf_api::order::{OrderAct, OrderFilter, OrderProgress, OrderRequest};
use kf_api::ownership::{
    EndedOwnership, Fate, LeavingDevice, OwnershipEnd, OwnershipOutcome, OwnershipPlan, OwnershipRequest,
};
use kf_api::proposal::ProposalState;
use kf_api::{PageRequest, ShownOnce};
use kf_batch::record::{CLAIM_CODE_SLOT, Fingerprint};
use kf_crypto::PrivateKey;
use kf_enrol::code::EnrolmentCode;
use kf_exchange::order::{Order as SignedOrder, OrderAct as SignedAct, OrderOutcome, OrderReport};
use kf_fleet::{EnrolCredential, EstLabel, FleetError, Knows, Principal, TlsClient};
use kf_key::{
    CertificateProfile, CertificateStatus, DeviceState, ProposalId, RevocationReason, SecretArray, UnixMillis,
};
use kf_log::{Checkpoint, VerifierKey};
use kf_store::proposal::ProposalChange;
use kf_store::{Options, Store};

use crate::batch::station::{Line, Made, Station, fresh, import};
use crate::crash::{copied, killed_child};
use crate::destruction::{approve, receipts};
use crate::exchange::{Chip, Firmware, pin};
use crate::rollback::copy;
use crate::scratch::{HERE, Identity, Scratch, csr, field_of, issued};

fn leaving(end: OwnershipEnd, devices: &[&str]) -> OwnershipRequest {
    let device = |name: &&str| LeavingDevice { device: (*name).into(), replacement: None };
    OwnershipRequest {
        end,
        devices: devices.iter().map(device).collect(),
        why: "contract 4711".into(),
        customer: "Acme".into(),
        wipe: None,
        factory_reset: None,
        station_records_erased: true,
        dry_run: false,
    }
}

async fn ask(scratch: &Scratch, request: OwnershipRequest) -> OwnershipOutcome {
    scratch.fleet.ownership_end(&scratch.owner, request).await.unwrap()
}

async fn propose(scratch: &Scratch, request: OwnershipRequest) -> ProposalId {
    ask(scratch, request).await.proposal.unwrap()
}

fn fate(plan: &OwnershipPlan, what: &str) -> (Fate, Option<u64>) {
    let row = plan.fates.iter().find(|row| row.what.starts_with(what)).unwrap();
    (row.fate, row.count)
}

async fn show(scratch: &Scratch, device: &str) -> DeviceHistory {
    scratch.fleet.device_show(&scratch.owner, device).await.unwrap()
}

async fn statuses(scratch: &Scratch, device: &str, profile: CertificateProfile) -> Vec<CertificateStatus> {
    let found = show(scratch, device).await.certificates;
    found.into_iter().filter(|found| found.profile == profile).map(|found| found.status).collect()
}

async fn records(scratch: &Scratch) -> Vec<EndedOwnership> {
    scratch.fleet.ownership_list(&scratch.owner, PageRequest::default()).await.unwrap().items
}

/// A device with an IDevID, a label, an LDevID and a device key.
struct Factory {
    line: Line,
    made: Made,
    code: EnrolmentCode,
    firmware: Firmware,
}

/// Made by a station at plant-a as `b-1-000001`, enrolled and in possession of its key.
async fn factory(scratch: &Scratch) -> Factory {
    let station = Station::new(scratch, "line-1", "plant-a").await;
    let mut line = Line::start(scratch, &station, "b-1", 5).await;
    let random = SecretArray::fill(|octets: &mut [u8; 13]| *octets = kf_crypto::random_array().unwrap());
    let code = EnrolmentCode::from_random(&random);
    let made = line.make_with(0, Outcome::Passed, |record| {
        record.fingerprints.push(Fingerprint { slot: CLAIM_CODE_SLOT.to_owned(), value: code.hash() });
    });
    import(scratch, &station, "b-1", [&made.document]).await;
    let key = enrol(scratch, &line, &made).await.unwrap();
    let pin = pin(&scratch.fleet.device_pins().unwrap().delivery_key_pem);
    let mut firmware = Firmware { device: made.record.device, key, pin, held: None };
    firmware.exchange(scratch).await.unwrap();
    Factory { line, made, code, firmware }
}

/// Enrols with the IDevID; the key of the LDevID.
async fn enrol(scratch: &Scratch, line: &Line, made: &Made) -> Result<PrivateKey, FleetError> {
    let authority = line.quota.terms.authority_certificate.as_slice();
    let client = scratch.fleet.verify_client_path(&made.certificate, &[authority])?;
    let client = TlsClient::with_certificate(&client, HERE);
    let key = fresh();
    let request = csr(&key);
    issued(
        scratch
            .fleet
            .est_simple_enroll(EstLabel::Line("thermo"), client, EnrolCredential::Certificate, &request)
            .await?,
    );
    Ok(key)
}

async fn claim(
    scratch: &Scratch,
    who: &Principal,
    code: &EnrolmentCode,
    facility: &str,
) -> Result<LabelState, FleetError> {
    // Exposed to be sent, as an installer's program does.
    let code = ShownOnce::new(code.to_text().expose().to_owned());
    let request = ClaimRequest { device: DEVICE.into(), code, key_sha256: None, facility: facility.into() };
    scratch.fleet.device_claim(who, request).await.map(|label| label.state)
}

const DEVICE: &str = "b-1-000001";

#[tokio::test]
async fn a_resold_device_keeps_its_idevid_alone_and_comes_to_its_next_owner_with_new_keys() {
    let scratch = Scratch::new().await;
    let mut factory = factory(&scratch).await;
    let old = factory.firmware.held.unwrap();
    let dry = OwnershipRequest { dry_run: true, ..leaving(OwnershipEnd::Resold, &[DEVICE]) };
    let plan = ask(&scratch, dry).await.plan;
    assert_eq!((plan.devices, plan.state, plan.result), (1, DeviceState::Suspended, DestructionResult::Destroyed));
    assert_eq!(fate(&plan, "LDevIDs"), (Fate::Dies, Some(1)));
    assert_eq!(fate(&plan, "IDevIDs"), (Fate::Lives, Some(1)));
    assert_eq!(fate(&plan, "device keys"), (Fate::Dies, Some(1)));
    assert_eq!(fate(&plan, "storage key").0, Fate::NotReached, "its program has not said that it knows the order");
    assert_eq!(fate(&plan, "labels"), (Fate::Lives, Some(1)));
    let unsure =
        OwnershipRequest { station_records_erased: false, dry_run: true, ..leaving(OwnershipEnd::Resold, &[DEVICE]) };
    assert_eq!(ask(&scratch, unsure).await.plan.result, DestructionResult::Barred, "the station's record has the salt");

    let proposal = propose(&scratch, leaving(OwnershipEnd::Resold, &[DEVICE])).await;
    assert_eq!(show(&scratch, DEVICE).await.device.state, DeviceState::Active, "nothing is permanent yet");
    let pavel = scratch.operator("pavel", Role::FacilityOperator, &["plant-a"]).await;
    approve(&scratch, &pavel, proposal).await.unwrap();
    assert_eq!(show(&scratch, DEVICE).await.device.state, DeviceState::Suspended);
    assert_eq!(statuses(&scratch, DEVICE, CertificateProfile::LDevId).await, [CertificateStatus::Revoked]);
    assert_eq!(statuses(&scratch, DEVICE, CertificateProfile::IDevId).await, [CertificateStatus::Good]);
    let [receipt] = receipts(&scratch).await.try_into().unwrap();
    assert_eq!((receipt.result, receipt.salts, receipt.proposal), (DestructionResult::Destroyed, 1, proposal));
    let [record] = records(&scratch).await.try_into().unwrap();
    assert_eq!((record.idevid.as_str(), record.device_keys.as_str()), ("lives", "destroyed"));
    assert!(record.claimable && record.approved_by.starts_with("pavel (") && record.customer == "Acme");
    assert!(factory.firmware.exchange(&scratch).await.is_err());

    // Whoever has the device alone has nothing; who has sold it does not get it back for somebody else.
    assert!(enrol(&scratch, &factory.line, &factory.made).await.is_err());
    let berta = scratch.operator("berta", Role::FacilityOperator, &["plant-b"]).await;
    assert!(claim(&scratch, &scratch.owner, &factory.code, "plant-b").await.is_err(), "the seller is not the buyer");
    assert_eq!(claim(&scratch, &berta, &factory.code, "plant-b").await.unwrap(), LabelState::Claimed);
    assert_eq!(show(&scratch, DEVICE).await.device.state, DeviceState::Suspended, "until it has proved its key");
    factory.firmware.key = enrol(&scratch, &factory.line, &factory.made).await.unwrap();
    let arrived = show(&scratch, DEVICE).await.device;
    let plant_b = scratch.fleet.facility_show(&scratch.owner, "plant-b").await.unwrap().id;
    assert_eq!((arrived.state, arrived.facility), (DeviceState::Active, plant_b));
    let new = factory.firmware.exchange(&scratch).await.unwrap();
    assert!(new.facility == plant_b && new.device_epoch > old.device_epoch, "{old:?} {new:?}");

    // A restart does not take the new owner's salt for the one that died.
    let scratch = scratch.reopen().await;
    assert_eq!(show(&scratch, DEVICE).await.device.state, DeviceState::Active);
    factory.firmware.exchange(&scratch).await.unwrap();
    // The old owner has the receipt, the new one has none.
    assert!(scratch.fleet.ownership_receipt(&pavel, DEVICE).await.is_ok());
    assert!(matches!(scratch.fleet.ownership_receipt(&berta, DEVICE).await, Err(FleetError::NotFound(_))));
    // And it may be sold again.
    let wiped = OwnershipRequest { wipe: Some(true), ..leaving(OwnershipEnd::Resold, &[DEVICE]) };
    let again = scratch.fleet.ownership_end(&berta, wiped).await.unwrap();
    let proposal = again.proposal.unwrap();
    approve(&scratch, &scratch.owner, proposal).await.unwrap();
    // What the old owner ordered does not reach the new one.
    let filter = || OrderFilter { device: Some(DEVICE.into()), ..OrderFilter::default() };
    let orders = scratch.fleet.order_list(&scratch.owner, filter()).await.unwrap().items;
    assert_eq!(orders[0].progress, Some(OrderProgress::Queued));
    assert_eq!(statuses(&scratch, DEVICE, CertificateProfile::LDevId).await, [CertificateStatus::Revoked; 2]);
    assert_eq!(claim(&scratch, &pavel, &factory.code, "plant-a").await.unwrap(), LabelState::Claimed);
    enrol(&scratch, &factory.line, &factory.made).await.unwrap();
    let orders = scratch.fleet.order_list(&scratch.owner, filter()).await.unwrap().items;
    assert_eq!(orders[0].progress, Some(OrderProgress::Cancelled));
}

#[tokio::test]
async fn a_stolen_device_is_stopped_by_one_person_and_dies_by_two_and_no_other_is_touched() {
    let scratch = Scratch::new().await;
    let factory = factory(&scratch).await;
    scratch.device("bystander").await;
    scratch.enrol("bystander").await;
    scratch.device_at("elsewhere", "plant-b", "thermo").await;
    scratch.enrol("elsewhere").await;
    let pavel = scratch.operator("pavel", Role::FacilityOperator, &["plant-a"]).await;
    let both = leaving(OwnershipEnd::Stolen, &[DEVICE, "elsewhere"]);
    let mixed = scratch.fleet.ownership_end(&scratch.owner, both.clone()).await.unwrap_err();
    assert_eq!(field_of(&mixed), "devices", "one facility at a time");
    assert!(matches!(scratch.fleet.ownership_end(&pavel, both).await, Err(FleetError::NotFound(_))));
    assert_eq!(show(&scratch, DEVICE).await.device.state, DeviceState::Active, "and nothing was begun");

    let outcome = scratch.fleet.ownership_end(&pavel, leaving(OwnershipEnd::Stolen, &[DEVICE])).await.unwrap();
    assert_eq!(outcome.stopped, 1);
    assert_eq!(show(&scratch, DEVICE).await.device.state, DeviceState::Quarantined);
    for profile in [CertificateProfile::LDevId, CertificateProfile::IDevId] {
        assert_eq!(statuses(&scratch, DEVICE, profile).await, [CertificateStatus::Held], "{profile:?}");
    }
    assert!(enrol(&scratch, &factory.line, &factory.made).await.is_err());
    let proposal = outcome.proposal.unwrap();
    let berta = scratch.operator("berta", Role::FacilityOperator, &["plant-b"]).await;
    assert!(matches!(approve(&scratch, &berta, proposal).await, Err(FleetError::NotFound(_))));
    assert!(approve(&scratch, &pavel, proposal).await.is_err(), "nobody approves an own proposal");
    approve(&scratch, &scratch.owner, proposal).await.unwrap();
    let found = show(&scratch, DEVICE).await;
    assert_eq!(found.device.state, DeviceState::Decommissioned);
    for certificate in &found.certificates {
        assert_eq!(certificate.status, CertificateStatus::Revoked);
        assert_eq!(certificate.reason, Some(RevocationReason::KeyCompromise));
    }
    let filter = OrderFilter { device: Some(DEVICE.into()), ..OrderFilter::default() };
    let orders = scratch.fleet.order_list(&scratch.owner, filter.clone()).await.unwrap().items;
    assert_eq!(orders.len(), 1);
    scratch.pass(60 * UnixMillis::DAY);
    let receipt = scratch.fleet.ownership_receipt(&pavel, DEVICE).await.unwrap();
    assert_eq!(receipt.wipe.as_deref(), Some("never-answered"), "open, and visible");
    let orders = scratch.fleet.order_list(&scratch.owner, filter).await.unwrap().items;
    assert_eq!(orders[0].progress, Some(OrderProgress::NeverAnswered));
    for other in ["bystander", "elsewhere"] {
        assert_eq!(show(&scratch, other).await.device.state, DeviceState::Active);
        assert_eq!(statuses(&scratch, other, CertificateProfile::LDevId).await, [CertificateStatus::Good]);
    }
    let gone = scratch.fleet.ownership_end(&pavel, leaving(OwnershipEnd::Resold, &[DEVICE])).await.unwrap_err();
    assert!(gone.to_string().contains("has left for good"), "{gone}");
}

#[tokio::test]
async fn a_returned_device_waits_without_keys_while_another_has_its_place_and_may_be_readmitted() {
    let scratch = Scratch::new().await;
    let mut factory = factory(&scratch).await;
    scratch.device("spare").await;
    scratch.device_at("far", "plant-b", "thermo").await;
    let with = |replacement: &str| {
        let mut request = leaving(OwnershipEnd::Returned, &[DEVICE]);
        request.devices[0].replacement = Some(replacement.into());
        request
    };
    for (wrong, why) in [("far", "another facility"), (DEVICE, "does not replace itself")] {
        let error = scratch.fleet.ownership_end(&scratch.owner, with(wrong)).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let sold = OwnershipRequest { end: OwnershipEnd::Resold, ..with("spare") };
    assert_eq!(field_of(&scratch.fleet.ownership_end(&scratch.owner, sold).await.unwrap_err()), "replacement");
    let proposal = propose(&scratch, with("spare")).await;
    let pavel = scratch.operator("pavel", Role::FacilityOperator, &["plant-a"]).await;
    approve(&scratch, &pavel, proposal).await.unwrap();
    let spare = show(&scratch, "spare").await;
    assert_eq!(spare.device.attributes["replaces"], DEVICE);
    assert!(spare.events.iter().any(|event| event.entry["act"] == "device.replace"));
    assert_eq!(show(&scratch, DEVICE).await.device.state, DeviceState::Quarantined);
    assert_eq!(statuses(&scratch, DEVICE, CertificateProfile::LDevId).await, [CertificateStatus::Revoked]);
    assert_eq!(statuses(&scratch, DEVICE, CertificateProfile::IDevId).await, [CertificateStatus::Held]);
    assert!(enrol(&scratch, &factory.line, &factory.made).await.is_err());
    let resume = DeviceActRequest {
        act: DeviceAct::Resume,
        why: "repaired".into(),
        departure: Default::default(),
        dry_run: false,
    };
    scratch.fleet.device_act(&scratch.owner, DEVICE, resume).await.unwrap();
    assert_eq!(show(&scratch, DEVICE).await.device.state, DeviceState::Registered);
    factory.firmware.key = enrol(&scratch, &factory.line, &factory.made).await.unwrap();
    let old = factory.firmware.held.unwrap().device_epoch;
    assert!(factory.firmware.exchange(&scratch).await.unwrap().device_epoch > old, "a salt of its own");
    let scratch = scratch.reopen().await;
    assert_eq!(show(&scratch, DEVICE).await.device.state, DeviceState::Active);
}

#[tokio::test]
async fn one_person_alone_waits_a_day_and_what_is_asked_wrongly_is_named() {
    let scratch = Scratch::with(|config| config.single_control = true).await;
    Firmware::enrolled(&scratch, "thermo-1").await.exchange(&scratch).await.unwrap();
    let many: Vec<String> = (0..1_001).map(|number| format!("d-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (request, field) in [
        (leaving(OwnershipEnd::Scrapped, &[]), "devices"),
        (leaving(OwnershipEnd::Scrapped, &many), "devices"),
        (leaving(OwnershipEnd::Scrapped, &["thermo-1", "thermo-1"]), "devices"),
        (OwnershipRequest { why: " ".into(), ..leaving(OwnershipEnd::Scrapped, &["thermo-1"]) }, "why"),
        (OwnershipRequest { customer: "x\n".into(), ..leaving(OwnershipEnd::Scrapped, &["thermo-1"]) }, "customer"),
    ] {
        assert_eq!(field_of(&scratch.fleet.ownership_end(&scratch.owner, request).await.unwrap_err()), field);
    }
    propose(&scratch, leaving(OwnershipEnd::Scrapped, &["thermo-1"])).await;
    scratch.fleet.turn().await;
    assert!(records(&scratch).await.is_empty());
    assert!(matches!(scratch.fleet.ownership_receipt(&scratch.owner, "thermo-1").await, Err(FleetError::NotFound(_))));
    scratch.pass(UnixMillis::DAY + 1);
    scratch.fleet.turn().await;
    let [record] = records(&scratch).await.try_into().unwrap();
    assert_eq!(record.approved_by, "nobody: the delay of single control was over");
    assert_eq!(record.idevid, "none");
    let receipt = scratch.fleet.ownership_receipt(&scratch.owner, "thermo-1").await.unwrap();
    assert!(receipt.timeline.iter().any(|entry| entry.leaf.contains(r#""control":"single""#)), "all evidence says so");
}

#[tokio::test]
async fn a_receipt_proves_each_of_its_entries_and_tells_nothing_of_other_devices() {
    let scratch = Scratch::new().await;
    for name in ["thermo-1", "thermo-2"] {
        Firmware::enrolled(&scratch, name).await.exchange(&scratch).await.unwrap();
    }
    let proposal = propose(&scratch, leaving(OwnershipEnd::Scrapped, &["thermo-1", "thermo-2"])).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    approve(&scratch, &pavel, proposal).await.unwrap();
    let receipt = scratch.fleet.ownership_receipt(&scratch.owner, "thermo-1").await.unwrap();
    let key = VerifierKey::from_text(&scratch.fleet.audit_verifier_key()).unwrap();
    let checkpoint = Checkpoint::open(&receipt.checkpoint, &key).unwrap();
    let other = show(&scratch, "thermo-2").await.device.id.to_string();
    for entry in &receipt.timeline {
        let proof: Vec<[u8; 32]> =
            entry.proof.iter().map(|hash| hex::decode(hash).unwrap().try_into().unwrap()).collect();
        kf_log::proof::verify_inclusion(entry.leaf.as_bytes(), entry.index, checkpoint.size, &checkpoint.root, &proof)
            .unwrap();
        assert!(!entry.leaf.contains(&other) && !entry.leaf.contains("thermo-2"), "{}", entry.leaf);
    }
    let acts: Vec<&str> = receipt.timeline.iter().map(|entry| entry.act.as_str()).collect();
    for act in
        ["proposal.create", "proposal.approve", "device.decommission", "order.create", "key.destroy", "ownership.end"]
    {
        assert!(acts.contains(&act), "{act} is missing in {acts:?}");
    }
    let [one] = receipts(&scratch).await.try_into().unwrap();
    assert_eq!(one.salts, 2, "one receipt of destruction for both");
}

#[tokio::test]
async fn a_registry_of_before_lets_no_device_back_to_who_sold_it() {
    let scratch = Scratch::new().await;
    let mut factory = factory(&scratch).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    scratch.fleet.close().await;
    let (data, old) = (scratch.dir.path().join("data"), scratch.dir.path().join("old"));
    copy(&data, &old);
    let scratch = scratch.reopen().await;
    let proposal = propose(&scratch, leaving(OwnershipEnd::Resold, &[DEVICE])).await;
    approve(&scratch, &pavel, proposal).await.unwrap();
    scratch.fleet.close().await;
    std::fs::remove_dir_all(&data).unwrap();
    copy(&old, &data);
    let scratch = scratch.reopen().await;
    let found = show(&scratch, DEVICE).await;
    assert_eq!(found.device.state, DeviceState::Suspended, "as it was left, not worse and not better");
    assert_eq!(statuses(&scratch, DEVICE, CertificateProfile::LDevId).await, [CertificateStatus::Revoked]);
    assert_eq!(statuses(&scratch, DEVICE, CertificateProfile::IDevId).await, [CertificateStatus::Good]);
    assert!(factory.firmware.exchange(&scratch).await.is_err());
    assert!(enrol(&scratch, &factory.line, &factory.made).await.is_err());
    let scratch = scratch.reopen().await;
    assert_eq!(
        show(&scratch, DEVICE).await.device.state,
        DeviceState::Suspended,
        "and a further start changes nothing"
    );
}

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_OWNERSHIP_CHILD";

#[tokio::test]
async fn a_crash_at_any_durable_step_is_finished_by_the_next_start_once() {
    if let Some(directory) = std::env::var_os(CHILD) {
        // Opening finishes what was approved.
        Scratch::open_in(Path::new(&directory)).await.unwrap();
        return;
    }
    let scratch = Scratch::new().await;
    for name in ["thermo-1", "thermo-2"] {
        Firmware::enrolled(&scratch, name).await.exchange(&scratch).await.unwrap();
    }
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let proposal = propose(&scratch, leaving(OwnershipEnd::Stolen, &["thermo-1", "thermo-2"])).await;
    let closed = scratch.closed().await;
    // Approved, and the machine stops before anything else.
    let store = Store::open(&closed.path().join("data/registry.sqlite"), Options::default()).unwrap();
    let by = pavel.id.parse().ok();
    let change = ProposalChange { id: proposal, to: ProposalState::Done, by };
    let entry = store.log_entries(0..1).unwrap().remove(0);
    let entry: kf_log::AuditEntry = serde_json::from_slice(&entry).unwrap();
    store.change_proposal(change, entry).await.unwrap();
    store.close().await;
    drop(store);
    let test = "ownership::a_crash_at_any_durable_step_is_finished_by_the_next_start_once";
    let mut crashes = 0;
    for when in 1..300 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        let found = records(&survivor).await;
        assert_eq!(found.len(), 2, "crash {when}: one record for each device, whatever happened");
        for record in &found {
            assert_eq!(record.device_keys, "destroyed", "crash {when}");
            let device = show(&survivor, &record.device_name).await;
            assert_eq!(device.device.state, DeviceState::Decommissioned, "crash {when}");
            let is_revoked = device.certificates.iter().all(|found| found.status == CertificateStatus::Revoked);
            assert!(is_revoked, "crash {when}");
            let filter = OrderFilter { device: Some(record.device_name.clone()), ..OrderFilter::default() };
            let orders = survivor.fleet.order_list(&survivor.owner, filter).await.unwrap().items;
            assert_eq!(orders.len(), 1, "crash {when}: one order to wipe");
        }
        let [receipt] = receipts(&survivor).await.try_into().unwrap();
        assert_eq!((receipt.result, receipt.salts), (DestructionResult::Destroyed, 2), "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((12..290).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}

/// A device asks for orders, with a program that knows the order to reset or does not; act and counter of what it is given.
async fn poll(scratch: &Scratch, identity: &Identity, knows: bool) -> Option<(SignedAct, u64)> {
    let certificate = scratch.client(identity);
    let client = TlsClient::with_certificate(&certificate, HERE);
    let knows = Knows { reset: knows, ..Knows::default() };
    let message = scratch.fleet.device_news(client, knows).await.unwrap().order?;
    let key = pin(&scratch.fleet.device_pins().unwrap().order_key_pem);
    let shown = scratch.fleet.certificate_show(&scratch.owner, identity.serial).await.unwrap();
    let device = shown.certificate.device.unwrap();
    let order = SignedOrder::verify(&message, &key, device, 0, scratch.clock_now()).unwrap();
    Some((order.act, order.counter))
}

async fn answer(scratch: &Scratch, identity: &Identity, (act, counter): (SignedAct, u64)) {
    let shown = scratch.fleet.certificate_show(&scratch.owner, identity.serial).await.unwrap();
    let device = shown.certificate.device.unwrap();
    let report = OrderReport { act, device, counter, outcome: OrderOutcome::Done, at: UnixMillis(0) };
    let signed = report.sign(&Chip(&identity.key)).unwrap();
    scratch.fleet.device_order_outcome(signed.as_bytes()).await.unwrap();
}

async fn orders(scratch: &Scratch, device: &str) -> Vec<(OrderAct, u64, OrderProgress)> {
    let filter = OrderFilter { device: Some(device.into()), ..OrderFilter::default() };
    let mut orders = scratch.fleet.order_list(&scratch.owner, filter).await.unwrap().items;
    orders.sort_by_key(|order| order.counter);
    orders.into_iter().map(|order| (order.act, order.counter, order.progress.unwrap())).collect()
}

#[tokio::test]
async fn only_who_says_that_it_knows_the_order_to_reset_is_given_it_and_the_receipt_says_who_was_not() {
    let scratch = Scratch::new().await;
    let mut identities = Vec::new();
    for name in ["thermo-1", "thermo-2"] {
        scratch.device(name).await;
        identities.push(scratch.enrol(name).await);
    }
    assert_eq!(poll(&scratch, &identities[0], true).await, None);
    assert_eq!(poll(&scratch, &identities[0], true).await, None);
    assert_eq!(poll(&scratch, &identities[1], false).await, None);
    let known = show(&scratch, "thermo-1").await.events;
    let known = known.iter().filter(|event| event.entry["act"] == "order.known").count();
    assert_eq!(known, 1, "noted once");
    let both = ["thermo-1", "thermo-2"];
    // Whoever insists is told which one is too old; whoever asks for what makes no sense, why.
    let insisting = OwnershipRequest { factory_reset: Some(true), ..leaving(OwnershipEnd::Resold, &both) };
    let refused = scratch.fleet.ownership_end(&scratch.owner, insisting.clone()).await.unwrap_err();
    assert!(matches!(refused, FleetError::Conflict { .. }) && refused.to_string().contains("thermo-2"), "{refused}");
    for wrong in [
        OwnershipRequest { wipe: Some(true), ..insisting.clone() },
        OwnershipRequest { end: OwnershipEnd::Scrapped, wipe: Some(false), ..insisting },
    ] {
        let refused = scratch.fleet.ownership_end(&scratch.owner, wrong).await.unwrap_err();
        assert_eq!(field_of(&refused), "factory_reset");
    }
    let order = OrderRequest {
        device: "thermo-1".into(),
        act: OrderAct::FactoryReset,
        lifetime_hours: None,
        why: "alone".into(),
    };
    let refused = scratch.fleet.order_create(&scratch.owner, order).await.unwrap_err();
    assert_eq!(field_of(&refused), "act", "it is part of the end of an ownership");
    let none = OwnershipRequest { factory_reset: Some(false), dry_run: true, ..leaving(OwnershipEnd::Resold, &both) };
    assert_eq!(fate(&ask(&scratch, none).await.plan, "storage key"), (Fate::NotReached, None));

    let dry = OwnershipRequest { dry_run: true, ..leaving(OwnershipEnd::Resold, &both) };
    let plan = ask(&scratch, dry).await.plan;
    let rows = plan.fates.iter().filter(|row| row.what.starts_with("storage key"));
    let rows: Vec<_> = rows.map(|row| (row.fate, row.count)).collect();
    assert_eq!(rows, [(Fate::DiesByOrder, Some(1)), (Fate::NotReached, Some(1))]);
    let proposal = propose(&scratch, leaving(OwnershipEnd::Resold, &both)).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    approve(&scratch, &pavel, proposal).await.unwrap();
    assert_eq!(orders(&scratch, "thermo-1").await, [(OrderAct::FactoryReset, 1, OrderProgress::Queued)]);
    assert_eq!(orders(&scratch, "thermo-2").await, []);
    let exceptions = |device: &str| {
        let scratch = &scratch;
        let device = device.to_owned();
        async move { scratch.fleet.ownership_receipt(&scratch.owner, &device).await.unwrap().record.exceptions.join("; ") }
    };
    let said = "has not said that it knows the order";
    assert!(!exceptions("thermo-1").await.contains(said) && exceptions("thermo-2").await.contains(said));

    let given = poll(&scratch, &identities[0], true).await.unwrap();
    assert_eq!(given, (SignedAct::FactoryReset, 1));
    answer(&scratch, &identities[0], given).await;
    assert_eq!(orders(&scratch, "thermo-1").await[0].2, OrderProgress::Executed);
    let receipt = scratch.fleet.ownership_receipt(&scratch.owner, "thermo-1").await.unwrap();
    assert_eq!((receipt.record.order_act, receipt.wipe.as_deref()), (Some(OrderAct::FactoryReset), Some("executed")));
    let answered = receipt.timeline.iter().find(|entry| entry.act == "order.answer").unwrap();
    assert!(answered.leaf.contains(r#""act":"factory-reset""#), "{}", answered.leaf);
}

#[tokio::test]
async fn an_order_to_reset_that_the_program_knows_no_more_stands_in_no_other_ones_way() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let identity = scratch.enrol("thermo-1").await;
    poll(&scratch, &identity, true).await;
    let proposal = propose(&scratch, leaving(OwnershipEnd::Returned, &["thermo-1"])).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    approve(&scratch, &pavel, proposal).await.unwrap();
    assert_eq!(orders(&scratch, "thermo-1").await, [(OrderAct::FactoryReset, 1, OrderProgress::Queued)]);
    // Somebody put an older program on it, which would refuse the order and never come to the next.
    assert_eq!(poll(&scratch, &identity, false).await, None);
    let wipe =
        OrderRequest { device: "thermo-1".into(), act: OrderAct::Wipe, lifetime_hours: None, why: "too old".into() };
    let waiting = scratch.fleet.order_create(&scratch.owner, wipe).await.unwrap();
    approve(&scratch, &pavel, waiting.proposal.unwrap()).await.unwrap();
    assert_eq!(poll(&scratch, &identity, false).await, Some((SignedAct::Wipe, 2)));
    // A newer program would refuse the lower counter for ever: it is given what comes after it.
    assert_eq!(poll(&scratch, &identity, true).await, Some((SignedAct::Wipe, 2)));
    answer(&scratch, &identity, (SignedAct::Wipe, 2)).await;
    assert_eq!(poll(&scratch, &identity, true).await, None);
    let queued = (OrderAct::FactoryReset, 1, OrderProgress::Queued);
    assert_eq!(orders(&scratch, "thermo-1").await[0], queued, "nobody claims that it was obeyed");
    scratch.pass(29 * UnixMillis::DAY);
    assert_eq!(orders(&scratch, "thermo-1").await[0].2, OrderProgress::NeverAnswered);
}

#[tokio::test]
async fn who_approves_and_the_background_order_a_device_once() {
    let scratch = Scratch::new().await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    for number in 0..4 {
        let name = format!("thermo-{number}");
        Firmware::enrolled(&scratch, &name).await.exchange(&scratch).await.unwrap();
        let proposal = propose(&scratch, leaving(OwnershipEnd::Stolen, &[&name])).await;
        let turns = async {
            for _turn in 0..40 {
                scratch.fleet.turn().await;
                tokio::task::yield_now().await;
            }
        };
        let (approved, ()) = tokio::join!(approve(&scratch, &pavel, proposal), turns);
        approved.unwrap();
        assert_eq!(orders(&scratch, &name).await.len(), 1, "{name}");
        assert_eq!(records(&scratch).await.len(), number + 1);
    }
}
