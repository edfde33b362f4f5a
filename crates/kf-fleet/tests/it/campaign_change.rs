//! Campaigns that are changed, deleted and rolled back: before they begin, in mid-flight, by two people at once, and with a
//! server that is killed at any durable call.

use std::path::Path;

use kf_access::Principal;
use kf_api::audit::AuditFilter;
use kf_api::campaign::{
    CampaignAct, CampaignActRequest, CampaignEdit, CampaignFilter, CampaignKind, CampaignOutcome, CampaignPlan,
    FilterChange, LoadPoint, MemberFilter, NewCampaign, PlanChange, Rollback,
};
use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_api::operator::Role;
use kf_api::order::{OrderFilter, OrderState};
use kf_api::proposal::ProposalDecision;
use kf_api::succession::{NewSuccession, SuccessionAct, SuccessionActRequest};
use kf_exchange::order::OrderOutcome;
use kf_fleet::FleetError;
use kf_key::{CampaignState, DeviceId, KeyAlgorithm, MemberState, UnixMillis};

use crate::campaign::{SECOND, act, asked, devices, new, obey, plan, status, turns};
use crate::crash::{copied, killed_child};
use crate::exchange::Firmware;
use crate::scratch::{Scratch, field_of};
use crate::succession::{enrolled, prove, succeed};

const YES: fn() -> ProposalDecision = || ProposalDecision { approve: true, why: "agreed".into() };

fn slower() -> PlanChange {
    PlanChange { wave: Some(1), per_minute: Some(30), ..PlanChange::default() }
}

async fn edit(scratch: &Scratch, plan: PlanChange, version: Option<u32>) -> Result<CampaignOutcome, FleetError> {
    let edit = CampaignEdit {
        plan,
        filter: FilterChange::default(),
        version,
        why: "the uplink is full".into(),
        dry_run: false,
    };
    scratch.fleet.campaign_edit(&scratch.owner, "keys", edit).await
}

async fn begun(scratch: &Scratch, kind: CampaignKind, canary: u32) {
    let plan = CampaignPlan { canary, ..plan() };
    scratch.fleet.campaign_create(&scratch.owner, NewCampaign { plan, ..new(kind) }).await.unwrap();
    assert!(act(scratch, CampaignAct::Start).await.unwrap().done);
}

async fn logged(scratch: &Scratch, name: &str) -> usize {
    let filter = AuditFilter { limit: Some(1_000), ..AuditFilter::default() };
    let page = scratch.fleet.audit_list(&scratch.owner, filter).await.unwrap();
    page.items.iter().filter(|record| record.entry["act"] == name).count()
}

async fn in_state(scratch: &Scratch, state: MemberState) -> Vec<DeviceId> {
    let filter = MemberFilter { state: Some(state), ..MemberFilter::default() };
    let page = scratch.fleet.campaign_members(&scratch.owner, "keys", filter).await.unwrap();
    page.items.into_iter().map(|member| member.device).collect()
}

/// What rolling back would come to.
async fn preview(scratch: &Scratch) -> Rollback {
    let request =
        CampaignActRequest { act: CampaignAct::RollBack, allow_empty: false, why: "mistake".into(), dry_run: true };
    scratch.fleet.campaign_act(&scratch.owner, "keys", request).await.unwrap().rollback.unwrap()
}

#[tokio::test]
async fn a_draft_that_is_changed_starts_in_its_newest_version_and_consent_to_an_older_one_is_void() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-0").await;
    scratch.fleet.campaign_create(&scratch.owner, new(CampaignKind::Certificate)).await.unwrap();
    let waits = act(&scratch, CampaignAct::Start).await.unwrap().proposal.unwrap();
    let changed = edit(&scratch, slower(), Some(1)).await.unwrap();
    assert!(changed.done, "a draft is agreed to when it starts");
    assert_eq!((changed.campaign.version, changed.campaign.plan.wave, changed.campaign.plan.canary), (2, 1, 1));
    let bert = scratch.operator("bert", Role::FleetOperator, &[]).await;
    let late = scratch.fleet.proposal_decide(&bert, waits, YES()).await.unwrap_err();
    assert_eq!(field_of(&late), "campaign", "{late}");
    assert_eq!(status(&scratch).await.campaign.state, CampaignState::Draft);
    let again = act(&scratch, CampaignAct::Start).await.unwrap().proposal.unwrap();
    scratch.fleet.proposal_decide(&bert, again, YES()).await.unwrap();
    assert_eq!(status(&scratch).await.campaign.state, CampaignState::Running);
    let entries = scratch.fleet.audit_list(&scratch.owner, AuditFilter::default()).await.unwrap().items;
    let entry = entries.into_iter().find(|record| record.entry["act"] == "campaign.edit").unwrap().entry;
    let text = entry.to_string();
    assert!(text.contains("before") && text.contains(r#"\"wave\":3"#) && text.contains(r#"\"wave\":1"#), "{text}");
}

/// A change of whom the campaign is about.
async fn refilter(scratch: &Scratch, who: &Principal, filter: FilterChange) -> Result<CampaignOutcome, FleetError> {
    let edit = CampaignEdit { filter, why: "the wrong site".into(), ..CampaignEdit::default() };
    scratch.fleet.campaign_edit(who, "keys", edit).await
}

#[tokio::test]
async fn a_draft_is_made_to_be_about_other_devices_in_its_next_version_and_one_that_has_begun_keeps_its_own() {
    let scratch = Scratch::new().await;
    devices(&scratch, 2).await;
    scratch.device_at("elsewhere", "plant-b", "thermo").await;
    let lena = scratch.operator("lena", Role::FacilityOperator, &["plant-a"]).await;
    scratch.fleet.campaign_create(&lena, new(CampaignKind::DeviceKey)).await.unwrap();
    let to = |facility: &str| FilterChange { facility: Some(facility.into()), ..FilterChange::default() };
    // What is checked of a new campaign is checked of a changed one.
    assert!(matches!(refilter(&scratch, &lena, to("plant-b")).await, Err(FleetError::NotFound("facility"))));
    assert!(matches!(refilter(&scratch, &lena, to("")).await, Err(FleetError::Denied(_))), "the whole fleet");
    let line = FilterChange { product_line: Some("none".into()), ..FilterChange::default() };
    assert!(matches!(refilter(&scratch, &lena, line).await, Err(FleetError::NotFound("product line"))));
    assert_eq!(field_of(&refilter(&scratch, &lena, to("plant-a")).await.unwrap_err()), "plan", "nothing would change");
    let dry = CampaignEdit { filter: to("plant-b"), dry_run: true, ..CampaignEdit::default() };
    let looked = scratch.fleet.campaign_edit(&scratch.owner, "keys", dry).await.unwrap();
    assert_eq!((looked.done, looked.estimate.unwrap().devices), (false, 1));
    assert_eq!(status(&scratch).await.campaign.version, 1);

    let moved = refilter(&scratch, &scratch.owner, to("plant-b")).await.unwrap();
    assert_eq!((moved.campaign.version, moved.estimate.unwrap().devices), (2, 1));
    let plant_b = scratch.fleet.facility_show(&scratch.owner, "plant-b").await.unwrap().id;
    assert_eq!(moved.campaign.facility, Some(plant_b));
    assert!(scratch.fleet.campaign_show(&lena, "keys").await.is_err(), "it is not about her facility any more");
    let everywhere = FilterChange { name_prefix: Some("thermo-1".into()), ..to("") };
    let everywhere = refilter(&scratch, &scratch.owner, everywhere).await.unwrap();
    assert_eq!((everywhere.campaign.version, everywhere.campaign.facility), (3, None));
    let expected = CampaignFilter { name_prefix: Some("thermo-1".into()), ..CampaignFilter::default() };
    assert_eq!(everywhere.campaign.filter, expected);
    let entries = scratch.fleet.audit_list(&scratch.owner, AuditFilter::default()).await.unwrap().items;
    let newest = entries.into_iter().rfind(|record| record.entry["act"] == "campaign.edit").unwrap().entry.to_string();
    assert!(newest.contains(r#"\"facility\":\"plant-b\""#) && newest.contains("thermo-1"), "{newest}");

    let waits = act(&scratch, CampaignAct::Start).await.unwrap().proposal;
    let bert = scratch.operator("bert", Role::FleetOperator, &[]).await;
    if let Some(proposal) = waits {
        scratch.fleet.proposal_decide(&bert, proposal, YES()).await.unwrap();
    }
    turns(&scratch, 6).await;
    assert_eq!((status(&scratch).await.progress.devices, asked(&scratch).await.len()), (1, 1));
    act(&scratch, CampaignAct::Pause).await.unwrap();
    let late = refilter(&scratch, &scratch.owner, to("plant-a")).await.unwrap_err();
    assert!(field_of(&late) == "filter" && late.to_string().contains("has begun"), "{late}");
}

#[tokio::test]
async fn a_campaign_about_nobody_is_refused_with_its_filter_and_is_completed_at_once_where_that_is_meant() {
    let scratch = Scratch::with(|config| config.dual_control_above = 0).await;
    scratch.device("thermo-0").await;
    let filter = CampaignFilter { name_prefix: Some("termo-".into()), ..new(CampaignKind::DeviceKey).filter };
    let slip = NewCampaign { filter, ..new(CampaignKind::DeviceKey) };
    let made = scratch.fleet.campaign_create(&scratch.owner, slip).await.unwrap();
    assert!(made.done && made.estimate.unwrap().devices == 0, "a draft may be ahead of its devices");
    for dry_run in [true, false] {
        let start = CampaignActRequest { act: CampaignAct::Start, allow_empty: false, why: "now".into(), dry_run };
        let refused = scratch.fleet.campaign_act(&scratch.owner, "keys", start).await.unwrap_err();
        assert_eq!(field_of(&refused), "filter");
        assert!(refused.to_string().contains("facility `plant-a`, names that begin with `termo-`"), "{refused}");
        assert!(matches!(&refused, FleetError::Conflict { remedy, .. } if remedy.contains("--allow-empty")));
    }
    assert_eq!(status(&scratch).await.campaign.state, CampaignState::Draft);

    // The one device that matched is gone when the second person agrees.
    let correct = FilterChange { name_prefix: Some("thermo-".into()), ..FilterChange::default() };
    refilter(&scratch, &scratch.owner, correct).await.unwrap();
    let bert = scratch.operator("bert", Role::FleetOperator, &[]).await;
    let waits = act(&scratch, CampaignAct::Start).await.unwrap().proposal.unwrap();
    let hold =
        DeviceActRequest { act: DeviceAct::Suspend, why: "lost".into(), departure: Default::default(), dry_run: false };
    scratch.fleet.device_act(&scratch.owner, "thermo-0", hold).await.unwrap();
    let late = scratch.fleet.proposal_decide(&bert, waits, YES()).await.unwrap_err();
    assert_eq!(field_of(&late), "filter", "{late}");

    let start =
        CampaignActRequest { act: CampaignAct::Start, allow_empty: true, why: "a rehearsal".into(), dry_run: false };
    let outcome = scratch.fleet.campaign_act(&scratch.owner, "keys", start).await.unwrap();
    if let Some(proposal) = outcome.proposal {
        scratch.fleet.proposal_decide(&bert, proposal, YES()).await.unwrap();
    }
    turns(&scratch, 8).await;
    let end = status(&scratch).await;
    assert_eq!((end.campaign.state, end.progress.devices), (CampaignState::Completed, 0));
}

#[tokio::test]
async fn a_paused_campaign_goes_on_by_its_new_plan_and_keeps_what_was_done() {
    let scratch = Scratch::new().await;
    let mut fleet = devices(&scratch, 6).await;
    begun(&scratch, CampaignKind::DeviceKey, 3).await;
    turns(&scratch, 8).await;
    let first = asked(&scratch).await;
    assert_eq!(first.len(), 3);
    let running = edit(&scratch, slower(), None).await.unwrap_err();
    assert!(running.to_string().contains("running"), "{running}");
    act(&scratch, CampaignAct::Pause).await.unwrap();
    for device in fleet.iter_mut().filter(|device| first.contains(&device.device)).take(2) {
        device.exchange(&scratch).await.unwrap();
    }
    // The wave under way becomes smaller than what it has taken already.
    let smaller = PlanChange { canary: Some(1), wave: Some(1), ..PlanChange::default() };
    assert_eq!(edit(&scratch, smaller, None).await.unwrap().campaign.version, 2);
    let wrong = PlanChange { per_minute: Some(0), ..PlanChange::default() };
    assert_eq!(field_of(&edit(&scratch, wrong, None).await.unwrap_err()), "per_minute");
    assert_eq!(field_of(&edit(&scratch, smaller, None).await.unwrap_err()), "plan", "nothing would change");
    act(&scratch, CampaignAct::Resume).await.unwrap();
    turns(&scratch, 4).await;
    let progress = status(&scratch).await.progress;
    assert_eq!((progress.done, progress.offered, progress.waiting), (2, 1, 3), "what was done is done");
    let mut largest = 0;
    for _ in 0..200 {
        turns(&scratch, 1).await;
        if status(&scratch).await.campaign.state == CampaignState::Completed {
            break;
        }
        if status(&scratch).await.campaign.wave > 1 {
            largest = largest.max(asked(&scratch).await.len());
        }
        for device in &mut fleet {
            device.exchange(&scratch).await.unwrap();
        }
    }
    let end = status(&scratch).await;
    assert_eq!((end.campaign.state, end.progress.done, end.campaign.wave), (CampaignState::Completed, 6, 4));
    assert_eq!(largest, 1, "waves of one from then on");
    assert_eq!(field_of(&edit(&scratch, slower(), None).await.unwrap_err()), "campaign");
}

#[tokio::test]
async fn of_two_people_who_change_the_same_version_one_is_refused_and_a_plan_of_two_is_changed_by_two() {
    let scratch = Scratch::with(|config| config.dual_control_above = 0).await;
    devices(&scratch, 2).await;
    let bert = scratch.operator("bert", Role::FleetOperator, &[]).await;
    scratch.fleet.campaign_create(&scratch.owner, new(CampaignKind::DeviceKey)).await.unwrap();
    let other = CampaignEdit { plan: slower(), version: Some(1), ..CampaignEdit::default() };
    let faster = PlanChange { per_minute: Some(600), ..PlanChange::default() };
    let (one, two) = tokio::join!(scratch.fleet.campaign_edit(&bert, "keys", other), edit(&scratch, faster, Some(1)));
    assert_eq!([&one, &two].iter().filter(|outcome| outcome.is_ok()).count(), 1, "{one:?} {two:?}");
    assert_eq!(status(&scratch).await.campaign.version, 2);

    let start = act(&scratch, CampaignAct::Start).await.unwrap().proposal.unwrap();
    scratch.fleet.proposal_decide(&bert, start, YES()).await.unwrap();
    turns(&scratch, 4).await;
    act(&scratch, CampaignAct::Pause).await.unwrap();
    let soak = |soak_seconds| PlanChange { soak_seconds: Some(soak_seconds), ..PlanChange::default() };
    let first = edit(&scratch, soak(20), None).await.unwrap();
    let second = edit(&scratch, soak(30), None).await.unwrap();
    assert!(!first.done && !second.done, "one person does not change what two agreed to");
    assert_eq!(status(&scratch).await.campaign.plan.soak_seconds, 10);
    scratch.fleet.proposal_decide(&bert, first.proposal.unwrap(), YES()).await.unwrap();
    let late = scratch.fleet.proposal_decide(&bert, second.proposal.unwrap(), YES()).await.unwrap_err();
    assert_eq!(field_of(&late), "version");
    let found = status(&scratch).await.campaign;
    assert_eq!((found.plan.soak_seconds, found.version), (20, 3));
}

#[tokio::test]
async fn a_draft_is_deleted_and_its_name_is_free_and_what_has_begun_is_kept() {
    let scratch = Scratch::new().await;
    devices(&scratch, 2).await;
    scratch.fleet.campaign_create(&scratch.owner, new(CampaignKind::Certificate)).await.unwrap();
    let start = act(&scratch, CampaignAct::Start).await.unwrap().proposal.unwrap();
    assert!(act(&scratch, CampaignAct::Delete).await.unwrap().done);
    assert!(scratch.fleet.campaign_show(&scratch.owner, "keys").await.is_err());
    let bert = scratch.operator("bert", Role::FleetOperator, &[]).await;
    let gone = scratch.fleet.proposal_decide(&bert, start, YES()).await;
    assert!(matches!(gone, Err(FleetError::NotFound("campaign"))), "{gone:?}");
    begun(&scratch, CampaignKind::DeviceKey, 1).await;
    turns(&scratch, 4).await;
    for state in [CampaignState::Running, CampaignState::Aborted] {
        let refused = act(&scratch, CampaignAct::Delete).await.unwrap_err();
        assert!(refused.to_string().contains(state.name()), "{refused}");
        if state == CampaignState::Running {
            act(&scratch, CampaignAct::Abort).await.unwrap();
        }
    }
    turns(&scratch, 3).await;
    assert_eq!(scratch.fleet.campaign_list(&scratch.owner, Default::default()).await.unwrap().items.len(), 1);
    assert_eq!(logged(&scratch, "campaign.delete").await, 1);
}

/// Three were asked: one has its new key, one has fetched it, one has not come. The server is stopped after every turn.
#[tokio::test]
async fn a_device_that_has_not_come_for_its_new_key_keeps_the_old_one_after_a_roll_back() {
    let mut scratch = Scratch::new().await;
    let mut fleet = devices(&scratch, 4).await;
    begun(&scratch, CampaignKind::DeviceKey, 3).await;
    turns(&scratch, 8).await;
    let first = asked(&scratch).await;
    let mut three: Vec<&mut Firmware> = fleet.iter_mut().filter(|device| first.contains(&device.device)).collect();
    three[0].exchange(&scratch).await.unwrap();
    let (done, acknowledgement) = three[1].receive(&scratch).await.unwrap();
    let expected = preview(&scratch).await;
    assert_eq!((expected.never_asked, expected.taken_back, expected.may_still_act), (1, 1, 2), "{expected:?}");
    assert!(expected.because.contains("never goes back") && expected.next.contains("epoch advance"));
    assert!(act(&scratch, CampaignAct::RollBack).await.unwrap().done);
    for _ in 0..4 {
        scratch = scratch.reopen().await;
        turns(&scratch, 1).await;
    }
    let found = status(&scratch).await;
    assert_eq!((found.campaign.state, found.progress.taken_back), (CampaignState::RolledBack, 1));
    assert_eq!((found.progress.done, found.progress.offered, found.progress.waiting), (1, 1, 1));
    assert_eq!(in_state(&scratch, MemberState::TakenBack).await, [three[2].device]);
    // The one that has it finishes; the others keep what they have, and nobody is asked again.
    let answer = scratch.fleet.device_exchange(acknowledgement.as_bytes()).await.unwrap();
    done.finish(&answer).unwrap();
    assert_eq!(three[2].exchange(&scratch).await.unwrap().device_epoch, 1);
    assert_eq!((three[0].held.unwrap().device_epoch, three[1].held.unwrap().device_epoch), (2, 2));
    let name = three[2].device.to_string();
    assert!(scratch.fleet.device_keys(&scratch.owner, &name).await.unwrap().up_to_date);
    // The number that was taken back serves when the device is asked again.
    scratch.fleet.epoch_advance_device(&scratch.owner, &name, "after all".into()).await.unwrap();
    assert_eq!(three[2].exchange(&scratch).await.unwrap().device_epoch, 2);
    assert_eq!(logged(&scratch, "epoch.withdraw").await, 1);
    assert_eq!(field_of(&act(&scratch, CampaignAct::RollBack).await.unwrap_err()), "campaign");
}

#[tokio::test]
async fn orders_that_nobody_fetched_are_taken_back_and_a_device_that_has_one_is_shown_as_one_that_may_obey() {
    let scratch = Scratch::with(|config| config.single_control = true).await;
    let mut identities = Vec::new();
    for number in 0..3 {
        let name = format!("thermo-{number}");
        scratch.device(&name).await;
        identities.push(scratch.enrol(&name).await);
    }
    let plan = CampaignPlan { canary: 3, ..plan() };
    let new = NewCampaign { plan, ..new(CampaignKind::Certificate) };
    scratch.fleet.campaign_create(&scratch.owner, new).await.unwrap();
    act(&scratch, CampaignAct::Start).await.unwrap();
    scratch.pass(UnixMillis::DAY + SECOND);
    turns(&scratch, 8).await;
    assert_eq!(asked(&scratch).await.len(), 3);
    assert!(obey(&scratch, &mut identities[0], OrderOutcome::Done).await);
    let certificate = scratch.client(&identities[1]);
    let fetched = scratch.news(&certificate).await.order;
    assert!(fetched.is_some());
    act(&scratch, CampaignAct::Abort).await.unwrap();
    // Given up, and rolled back before the background came to it.
    let waits = act(&scratch, CampaignAct::RollBack).await.unwrap();
    assert!(!waits.done, "what is agreed to by two is undone by two, or after a day");
    let rollback = waits.rollback.unwrap();
    assert_eq!((rollback.taken_back, rollback.may_still_act), (1, 2), "the answer is not counted yet: {rollback:?}");
    scratch.pass(UnixMillis::DAY + SECOND);
    turns(&scratch, 6).await;
    let found = status(&scratch).await;
    assert_eq!(found.campaign.state, CampaignState::RolledBack);
    assert_eq!(found.progress.done, 1, "{found:?}");
    let orders = scratch.fleet.order_list(&scratch.owner, OrderFilter::default()).await.unwrap().items;
    assert!(orders.iter().all(|order| matches!(order.state, OrderState::Cancelled | OrderState::Done)), "{orders:?}");
    let certificate = scratch.client(&identities[2]);
    let nothing = scratch.news(&certificate).await.order;
    assert!(nothing.is_none(), "a withdrawn order is not handed out");
}

#[tokio::test]
async fn of_a_root_only_who_was_not_told_of_it_is_taken_back_who_has_proved_it_has_it_and_the_others_may() {
    let scratch = Scratch::new().await;
    let mut identities = Vec::new();
    for number in 0..5 {
        identities.push(enrolled(&scratch, &format!("thermo-{number}")).await);
    }
    succeed(&scratch, "root").await;
    begun(&scratch, CampaignKind::TrustAnchor, 5).await;
    turns(&scratch, 6).await;
    assert_eq!(in_state(&scratch, MemberState::Offered).await.len(), 5);
    let told = async |scratch: &Scratch, number: usize| {
        scratch.news(&scratch.client(&identities[number])).await.anchor.is_some()
    };
    let counts = |found: Rollback| (found.taken_back, found.may_still_act, found.stay);
    assert_eq!(counts(preview(&scratch).await), (5, 0, 0));
    assert!(told(&scratch, 0).await && told(&scratch, 1).await && told(&scratch, 1).await);
    // One proves it after it was told, one found it at a renewal and was told by nobody.
    prove(&scratch, &identities[0]).await;
    prove(&scratch, &identities[2]).await;
    // Cut off now, the server cannot know whom else it has told.
    let survivor = scratch.cut_off().await;
    assert_eq!(counts(preview(&survivor).await), (0, 3, 2), "as much as is known of each");
    drop(survivor);
    assert_eq!(counts(preview(&scratch).await), (2, 1, 2));

    act(&scratch, CampaignAct::Pause).await.unwrap();
    assert!(told(&scratch, 1).await, "who was told is told again");
    assert!(!told(&scratch, 3).await, "and nobody else while it is paused");
    act(&scratch, CampaignAct::RollBack).await.unwrap();
    for number in 0..5 {
        assert!(!told(&scratch, number).await, "{number}: at once");
    }
    turns(&scratch, 4).await;
    let progress = status(&scratch).await.progress;
    assert_eq!((progress.taken_back, progress.offered, progress.done), (2, 1, 2), "{progress:?}");
    // What it may have it may still prove, to whom asks for that: the campaign is over.
    prove(&scratch, &identities[1]).await;
    turns(&scratch, 4).await;
    assert_eq!(status(&scratch).await.progress.offered, 1);
    let trust = scratch.fleet.succession_show(&scratch.owner, "root").await.unwrap().trust.unwrap();
    assert_eq!((trust.proved, trust.unproved), (3, 2));
}

#[tokio::test]
async fn a_root_that_issues_already_is_not_taken_back_and_before_that_devices_are_not_told_of_it_any_more() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-0").await;
    let identity = scratch.enrol("thermo-0").await;
    let heir = NewSuccession { why: "it ends".into(), ..NewSuccession::default() };
    scratch.fleet.succession_create(&scratch.owner, "root", heir).await.unwrap();
    begun(&scratch, CampaignKind::TrustAnchor, 1).await;
    turns(&scratch, 6).await;
    let certificate = scratch.client(&identity);
    let told = async || scratch.news(&certificate).await.anchor.is_some();
    assert!(told().await);
    let switch = async |dry_run| {
        let request = SuccessionActRequest {
            act: SuccessionAct::Switch,
            strand: false,
            although_trusted: false,
            why: "on".into(),
            dry_run,
        };
        scratch.fleet.succession_act(&scratch.owner, "root", request).await
    };
    act(&scratch, CampaignAct::RollBack).await.unwrap();
    assert!(!told().await, "at once");
    turns(&scratch, 3).await;
    // Once more, and the new root takes over meanwhile.
    let again = NewCampaign { name: "again".into(), ..new(CampaignKind::TrustAnchor) };
    scratch.fleet.campaign_create(&scratch.owner, again).await.unwrap();
    let request = |act| CampaignActRequest { act, allow_empty: false, why: "test".into(), dry_run: false };
    scratch.fleet.campaign_act(&scratch.owner, "again", request(CampaignAct::Start)).await.unwrap();
    turns(&scratch, 6).await;
    switch(false).await.unwrap();
    let refused = scratch.fleet.campaign_act(&scratch.owner, "again", request(CampaignAct::RollBack)).await;
    let refused = refused.unwrap_err();
    assert!(refused.to_string().contains("issues already"), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_refused_with_the_reason_and_the_next_step() {
    let scratch = Scratch::new().await;
    let mut fleet = devices(&scratch, 1).await;
    scratch.fleet.campaign_create(&scratch.owner, new(CampaignKind::DeviceKey)).await.unwrap();
    let draft = act(&scratch, CampaignAct::RollBack).await.unwrap_err();
    assert!(matches!(&draft, FleetError::Conflict { remedy, .. } if remedy.contains("campaign delete")), "{draft:?}");
    act(&scratch, CampaignAct::Start).await.unwrap();
    turns(&scratch, 4).await;
    fleet[0].exchange(&scratch).await.unwrap();
    turns(&scratch, 3).await;
    assert_eq!(status(&scratch).await.campaign.state, CampaignState::Completed);
    let done = act(&scratch, CampaignAct::RollBack).await.unwrap_err();
    assert!(done.to_string().contains("never goes back"), "{done}");
    assert!(matches!(&done, FleetError::Conflict { remedy, .. } if remedy.contains("another campaign")));
}

#[tokio::test]
async fn the_load_is_held_against_what_is_configured_or_was_just_measured() {
    let scratch = Scratch::with(|config| config.campaign_signatures_per_second = Some(1)).await;
    devices(&scratch, 4).await;
    let plan = CampaignPlan { per_minute: 600, canary: 4, ..plan() };
    let dry = NewCampaign { dry_run: true, plan, ..new(CampaignKind::DeviceKey) };
    let load = scratch.fleet.campaign_create(&scratch.owner, dry).await.unwrap().load.unwrap();
    assert_eq!((load.capacity_from.as_str(), load.fits), ("configured", false), "{load:?}");
    let scratch = scratch.configured(|config| config.campaign_signatures_per_second = None).await;
    scratch.fleet.campaign_create(&scratch.owner, NewCampaign { plan, ..new(CampaignKind::DeviceKey) }).await.unwrap();
    let found = scratch.fleet.campaign_estimate(&scratch.owner, "keys").await.unwrap();
    assert_eq!((found.load.capacity_from.as_str(), found.estimate.devices), ("measured", 4));
    assert!(found.load.capacity_signatures_per_second > 8.0 && found.load.fits, "{found:?}");
    let requests = |point: &LoadPoint| point.requests_per_second * f64::from(u32::try_from(point.seconds).unwrap());
    let total: f64 = found.load.points.iter().map(requests).sum();
    assert!((total - 12.0).abs() < 0.5, "three requests each, but for what is rounded: {total}");
    // Of one that has begun: those whose turn has not come.
    act(&scratch, CampaignAct::Start).await.unwrap();
    turns(&scratch, 6).await;
    assert_eq!(scratch.fleet.campaign_estimate(&scratch.owner, "keys").await.unwrap().estimate.devices, 0);
    let elsewhere = scratch.operator("lena", Role::FacilityOperator, &["plant-b"]).await;
    assert!(scratch.fleet.campaign_estimate(&elsewhere, "keys").await.is_err());
    let edit = CampaignEdit { plan: slower(), ..CampaignEdit::default() };
    assert!(scratch.fleet.campaign_edit(&elsewhere, "keys", edit).await.is_err());
}

#[tokio::test]
async fn a_certificate_campaign_weighs_what_it_asks_by_and_a_change_of_algorithm_the_order_beside_it() {
    let scratch = Scratch::new().await;
    devices(&scratch, 4).await;
    let weighed = async |algorithm| {
        let dry = NewCampaign { dry_run: true, algorithm, ..new(CampaignKind::Certificate) };
        let outcome = scratch.fleet.campaign_create(&scratch.owner, dry).await.unwrap();
        let points = outcome.load.unwrap().points;
        let signatures =
            |point: &LoadPoint| point.signatures_per_second * f64::from(u32::try_from(point.seconds).unwrap());
        (outcome.estimate.unwrap().requests, points.iter().map(signatures).sum::<f64>().round())
    };
    assert_eq!(weighed(None).await, (4 * 7, 20.0), "nothing is signed to ask");
    assert_eq!(weighed(Some(KeyAlgorithm::P384)).await, (4 * 8, 24.0));
}

/// The directory that a child works in.
const CHILD: &str = "KF_CAMPAIGN_CHILD";

/// Changes a paused campaign, rolls it back, and has the background finish; each only where it is not done.
async fn change_and_roll_back(directory: &Path) {
    let (fleet, clock, owner, _) = Scratch::open_in(directory).await.unwrap();
    let found = fleet.campaign_show(&owner, "keys").await.unwrap().campaign;
    if found.version == 1 && found.state == CampaignState::Paused {
        let edit = CampaignEdit { plan: slower(), version: Some(1), why: "slower".into(), ..CampaignEdit::default() };
        fleet.campaign_edit(&owner, "keys", edit).await.unwrap();
    }
    if found.state == CampaignState::Paused {
        let request = CampaignActRequest {
            act: CampaignAct::RollBack,
            allow_empty: false,
            why: "mistake".into(),
            dry_run: false,
        };
        fleet.campaign_act(&owner, "keys", request).await.unwrap();
    }
    for _ in 0..4 {
        clock.set(kf_fleet::Clock::now(clock.as_ref()).plus(2 * SECOND));
        fleet.turn().await;
    }
    fleet.close().await;
}

#[tokio::test]
async fn a_crash_at_any_durable_step_of_a_change_or_a_roll_back_leaves_it_done_or_undone_and_the_next_start_finishes() {
    if let Some(directory) = std::env::var_os(CHILD) {
        change_and_roll_back(Path::new(&directory)).await;
        return;
    }
    let scratch = Scratch::new().await;
    let fleet = devices(&scratch, 3).await;
    begun(&scratch, CampaignKind::DeviceKey, 2).await;
    turns(&scratch, 8).await;
    act(&scratch, CampaignAct::Pause).await.unwrap();
    let (pins, mut keys): (Vec<_>, Vec<_>) =
        fleet.into_iter().map(|one| (one.pin, (one.device, one.key, one.held))).unzip();
    let closed = scratch.closed().await;
    let test = "campaign_change::a_crash_at_any_durable_step_of_a_change_or_a_roll_back_leaves_it_done_or_undone_and_the_next_start_finishes";
    let mut seen = std::collections::BTreeSet::new();
    for when in 1..200 {
        let directory = copied(closed.path());
        let was_killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        let found = status(&survivor).await;
        let is_rolled_back = found.campaign.state == CampaignState::RolledBack;
        assert_eq!(logged(&survivor, "campaign.edit").await, usize::from(found.campaign.version == 2), "crash {when}");
        assert_eq!(logged(&survivor, "campaign.roll-back").await, usize::from(is_rolled_back), "crash {when}");
        let taken = usize::try_from(found.progress.taken_back).unwrap();
        assert_eq!(logged(&survivor, "epoch.withdraw").await, taken, "crash {when}");
        seen.insert((found.campaign.version, is_rolled_back, taken));
        let directory = survivor.closed().await;
        if was_killed {
            change_and_roll_back(directory.path()).await;
        }
        let survivor = Scratch::at(directory).await;
        let end = status(&survivor).await;
        assert_eq!((end.campaign.version, end.progress.taken_back, end.progress.offered), (2, 2, 0), "crash {when}");
        // Every device still gets the key that it has.
        let (pin, (device, key, held)) = (pins[0], keys.remove(0));
        let mut device = Firmware { device, key, pin, held };
        device.key = {
            let name =
                survivor.fleet.device_show(&survivor.owner, &device.device.to_string()).await.unwrap().device.name;
            survivor.enrol(&name).await.key
        };
        assert_eq!(device.exchange(&survivor).await.unwrap().device_epoch, 1, "crash {when}");
        keys.push((device.device, device.key, held));
        if !was_killed {
            break;
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(1, false, 0), (2, false, 0), (2, true, 0), (2, true, 2)]);
}
