//! Orders: two people, one signature, and the device's answer.

use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_api::operator::Role;
use kf_api::order::{Order, OrderAct, OrderFilter, OrderRequest, OrderState};
use kf_api::proposal::ProposalDecision;
use kf_exchange::order::{Order as SignedOrder, OrderAct as SignedAct, OrderOutcome, OrderRefusal, OrderReport};
use kf_fleet::{FleetError, Principal};
use kf_key::UnixMillis;

use crate::exchange::{Chip, is_refused, pin};
use crate::scratch::{Identity, Scratch, field_of};

async fn order(scratch: &Scratch, second: &Principal, device: &str, act: OrderAct) -> Order {
    let request = OrderRequest { device: device.into(), act, lifetime_hours: Some(24), why: "end of life".into() };
    let waiting = scratch.fleet.order_create(&scratch.owner, request).await.unwrap();
    assert!(!waiting.done);
    let yes = ProposalDecision { approve: true, why: "agreed".into() };
    scratch.fleet.proposal_decide(second, waiting.proposal.unwrap(), yes).await.unwrap();
    list(scratch, device).await.remove(0)
}

async fn list(scratch: &Scratch, device: &str) -> Vec<Order> {
    let filter = OrderFilter { device: Some(device.into()), ..OrderFilter::default() };
    let mut orders = scratch.fleet.order_list(&scratch.owner, filter).await.unwrap().items;
    // The clock stands still here, so the ids of one moment are in no order.
    orders.sort_by_key(|order| std::cmp::Reverse(order.counter));
    orders
}

async fn fetch(scratch: &Scratch, identity: &Identity) -> Option<Vec<u8>> {
    let certificate = scratch.client(identity);
    scratch.news(&certificate).await.order
}

fn verify(scratch: &Scratch, order: &Order, message: &[u8], last: u64) -> Result<SignedOrder, OrderRefusal> {
    let key = pin(&scratch.fleet.device_pins().unwrap().order_key_pem);
    SignedOrder::verify(message, &key, order.device, last, scratch.fleet.clock().now())
}

fn report(order: &Order, identity: &Identity, outcome: OrderOutcome) -> Vec<u8> {
    let act = match order.act {
        OrderAct::Rotate => SignedAct::Rotate,
        OrderAct::Wipe => SignedAct::Wipe,
        OrderAct::FactoryReset => SignedAct::FactoryReset,
    };
    let report = OrderReport { act, device: order.device, counter: order.counter, outcome, at: UnixMillis(0) };
    report.sign(&Chip(&identity.key)).unwrap().as_bytes().to_vec()
}

async fn device(scratch: &Scratch, name: &str) -> Identity {
    scratch.device(name).await;
    scratch.enrol(name).await
}

#[tokio::test]
async fn an_order_takes_two_people_and_is_answered_once() {
    let scratch = Scratch::new().await;
    let identity = device(&scratch, "thermo-1").await;
    let second = scratch.operator("pavel", Role::FacilityOperator, &["plant-a"]).await;
    assert_eq!(fetch(&scratch, &identity).await, None);
    let rotate = order(&scratch, &second, "thermo-1", OrderAct::Rotate).await;
    let wipe = order(&scratch, &second, "thermo-1", OrderAct::Wipe).await;
    assert_eq!((rotate.counter, wipe.counter), (1, 2));
    assert_eq!((rotate.state, rotate.delivered), (OrderState::Open, None));
    // In their order, the next one when this one is answered.
    let message = fetch(&scratch, &identity).await.unwrap();
    let signed = verify(&scratch, &rotate, &message, 0).unwrap();
    assert_eq!((signed.act, signed.counter, signed.expires), (SignedAct::Rotate, 1, rotate.expires));
    assert_eq!(fetch(&scratch, &identity).await.unwrap(), message, "until it is answered");
    let done = report(&rotate, &identity, OrderOutcome::Done);
    scratch.fleet.device_order_outcome(&done).await.unwrap();
    scratch.fleet.device_order_outcome(&done).await.unwrap();
    let other = report(&rotate, &identity, OrderOutcome::Failed);
    assert!(matches!(scratch.fleet.device_order_outcome(&other).await, Err(FleetError::Conflict { .. })));
    let message = fetch(&scratch, &identity).await.unwrap();
    assert_eq!(verify(&scratch, &wipe, &message, 1).unwrap().act, SignedAct::Wipe);
    scratch.fleet.device_order_outcome(&report(&wipe, &identity, OrderOutcome::Declined)).await.unwrap();
    assert_eq!(fetch(&scratch, &identity).await, None);
    let states: Vec<_> = list(&scratch, "thermo-1").await.into_iter().map(|order| order.state).collect();
    assert_eq!(states, [OrderState::Declined, OrderState::Done]);
    let history = scratch.fleet.device_show(&scratch.owner, "thermo-1").await.unwrap();
    let acts: Vec<_> = history.events.iter().map(|event| event.entry["act"].as_str().unwrap()).collect();
    let orders: Vec<_> = acts.into_iter().filter(|act| act.starts_with("order.")).collect();
    let each = ["order.create", "order.create", "order.deliver", "order.answer", "order.deliver", "order.answer"];
    assert_eq!(orders, each);
}

#[tokio::test]
async fn nobody_orders_alone_nor_without_a_reason() {
    let scratch = Scratch::new().await;
    device(&scratch, "thermo-1").await;
    let request = |why: &str, lifetime_hours| OrderRequest {
        device: "thermo-1".into(),
        act: OrderAct::Wipe,
        lifetime_hours,
        why: why.into(),
    };
    for (why, hours, field) in
        [(" ", None, "why"), ("x", Some(0), "lifetime_hours"), ("x", Some(9_000), "lifetime_hours")]
    {
        let error = scratch.fleet.order_create(&scratch.owner, request(why, hours)).await.unwrap_err();
        assert_eq!(field_of(&error), field);
    }
    let waiting = scratch.fleet.order_create(&scratch.owner, request("theft", None)).await.unwrap();
    let yes = ProposalDecision { approve: true, why: "agreed".into() };
    let own = scratch.fleet.proposal_decide(&scratch.owner, waiting.proposal.unwrap(), yes.clone()).await;
    assert!(matches!(own, Err(FleetError::Conflict { .. })));
    let elsewhere = scratch.operator("berta", Role::FacilityOperator, &["plant-b"]).await;
    assert!(scratch.fleet.proposal_decide(&elsewhere, waiting.proposal.unwrap(), yes).await.is_err());
    let other = scratch.fleet.order_create(&elsewhere, request("theft", None)).await;
    assert!(matches!(other, Err(FleetError::NotFound(_))));
    let auditor = scratch.operator("arno", Role::Auditor, &[]).await;
    assert!(matches!(scratch.fleet.order_create(&auditor, request("theft", None)).await, Err(FleetError::Denied(_))));
    assert!(list(&scratch, "thermo-1").await.is_empty());
}

#[tokio::test]
async fn one_person_alone_waits_a_day() {
    let scratch = Scratch::with(|config| config.single_control = true).await;
    let identity = device(&scratch, "thermo-1").await;
    let request =
        OrderRequest { device: "thermo-1".into(), act: OrderAct::Wipe, lifetime_hours: None, why: "theft".into() };
    assert!(!scratch.fleet.order_create(&scratch.owner, request).await.unwrap().done);
    scratch.fleet.turn().await;
    assert_eq!(fetch(&scratch, &identity).await, None);
    scratch.pass(UnixMillis::DAY + 1);
    scratch.fleet.turn().await;
    assert!(fetch(&scratch, &identity).await.is_some());
}

#[tokio::test]
async fn a_suspended_device_can_still_be_wiped() {
    let scratch = Scratch::new().await;
    let identity = device(&scratch, "thermo-1").await;
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let hold = DeviceActRequest {
        act: DeviceAct::Quarantine,
        why: "stolen".into(),
        departure: Default::default(),
        dry_run: false,
    };
    scratch.fleet.device_act(&scratch.owner, "thermo-1", hold).await.unwrap();
    let wipe = order(&scratch, &second, "thermo-1", OrderAct::Wipe).await;
    let message = fetch(&scratch, &identity).await.unwrap();
    verify(&scratch, &wipe, &message, 0).unwrap();
    scratch.fleet.device_order_outcome(&report(&wipe, &identity, OrderOutcome::Done)).await.unwrap();
    assert_eq!(list(&scratch, "thermo-1").await[0].state, OrderState::Done);
}

#[tokio::test]
async fn an_expired_or_cancelled_order_is_not_given_out() {
    let scratch = Scratch::new().await;
    let identity = device(&scratch, "thermo-1").await;
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let first = order(&scratch, &second, "thermo-1", OrderAct::Rotate).await;
    let message = fetch(&scratch, &identity).await.unwrap();
    scratch.pass(25 * UnixMillis::HOUR);
    assert_eq!(fetch(&scratch, &identity).await, None);
    assert_eq!(verify(&scratch, &first, &message, 0), Err(OrderRefusal::Expired));
    let second_order = order(&scratch, &second, "thermo-1", OrderAct::Rotate).await;
    let cancelled = scratch.fleet.order_cancel(&scratch.owner, second_order.id, "mistake".into()).await.unwrap();
    assert_eq!(cancelled.state, OrderState::Cancelled);
    assert_eq!(fetch(&scratch, &identity).await, None);
    let again = scratch.fleet.order_cancel(&scratch.owner, second_order.id, "mistake".into()).await;
    assert!(matches!(again, Err(FleetError::Conflict { .. })));
    // Never delivered, so the device cannot have obeyed.
    let claim = scratch.fleet.device_order_outcome(&report(&second_order, &identity, OrderOutcome::Done)).await;
    assert!(matches!(claim, Err(FleetError::Conflict { .. })), "{claim:?}");
    // Fetched in time, obeyed in time, cancelled in vain.
    let third = order(&scratch, &second, "thermo-1", OrderAct::Wipe).await;
    fetch(&scratch, &identity).await.unwrap();
    scratch.fleet.order_cancel(&scratch.owner, third.id, "too late".into()).await.unwrap();
    scratch.fleet.device_order_outcome(&report(&third, &identity, OrderOutcome::Done)).await.unwrap();
    assert_eq!(scratch.fleet.order_show(&scratch.owner, third.id).await.unwrap().state, OrderState::Done);
}

#[tokio::test]
async fn an_answer_counts_from_the_device_alone() {
    let scratch = Scratch::new().await;
    let (identity, other) = (device(&scratch, "thermo-1").await, device(&scratch, "thermo-2").await);
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let made = order(&scratch, &second, "thermo-1", OrderAct::Rotate).await;
    fetch(&scratch, &identity).await.unwrap();
    assert!(is_refused(scratch.fleet.device_order_outcome(&report(&made, &other, OrderOutcome::Done)).await));
    let unknown = Order { device: kf_key::DeviceId::from_bytes([9; 16]), ..made.clone() };
    assert!(is_refused(scratch.fleet.device_order_outcome(&report(&unknown, &identity, OrderOutcome::Done)).await));
    let never = Order { counter: 7, ..made.clone() };
    let refused = scratch.fleet.device_order_outcome(&report(&never, &identity, OrderOutcome::Done)).await;
    assert!(matches!(refused, Err(FleetError::NotFound(_))));
    let another = Order { act: OrderAct::Wipe, ..made.clone() };
    let refused = scratch.fleet.device_order_outcome(&report(&another, &identity, OrderOutcome::Done)).await;
    assert_eq!(field_of(&refused.unwrap_err()), "outcome");
    let mut forged = report(&made, &identity, OrderOutcome::Failed);
    *forged.last_mut().unwrap() ^= 1;
    assert!(is_refused(scratch.fleet.device_order_outcome(&forged).await));
    assert_eq!(list(&scratch, "thermo-1").await[0].state, OrderState::Open);
    // Rotated: the answer comes under the new key.
    let key = scratch.enrol_again("thermo-1").await;
    let renewed = Identity { key, ..identity };
    scratch.fleet.device_order_outcome(&report(&made, &renewed, OrderOutcome::Done)).await.unwrap();
    assert_eq!(list(&scratch, "thermo-1").await[0].state, OrderState::Done);
}

#[tokio::test]
async fn orders_are_there_after_a_restart() {
    let scratch = Scratch::new().await;
    let identity = device(&scratch, "thermo-1").await;
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let made = order(&scratch, &second, "thermo-1", OrderAct::Rotate).await;
    let scratch = scratch.reopen().await;
    let message = fetch(&scratch, &identity).await.unwrap();
    verify(&scratch, &made, &message, 0).unwrap();
    let next = order(&scratch, &second, "thermo-1", OrderAct::Wipe).await;
    assert_eq!(next.counter, 2);
}
