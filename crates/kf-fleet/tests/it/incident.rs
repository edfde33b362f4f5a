use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use kf_api::certificate::CertificateFilter;
use kf_api::device::{DeviceAct, DeviceActRequest, DeviceFilter};
use kf_api::incident::{
    ApprovalRequest, Incident, IncidentClosing, IncidentFilter, IncidentSubject, NewIncident, PlanRequest,
    PlanStanding, RunOutcome, RunRequest, StepAct, StepControl, StepPhase, StepState, Verdict,
};
use kf_api::operator::{Role, TokenRequest};
use kf_api::status::IssuanceSwitch;
use kf_fleet::{FleetError, Principal};
use kf_key::{CertificateStatus, DeviceState, IncidentId, SecretBytes, UnixMillis};

use crate::scratch::{Identity, Scratch, csr, field_of, fresh_csr};

const THERMO: [(&str, &str); 4] = [("a-1", "plant-a"), ("a-2", "plant-a"), ("b-1", "plant-b"), ("b-2", "plant-b")];

/// Two devices at each of two plants, all enrolled.
async fn two_plants(adjust: impl FnOnce(&mut kf_fleet::FleetConfig)) -> (Scratch, Vec<Identity>) {
    let scratch = Scratch::with(adjust).await;
    let mut identities = Vec::new();
    for (name, plant) in THERMO {
        scratch.device_at(name, plant, "thermo").await;
        identities.push(scratch.enrol(name).await);
    }
    (scratch, identities)
}

fn on(subjects: &[IncidentSubject]) -> NewIncident {
    NewIncident {
        subjects: subjects.to_vec(),
        since: None,
        octets_per_second: None,
        why: "stolen".into(),
        dry_run: false,
    }
}

fn facility(name: &str) -> IncidentSubject {
    IncidentSubject::Facility(name.into())
}

async fn open(scratch: &Scratch, who: &Principal, subjects: &[IncidentSubject]) -> Incident {
    scratch.fleet.incident_open(who, on(subjects)).await.unwrap().incident.unwrap()
}

async fn plan(scratch: &Scratch, who: &Principal, id: IncidentId) -> PlanStanding {
    scratch.fleet.incident_plan(who, id, PlanRequest::default()).await.unwrap()
}

async fn approve(
    scratch: &Scratch,
    who: &Principal,
    id: IncidentId,
    plan: &PlanStanding,
) -> Result<PlanStanding, FleetError> {
    let request = ApprovalRequest { plan_sha256: plan.plan_sha256.clone(), why: "seen".into() };
    scratch.fleet.incident_approve(who, id, request).await
}

async fn run(scratch: &Scratch, who: &Principal, id: IncidentId) -> RunOutcome {
    scratch.fleet.incident_run(who, id, RunRequest::default()).await.unwrap()
}

/// Everything of a plant that an incident could change.
async fn state_of(scratch: &Scratch, plant: &str) -> Vec<String> {
    let filter = DeviceFilter { facility: Some(plant.into()), ..DeviceFilter::default() };
    let devices = scratch.fleet.device_list(&scratch.owner, filter).await.unwrap().items;
    let filter = CertificateFilter { facility: Some(plant.into()), ..CertificateFilter::default() };
    let certificates = scratch.fleet.certificate_list(&scratch.owner, filter).await.unwrap().items;
    let epochs = scratch.fleet.epoch_list(&scratch.owner, plant).await.unwrap();
    let operators = scratch.fleet.operator_list(&scratch.owner, Default::default()).await.unwrap().items;
    let id = scratch.fleet.facility_show(&scratch.owner, plant).await.unwrap().id;
    let mut state: Vec<String> = devices.iter().map(|device| format!("{} {}", device.name, device.state)).collect();
    state.extend(certificates.iter().map(|one| format!("{} {:?}", one.serial, one.status)));
    state.extend(epochs.iter().map(|epoch| format!("{} {:?}", epoch.epoch, epoch.state)));
    let there = operators.iter().filter(|operator| operator.facilities.contains(&id));
    state.extend(there.map(|operator| format!("{} {}", operator.name, operator.enabled)));
    state.sort();
    state
}

async fn states(scratch: &Scratch, plant: &str) -> Vec<DeviceState> {
    let filter = DeviceFilter { facility: Some(plant.into()), ..DeviceFilter::default() };
    let mut devices = scratch.fleet.device_list(&scratch.owner, filter).await.unwrap().items;
    devices.sort_by(|left, right| left.name.cmp(&right.name));
    devices.iter().map(|device| device.state).collect()
}

#[tokio::test]
async fn a_stolen_facility_is_stopped_by_one_settled_by_two_and_nothing_of_another_is_touched() {
    let (scratch, identities) = two_plants(|_| {}).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    scratch.operator("lena", Role::FacilityOperator, &["plant-a"]).await;
    scratch.operator("both", Role::FacilityOperator, &["plant-a", "plant-b"]).await;
    scratch.operator("boris", Role::FacilityOperator, &["plant-b"]).await;
    let other = state_of(&scratch, "plant-b").await;
    scratch.pass(UnixMillis::HOUR);

    let opened = scratch.fleet.incident_open(&scratch.owner, on(&[facility("plant-a")])).await.unwrap();
    let radius = &opened.radius;
    assert_eq!((radius.devices, radius.certificates), (2, 2));
    assert_eq!(radius.facilities.iter().map(|hit| hit.name.as_str()).collect::<Vec<_>>(), ["plant-a"]);
    assert!(radius.safe.iter().any(|safe| safe.what.contains("2 other devices")), "{:?}", radius.safe);
    assert!(radius.unknown.iter().any(|unknown| unknown.contains("both")), "{:?}", radius.unknown);
    let id = opened.incident.unwrap().id;

    let made = plan(&scratch, &scratch.owner, id).await;
    assert!(!made.approved);
    let first = run(&scratch, &scratch.owner, id).await;
    assert!(first.done.iter().all(|step| step.step.phase == StepPhase::Stop && step.state == StepState::Done));
    assert!(first.waits[0].contains("nobody but its maker"), "{:?}", first.waits);
    assert_eq!(states(&scratch, "plant-a").await, [DeviceState::Suspended; 2]);
    let operators = scratch.fleet.operator_list(&scratch.owner, Default::default()).await.unwrap().items;
    let disabled: Vec<_> = operators.iter().filter(|one| !one.enabled).map(|one| one.name.as_str()).collect();
    assert_eq!(disabled, ["lena"], "and not those who act for others too");
    assert_eq!(state_of(&scratch, "plant-b").await, other);
    assert!(scratch.renew(&identities[0], &csr(&identities[0].key)).await.is_err());
    scratch.renew(&identities[2], &csr(&identities[2].key)).await.unwrap();
    let other = state_of(&scratch, "plant-b").await;

    let own = approve(&scratch, &scratch.owner, id, &made).await;
    assert_eq!(field_of(&own.unwrap_err()), "plan", "nobody approves a plan of their own");
    assert!(approve(&scratch, &pavel, id, &made).await.unwrap().approved);
    let second = run(&scratch, &scratch.owner, id).await;
    assert!(second.finished && second.waits.is_empty(), "{:?}", second.waits);
    assert_eq!(state_of(&scratch, "plant-b").await, other);
    let certificates = scratch.fleet.certificate_list(&scratch.owner, Default::default()).await.unwrap().items;
    let revoked = certificates.iter().filter(|one| one.status == CertificateStatus::Revoked).count();
    assert_eq!(revoked, 2);
    let epochs = scratch.fleet.epoch_list(&scratch.owner, "plant-a").await.unwrap();
    assert_eq!(epochs[0].epoch, 2);

    let closing = |verdict| IncidentClosing { verdict, why: String::new() };
    let early = scratch.fleet.incident_close(&scratch.owner, id, closing(Verdict::Recovered)).await;
    assert_eq!(field_of(&early.unwrap_err()), "verdict", "hands are left");
    let shown = scratch.fleet.incident_show(&scratch.owner, id).await.unwrap();
    let hands = shown.plan.unwrap().steps.into_iter().filter(|step| step.state == StepState::Hand);
    let by_hand = hands.map(|step| step.step.number).collect();
    let request = RunRequest { by_hand, why: "boards replaced".into(), at_most: None };
    assert_eq!(scratch.fleet.incident_run(&scratch.owner, id, request).await.unwrap().left, 0);
    let closed = scratch.fleet.incident_close(&scratch.owner, id, closing(Verdict::Recovered)).await.unwrap();
    assert_eq!(closed.verdict, Some(Verdict::Recovered));
    let again = scratch.fleet.incident_run(&scratch.owner, id, RunRequest::default()).await;
    assert_eq!(field_of(&again.unwrap_err()), "incident");
    let another = open(&scratch, &scratch.owner, &[facility("plant-a")]).await;
    assert_ne!(another.id, id, "a closed one is not opened again");
}

#[tokio::test]
async fn the_same_incident_is_open_once_and_widens_when_it_began_earlier() {
    let (scratch, _) = two_plants(|_| {}).await;
    scratch.pass(30 * UnixMillis::DAY);
    let now = scratch.clock_now();
    let since = |since: UnixMillis| NewIncident {
        since: Some(since),
        ..on(&[facility("plant-a"), IncidentSubject::Device("b-1".into())])
    };
    let first = scratch.fleet.incident_open(&scratch.owner, since(now.minus(UnixMillis::DAY))).await.unwrap();
    let id = first.incident.as_ref().unwrap().id;
    assert!(!first.already_open && first.log_index.is_some());
    let same = NewIncident {
        subjects: vec![IncidentSubject::Device("b-1".into()), facility("plant-a"), facility("plant-a")],
        ..since(now)
    };
    let second = scratch.fleet.incident_open(&scratch.owner, same).await.unwrap();
    assert!(second.already_open && second.log_index.is_none());
    assert_eq!(second.incident.as_ref().unwrap().id, id);
    let before = plan(&scratch, &scratch.owner, id).await.plan_sha256;
    let earlier = scratch.fleet.incident_open(&scratch.owner, since(now.minus(9 * UnixMillis::DAY))).await.unwrap();
    let incident = earlier.incident.unwrap();
    assert_eq!((incident.id, incident.since), (id, now.minus(9 * UnixMillis::DAY)));
    assert!(earlier.log_index.is_some());
    assert_ne!(plan(&scratch, &scratch.owner, id).await.plan_sha256, before, "it needs a new approval");
    let listed = scratch.fleet.incident_list(&scratch.owner, IncidentFilter::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    let dry = NewIncident { dry_run: true, ..on(&[facility("plant-b")]) };
    let dry = scratch.fleet.incident_open(&scratch.owner, dry).await.unwrap();
    assert!(dry.incident.is_none() && dry.radius.devices == 2);
    let listed = scratch.fleet.incident_list(&scratch.owner, IncidentFilter::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1, "a dry run keeps nothing");
}

#[tokio::test]
async fn an_approval_expires_in_mid_flight_and_a_changed_fleet_needs_a_new_plan() {
    let (scratch, _) = two_plants(|_| {}).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let id = open(&scratch, &scratch.owner, &[facility("plant-a")]).await.id;
    let made = plan(&scratch, &scratch.owner, id).await;
    approve(&scratch, &pavel, id, &made).await.unwrap();
    let stops = made.steps.iter().filter(|step| step.step.phase == StepPhase::Stop).count();
    let request = RunRequest { at_most: Some(u32::try_from(stops + 1).unwrap()), ..RunRequest::default() };
    let outcome = scratch.fleet.incident_run(&scratch.owner, id, request).await.unwrap();
    assert!(outcome.more && outcome.done.len() == stops + 1);
    scratch.pass(UnixMillis::DAY + 1);
    let outcome = run(&scratch, &scratch.owner, id).await;
    assert!(outcome.done.is_empty() && outcome.waits[0].contains("expired"), "{outcome:?}");

    scratch.device_at("a-3", "plant-a", "thermo").await;
    let stale = approve(&scratch, &pavel, id, &made).await;
    assert_eq!(field_of(&stale.unwrap_err()), "plan", "it would touch a device that nobody agreed to");
    let fresh = plan(&scratch, &scratch.owner, id).await;
    assert_ne!(fresh.plan_sha256, made.plan_sha256);
    let old = approve(&scratch, &pavel, id, &made).await;
    assert_eq!(field_of(&old.unwrap_err()), "plan");
    approve(&scratch, &pavel, id, &fresh).await.unwrap();
    scratch.device_at("a-4", "plant-a", "thermo").await;
    let outcome = run(&scratch, &scratch.owner, id).await;
    assert!(outcome.done.is_empty() && outcome.waits[0].contains("the fleet has changed"), "{outcome:?}");
}

#[tokio::test]
async fn single_control_waits_a_day_and_asks_nobody() {
    let (scratch, _) = two_plants(|config| config.single_control = true).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let id = open(&scratch, &scratch.owner, &[facility("plant-a")]).await.id;
    let made = plan(&scratch, &scratch.owner, id).await;
    assert_eq!(made.effective, Some(scratch.clock_now().plus(UnixMillis::DAY)));
    assert_eq!(field_of(&approve(&scratch, &pavel, id, &made).await.unwrap_err()), "plan");
    let outcome = run(&scratch, &scratch.owner, id).await;
    assert!(outcome.waits[0].contains("delay"), "{outcome:?}");
    assert_eq!(states(&scratch, "plant-a").await, [DeviceState::Suspended; 2], "stopping does not wait");
    scratch.pass(UnixMillis::DAY);
    assert!(run(&scratch, &scratch.owner, id).await.finished);
    let report = scratch.fleet.incident_report(&scratch.owner, id).await.unwrap();
    assert!(report.single_control);
    let acts: Vec<_> = report.timeline.iter().filter(|entry| entry.act.starts_with("incident.")).collect();
    assert!(acts.iter().all(|entry| entry.leaf.contains(r#""control":"single""#)), "{acts:?}");
}

#[tokio::test]
async fn a_facility_operator_deals_with_the_own_facility_and_sees_nothing_of_another() {
    let (scratch, _) = two_plants(|_| {}).await;
    let lena = scratch.operator("lena", Role::FacilityOperator, &["plant-a"]).await;
    let mara = scratch.operator("mara", Role::FacilityOperator, &["plant-a"]).await;
    let boris = scratch.operator("boris", Role::FacilityOperator, &["plant-b"]).await;
    let refused = scratch.fleet.incident_open(&lena, on(&[facility("plant-b")])).await;
    assert!(matches!(refused, Err(FleetError::NotFound(_))), "{refused:?}");
    for subject in [IncidentSubject::Operator("boris".into()), IncidentSubject::Operator("olga".into())] {
        let refused = scratch.fleet.incident_open(&lena, on(&[subject])).await;
        assert!(matches!(refused, Err(FleetError::NotFound(_))), "{refused:?}");
    }
    let id = open(&scratch, &lena, &[IncidentSubject::Device("a-1".into())]).await.id;
    assert!(matches!(scratch.fleet.incident_show(&boris, id).await, Err(FleetError::NotFound(_))));
    assert!(scratch.fleet.incident_list(&boris, IncidentFilter::default()).await.unwrap().items.is_empty());
    let made = plan(&scratch, &lena, id).await;
    assert!(run(&scratch, &lena, id).await.waits[0].contains("approve"));
    assert!(matches!(approve(&scratch, &boris, id, &made).await, Err(FleetError::NotFound(_))));
    approve(&scratch, &mara, id, &made).await.unwrap();
    assert!(run(&scratch, &lena, id).await.finished);
    assert_eq!(states(&scratch, "plant-a").await, [DeviceState::Suspended, DeviceState::Active]);
    let anna = scratch.operator("anna", Role::Auditor, &[]).await;
    assert!(scratch.fleet.incident_report(&anna, id).await.is_ok());
    assert!(matches!(scratch.fleet.incident_plan(&anna, id, PlanRequest::default()).await, Err(FleetError::Denied(_))));
}

#[tokio::test]
async fn a_leaked_credential_is_locked_out_with_what_it_made_and_handles_no_incident_about_itself() {
    let (scratch, _) = two_plants(|_| {}).await;
    let second = scratch.operator("olaf", Role::Owner, &[]).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    scratch.pass(UnixMillis::HOUR);
    let since = scratch.clock_now();
    // The thief, as olaf: a code, a certificate, an operator with a token, a device let back in.
    let thief = Scratch { owner: second.clone(), ..scratch };
    let code = thief.code("b-2").await;
    thief.operator("mallory", Role::FleetOperator, &[]).await;
    let request = TokenRequest { operator: "mallory".into(), lifetime_days: None };
    let token = thief.fleet.token_create(&second, request).await.unwrap().token.expose().to_owned();
    let act = |act| DeviceActRequest { act, ..serde_json::from_str(r#"{"act":"suspend"}"#).unwrap() };
    thief.fleet.device_act(&second, "b-1", act(DeviceAct::Suspend)).await.unwrap();
    thief.fleet.device_act(&second, "b-1", act(DeviceAct::Resume)).await.unwrap();

    let subject = [IncidentSubject::Operator("olaf".into())];
    let opened = thief.fleet.incident_open(&pavel, NewIncident { since: Some(since), ..on(&subject) }).await.unwrap();
    let acts = &opened.radius.acts[0];
    assert_eq!((acts.entries, acts.by_act["operator.create"], acts.by_act["code.create"]), (5, 1, 1));
    let id = opened.incident.unwrap().id;
    let own = thief.fleet.incident_plan(&second, id, PlanRequest::default()).await;
    assert_eq!(field_of(&own.unwrap_err()), "incident");
    plan(&thief, &pavel, id).await;
    let outcome = run(&thief, &pavel, id).await;
    assert!(outcome.waits[0].contains("is an owner"), "a fleet operator shuts no owner out: {outcome:?}");
    // The first owner does; `owner` of the scratch is the thief here.
    let olga = thief.fleet.operator_list(&second, Default::default()).await.unwrap().items;
    let olga = olga.into_iter().find(|one| one.name == "olga").unwrap();
    let olga = Principal::new(olga.id.to_string(), olga.name, Role::Owner, [], kf_api::operator::Credential::Token);
    let outcome = run(&thief, &olga, id).await;
    let operators = thief.fleet.operator_list(&olga, Default::default()).await.unwrap().items;
    let enabled = |name: &str| operators.iter().any(|one| one.name == name && one.enabled);
    assert!(!enabled("olaf") && !enabled("mallory") && enabled("olga") && enabled("pavel"), "{outcome:?}");
    let mallory = SecretBytes::from_vec(token.into_bytes());
    assert!(matches!(thief.fleet.authenticate_token(&mallory).await, Err(FleetError::Unauthenticated)));
    let refused = thief.enrol_with("b-2", &code, &fresh_csr()).await;
    assert!(refused.is_err(), "the thief's code");
    let shown = thief.fleet.incident_show(&olga, id).await.unwrap().plan.unwrap();
    let hand = shown.steps.iter().find(|step| step.step.control == StepControl::Hand).unwrap();
    assert!(hand.step.what.contains("device.resume"), "{}", hand.step.what);
}

#[tokio::test]
async fn issuance_stops_for_one_facility_and_goes_on_for_the_others() {
    let (scratch, identities) = two_plants(|_| {}).await;
    let lena = scratch.operator("lena", Role::FacilityOperator, &["plant-a"]).await;
    let switch = |run, facility: Option<&str>| IssuanceSwitch {
        run,
        why: "look into it".into(),
        facility: facility.map(str::to_owned),
    };
    let fleet = scratch.fleet.issuance_switch(&lena, switch(false, None)).await;
    assert!(matches!(fleet, Err(FleetError::Denied(_))), "{fleet:?}");
    let other = scratch.fleet.issuance_switch(&lena, switch(false, Some("plant-b"))).await;
    assert!(matches!(other, Err(FleetError::NotFound(_))), "{other:?}");
    scratch.fleet.issuance_switch(&lena, switch(false, Some("plant-a"))).await.unwrap();
    let renew = |identity: usize| {
        let (scratch, identity) = (&scratch, &identities[identity]);
        async move { scratch.renew(identity, &fresh_csr()).await }
    };
    assert!(matches!(renew(0).await, Err(FleetError::IssuanceStopped(why)) if why == "look into it"));
    renew(2).await.unwrap();
    scratch.fleet.issuance_switch(&lena, switch(true, Some("plant-a"))).await.unwrap();
    renew(0).await.unwrap();
}

#[tokio::test]
async fn a_report_has_a_timeline_whose_every_entry_is_proved_against_a_signed_checkpoint() {
    let (scratch, _) = two_plants(|_| {}).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let id = open(&scratch, &scratch.owner, &[facility("plant-a")]).await.id;
    let made = plan(&scratch, &scratch.owner, id).await;
    approve(&scratch, &pavel, id, &made).await.unwrap();
    run(&scratch, &scratch.owner, id).await;
    let report = scratch.fleet.incident_report(&scratch.owner, id).await.unwrap();
    let verifier = kf_log::VerifierKey::from_text(&scratch.fleet.audit_verifier_key()).unwrap();
    let checkpoint = kf_log::Checkpoint::open(&report.checkpoint, &verifier).unwrap();
    assert_eq!(checkpoint.size, report.tree_size);
    let octets = |text: &str| <[u8; 32]>::try_from(hex::decode(text).unwrap()).unwrap();
    for entry in &report.timeline {
        let proof: Vec<_> = entry.proof.iter().map(|hash| octets(hash)).collect();
        let (leaf, size) = (entry.leaf.as_bytes(), report.tree_size);
        assert_eq!(kf_log::hash::leaf_hash(leaf), octets(&entry.leaf_sha256));
        kf_log::proof::verify_inclusion(leaf, entry.index, size, &checkpoint.root, &proof).unwrap();
    }
    let acts: Vec<_> = report.timeline.iter().map(|entry| entry.act.as_str()).collect();
    for act in [
        "incident.open",
        "incident.plan",
        "incident.approve",
        "issuance.stop",
        "device.suspend",
        "certificate.revoke",
        "epoch.advance",
    ] {
        assert!(acts.contains(&act), "{act} is missing: {acts:?}");
    }
    assert_eq!(report.duties[0].due, Some(report.incident.opened.plus(UnixMillis::DAY)));
    assert!(report.duties[2].due.is_some(), "what a run does is done");
}

/// A future that is dropped when it is woken after so many polls. Each poll of a run ends in a write that waits for the registry,
/// and what wakes it is that this write is durable: so the run is cut short right after its k-th durable write, and before the next one is
/// sent.
struct CutShort<F> {
    inner: Pin<Box<F>>,
    polls: u32,
    limit: u32,
}

impl<F: Future> Future for CutShort<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == self.limit {
            return Poll::Ready(None);
        }
        self.polls += 1;
        self.inner.as_mut().poll(context).map(Some)
    }
}

/// What must not depend on where a run was cut short.
async fn outcome_of(scratch: &Scratch, id: IncidentId) -> Vec<String> {
    let mut state = state_of(scratch, "plant-a").await;
    state.extend(state_of(scratch, "plant-b").await);
    // Serial numbers and times differ from fleet to fleet.
    for line in &mut state {
        if line.len() > 40 {
            *line = line.split(' ').next_back().unwrap().to_owned();
        }
    }
    state.sort();
    let plan = scratch.fleet.incident_show(&scratch.owner, id).await.unwrap().plan.unwrap();
    state.extend(plan.steps.iter().map(|step| format!("{} {:?}", step.step.number, step.state)));
    state
}

#[tokio::test]
async fn a_run_that_is_cut_short_after_any_durable_write_goes_on_and_ends_the_same() {
    let mut expected = None;
    let mut cuts = 0;
    for limit in 1.. {
        let (scratch, _) = two_plants(|_| {}).await;
        let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
        scratch.operator("lena", Role::FacilityOperator, &["plant-a"]).await;
        let request = TokenRequest { operator: "lena".into(), lifetime_days: None };
        scratch.fleet.token_create(&scratch.owner, request).await.unwrap();
        let id = open(&scratch, &scratch.owner, &[facility("plant-a")]).await.id;
        let made = plan(&scratch, &scratch.owner, id).await;
        approve(&scratch, &pavel, id, &made).await.unwrap();
        let whole = {
            let run = scratch.fleet.incident_run(&scratch.owner, id, RunRequest::default());
            CutShort { inner: Box::pin(run), polls: 0, limit }.await
        };
        let ended = whole.is_some();
        let scratch = scratch.reopen().await;
        let outcome = run(&scratch, &scratch.owner, id).await;
        assert!(outcome.finished, "cut {limit}: {outcome:?}");
        let entries = scratch.fleet.incident_report(&scratch.owner, id).await.unwrap().timeline;
        let outcomes =
            entries.iter().filter(|entry| entry.act == "incident.step" && entry.leaf.contains(r#""phase":"outcome""#));
        let steps = made.steps.iter().filter(|step| step.step.control != StepControl::Hand).count();
        assert_eq!(outcomes.count(), steps, "cut {limit}: each step has one outcome");
        let advanced = scratch.fleet.epoch_list(&scratch.owner, "plant-a").await.unwrap();
        assert_eq!(advanced.len(), 2, "cut {limit}: one new epoch, not two");
        let state = outcome_of(&scratch, id).await;
        assert_eq!(*expected.get_or_insert_with(|| state.clone()), state, "cut {limit}");
        if ended {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 20, "only {cuts} durable writes were cut after");
}

#[tokio::test]
async fn a_leaked_token_is_dealt_with_by_certificate_alone_and_its_incident_revokes_nobody() {
    let (scratch, _) = two_plants(|_| {}).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let request = TokenRequest { operator: "pavel".into(), lifetime_days: None };
    let token = scratch.fleet.token_create(&scratch.owner, request).await.unwrap();
    let id = open(&scratch, &scratch.owner, &[IncidentSubject::Token(token.id)]).await.id;
    let own = scratch.fleet.incident_plan(&pavel, id, PlanRequest::default()).await;
    assert_eq!(field_of(&own.unwrap_err()), "incident");
    let by_certificate = Principal { credential: kf_api::operator::Credential::Certificate, ..pavel.clone() };
    let made = plan(&scratch, &by_certificate, id).await;
    assert!(!made.steps.iter().any(|step| matches!(step.step.step, StepAct::DisableOperator { .. })));
    let outcome = run(&scratch, &by_certificate, id).await;
    assert!(outcome.finished, "{outcome:?}");
    let text = SecretBytes::from_vec(token.token.expose().as_bytes().to_vec());
    assert!(matches!(scratch.fleet.authenticate_token(&text).await, Err(FleetError::Unauthenticated)));
    assert_eq!(states(&scratch, "plant-a").await, [DeviceState::Active; 2]);
}

#[tokio::test]
async fn a_leaked_token_is_charged_with_what_was_done_by_it_and_not_by_another_of_the_same_person() {
    let (scratch, _) = two_plants(|_| {}).await;
    scratch.operator("pavel", Role::Owner, &[]).await;
    let mut tokens = Vec::new();
    for facility in ["plant-c", "plant-d"] {
        let request = TokenRequest { operator: "pavel".into(), lifetime_days: None };
        let token = scratch.fleet.token_create(&scratch.owner, request).await.unwrap();
        let text = SecretBytes::from_vec(token.token.expose().as_bytes().to_vec());
        let who = scratch.fleet.authenticate_token(&text).await.unwrap();
        let new = kf_api::facility::NewFacility { name: facility.into(), description: String::new() };
        scratch.fleet.facility_create(&who, new).await.unwrap();
        tokens.push(token.id);
    }
    let id = open(&scratch, &scratch.owner, &[IncidentSubject::Token(tokens[1])]).await.id;
    let acts = scratch.fleet.incident_show(&scratch.owner, id).await.unwrap().radius.acts;
    assert_eq!((acts[0].entries, acts[0].first.len()), (1, 1));
    assert_eq!(acts[0].first[0].entry["detail"]["name"], "plant-d");
    assert_eq!(acts[0].first[0].entry["who"]["token"], tokens[1].to_string());
    // The log is searched by a token as by anything else.
    let query = kf_api::audit::AuditFilter { subject: Some(tokens[0].to_string()), ..Default::default() };
    let found = scratch.fleet.audit_list(&scratch.owner, query).await.unwrap().items;
    let acts: Vec<_> = found.iter().map(|record| record.entry["act"].as_str().unwrap()).collect();
    assert_eq!(acts, ["token.create", "facility.create"]);
}

/// Runs as far as it goes, hands included; what is left.
async fn run_out(scratch: &Scratch, second: &Principal, id: IncidentId) -> u64 {
    let made = plan(scratch, &scratch.owner, id).await;
    assert!(!made.steps.is_empty());
    let stopped = run(scratch, &scratch.owner, id).await;
    let is_stop = |step: &kf_api::incident::StepStanding| step.step.phase == StepPhase::Stop;
    assert!(stopped.done.iter().all(is_stop), "what is permanent waits: {stopped:?}");
    let made = plan(scratch, &scratch.owner, id).await;
    approve(scratch, second, id, &made).await.unwrap();
    let mut left = u64::MAX;
    // Each round does what is not by hand, then records the hands that it waits for.
    for _ in 0..20 {
        let outcome = run(scratch, &scratch.owner, id).await;
        let standing = scratch.fleet.incident_show(&scratch.owner, id).await.unwrap().plan.unwrap();
        let by_hand: Vec<u32> = standing
            .steps
            .iter()
            .filter(|standing| standing.state == StepState::Hand)
            .map(|standing| standing.step.number)
            .take(1)
            .collect();
        left = outcome.left;
        if left == 0 || by_hand.is_empty() {
            break;
        }
        let request = RunRequest { by_hand, why: "done by hand".into(), at_most: None };
        left = scratch.fleet.incident_run(&scratch.owner, id, request).await.unwrap().left;
    }
    left
}

#[tokio::test]
async fn every_kind_of_subject_is_planned_stopped_by_one_settled_by_two_and_reported() {
    for kind in ["device", "key", "batch", "station", "facility", "authority", "operator", "token"] {
        let (scratch, identities) = two_plants(|_| {}).await;
        let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
        scratch.operator("ines", Role::FacilityOperator, &["plant-a"]).await;
        crate::batch::station::Station::new(&scratch, "line-1", "plant-a").await;
        let request = TokenRequest { operator: "ines".into(), lifetime_days: None };
        let token = scratch.fleet.token_create(&scratch.owner, request).await.unwrap().id;
        let shown = scratch.fleet.certificate_show(&scratch.owner, identities[0].serial).await.unwrap();
        let subject = match kind {
            "device" => IncidentSubject::Device("a-1".into()),
            "key" => IncidentSubject::Key(shown.certificate.spki_sha256),
            "batch" => IncidentSubject::Batch("batch-1".into()),
            "station" => IncidentSubject::Station("line-1".into()),
            "facility" => facility("plant-a"),
            "authority" => IncidentSubject::Authority("issuing".into()),
            "operator" => IncidentSubject::Operator("ines".into()),
            _ => IncidentSubject::Token(token),
        };
        let id = open(&scratch, &scratch.owner, &[subject]).await.id;
        let left = run_out(&scratch, &pavel, id).await;
        assert_eq!(left, 0, "{kind}");
        let closing = IncidentClosing { verdict: Verdict::Recovered, why: "done".into() };
        scratch.fleet.incident_close(&scratch.owner, id, closing).await.unwrap();
        let report = scratch.fleet.incident_report(&scratch.owner, id).await.unwrap();
        assert!(report.timeline.len() >= 4 && report.duties.len() == 3, "{kind}");
        assert!(report.duties.iter().all(|duty| duty.due.is_some()), "{kind}: {:?}", report.duties);
        let status = async |index: usize| {
            let serial = identities[index].serial;
            scratch.fleet.certificate_show(&scratch.owner, serial).await.unwrap().certificate.status
        };
        let hit = [status(0).await, status(2).await].map(|status| status == CertificateStatus::Revoked);
        let expected = match kind {
            "device" | "key" | "facility" => [true, false],
            "batch" | "authority" => [true, true],
            _ => [false, false],
        };
        assert_eq!(hit, expected, "{kind}: a-1 and b-1");
    }
}

#[tokio::test]
async fn what_is_no_incident_names_the_field_and_what_to_do() {
    let (scratch, _) = two_plants(|_| {}).await;
    let field = |new: NewIncident| {
        let fleet = &scratch.fleet;
        let owner = &scratch.owner;
        async move { field_of(&fleet.incident_open(owner, new).await.unwrap_err()).to_owned() }
    };
    assert_eq!(field(on(&[])).await, "subjects");
    assert_eq!(field(on(&vec![facility("plant-a"); 17])).await, "subjects");
    assert_eq!(field(on(&[IncidentSubject::Key("xyz".into())])).await, "key");
    assert_eq!(field(on(&[IncidentSubject::Station("olga".into())])).await, "station");
    let future = scratch.clock_now().plus(UnixMillis::HOUR);
    assert_eq!(field(NewIncident { since: Some(future), ..on(&[facility("plant-a")]) }).await, "since");
    assert_eq!(field(NewIncident { why: "x".repeat(501), ..on(&[facility("plant-a")]) }).await, "why");
    let id = open(&scratch, &scratch.owner, &[facility("plant-a")]).await.id;
    let unplanned = scratch.fleet.incident_run(&scratch.owner, id, RunRequest::default()).await;
    assert_eq!(field_of(&unplanned.unwrap_err()), "plan");
    let closing = IncidentClosing { verdict: Verdict::FalseAlarm, why: String::new() };
    let silent = scratch.fleet.incident_close(&scratch.owner, id, closing).await;
    assert_eq!(field_of(&silent.unwrap_err()), "why");
}
