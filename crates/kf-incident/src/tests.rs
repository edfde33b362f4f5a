use std::collections::BTreeMap;

use kf_api::batch::{Batch, BatchState};
use kf_api::facility::Facility;
use kf_api::incident::{
    Approval, FacilityHit, Hit, Incident, IncidentReport, IncidentState, Plan, PlanStep, StepAct, StepControl,
    StepPhase, StepStanding, StepState, SubjectHit,
};
use kf_api::operator::{Operator, Role};
use kf_key::{BatchId, FacilityId, IncidentId, OperatorId, ProductLineId, ProposalId, SerialNumber, UnixMillis};
use proptest::prelude::*;

use super::*;

const NOW: UnixMillis = UnixMillis(1_793_491_200_000);
const HERE: FacilityId = FacilityId::from_bytes([1; 16]);
const THERE: FacilityId = FacilityId::from_bytes([2; 16]);

fn facility(id: FacilityId, name: &str) -> Facility {
    Facility { id, name: name.into(), description: String::new(), created: UnixMillis(0) }
}

fn set(devices: u64) -> DeviceSet {
    let hit = FacilityHit { facility: HERE, name: "here".into(), devices, of_devices: devices };
    DeviceSet { devices, certificates: devices, facilities: vec![hit], ..DeviceSet::default() }
}

fn operator(number: u8, role: Role, facilities: &[FacilityId]) -> Operator {
    Operator {
        id: OperatorId::from_bytes([number; 16]),
        name: format!("o{number}"),
        role,
        facilities: facilities.to_vec(),
        enabled: true,
        voucher_key_pem: None,
        created: UnixMillis(0),
    }
}

fn batch(number: u8, elsewhere: u64) -> BatchFacts {
    let batch = Batch {
        id: BatchId::from_bytes([number; 16]),
        name: format!("b{number}"),
        facility: HERE,
        product_line: ProductLineId::from_bytes([0; 16]),
        station: OperatorId::from_bytes([200; 16]),
        sequence: 1,
        recipe_sha256: String::new(),
        devices: 10,
        first_name: "a".into(),
        last_name: "z".into(),
        allows_unsafe: false,
        allows_early_enrolment: false,
        authority_serial: SerialNumber::from_parts(NOW, [0; 16]),
        issued: NOW.minus(UnixMillis::DAY),
        expires: NOW,
        state: BatchState::Open,
        ended: None,
    };
    let mut set = set(10 - elsewhere);
    set.devices = 10;
    if elsewhere > 0 {
        let hit = FacilityHit { facility: THERE, name: "there".into(), devices: elsewhere, of_devices: 50 };
        set.facilities.push(hit);
    }
    BatchFacts { batch, set, elsewhere }
}

fn facility_facts(operators: Vec<Operator>, batches: Vec<BatchFacts>, devices: u64) -> Facts {
    let hit = FacilityFacts {
        facility: facility(HERE, "here"),
        set: set(devices),
        epochs: Vec::new(),
        epoch: 3,
        operators,
        batches,
        departed: 0,
    };
    facts(vec![HitFacts::Facility(Box::new(hit))])
}

fn facts(hits: Vec<HitFacts>) -> Facts {
    Facts {
        now: NOW,
        since: NOW.minus(3 * UnixMillis::DAY),
        octets_per_second: Some(20),
        freshness: UnixMillis::DAY,
        fleet_devices: 1_000,
        fleet_facilities: 2,
        hits,
    }
}

fn incident() -> Incident {
    Incident {
        id: IncidentId::from_bytes([9; 16]),
        state: IncidentState::Open,
        subjects: vec![SubjectHit {
            hit: Hit::Facility(HERE),
            name: "here".into(),
            facility: Some(HERE),
            epoch: Some(3),
        }],
        facility: Some(HERE),
        since: NOW.minus(3 * UnixMillis::DAY),
        opened: NOW,
        opened_by: "op".into(),
        opened_by_name: "olga".into(),
        octets_per_second: None,
        why: "theft".into(),
        plan_sha256: None,
        closed: None,
        verdict: None,
        closing: None,
    }
}

/// Everything that a step touches lies at `HERE` and nowhere else.
fn stays_here(step: &PlanStep, operators: &[Operator], batches: &[BatchFacts]) -> Result<(), TestCaseError> {
    prop_assert_eq!(step.facility, Some(HERE), "{:?}", step);
    let only_here = |id: &OperatorId| operators.iter().any(|one| one.id == *id && one.facilities == [HERE]);
    let whole = |id: &BatchId| batches.iter().any(|one| one.batch.id == *id && one.elsewhere == 0);
    let fine = match &step.step {
        StepAct::StopFacilityIssuance { facility }
        | StepAct::SuspendFacility { facility }
        | StepAct::RevokeFacility { facility }
        | StepAct::AdvanceFacilityEpoch { facility, .. }
        | StepAct::StartFacilityIssuance { facility } => *facility == HERE,
        StepAct::CutSessions { facility } => *facility == Some(HERE),
        StepAct::DisableOperator { operator }
        | StepAct::WithdrawTokens { operator, .. }
        | StepAct::CancelProposals { operator } => only_here(operator),
        StepAct::CancelBatch { batch } => whole(batch),
        StepAct::ByHand { .. } => true,
        _ => false,
    };
    prop_assert!(fine, "{:?}", step);
    Ok(())
}

proptest! {
    #[test]
    fn the_plan_of_one_facility_names_nothing_of_another(
        scopes in proptest::collection::vec((any::<bool>(), any::<bool>(), 0..3_usize), 0..12),
        elsewhere in proptest::collection::vec(0..10_u64, 0..6),
        devices in 0..1_000_000_u64,
    ) {
        let roles = [Role::FacilityOperator, Role::Station, Role::Relay];
        let operators: Vec<Operator> = (10_u8..).zip(&scopes).filter_map(|(number, (here, there, role))| {
            let scope: Vec<_> = [(*here, HERE), (*there, THERE)].into_iter().filter(|(is, _)| *is).map(|(_, id)| id).collect();
            (!scope.is_empty()).then(|| operator(number, roles[*role], &scope))
        }).collect();
        let batches: Vec<_> = (50_u8..).zip(&elsewhere).map(|(number, elsewhere)| batch(number, *elsewhere)).collect();
        // What the store gives are operators in whose scope the facility is.
        let there: Vec<_> = operators.iter().filter(|one| one.facilities.contains(&HERE)).cloned().collect();
        let facts = facility_facts(there, batches.clone(), devices);
        let plan = plan(&incident(), &facts, &Rates::default());
        for step in &plan.steps {
            stays_here(step, &operators, &batches)?;
        }
        let radius = blast_radius(&facts);
        prop_assert!(radius.facilities.iter().all(|hit| hit.facility == HERE));
        prop_assert_eq!(radius.devices, devices);
    }

    #[test]
    fn a_plan_stops_before_it_settles_and_settles_before_it_recovers(elsewhere in 0..10_u64) {
        let facts = facility_facts(vec![operator(10, Role::Station, &[HERE])], vec![batch(50, elsewhere)], 12);
        let steps = plan(&incident(), &facts, &Rates::default()).steps;
        prop_assert!(steps.windows(2).all(|pair| pair[0].phase <= pair[1].phase));
        for (number, step) in (1..).zip(&steps) {
            prop_assert_eq!(step.number, number);
            let permanent = step.phase != StepPhase::Stop && !matches!(step.step, StepAct::ByHand { .. });
            prop_assert_eq!(permanent, step.control == StepControl::Two, "{:?}", step);
        }
    }
}

#[test]
fn what_is_agreed_to_is_the_steps_and_not_the_estimates() {
    let made = |devices, rates: &Rates| {
        let facts = facility_facts(Vec::new(), Vec::new(), devices);
        let plan = plan(&incident(), &facts, rates);
        plan_sha256(&incident(), &plan)
    };
    let slow = Rates { devices_per_second: 1, measured: true };
    assert_eq!(made(10, &Rates::default()), made(10, &slow));
    assert_ne!(made(10, &slow), made(11, &slow), "one more device is another plan");
    let facts = facility_facts(Vec::new(), Vec::new(), 10);
    let plan = plan(&incident(), &facts, &slow);
    let wider = Incident { since: UnixMillis(0), ..incident() };
    assert_ne!(plan_sha256(&incident(), &plan), plan_sha256(&wider, &plan));
    let closed = Incident { plan_sha256: Some("x".into()), closed: Some(NOW), ..incident() };
    assert_eq!(plan_sha256(&incident(), &plan), plan_sha256(&closed, &plan));
    let fewer = Plan { steps: plan.steps[1..].to_vec(), ..plan.clone() };
    assert_ne!(plan_sha256(&incident(), &plan), plan_sha256(&incident(), &fewer));
}

fn standings(plan: Plan) -> Vec<StepStanding> {
    plan.steps
        .into_iter()
        .map(|step| StepStanding {
            state: if step.control == StepControl::Hand { StepState::Hand } else { StepState::Waiting },
            step,
            outcome: None,
            begun: None,
            ended: None,
            log_index: None,
        })
        .collect()
}

/// Runs until it waits; the numbers of the steps in the order in which they were done.
fn ran(steps: &mut [StepStanding], permission: &Permission, blocked: &[(u32, String)]) -> (Vec<u32>, Next) {
    let mut order = Vec::new();
    loop {
        match next(steps, permission, blocked) {
            Next::Do(number) => {
                let step = steps.iter_mut().find(|one| one.step.number == number).expect("a step of the plan");
                assert_ne!(step.state, StepState::Done, "step {number} twice");
                step.state = StepState::Done;
                order.push(number);
            }
            other => return (order, other),
        }
    }
}

#[test]
fn stopping_waits_for_nobody_and_permanence_for_agreement() {
    let facts = facility_facts(vec![operator(10, Role::Station, &[HERE])], vec![batch(50, 0)], 12);
    let mut steps = standings(plan(&incident(), &facts, &Rates::default()));
    let stops = steps.iter().filter(|one| one.step.phase == StepPhase::Stop).count();
    let (order, waits) = ran(&mut steps, &Permission::Missing("two".into()), &[]);
    assert_eq!(order.len(), stops);
    assert_eq!(waits, Next::Waits(vec!["two".into()]));
    let (more, end) = ran(&mut steps, &Permission::Given, &[]);
    assert_eq!(end, Next::Finished);
    assert!(order.iter().chain(&more).is_sorted());
    assert!(steps.iter().all(|one| matches!(one.state, StepState::Done | StepState::Hand)));
}

#[test]
fn a_stop_out_of_reach_holds_up_no_other_stop_but_everything_permanent() {
    let facts = facility_facts(vec![operator(10, Role::Station, &[HERE])], Vec::new(), 12);
    let mut steps = standings(plan(&incident(), &facts, &Rates::default()));
    let stops = steps.iter().filter(|one| one.step.phase == StepPhase::Stop).count();
    let (order, waits) = ran(&mut steps, &Permission::Given, &[(1, "an owner".into())]);
    assert_eq!(order.len(), stops - 1);
    assert_eq!(waits, Next::Waits(vec!["step 1: an owner".into()]));
}

#[test]
fn an_approval_counts_for_its_plan_its_time_and_not_from_who_made_it() {
    let (maker, other) = (OperatorId::from_bytes([1; 16]), OperatorId::from_bytes([2; 16]));
    let approval = |operator, plan: &str| Approval {
        operator,
        name: "n".into(),
        break_glass: None,
        plan_sha256: plan.into(),
        at: NOW,
        expires: NOW.plus(UnixMillis::DAY),
        why: String::new(),
    };
    let given = |approvals: &[Approval], now| permission("p", maker, approvals, None, now) == Permission::Given;
    let behind_glass = Approval { break_glass: Some(ProposalId::from_bytes([3; 16])), ..approval(maker, "p") };
    assert!(given(std::slice::from_ref(&behind_glass), NOW.plus(1)), "that is what it is broken for");
    assert!(!given(&[Approval { plan_sha256: "q".into(), ..behind_glass }], NOW.plus(1)));
    assert!(given(&[approval(other, "p")], NOW.plus(1)));
    assert!(!given(&[approval(maker, "p")], NOW.plus(1)), "the maker's own");
    assert!(!given(&[approval(other, "q")], NOW.plus(1)), "another plan's");
    assert!(!given(&[approval(other, "p")], NOW.plus(UnixMillis::DAY + 1)), "expired");
    assert!(!given(&[approval(other, "p")], NOW.minus(1)), "before it was given: the clock went back");
    assert!(!given(&[], NOW));
    let delayed = |now| permission("p", maker, &[], Some(NOW), now);
    assert_eq!(delayed(NOW), Permission::Given);
    assert!(matches!(delayed(NOW.minus(1)), Permission::Missing(_)));
}

#[test]
fn a_stolen_facility_says_what_stays_safe_and_why() {
    let radius = blast_radius(&facility_facts(Vec::new(), Vec::new(), 12));
    assert!(radius.safe.iter().any(|safe| safe.what.contains("988 other devices")), "{:?}", radius.safe);
    assert!(radius.safe.iter().all(|safe| !safe.why.is_empty()));
    let exposed = radius.keys.iter().map(|keys| keys.class.as_str()).collect::<Vec<_>>();
    assert_eq!(exposed, ["ldevid-key"]);
}

#[test]
fn data_windows_are_those_of_the_exposure_arithmetic() {
    let mut facts = facility_facts(Vec::new(), Vec::new(), 12);
    if let HitFacts::Facility(hit) = &mut facts.hits[0] {
        hit.epochs = vec![kf_api::epoch::FacilityEpoch {
            facility: HERE,
            epoch: 3,
            state: kf_api::epoch::EpochState::Current,
            created: NOW.minus(30 * UnixMillis::DAY),
            retired: None,
            devices: 12,
        }];
    }
    let radius = blast_radius(&facts);
    let window = radius.windows.iter().find(|window| window.what.contains("epoch 3")).expect("of the epoch");
    // T = 30 d, M = 3 d: 15 + 3 - 9/60 days; at worst all of it, 12 devices at 20 octets a second.
    assert_eq!(window.worst_millis, 30 * UnixMillis::DAY);
    assert_eq!(window.expected_millis, 17 * UnixMillis::DAY + UnixMillis::DAY * 85 / 100);
    assert_eq!(window.worst_octets, Some(30 * 86_400 * 12 * 20));
}

#[test]
fn a_report_is_readable_and_what_came_from_people_stays_text() {
    let report = IncidentReport {
        fleet: "F".into(),
        at: NOW,
        incident: Incident { why: "<script>|`x`\n# head".into(), ..incident() },
        radius: blast_radius(&facility_facts(Vec::new(), Vec::new(), 12)),
        plan: None,
        timeline: Vec::new(),
        checkpoint: "note".into(),
        tree_size: 7,
        duties: duties(NOW, None),
        single_control: false,
    };
    let text = markdown(&report, |moment| moment.0.to_string());
    assert!(text.contains("&lt;script>\\|\\`x\\` \\# head"), "{text}");
    for part in ["## Duties", "| 24h |", "| 72h |", "| 14d | when a corrective", "### What stays safe", "## Timeline"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let due: Vec<_> = duties(NOW, Some(NOW)).into_iter().map(|duty| duty.due.expect("known").0 - NOW.0).collect();
    assert_eq!(due, [UnixMillis::DAY, 3 * UnixMillis::DAY, 14 * UnixMillis::DAY]);
}

#[test]
fn what_a_leaked_credential_made_is_undone_and_what_else_it_did_is_looked_at() {
    let act = |index, act: &str, subjects: &[&str]| Act {
        index,
        act: act.into(),
        subjects: subjects.iter().map(|text| (*text).to_owned()).collect(),
    };
    let id = |prefix: &str, digit: &str| format!("{prefix}{}", digit.repeat(32));
    let (code, made, token) = (id("code_", "a"), id("op_", "b"), id("tok_", "c"));
    let acts = vec![
        act(1, "code.create", &[&code]),
        act(2, "operator.create", &[&made]),
        act(3, "token.create", &[&token, &made]),
        act(4, "device.resume", &[&id("dev_", "d")]),
        act(5, "certificate.hold", &[]),
    ];
    let credential = CredentialFacts {
        operator: operator(7, Role::Owner, &[]),
        only: None,
        tokens: Vec::new(),
        certificates: Vec::new(),
        scope_devices: 10,
        scope: Vec::new(),
        entries: 5,
        by_act: BTreeMap::new(),
        first: Vec::new(),
        issued: Vec::new(),
        acts,
    };
    let facts = facts(vec![HitFacts::Credential(Box::new(credential))]);
    let steps = plan(&incident(), &facts, &Rates::default()).steps;
    let has = |wanted: &dyn Fn(&StepAct) -> bool| steps.iter().any(|step| wanted(&step.step));
    assert!(has(&|step| matches!(step, StepAct::WithdrawCodes { codes } if codes[0].to_string() == code)));
    assert!(has(&|step| matches!(step, StepAct::DisableOperator { operator } if operator.to_string() == made)));
    assert!(has(&|step| matches!(step, StepAct::WithdrawTokens { token: Some(one), .. } if one.to_string() == token)));
    let hand: Vec<_> = steps.iter().filter(|step| step.control == StepControl::Hand).collect();
    assert_eq!(hand.len(), 1, "{hand:?}");
    assert!(hand[0].what.contains("1 × device.resume") && !hand[0].what.contains("hold"), "{}", hand[0].what);
}
