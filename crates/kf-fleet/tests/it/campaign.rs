//! Campaigns against devices that ask when they like, answer twice, sleep, and are barred in the middle of it; and a server
//! that is stopped between any two steps.

use kf_api::campaign::{
    CampaignAct, CampaignActRequest, CampaignFilter, CampaignKind, CampaignOutcome, CampaignPlan, CampaignStatus,
    MemberFilter, NewCampaign,
};
use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_api::operator::Role;
use kf_api::order::OrderFilter;
use kf_api::product_line::EnrolmentPolicy;
use kf_api::proposal::ProposalDecision;
use kf_exchange::order::{Order, OrderAct, OrderOutcome, OrderReport};
use kf_fleet::FleetError;
use kf_key::{CampaignState, KeyAlgorithm, MemberState, UnixMillis};

use crate::exchange::{Chip, Firmware, pin};
use crate::scratch::{Identity, Scratch, csr, field_of, issued};

pub(crate) const SECOND: u64 = UnixMillis::SECOND;

pub(crate) fn plan() -> CampaignPlan {
    CampaignPlan {
        canary: 1,
        wave: 3,
        per_minute: 60,
        jitter_seconds: 0,
        soak_seconds: 10,
        patience_seconds: 3_600,
        max_failed_percent: 34,
        min_done_percent: 80,
    }
}

pub(crate) fn new(kind: CampaignKind) -> NewCampaign {
    NewCampaign {
        name: "keys".into(),
        kind,
        filter: CampaignFilter { facility: Some("plant-a".into()), ..CampaignFilter::default() },
        plan: plan(),
        algorithm: None,
        why: "yearly".into(),
        dry_run: false,
    }
}

pub(crate) async fn act(scratch: &Scratch, act: CampaignAct) -> Result<CampaignOutcome, FleetError> {
    let request = CampaignActRequest { act, allow_empty: false, why: "test".into(), dry_run: false };
    scratch.fleet.campaign_act(&scratch.owner, "keys", request).await
}

pub(crate) async fn status(scratch: &Scratch) -> CampaignStatus {
    scratch.fleet.campaign_show(&scratch.owner, "keys").await.unwrap()
}

/// One turn of the background work, a little later.
pub(crate) async fn turn(scratch: &Scratch) {
    scratch.pass(2 * SECOND);
    scratch.fleet.turn().await;
}

pub(crate) async fn turns(scratch: &Scratch, count: usize) {
    for _ in 0..count {
        turn(scratch).await;
    }
}

pub(crate) async fn devices(scratch: &Scratch, count: usize) -> Vec<Firmware> {
    let mut devices = Vec::new();
    for number in 0..count {
        let mut device = Firmware::enrolled(scratch, &format!("thermo-{number}")).await;
        device.exchange(scratch).await.unwrap();
        devices.push(device);
    }
    devices
}

/// The devices whose turn has come and who have not answered.
pub(crate) async fn asked(scratch: &Scratch) -> Vec<kf_key::DeviceId> {
    let filter = MemberFilter { state: Some(MemberState::Offered), ..MemberFilter::default() };
    let page = scratch.fleet.campaign_members(&scratch.owner, "keys", filter).await.unwrap();
    page.items.into_iter().map(|member| member.device).collect()
}

pub(crate) async fn acts_about(scratch: &Scratch, subject: &str, act: &str) -> usize {
    let history = scratch.fleet.device_show(&scratch.owner, subject).await.unwrap();
    history.events.iter().filter(|event| event.entry["act"] == act).count()
}

#[tokio::test]
async fn devices_get_new_keys_a_few_first_then_in_waves_and_the_campaign_ends_when_all_have_proved_it() {
    let scratch = Scratch::new().await;
    let mut fleet = devices(&scratch, 6).await;
    scratch.device_at("elsewhere", "plant-b", "thermo").await;
    let dry = NewCampaign { dry_run: true, ..new(CampaignKind::DeviceKey) };
    let estimate = scratch.fleet.campaign_create(&scratch.owner, dry).await.unwrap().estimate.unwrap();
    assert_eq!((estimate.devices, estimate.waves, estimate.requests), (6, 3, 18));
    assert!(scratch.fleet.campaign_show(&scratch.owner, "keys").await.is_err(), "a dry run makes nothing");

    scratch.fleet.campaign_create(&scratch.owner, new(CampaignKind::DeviceKey)).await.unwrap();
    turns(&scratch, 3).await;
    assert_eq!(status(&scratch).await.progress.devices, 0, "a draft asks nobody");
    assert!(act(&scratch, CampaignAct::Start).await.unwrap().done);
    let mut largest = 0;
    for _ in 0..200 {
        turn(&scratch).await;
        let found = status(&scratch).await;
        if found.campaign.state == CampaignState::Completed {
            break;
        }
        let asked = asked(&scratch).await;
        largest = largest.max(asked.len());
        assert!(found.campaign.wave != 1 || asked.len() <= 1, "the canary is one device");
        // Who was asked answers at its next exchange; the others ask as well, and get what they have.
        for device in &mut fleet {
            let before = device.held.unwrap().device_epoch;
            let after = device.exchange(&scratch).await.unwrap().device_epoch;
            assert!(after == before || asked.contains(&device.device), "a device that was not asked got a new key");
        }
    }
    let end = status(&scratch).await;
    assert_eq!((end.campaign.state, end.campaign.wave), (CampaignState::Completed, 3));
    assert_eq!((end.progress.done, end.progress.devices), (6, 6));
    assert!(largest <= 3, "{largest} at a time");
    assert!(fleet.iter().all(|device| device.held.unwrap().device_epoch == 2));
}

#[tokio::test]
async fn what_a_device_does_that_was_not_asked_counts_for_nothing_and_what_it_does_twice_counts_once() {
    let scratch = Scratch::new().await;
    let mut fleet = devices(&scratch, 4).await;
    scratch.fleet.campaign_create(&scratch.owner, new(CampaignKind::DeviceKey)).await.unwrap();
    act(&scratch, CampaignAct::Start).await.unwrap();
    turns(&scratch, 4).await;
    let first = asked(&scratch).await;
    assert_eq!(first.len(), 1);
    // A device whose turn has not come gets a new key all the same: an operator advanced it.
    let other = fleet.iter_mut().find(|device| !first.contains(&device.device)).unwrap();
    let name = other.device.to_string();
    scratch.fleet.epoch_advance_device(&scratch.owner, &name, "by hand".into()).await.unwrap();
    assert_eq!(other.exchange(&scratch).await.unwrap().device_epoch, 2);
    turns(&scratch, 3).await;
    let found = status(&scratch).await.progress;
    assert_eq!((found.done, found.offered, found.waiting), (0, 1, 3), "it was not in a wave");
    for _ in 0..3 {
        for device in fleet.iter_mut().filter(|device| first.contains(&device.device)) {
            device.exchange(&scratch).await.unwrap();
        }
        turns(&scratch, 2).await;
    }
    assert_eq!(status(&scratch).await.progress.done, 1, "the same step twice is one step");
}

/// The server is stopped after every turn, and each turn is one durable step of the campaign.
#[tokio::test]
async fn a_server_that_is_stopped_after_every_step_asks_nobody_twice_and_finishes() {
    let mut scratch = Scratch::new().await;
    let mut fleet = devices(&scratch, 5).await;
    scratch.fleet.campaign_create(&scratch.owner, new(CampaignKind::DeviceKey)).await.unwrap();
    act(&scratch, CampaignAct::Start).await.unwrap();
    let mut steps = 0;
    while status(&scratch).await.campaign.state != CampaignState::Completed {
        let before = scratch.fleet.status(&scratch.owner).await.unwrap().log_size;
        turn(&scratch).await;
        steps += u32::from(scratch.fleet.status(&scratch.owner).await.unwrap().log_size > before);
        scratch = scratch.reopen().await;
        for device in &mut fleet {
            device.exchange(&scratch).await.unwrap();
        }
        assert!(steps < 100, "it does not end");
    }
    assert!(steps >= 8, "choosing, waves, releases, answers and the end are steps of their own: {steps}");
    for (number, device) in fleet.iter().enumerate() {
        assert_eq!(acts_about(&scratch, &format!("thermo-{number}"), "epoch.advance").await, 1);
        assert_eq!(device.held.unwrap().device_epoch, 2);
    }
}

#[tokio::test]
async fn barred_devices_are_skipped_sleeping_ones_are_shown_by_age_and_both_clocks_are_borne() {
    let scratch = Scratch::new().await;
    let mut fleet = devices(&scratch, 4).await;
    let never = scratch.device("thermo-never").await;
    let plan = CampaignPlan { canary: 5, min_done_percent: 50, ..plan() };
    scratch.fleet.campaign_create(&scratch.owner, NewCampaign { plan, ..new(CampaignKind::DeviceKey) }).await.unwrap();
    act(&scratch, CampaignAct::Start).await.unwrap();
    // The clock goes back by a day before anybody was asked, and forth again afterwards.
    turns(&scratch, 2).await;
    scratch.clock.set(scratch.clock_now().minus(UnixMillis::DAY));
    turns(&scratch, 8).await;
    let progress = status(&scratch).await.progress;
    assert_eq!((progress.offered, progress.skipped, progress.waiting), (4, 1, 0), "one was never sent a key");
    scratch.pass(2 * UnixMillis::DAY);
    fleet[0].exchange(&scratch).await.unwrap();
    fleet[1].exchange(&scratch).await.unwrap();
    let request =
        DeviceActRequest { act: DeviceAct::Suspend, why: "lost".into(), departure: Default::default(), dry_run: false };
    scratch.fleet.device_act(&scratch.owner, "thermo-2", request).await.unwrap();
    turns(&scratch, 2).await;
    let found = status(&scratch).await;
    assert_eq!((found.progress.done, found.progress.skipped), (2, 2), "{found:?}");
    assert_eq!((found.progress.offered, found.progress.silent), (1, 1));
    assert_eq!(found.progress.unheard.week, 1, "{:?}", found.progress.unheard);
    assert_eq!((found.campaign.state, found.progress.waits_for.as_str()), (CampaignState::Running, "catching-up"));
    // Months later it wakes, and the campaign ends.
    scratch.pass(200 * UnixMillis::DAY);
    fleet[3].key = scratch.enrol_again("thermo-3").await;
    fleet[3].exchange(&scratch).await.unwrap();
    turns(&scratch, 3).await;
    let end = status(&scratch).await;
    assert_eq!((end.campaign.state, end.progress.done), (CampaignState::Completed, 3));
    assert_eq!(scratch.fleet.device_keys(&scratch.owner, &never.name).await.unwrap().epochs.len(), 0);
}

#[tokio::test]
async fn a_campaign_that_has_begun_is_paused_and_given_up_for_good() {
    let scratch = Scratch::new().await;
    let mut fleet = devices(&scratch, 4).await;
    scratch.fleet.campaign_create(&scratch.owner, new(CampaignKind::DeviceKey)).await.unwrap();
    let again = scratch.fleet.campaign_create(&scratch.owner, new(CampaignKind::DeviceKey)).await.unwrap_err();
    assert_eq!(field_of(&again), "name", "a campaign is not made over");
    for impossible in [CampaignAct::Pause, CampaignAct::Resume] {
        assert_eq!(field_of(&act(&scratch, impossible).await.unwrap_err()), "campaign");
    }
    act(&scratch, CampaignAct::Start).await.unwrap();
    assert_eq!(field_of(&act(&scratch, CampaignAct::Start).await.unwrap_err()), "campaign");
    turns(&scratch, 4).await;
    act(&scratch, CampaignAct::Pause).await.unwrap();
    for device in &mut fleet {
        device.exchange(&scratch).await.unwrap();
    }
    turns(&scratch, 10).await;
    let paused = status(&scratch).await.progress;
    assert_eq!((paused.done, paused.offered, paused.waiting), (1, 0, 3), "answers count, and nobody further is asked");
    act(&scratch, CampaignAct::Resume).await.unwrap();
    turns(&scratch, 10).await;
    assert!(status(&scratch).await.progress.offered > 0);
    act(&scratch, CampaignAct::Abort).await.unwrap();
    let before = status(&scratch).await.progress;
    turns(&scratch, 10).await;
    assert_eq!(status(&scratch).await.progress, before);
    assert_eq!(field_of(&act(&scratch, CampaignAct::Resume).await.unwrap_err()), "campaign");
}

#[tokio::test]
async fn campaigns_of_a_facility_are_its_operators_and_a_number_out_of_range_is_named() {
    let scratch = Scratch::new().await;
    let bert = scratch.operator("bert", Role::FacilityOperator, &["plant-b"]).await;
    let everywhere = NewCampaign { filter: CampaignFilter::default(), ..new(CampaignKind::DeviceKey) };
    assert!(scratch.fleet.campaign_create(&bert, everywhere.clone()).await.is_err());
    assert!(scratch.fleet.campaign_create(&bert, new(CampaignKind::DeviceKey)).await.is_err());
    scratch.fleet.campaign_create(&scratch.owner, everywhere).await.unwrap();
    assert!(scratch.fleet.campaign_show(&bert, "keys").await.is_err());
    assert!(scratch.fleet.campaign_list(&bert, Default::default()).await.unwrap().items.is_empty());
    let wrong = NewCampaign { plan: CampaignPlan { per_minute: 0, ..plan() }, ..new(CampaignKind::DeviceKey) };
    assert_eq!(field_of(&scratch.fleet.campaign_create(&scratch.owner, wrong).await.unwrap_err()), "per_minute");
}

/// A device that obeys an order to rotate as the agent does: a new certified key, and the signed answer.
pub(crate) async fn obey(scratch: &Scratch, identity: &mut Identity, outcome: OrderOutcome) -> bool {
    obey_with(scratch, identity, outcome, KeyAlgorithm::P256).await
}

/// The same with a key of this algorithm; one that signs no answers polls once more with its new certificate.
async fn obey_with(scratch: &Scratch, identity: &mut Identity, outcome: OrderOutcome, algorithm: KeyAlgorithm) -> bool {
    let certificate = scratch.client(identity);
    let Some(message) = scratch.news(&certificate).await.order else { return false };
    let key = pin(&scratch.fleet.device_pins().unwrap().order_key_pem);
    let device = certificate_device(scratch, identity).await;
    let order = Order::verify(&message, &key, device, 0, scratch.clock_now()).unwrap();
    assert_eq!(order.act, OrderAct::Rotate);
    if outcome == OrderOutcome::Done {
        let key = kf_crypto::PrivateKey::generate(algorithm).unwrap();
        scratch.pass(SECOND);
        let chain = issued(scratch.renew(identity, &csr(&key)).await.unwrap());
        *identity = Identity { serial: crate::scratch::serial_of(&chain), key, chain };
    }
    if algorithm != KeyAlgorithm::P256 {
        let certificate = scratch.client(identity);
        assert!(scratch.news(&certificate).await.order.is_none(), "the certificate is the answer");
        return true;
    }
    let report =
        OrderReport { act: OrderAct::Rotate, device, counter: order.counter, outcome, at: scratch.clock_now() };
    let signed = report.sign(&Chip(&identity.key)).unwrap();
    scratch.fleet.device_order_outcome(signed.as_bytes()).await.unwrap();
    true
}

async fn certificate_device(scratch: &Scratch, identity: &Identity) -> kf_key::DeviceId {
    let shown = scratch.fleet.certificate_show(&scratch.owner, identity.serial).await.unwrap();
    shown.certificate.device.unwrap()
}

#[tokio::test]
async fn certificates_are_renewed_by_order_after_two_peoples_consent_and_failures_stop_it() {
    let scratch = Scratch::new().await;
    let mut identities = Vec::new();
    for number in 0..4 {
        let name = format!("thermo-{number}");
        scratch.device(&name).await;
        identities.push(scratch.enrol(&name).await);
    }
    scratch.fleet.campaign_create(&scratch.owner, new(CampaignKind::Certificate)).await.unwrap();
    let waits = act(&scratch, CampaignAct::Start).await.unwrap();
    assert!(!waits.done, "orders are never one person's act");
    let second = act(&scratch, CampaignAct::Start).await.unwrap();
    turns(&scratch, 3).await;
    assert_eq!(status(&scratch).await.campaign.state, CampaignState::Draft);
    let bert = scratch.operator("bert", Role::FleetOperator, &[]).await;
    let approve = ProposalDecision { approve: true, why: String::new() };
    scratch.fleet.proposal_decide(&bert, waits.proposal.unwrap(), approve.clone()).await.unwrap();
    turns(&scratch, 4).await;
    let mut obeyed = 0;
    for identity in &mut identities {
        obeyed += usize::from(obey(&scratch, identity, OrderOutcome::Done).await);
    }
    assert_eq!(obeyed, 1, "only the canary was given an order");
    turns(&scratch, 10).await;
    // The next wave: two of three cannot do it, which is more than a third.
    let mut failures = 0;
    for identity in &mut identities {
        let outcome = if failures < 2 { OrderOutcome::Failed } else { OrderOutcome::Done };
        failures += usize::from(obey(&scratch, identity, outcome).await);
    }
    turns(&scratch, 3).await;
    let stopped = status(&scratch).await;
    assert_eq!(stopped.campaign.state, CampaignState::Stopped);
    assert!(stopped.campaign.reason.contains("2 of 3"), "{}", stopped.campaign.reason);
    // Consent to its beginning is not consent to go on now.
    let late = scratch.fleet.proposal_decide(&bert, second.proposal.unwrap(), approve.clone()).await;
    assert_eq!(field_of(&late.unwrap_err()), "campaign");
    assert_eq!(status(&scratch).await.campaign.state, CampaignState::Stopped);
    // Going on past it is agreed to again.
    let again = act(&scratch, CampaignAct::Resume).await.unwrap();
    assert!(!again.done);
    scratch.fleet.proposal_decide(&bert, again.proposal.unwrap(), approve).await.unwrap();
    turns(&scratch, 3).await;
    let end = status(&scratch).await;
    assert_eq!(end.campaign.state, CampaignState::Completed, "{end:?}");
    assert_eq!((end.progress.done, end.progress.failed), (2, 2));
}

#[tokio::test]
async fn a_campaign_that_is_given_up_withdraws_its_orders() {
    let scratch = Scratch::with(|config| config.single_control = true).await;
    scratch.device("thermo-0").await;
    let identity = scratch.enrol("thermo-0").await;
    scratch.fleet.campaign_create(&scratch.owner, new(CampaignKind::Certificate)).await.unwrap();
    act(&scratch, CampaignAct::Start).await.unwrap();
    scratch.pass(UnixMillis::DAY + SECOND);
    turns(&scratch, 5).await;
    let certificate = scratch.client(&identity);
    assert!(scratch.news(&certificate).await.order.is_some());
    let orders = async || scratch.fleet.order_list(&scratch.owner, OrderFilter::default()).await.unwrap().items;
    assert_eq!(orders().await[0].state, kf_api::order::OrderState::Open);
    act(&scratch, CampaignAct::Abort).await.unwrap();
    turns(&scratch, 2).await;
    assert_eq!(orders().await[0].state, kf_api::order::OrderState::Cancelled);
}

#[tokio::test]
async fn a_change_of_algorithm_counts_who_made_it_and_lists_who_is_too_old_or_cannot() {
    let scratch = Scratch::with(|config| config.single_control = true).await;
    let policy = EnrolmentPolicy {
        allowed_algorithms: vec![KeyAlgorithm::P256, KeyAlgorithm::MlDsa65],
        ..EnrolmentPolicy::default()
    };
    scratch.fleet.product_line_set_policy(&scratch.owner, "thermo", policy).await.unwrap();
    let mut identities = Vec::new();
    for number in 0..3 {
        let name = format!("thermo-{number}");
        scratch.device(&name).await;
        identities.push(scratch.enrol(&name).await);
    }
    let mut with_key = Firmware::enrolled(&scratch, "thermo-with-key").await;
    with_key.exchange(&scratch).await.unwrap();
    let algorithm = Some(KeyAlgorithm::MlDsa65);
    let impossible = NewCampaign { algorithm, ..new(CampaignKind::DeviceKey) };
    assert_eq!(field_of(&scratch.fleet.campaign_create(&scratch.owner, impossible).await.unwrap_err()), "algorithm");
    let rsa = NewCampaign { algorithm: Some(KeyAlgorithm::Rsa3072), ..new(CampaignKind::Certificate) };
    assert_eq!(field_of(&scratch.fleet.campaign_create(&scratch.owner, rsa).await.unwrap_err()), "algorithm");
    let plan = CampaignPlan { canary: 10, ..plan() };
    let change = NewCampaign { algorithm, plan, ..new(CampaignKind::Certificate) };
    scratch.fleet.campaign_create(&scratch.owner, change).await.unwrap();
    act(&scratch, CampaignAct::Start).await.unwrap();
    scratch.pass(UnixMillis::DAY + SECOND);
    turns(&scratch, 10).await;
    // One makes such a key; one, whose program is older, renews as before; one cannot, and says so.
    for (number, (outcome, algorithm)) in [
        (OrderOutcome::Done, KeyAlgorithm::MlDsa65),
        (OrderOutcome::Done, KeyAlgorithm::P256),
        (OrderOutcome::Declined, KeyAlgorithm::P256),
    ]
    .into_iter()
    .enumerate()
    {
        let certificate = scratch.client(&identities[number]);
        assert_eq!(scratch.news(&certificate).await.algorithm, Some(KeyAlgorithm::MlDsa65));
        assert!(obey_with(&scratch, &mut identities[number], outcome, algorithm).await);
    }
    turns(&scratch, 4).await;
    let end = status(&scratch).await;
    assert_eq!(end.campaign.state, CampaignState::Completed, "{end:?}");
    assert_eq!((end.progress.done, end.progress.failed, end.progress.skipped), (1, 0, 3));
    let certificate = scratch.client(&identities[0]);
    assert_eq!(scratch.news(&certificate).await.algorithm, None, "it is asked once");
}
