//! Keys that devices pin are succeeded: nobody is lost on the way, an old one ends when nobody needs it, and does not come back.

use std::path::Path;
use std::sync::Arc;

use kf_api::destruction::{DestructionRequest, DestructionResult, DestructionTarget};
use kf_api::device::{DeviceAct, DeviceActRequest, NewDevice};
use kf_api::inventory::{InventoryFilter, InventoryKey};
use kf_api::operator::{Credential, Role};
use kf_api::order::{OrderAct, OrderFilter, OrderRequest, OrderState};
use kf_api::proposal::{ProposalDecision, ProposalState};
use kf_api::rotation::{RotateRequest, RotationOperation, RotationOutcome, RotationReport};
use kf_api::status::IssuanceSwitch;
use kf_exchange::order::{Order as SignedOrder, OrderAct as SignedAct, OrderOutcome, OrderRefusal, OrderReport};
use kf_exchange::succession::{KeyRole, follow};
use kf_exchange::{AwaitChallenge, Ephemeral, ExchangeError, PublicKey, Purpose, Refusal};
use kf_fleet::{Fleet, FleetError, Knows, Principal, TlsClient};
use kf_key::{DeviceId, KeyState, SecretArray, UnixMillis};
use kf_store::Options;

use crate::backup::{Rig, restored_at};
use crate::batch::station::{Line, Station, import};
use crate::crash::{copied, killed_child};
use crate::destruction::receipts;
use crate::exchange::{Chip, pin};
use crate::scratch::{HERE, Identity, Scratch, field_of};

const DELIVERY: &str = "delivery-key";
const ORDER: &str = "order-key";

fn request(class: &str, now: bool, dry_run: bool) -> RotateRequest {
    RotateRequest { class: Some(class.into()), now, dry_run, why: "yearly".into(), ..Default::default() }
}

async fn succeed(fleet: &Fleet, who: &Principal, class: &str) {
    let report = fleet.rotate(who, request(class, true, false)).await.unwrap();
    let made = report.items.iter().find(|step| step.operation == RotationOperation::MakeSuccessor).unwrap();
    assert_eq!(made.outcome, RotationOutcome::Done, "{}", made.problem);
}

async fn look(scratch: &Scratch, class: &str) -> RotationReport {
    scratch.fleet.rotate(&scratch.owner, request(class, false, true)).await.unwrap()
}

/// The keys of a class, oldest first.
async fn keys(fleet: &Fleet, who: &Principal, class: &str) -> Vec<InventoryKey> {
    let filter = InventoryFilter { class: Some(class.into()), ended: true, ..InventoryFilter::default() };
    let mut keys = fleet.inventory(who, filter).await.unwrap().items;
    keys.sort_by(|a, b| a.key.cmp(&b.key));
    keys
}

fn destroy(key: &str, holders_stay: bool) -> DestructionRequest {
    DestructionRequest {
        target: DestructionTarget::PinnedKey { key: key.into(), holders_stay, holders: 0 },
        why: "its successor serves everybody".into(),
        station_records_erased: false,
        dry_run: false,
    }
}

/// A device as its firmware would be, which follows links.
struct Unit {
    device: DeviceId,
    identity: Identity,
    delivery: PublicKey,
    order: PublicKey,
}

impl Unit {
    async fn new(scratch: &Scratch, name: &str) -> Self {
        let device = scratch.device(name).await.id;
        let identity = scratch.enrol(name).await;
        let pins = scratch.fleet.device_pins().unwrap();
        Self { device, identity, delivery: pin(&pins.delivery_key_pem), order: pin(&pins.order_key_pem) }
    }

    /// Whether there was anything newer.
    fn take_up(&mut self, links: &[u8]) -> bool {
        let found = |role, held: &mut PublicKey| match follow(links, role, held) {
            Some(newest) => {
                *held = newest.key;
                true
            }
            None => false,
        };
        found(KeyRole::Delivery, &mut self.delivery) | found(KeyRole::Order, &mut self.order)
    }

    /// One whole exchange, which names the key that is held, or none; `None` when the server signs with a key that is not held.
    async fn exchange(&self, fleet: &Fleet, names: bool) -> Result<Option<()>, FleetError> {
        let random = SecretArray::fill(|octets| *octets = kf_crypto::random_array().unwrap());
        let ephemeral = Ephemeral::from_random(random).unwrap();
        let nonce = kf_crypto::random_array().unwrap();
        let knows = names.then_some(&self.delivery);
        let (waiting, hello) = AwaitChallenge::start_by(Purpose::Delivery, ephemeral, nonce, knows).unwrap();
        let challenge = fleet.device_exchange(hello.as_bytes()).await?;
        let proved = waiting.prove(&challenge, &[self.delivery], self.device, &Chip(&self.identity.key));
        let (waiting, proof) = match proved {
            Ok(proved) => proved,
            Err(refused) => {
                assert_eq!(refused.error, ExchangeError::Refused(Refusal::UnpinnedServer));
                return Ok(None);
            }
        };
        let delivery = fleet.device_exchange(proof.as_bytes()).await?;
        let (_, done, acknowledgement) = waiting.open(&delivery, None).unwrap().acknowledge().unwrap();
        done.finish(&fleet.device_exchange(acknowledgement.as_bytes()).await?).unwrap();
        Ok(Some(()))
    }

    /// One poll, as the server's surface makes it of the header and the question.
    async fn poll(&self, scratch: &Scratch) -> (Option<String>, Option<Vec<u8>>) {
        let certificate = scratch.client(&self.identity);
        let client = TlsClient::with_certificate(&certificate, HERE);
        let obeys = fingerprint(&self.order);
        let knows = Knows { order_key: Some(&obeys), ..Knows::default() };
        let news = scratch.fleet.device_news(client, knows).await.unwrap();
        (news.order_key, news.order)
    }

    fn verify(&self, scratch: &Scratch, message: &[u8], last: u64) -> Result<SignedOrder, OrderRefusal> {
        SignedOrder::verify(message, &self.order, self.device, last, scratch.clock_now())
    }
}

fn fingerprint(key: &PublicKey) -> String {
    hex::encode(key.spki_sha256())
}

async fn decide(scratch: &Scratch, who: &Principal, proposal: kf_key::ProposalId) -> Result<(), FleetError> {
    let yes = ProposalDecision { approve: true, why: "agreed".into() };
    scratch.fleet.proposal_decide(who, proposal, yes).await.map(drop)
}

#[tokio::test]
async fn a_delivery_key_is_succeeded_and_ends_once_every_device_has_proved_that_it_holds_the_next() {
    let scratch = Scratch::new().await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let (mut one, mut two) = (Unit::new(&scratch, "thermo-1").await, Unit::new(&scratch, "thermo-2").await);
    let first = keys(&scratch.fleet, &scratch.owner, DELIVERY).await[0].key.clone();
    let refused = scratch.fleet.destroy(&scratch.owner, destroy(&first, true)).await.unwrap_err();
    assert!(refused.to_string().contains("is the newest"), "{refused}");
    let planned = scratch.fleet.rotate(&scratch.owner, request(DELIVERY, true, true)).await.unwrap();
    assert_eq!(planned.items[0].outcome, RotationOutcome::Planned);
    assert_eq!(keys(&scratch.fleet, &scratch.owner, DELIVERY).await.len(), 1, "a dry run changes nothing");

    scratch.pass(UnixMillis::DAY);
    succeed(&scratch.fleet, &scratch.owner, DELIVERY).await;
    // Whoever follows nothing is served as before, and proves nothing.
    one.exchange(&scratch.fleet, false).await.unwrap().unwrap();
    one.exchange(&scratch.fleet, true).await.unwrap().unwrap();
    let behind = |report: &RotationReport| report.items.iter().find_map(|step| step.remaining);
    assert_eq!(behind(&look(&scratch, DELIVERY).await), Some(2));
    // Taking up is not proving.
    let links = scratch.fleet.device_successions();
    assert!(one.take_up(&links) && !one.take_up(&links));
    assert_eq!(behind(&look(&scratch, DELIVERY).await), Some(2));
    one.exchange(&scratch.fleet, true).await.unwrap().unwrap();
    one.exchange(&scratch.fleet, true).await.unwrap().unwrap();
    assert_eq!(behind(&look(&scratch, DELIVERY).await), Some(1));
    let listed = scratch.fleet.pinned_key_needed_by(&scratch.owner, &first, Default::default()).await.unwrap();
    assert_eq!(listed.items.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["thermo-2"]);
    let shown = keys(&scratch.fleet, &scratch.owner, DELIVERY).await;
    assert_eq!((shown[0].state, shown[0].protects, shown[1].protects), (KeyState::Active, Some(1), None));
    assert!(shown[0].key < shown[1].key && shown[0].key == first);
    let refused = scratch.fleet.destroy(&scratch.owner, destroy(&first, false)).await.unwrap_err();
    assert!(refused.to_string().contains("1 devices have not proved"), "{refused}");

    // It was away, and comes back.
    scratch.pass(90 * UnixMillis::DAY);
    two.identity = scratch.enrol("thermo-2").await;
    assert!(two.take_up(&scratch.fleet.device_successions()));
    two.exchange(&scratch.fleet, true).await.unwrap().unwrap();
    let report = look(&scratch, DELIVERY).await;
    let step = report.items.iter().find(|step| step.operation == RotationOperation::Destroy).unwrap();
    assert!(step.problem.contains(&first), "{}", step.problem);
    let proposal = scratch.fleet.destroy(&scratch.owner, destroy(&first, false)).await.unwrap().proposal.unwrap();
    decide(&scratch, &pavel, proposal).await.unwrap();
    let receipt = receipts(&scratch).await.remove(0);
    assert_eq!((receipt.target, receipt.result), (format!("pinned-key {first}"), DestructionResult::Destroyed));
    let scan = receipt.verification.unwrap();
    assert!(scan.fragments_before.unwrap() > 0 && scan.fragments_after == 0, "{scan:?}");
    // It serves nobody any more: who names nothing is served by the next.
    assert_eq!(keys(&scratch.fleet, &scratch.owner, DELIVERY).await[0].state, KeyState::Destroyed);
    two.exchange(&scratch.fleet, false).await.unwrap().unwrap();
    let scratch = scratch.reopen().await;
    two.exchange(&scratch.fleet, true).await.unwrap().unwrap();
    assert!(look(&scratch, DELIVERY).await.items.is_empty());
    let refused = scratch.fleet.destroy(&scratch.owner, destroy(&first, false)).await.unwrap_err();
    assert!(refused.to_string().contains("is destroyed already"), "{refused}");
}

async fn ordered(scratch: &Scratch, second: &Principal, device: &str, act: OrderAct) {
    let request = OrderRequest { device: device.into(), act, lifetime_hours: Some(48), why: "test".into() };
    let proposal = scratch.fleet.order_create(&scratch.owner, request).await.unwrap().proposal.unwrap();
    decide(scratch, second, proposal).await.unwrap();
}

#[tokio::test]
async fn an_order_that_waits_is_signed_again_by_the_key_that_the_device_obeys_now() {
    let scratch = Scratch::new().await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let mut unit = Unit::new(&scratch, "thermo-1").await;
    let old = unit.order;
    ordered(&scratch, &pavel, "thermo-1", OrderAct::Wipe).await;
    succeed(&scratch.fleet, &scratch.owner, ORDER).await;
    // It obeys the old key as long as it says nothing else; a fingerprint of nobody changes nothing.
    let certificate = scratch.client(&unit.identity);
    for nonsense in ["", "00", &"f".repeat(64), "keyfleet"] {
        let knows = Knows { order_key: Some(nonsense), ..Knows::default() };
        scratch.fleet.device_news(TlsClient::with_certificate(&certificate, HERE), knows).await.unwrap();
    }
    let (newest, message) = unit.poll(&scratch).await;
    unit.verify(&scratch, &message.unwrap(), 0).unwrap();
    assert_ne!(newest.unwrap(), fingerprint(&old), "it is told that there is a newer one");
    assert!(unit.take_up(&scratch.fleet.device_successions()));
    let (newest, message) = unit.poll(&scratch).await;
    assert_eq!(newest.unwrap(), fingerprint(&unit.order));
    let message = message.unwrap();
    let order = unit.verify(&scratch, &message, 0).unwrap();
    assert_eq!((order.act, order.counter), (SignedAct::Wipe, 1), "the same order");
    assert_eq!(unit.poll(&scratch).await.1.unwrap(), message, "signed again once");
    assert_eq!(unit.verify(&scratch, &message, 1), Err(OrderRefusal::Replayed));
    let by_old = SignedOrder::verify(&message, &old, unit.device, 0, scratch.clock_now());
    assert_eq!(by_old, Err(OrderRefusal::OtherKey));
    let report = OrderReport {
        act: SignedAct::Wipe,
        device: unit.device,
        counter: 1,
        outcome: OrderOutcome::Declined,
        at: UnixMillis(0),
    };
    let answer = report.sign(&Chip(&unit.identity.key)).unwrap();
    scratch.fleet.device_order_outcome(answer.as_bytes()).await.unwrap();
    let state = scratch.fleet.order_list(&scratch.owner, Default::default()).await.unwrap().items[0].state;
    assert_eq!(state, OrderState::Declined);
    // New ones are signed by the key that it obeys, from the beginning; after a start as well.
    let scratch = scratch.reopen().await;
    ordered(&scratch, &pavel, "thermo-1", OrderAct::Rotate).await;
    assert_eq!(unit.verify(&scratch, &unit.poll(&scratch).await.1.unwrap(), 1).unwrap().counter, 2);
    assert!(look(&scratch, ORDER).await.items.iter().any(|step| step.operation == RotationOperation::Destroy));
}

#[tokio::test]
async fn a_device_that_missed_two_successions_and_the_end_of_its_key_follows_both_links() {
    let scratch = Scratch::new().await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let (mut here, mut away) = (Unit::new(&scratch, "thermo-1").await, Unit::new(&scratch, "thermo-2").await);
    let first = keys(&scratch.fleet, &scratch.owner, DELIVERY).await[0].key.clone();
    for _ in 0..2 {
        scratch.pass(UnixMillis::DAY);
        succeed(&scratch.fleet, &scratch.owner, DELIVERY).await;
        assert!(here.take_up(&scratch.fleet.device_successions()));
        here.exchange(&scratch.fleet, true).await.unwrap().unwrap();
    }
    // Two people leave one behind; a device more makes their consent void.
    let proposal = scratch.fleet.destroy(&scratch.owner, destroy(&first, true)).await.unwrap().proposal.unwrap();
    let late = scratch.device("thermo-3").await;
    assert_eq!(field_of(&decide(&scratch, &pavel, proposal).await.unwrap_err()), "key");
    assert!(receipts(&scratch).await.is_empty());
    let act = DeviceActRequest {
        act: DeviceAct::Decommission,
        why: "test".into(),
        departure: Default::default(),
        dry_run: false,
    };
    assert!(scratch.fleet.device_act(&scratch.owner, &late.id.to_string(), act).await.unwrap().done);
    let proposal = scratch.fleet.destroy(&scratch.owner, destroy(&first, true)).await.unwrap().proposal.unwrap();
    decide(&scratch, &pavel, proposal).await.unwrap();
    let receipt = receipts(&scratch).await.remove(0);
    assert!(receipt.exceptions.iter().any(|said| said.starts_with("1 devices have not proved")), "{receipt:?}");
    // The key that it holds is gone. The links are not.
    assert_eq!(away.exchange(&scratch.fleet, true).await.unwrap(), None, "the server cannot be verified");
    assert!(away.take_up(&scratch.fleet.device_successions()));
    assert_eq!(away.delivery, here.delivery);
    away.exchange(&scratch.fleet, true).await.unwrap().unwrap();
}

#[tokio::test]
async fn of_two_people_who_make_a_successor_one_does_and_few_versions_are_in_use_at_a_time() {
    let scratch = Scratch::new().await;
    let auditor = scratch.operator("ann", Role::Auditor, &[]).await;
    let facility = scratch.operator("fay", Role::FacilityOperator, &["plant-a"]).await;
    for who in [&auditor, &facility] {
        let outcome = scratch.fleet.rotate(who, request(ORDER, true, false)).await;
        let nothing = outcome.map(|report| report.items.len()).unwrap_or_default();
        assert_eq!((nothing, keys(&scratch.fleet, &scratch.owner, ORDER).await.len()), (0, 1));
    }
    let (one, two) = tokio::join!(
        scratch.fleet.rotate(&scratch.owner, request(ORDER, true, false)),
        scratch.fleet.rotate(&scratch.owner, request(ORDER, true, false)),
    );
    let mut outcomes = [one.unwrap().items[0].outcome, two.unwrap().items[0].outcome];
    outcomes.sort_by_key(|outcome| *outcome != RotationOutcome::Done);
    assert_eq!(outcomes, [RotationOutcome::Done, RotationOutcome::Refused]);
    for _ in 0..2 {
        succeed(&scratch.fleet, &scratch.owner, ORDER).await;
    }
    let report = scratch.fleet.rotate(&scratch.owner, request(ORDER, true, false)).await.unwrap();
    let last = report.items.iter().find(|step| step.operation == RotationOperation::MakeSuccessor).unwrap();
    assert_eq!(last.outcome, RotationOutcome::Refused);
    assert!(last.problem.contains("4 versions of the order-key are in use"), "{}", last.problem);
    // By policy, too: two years, at 80 percent.
    scratch.pass(600 * UnixMillis::DAY);
    let due = scratch.fleet.rotate(&scratch.owner, request(DELIVERY, false, true)).await.unwrap();
    assert_eq!(due.items[0].operation, RotationOperation::MakeSuccessor);
    assert!(!due.items[0].because.is_empty());
}

#[tokio::test]
async fn a_key_that_was_destroyed_does_not_come_back_with_a_backup_and_what_was_lost_is_said() {
    let rig = Rig::new().await;
    let scratch = &rig.scratch;
    let mut unit = Unit::new(scratch, "thermo-1").await;
    let first = keys(&scratch.fleet, &scratch.owner, DELIVERY).await[0].key.clone();
    let made = rig.backup().await;
    scratch.pass(UnixMillis::DAY);
    succeed(&scratch.fleet, &scratch.owner, DELIVERY).await;
    assert!(unit.take_up(&scratch.fleet.device_successions()));
    unit.exchange(&scratch.fleet, true).await.unwrap().unwrap();
    let proposal = scratch.fleet.destroy(&scratch.owner, destroy(&first, false)).await.unwrap().proposal.unwrap();
    rig.approve(proposal).await;
    let receipt = receipts(scratch).await.remove(0);
    assert_eq!((receipt.result, receipt.barred_by), (DestructionResult::Barred, vec![made.id]));
    let (closed, key, pavel) = rig.lost().await;
    let from = closed.path().join("backups").join(made.id.to_string());
    let done = restored_at((&from, None), closed.path(), &key, true).unwrap();
    assert_eq!(done.stopped_since["keys that devices or stations pin"], 1, "{:?}", done.stopped_since);
    let scratch = Scratch::at(closed).await;
    let found = keys(&scratch.fleet, &scratch.owner, DELIVERY).await;
    assert_eq!(found.iter().map(|key| key.state).collect::<Vec<_>>(), [KeyState::Destroyed]);
    // The key that took its place was made after the backup: nobody is served, and that is said.
    let refused = format!("{:?}", unit.exchange(&scratch.fleet, true).await.unwrap_err());
    assert!(refused.contains("no delivery-key is left") && refused.contains("restore a newer backup"), "{refused}");
    assert!(scratch.fleet.device_pins().is_err());
    scratch.fleet.status(&scratch.owner).await.unwrap();
    let proposal = scratch.fleet.restored_accept(&scratch.owner, "we looked".into()).await.unwrap().proposal;
    crate::backup::approve(&scratch, &pavel, proposal).await;
    succeed(&scratch.fleet, &scratch.owner, DELIVERY).await;
    assert_eq!(unit.exchange(&scratch.fleet, true).await.unwrap(), None, "nothing leads to it");
    unit.delivery = pin(&scratch.fleet.device_pins().unwrap().delivery_key_pem);
    unit.exchange(&scratch.fleet, true).await.unwrap().unwrap();
}

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_PINNED_KEY_CHILD";

fn person(role: Role) -> Principal {
    Principal::new("op_00000000000000000000000001".into(), "somebody".into(), role, [], Credential::Token)
}

/// From wherever a crash left it to the end: a second order key, the first one destroyed.
async fn to_the_end(fleet: &Arc<Fleet>, owner: &Principal) {
    if keys(fleet, owner, ORDER).await.len() < 2 {
        succeed(fleet, owner, ORDER).await;
    }
    let first = keys(fleet, owner, ORDER).await.remove(0);
    let all = fleet.proposal_list(owner, Default::default()).await.unwrap().items;
    let proposal = match all.iter().find(|proposal| proposal.state == ProposalState::Waiting) {
        Some(proposal) => Some(proposal.id),
        None if first.state != KeyState::Destroyed && all.is_empty() => {
            fleet.destroy(owner, destroy(&first.key, true)).await.unwrap().proposal
        }
        None => None,
    };
    if let Some(proposal) = proposal {
        let yes = ProposalDecision { approve: true, why: "agreed".into() };
        fleet.proposal_decide(&person(Role::FleetOperator), proposal, yes).await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_at_any_durable_step_of_a_succession_and_an_end_leaves_a_key_that_serves_and_one_receipt() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (fleet, _, owner, _) = Scratch::open_in(Path::new(&directory)).await.unwrap();
        to_the_end(&fleet, &owner).await;
        return;
    }
    let scratch = Scratch::new().await;
    let mut unit = Unit::new(&scratch, "thermo-1").await;
    let factory = unit.order;
    let closed = scratch.closed().await;
    let test =
        "pinned_key::a_crash_at_any_durable_step_of_a_succession_and_an_end_leaves_a_key_that_serves_and_one_receipt";
    let mut crashes = 0;
    for when in 1..300 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        to_the_end(&survivor.fleet, &survivor.owner).await;
        survivor.fleet.turn().await;
        let found = keys(&survivor.fleet, &survivor.owner, ORDER).await;
        let states: Vec<_> = found.iter().map(|key| key.state).collect();
        assert_eq!(states, [KeyState::Destroyed, KeyState::Active], "crash {when}");
        assert_eq!(receipts(&survivor).await.len(), 1, "crash {when}: one receipt, whatever happened");
        unit.order = factory;
        assert!(unit.take_up(&survivor.fleet.device_successions()), "crash {when}");
        let (newest, _) = unit.poll(&survivor).await;
        assert_eq!(newest.unwrap(), fingerprint(&unit.order), "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((8..290).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}

/// Room for so many pages more, a part of them kept for what stops something.
async fn with_room(scratch: Scratch, pages: u32, kept: u32) -> Scratch {
    let there = std::fs::metadata(scratch.dir.path().join("data/registry.sqlite")).unwrap().len() / 4_096;
    let options = Options {
        max_pages: Some(u32::try_from(there).unwrap() + pages),
        reserve_octets: u64::from(kept) * 4_096,
        ..Options::default()
    };
    scratch.reopen_with(options).await
}

/// Does it until the store is full.
async fn until_full<T>(mut act: impl AsyncFnMut(u32) -> Result<T, FleetError>) {
    for number in 0..10_000 {
        match act(number).await {
            Ok(_) => {}
            Err(FleetError::StoreFull) => return,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the store never filled up");
}

async fn fill(scratch: &Scratch) {
    until_full(async |number| {
        let new = NewDevice {
            name: format!("filler-{number}"),
            facility: "plant-a".into(),
            product_line: "thermo".into(),
            batch: None,
            attributes: Default::default(),
        };
        scratch.fleet.device_register(&scratch.owner, new).await
    })
    .await;
}

/// Entries of what goes on when the disk is full: long ones, and then such as fit into what those leave.
async fn use_up_the_reserve(scratch: &Scratch) {
    for why in ["w".repeat(400), "w".to_owned()] {
        let stop = IssuanceSwitch { run: false, facility: None, why };
        until_full(async |_| scratch.fleet.issuance_switch(&scratch.owner, stop.clone()).await).await;
    }
}

#[tokio::test]
async fn a_full_disk_keeps_no_wipe_from_its_device_and_what_could_not_be_noted_is_noted_later() {
    let scratch = Scratch::new().await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let mut units = Vec::new();
    for name in ["thermo-1", "thermo-2"] {
        units.push(Unit::new(&scratch, name).await);
        ordered(&scratch, &pavel, name, OrderAct::Wipe).await;
    }
    // They take up the newer order key before the server has heard of it.
    succeed(&scratch.fleet, &scratch.owner, ORDER).await;
    for unit in &mut units {
        assert!(unit.take_up(&scratch.fleet.device_successions()));
    }
    let poll = async |scratch: &Scratch, unit: &Unit| {
        let certificate = scratch.client(&unit.identity);
        let obeyed = fingerprint(&unit.order);
        let knows = Knows { reset: true, renewal: true, storage: true, order_key: Some(&obeyed), roots: None };
        let news = scratch.fleet.device_news(TlsClient::with_certificate(&certificate, HERE), knows).await.unwrap();
        unit.verify(scratch, &news.order.unwrap(), 0).unwrap()
    };
    let delivered = async |scratch: &Scratch, device: &str| {
        let filter = OrderFilter { device: Some(device.into()), ..OrderFilter::default() };
        scratch.fleet.order_list(&scratch.owner, filter).await.unwrap().items.remove(0).delivered
    };
    let behind = async |scratch: &Scratch| look(scratch, ORDER).await.items.iter().find_map(|step| step.remaining);

    let scratch = with_room(scratch, 48, 32).await;
    fill(&scratch).await;
    let order = poll(&scratch, &units[0]).await;
    assert_eq!((order.act, order.counter), (SignedAct::Wipe, 1), "signed by the key that it says it obeys");
    assert!(delivered(&scratch, "thermo-1").await.is_some(), "that it left is noted, in the reserve");
    assert_eq!(behind(&scratch).await, Some(2), "what it obeys is not");

    // Then the reserve is used up as well.
    use_up_the_reserve(&scratch).await;
    assert_eq!(poll(&scratch, &units[0]).await, order, "the same again");
    assert!(delivered(&scratch, "thermo-2").await.is_none());
    let order = poll(&scratch, &units[1]).await;
    assert_eq!((order.act, order.counter), (SignedAct::Wipe, 1), "signed again, by the key that it says it obeys");
    assert!(delivered(&scratch, "thermo-2").await.is_none(), "there is no room to note it");

    let scratch = with_room(scratch, 1_000, 64).await;
    for unit in &units {
        assert_eq!(poll(&scratch, unit).await.act, SignedAct::Wipe);
    }
    assert_eq!(behind(&scratch).await, Some(0));
    assert!(delivered(&scratch, "thermo-2").await.is_some());
}

#[tokio::test]
async fn not_even_a_reserve_that_is_used_up_keeps_a_wipe_from_its_device() {
    let scratch = Scratch::new().await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let unit = Unit::new(&scratch, "thermo-1").await;
    ordered(&scratch, &pavel, "thermo-1", OrderAct::Wipe).await;
    let scratch = with_room(scratch, 24, 8).await;
    fill(&scratch).await;
    use_up_the_reserve(&scratch).await;
    let (_, message) = unit.poll(&scratch).await;
    assert_eq!(unit.verify(&scratch, &message.unwrap(), 0).unwrap().act, SignedAct::Wipe);
    let order = async |scratch: &Scratch| {
        let filter = OrderFilter { device: Some("thermo-1".into()), ..OrderFilter::default() };
        scratch.fleet.order_list(&scratch.owner, filter).await.unwrap().items.remove(0)
    };
    let open = order(&scratch).await;
    assert_eq!((open.state, open.delivered), (OrderState::Open, None), "there was no room to note that it left");
    let report = OrderReport {
        act: SignedAct::Wipe,
        device: unit.device,
        counter: open.counter,
        outcome: OrderOutcome::Done,
        at: UnixMillis(0),
    };
    let report = report.sign(&Chip(&unit.identity.key)).unwrap();
    let answered = scratch.fleet.device_order_outcome(report.as_bytes()).await;
    assert!(matches!(answered, Err(FleetError::StoreFull)), "its answer is awaited, and sent again: {answered:?}");
    // With room, what is missing is noted when it asks, or answers, again.
    let scratch = with_room(scratch, 1_000, 64).await;
    assert!(unit.poll(&scratch).await.1.is_some());
    assert!(order(&scratch).await.delivered.is_some());
    scratch.fleet.device_order_outcome(report.as_bytes()).await.unwrap();
    assert_eq!(order(&scratch).await.state, OrderState::Done);
}

#[tokio::test]
async fn nobody_but_a_device_says_which_key_it_obeys() {
    let scratch = Scratch::new().await;
    Unit::new(&scratch, "thermo-1").await;
    succeed(&scratch.fleet, &scratch.owner, ORDER).await;
    let newest = scratch.fleet.device_pins().unwrap().order_key_sha256;
    let knows = Knows { order_key: Some(&newest), ..Knows::default() };
    let refused = scratch.fleet.device_news(TlsClient::anonymous(HERE), knows).await;
    assert!(matches!(refused, Err(FleetError::Unauthenticated)), "{refused:?}");
    let report = look(&scratch, ORDER).await;
    assert_eq!(report.items.iter().find_map(|step| step.remaining), Some(1));
}

#[tokio::test]
async fn a_station_believes_quotas_of_the_next_key_by_their_links_and_proves_it_by_what_it_made() {
    const BATCH: &str = "batch-authorisation-key";
    let scratch = Scratch::new().await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let pins = scratch.fleet.station_pins(&station.principal).await.unwrap();
    let pinned = PublicKey::from_spki(&kf_pki::pem::decode_all("PUBLIC KEY", &pins.batch_key_pem).unwrap()[0]).unwrap();
    let mut before = Line::start(&scratch, &station, "b-1", 4).await;
    scratch.pass(1_000);
    succeed(&scratch.fleet, &scratch.owner, BATCH).await;
    let mut after = Line::start(&scratch, &station, "b-2", 4).await;
    // The file of the first quota is as it was; that of the second leads from what the station pins to what signed it.
    assert_eq!(scratch.fleet.batch_quota(&station.principal, "b-1").await.unwrap(), before.document);
    let file = scratch.fleet.batch_quota(&station.principal, "b-2").await.unwrap();
    let links = file.strip_prefix(after.document.as_slice()).unwrap();
    let newest = follow(links, KeyRole::Batch, &pinned).unwrap();
    let server_key = kf_batch::P256Key::from_spki(&newest.key.to_spki()).unwrap();
    kf_batch::quota::Quota::open(&after.document, &server_key).unwrap();
    let first = keys(&scratch.fleet, &scratch.owner, BATCH).await.remove(0);
    assert_eq!(first.protects, Some(1), "one station");
    // What it makes under the old quota says nothing, and is merged.
    let made = before.make(0, kf_api::batch::Outcome::Passed);
    import(&scratch, &station, "b-1", [&made.document]).await;
    let refused = scratch.fleet.destroy(&scratch.owner, destroy(&first.key, false)).await.unwrap_err();
    assert!(refused.to_string().contains("1 stations have not proved"), "{refused}");
    let made = after.make(0, kf_api::batch::Outcome::Passed);
    import(&scratch, &station, "b-2", [&made.document]).await;
    let proposal = scratch.fleet.destroy(&scratch.owner, destroy(&first.key, false)).await.unwrap().proposal.unwrap();
    decide(&scratch, &pavel, proposal).await.unwrap();
    // Quotas that the old key signed stay what they are until they end.
    let made = before.make(1, kf_api::batch::Outcome::Passed);
    let report = import(&scratch, &station, "b-1", [&made.document]).await;
    assert_eq!((report.merged, report.conflict_count, report.refused_count), (1, 0, 0), "{report:?}");
    assert_eq!(scratch.fleet.batch_quota(&station.principal, "b-1").await.unwrap(), before.document);
}
