//! Break-glass: made by two, opened by one, aloud, for an hour, for what stops and recovers, and reviewed by two.

use std::path::Path;

use base64::Engine as _;
use kf_access::Action;
use kf_age::Identity;
use kf_api::access::AccessQuestion;
use kf_api::break_glass::{BreakGlass, BreakGlassOpening, BreakGlassState, NewBreakGlass};
use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_api::incident::{ApprovalRequest, IncidentSubject, NewIncident, PlanRequest, RunRequest};
use kf_api::operator::{Credential, NewOperator, Role};
use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_api::{PageRequest, ShownOnce};
use kf_fleet::{FleetError, Principal};
use kf_key::{CertificateStatus, DeviceState, RevocationReason, SecretBytes, UnixMillis};
use kf_testkit::Tool;

use crate::crash::{SPAWNING, copied, killed_child};
use crate::destruction::approve;
use crate::rollback::copy;
use crate::scratch::{Scratch, field_of};

const MINUTE: u64 = 60 * UnixMillis::SECOND;

struct Rig {
    scratch: Scratch,
    safe: Identity,
    pavel: Principal,
    ines: Principal,
}

fn night(safe: &Identity) -> NewBreakGlass {
    NewBreakGlass {
        name: "night".into(),
        role: Role::FacilityOperator,
        facilities: vec!["plant-a".into()],
        recipient: safe.recipient().to_string(),
        session_minutes: None,
        lifetime_days: Some(30),
        why: "nights and holidays".into(),
    }
}

impl Rig {
    /// A credential for plant-a that two people made, two devices there and one elsewhere, all in service.
    async fn new() -> Self {
        let scratch = Scratch::with(|config| config.dual_control_above = 1).await;
        let safe = Identity::generate();
        let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
        let ines = scratch.operator("ines", Role::FacilityOperator, &["plant-b"]).await;
        for (name, place) in [("a-1", "plant-a"), ("a-2", "plant-a"), ("b-1", "plant-b")] {
            scratch.device_at(name, place, "thermo").await;
            scratch.enrol(name).await;
        }
        let made = scratch.fleet.break_glass_create(&scratch.owner, night(&safe)).await.unwrap();
        approve(&scratch, &pavel, made.proposal).await.unwrap();
        Self { scratch, safe, pavel, ines }
    }

    /// What the safe's identity unseals.
    async fn secret(&self) -> String {
        secret(&self.scratch, &self.safe, &self.pavel).await
    }

    async fn open(&self) -> Result<Principal, FleetError> {
        let opening = BreakGlassOpening { secret: ShownOnce::new(self.secret().await), why: "nobody answers".into() };
        let session = self.scratch.fleet.break_glass_open(&self.ines, opening).await?;
        // Exposed to sign in with it, as the next command does.
        let token = SecretBytes::from_vec(session.token.expose().as_bytes().to_vec());
        self.scratch.fleet.authenticate_token(&token).await
    }

    async fn shown(&self) -> BreakGlass {
        self.scratch.fleet.break_glass_show(&self.pavel, "night").await.unwrap()
    }

    async fn state(&self) -> BreakGlassState {
        self.shown().await.state.unwrap()
    }
}

async fn secret(scratch: &Scratch, safe: &Identity, who: &Principal) -> String {
    let sealed = scratch.fleet.break_glass_sealed(who, "night").await.unwrap().sealed;
    let sealed = base64::engine::general_purpose::STANDARD.decode(sealed).unwrap();
    let opened = kf_age::open_secret(&[safe], &sealed, 4_096).unwrap();
    String::from_utf8(opened.expose().to_vec()).unwrap()
}

async fn warnings(scratch: &Scratch) -> Vec<String> {
    let status = scratch.fleet.status(&scratch.owner).await.unwrap();
    status.warnings.into_iter().filter(|warning| warning.starts_with("break-glass")).collect()
}

fn suspend() -> DeviceActRequest {
    DeviceActRequest { act: DeviceAct::Suspend, why: "stop".into(), departure: Default::default(), dry_run: false }
}

fn revoke_site(facility: &str) -> RevokeRequest {
    RevokeRequest {
        target: RevocationTarget::Facility(facility.into()),
        reason: RevocationReason::KeyCompromise,
        why: "thieves at the site".into(),
        verify: false,
        dry_run: false,
    }
}

#[tokio::test]
async fn one_person_stops_and_revokes_a_whole_site_and_nothing_elsewhere_and_everybody_sees_it() {
    let rig = Rig::new().await;
    let fleet = &rig.scratch.fleet;
    assert!(warnings(&rig.scratch).await.is_empty() && rig.state().await == BreakGlassState::Sealed);
    // Alone, ines has nothing at plant-a, and nobody revokes a site alone.
    assert!(matches!(fleet.device_act(&rig.ines, "a-1", suspend()).await, Err(FleetError::NotFound(_))));
    let session = rig.open().await.unwrap();
    assert_eq!((session.name.as_str(), session.credential), ("ines", Credential::BreakGlass));
    assert_eq!(rig.state().await, BreakGlassState::Open);
    let [warning] = warnings(&rig.scratch).await.try_into().unwrap();
    assert!(warning.contains("opened by ines (nobody answers) and is open until"), "{warning}");
    fleet.device_act(&session, "a-1", suspend()).await.unwrap();
    assert!(matches!(fleet.device_act(&session, "b-1", suspend()).await, Err(FleetError::NotFound(_))));
    let done = fleet.revoke(&session, revoke_site("plant-a")).await.unwrap();
    assert!(done.done && done.certificates == 2, "at a scale that takes two otherwise: {done:?}");
    assert!(matches!(fleet.revoke(&session, revoke_site("plant-b")).await, Err(FleetError::NotFound(_))));
    let elsewhere = fleet.device_show(&rig.scratch.owner, "b-1").await.unwrap();
    assert_eq!(elsewhere.certificates[0].status, CertificateStatus::Good);
    // Each act says by what it was done.
    let id = rig.shown().await.id.to_string();
    let filter = kf_api::audit::AuditFilter { subject: Some(id.clone()), after: None, limit: None };
    let entries = fleet.audit_list(&rig.scratch.owner, filter).await.unwrap().items;
    for act in ["break-glass.create", "break-glass.open", "device.suspend", "certificate.revoke"] {
        assert!(entries.iter().any(|entry| entry.entry["act"] == act), "{act}");
    }
    let by_session = entries.iter().filter(|entry| entry.entry["who"]["by"] == "break-glass");
    assert!(by_session.clone().count() == 2 && by_session.clone().all(|one| one.entry["detail"]["break_glass"] == id));
}

#[tokio::test]
async fn no_role_scope_or_act_comes_out_of_it_that_was_not_agreed_to() {
    let rig = Rig::new().await;
    let (fleet, scratch) = (&rig.scratch.fleet, &rig.scratch);
    for (change, field) in [
        (NewBreakGlass { role: Role::Owner, facilities: Vec::new(), ..night(&rig.safe) }, "role"),
        (NewBreakGlass { facilities: Vec::new(), ..night(&rig.safe) }, "facilities"),
        (NewBreakGlass { role: Role::FleetOperator, ..night(&rig.safe) }, "facilities"),
        (NewBreakGlass { session_minutes: Some(61), ..night(&rig.safe) }, "session_minutes"),
        (NewBreakGlass { lifetime_days: Some(0), ..night(&rig.safe) }, "lifetime_days"),
        (NewBreakGlass { recipient: "age1x".into(), ..night(&rig.safe) }, "recipient"),
        (NewBreakGlass { why: " ".into(), ..night(&rig.safe) }, "why"),
        (night(&rig.safe), "name"),
    ] {
        assert_eq!(field_of(&fleet.break_glass_create(&scratch.owner, change).await.unwrap_err()), field);
    }
    assert!(matches!(fleet.break_glass_create(&rig.ines, night(&rig.safe)).await, Err(FleetError::Denied(_))));
    let another = NewBreakGlass { name: "day".into(), ..night(&rig.safe) };
    let asked = fleet.break_glass_create(&scratch.owner, another).await.unwrap();
    assert!(approve(scratch, &scratch.owner, asked.proposal).await.is_err(), "nobody makes one alone");
    let session = rig.open().await.unwrap();
    for action in Action::ALL.iter().filter(|action| !action.in_break_glass()) {
        let target = kf_access::Target::Visible;
        assert!(kf_access::authorize(&session, *action, target).is_err(), "{action:?}");
    }
    let denied =
        |outcome: Result<(), FleetError>| assert!(matches!(outcome, Err(FleetError::Denied(_))), "{outcome:?}");
    denied(approve(scratch, &session, asked.proposal).await);
    denied(
        fleet.break_glass_create(&session, NewBreakGlass { name: "more".into(), ..night(&rig.safe) }).await.map(drop),
    );
    let new = NewOperator { name: "eve".into(), role: Role::Owner, facilities: Vec::new(), voucher_key_pem: None };
    denied(fleet.operator_create(&session, new).await.map(drop));
    let resume = DeviceActRequest { act: DeviceAct::Resume, ..suspend() };
    fleet.device_act(&session, "a-1", suspend()).await.unwrap();
    denied(fleet.device_act(&session, "a-1", resume).await.map(drop));
    denied(fleet.break_glass_review(&session, "night", "fine".into()).await.map(drop));
}

#[tokio::test]
async fn it_opens_once_and_ends_by_itself_and_nothing_makes_it_longer() {
    let rig = Rig::new().await;
    let secret = rig.secret().await;
    let wrong = BreakGlassOpening { secret: ShownOnce::new(format!("kft_{}", "a".repeat(52))), why: "x".into() };
    assert!(matches!(rig.scratch.fleet.break_glass_open(&rig.ines, wrong).await, Err(FleetError::NotFound(_))));
    let silent = BreakGlassOpening { secret: ShownOnce::new(secret.clone()), why: " ".into() };
    assert_eq!(field_of(&rig.scratch.fleet.break_glass_open(&rig.ines, silent).await.unwrap_err()), "why");
    // The secret itself signs in to nothing.
    let as_token = SecretBytes::from_vec(secret.clone().into_bytes());
    assert!(rig.scratch.fleet.authenticate_token(&as_token).await.is_err());
    let opening = || BreakGlassOpening { secret: ShownOnce::new(secret.clone()), why: "nobody answers".into() };
    let session = rig.scratch.fleet.break_glass_open(&rig.ines, opening()).await.unwrap();
    let token = SecretBytes::from_vec(session.token.expose().as_bytes().to_vec());
    assert!(rig.scratch.fleet.authenticate_token(&token).await.is_ok());
    let again = rig.scratch.fleet.break_glass_open(&rig.pavel, opening()).await.unwrap_err();
    assert_eq!(field_of(&again), "secret");
    rig.scratch.pass(60 * MINUTE + 1);
    assert!(rig.scratch.fleet.authenticate_token(&token).await.is_err(), "whether a turn has come or not");
    rig.scratch.fleet.turn().await;
    let used = rig.shown().await.used.unwrap();
    assert!(used.ended.is_some() && rig.state().await == BreakGlassState::Unreviewed);
    assert!(rig.scratch.fleet.break_glass_open(&rig.ines, opening()).await.is_err());
    // One that is too old opens nothing.
    let other = Rig::new().await;
    other.scratch.pass(31 * UnixMillis::DAY);
    assert_eq!(other.state().await, BreakGlassState::Void);
    assert_eq!(field_of(&other.open().await.unwrap_err()), "secret");
}

#[tokio::test]
async fn it_stays_in_every_status_until_two_others_have_reviewed_it() {
    let rig = Rig::new().await;
    let fleet = &rig.scratch.fleet;
    rig.open().await.unwrap();
    let early = fleet.break_glass_review(&rig.pavel, "night", "fine".into()).await.unwrap_err();
    assert!(early.to_string().contains("still open"), "{early}");
    fleet.break_glass_end(&rig.pavel, "night", "back at my desk".into()).await.unwrap();
    assert!(warnings(&rig.scratch).await[0].contains("waits for 2 reviews"));
    let berta = rig.scratch.operator("berta", Role::FacilityOperator, &["plant-a"]).await;
    let stranger = rig.scratch.operator("stranger", Role::FacilityOperator, &["plant-b"]).await;
    assert!(matches!(fleet.break_glass_review(&stranger, "night", "x".into()).await, Err(FleetError::NotFound(_))));
    assert_eq!(field_of(&fleet.break_glass_review(&berta, "night", " ".into()).await.unwrap_err()), "why");
    fleet.break_glass_review(&berta, "night", "right".into()).await.unwrap();
    assert!(fleet.break_glass_review(&berta, "night", "right".into()).await.is_err(), "one person counts once");
    assert!(warnings(&rig.scratch).await[0].contains("waits for 1 reviews"));
    // Who opened it has a role that reviews, and does not count.
    let opener = Principal { scope: rig.pavel.scope.clone(), role: Role::FleetOperator, ..rig.ines.clone() };
    assert!(fleet.break_glass_review(&opener, "night", "fine".into()).await.is_err());
    let done = fleet.break_glass_review(&rig.pavel, "night", "right".into()).await.unwrap();
    assert_eq!(done.state, Some(BreakGlassState::Reviewed));
    assert!(warnings(&rig.scratch).await.is_empty());
}

#[tokio::test]
async fn one_person_runs_an_incident_to_its_end_behind_broken_glass() {
    let rig = Rig::new().await;
    let fleet = &rig.scratch.fleet;
    let session = rig.open().await.unwrap();
    let new = NewIncident {
        subjects: vec![IncidentSubject::Facility("plant-a".into())],
        since: None,
        octets_per_second: None,
        why: "break-in".into(),
        dry_run: false,
    };
    let opened = fleet.incident_open(&session, new).await.unwrap();
    let id = opened.incident.unwrap().id;
    let plan = fleet.incident_plan(&session, id, PlanRequest::default()).await.unwrap();
    let approval = ApprovalRequest { plan_sha256: plan.plan_sha256, why: "nobody answers".into() };
    let standing = fleet.incident_approve(&session, id, approval).await.unwrap();
    assert_eq!(standing.approvals[0].break_glass, Some(rig.shown().await.id), "and it says so");
    loop {
        let outcome = fleet.incident_run(&session, id, RunRequest::default()).await.unwrap();
        if !outcome.more {
            break;
        }
    }
    let shown = fleet.device_show(&rig.scratch.owner, "a-1").await.unwrap();
    assert_eq!(shown.certificates[0].status, CertificateStatus::Revoked);
    let elsewhere = fleet.device_show(&rig.scratch.owner, "b-1").await.unwrap();
    assert_eq!(elsewhere.device.state, DeviceState::Active);
}

#[tokio::test]
async fn access_explain_names_the_glass_that_would_open_and_what_it_would_not() {
    let rig = Rig::new().await;
    let ask = |action: &str, facility: &str| AccessQuestion {
        who: "ines".into(),
        action: action.into(),
        facility: Some(facility.into()),
    };
    let fleet = &rig.scratch.fleet;
    let answer = fleet.access_explain(&rig.scratch.owner, ask("certificate.revoke", "plant-a")).await.unwrap();
    assert_eq!((answer.allowed, answer.break_glass), (false, vec!["night, for 60 minutes".to_owned()]));
    for (action, facility) in
        [("key.destroy", "plant-a"), ("certificate.revoke", "plant-b"), ("device.resume", "plant-a")]
    {
        let answer = fleet.access_explain(&rig.scratch.owner, ask(action, facility)).await.unwrap();
        assert!(answer.break_glass.is_empty(), "{action} at {facility}");
    }
    rig.open().await.unwrap();
    let answer = fleet.access_explain(&rig.scratch.owner, ask("certificate.revoke", "plant-a")).await.unwrap();
    assert!(answer.break_glass.is_empty(), "it was used");
}

#[tokio::test]
async fn the_program_of_the_operator_is_called_and_again_at_each_start_until_it_is_reviewed() {
    let directory = tempfile::tempdir().unwrap();
    let (program, told) = (directory.path().join("alarm"), directory.path().join("told"));
    // A pipe: reading it waits for the program, and for nothing else.
    let turn = SPAWNING.write().await;
    drop(Tool::new("mkfifo").run(&[told.to_str().unwrap()]).expect_success());
    drop(turn);
    std::fs::write(&program, format!("#!/bin/sh\necho \"$@\" > {}\n", told.display())).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let called = async || {
        let told = told.clone();
        tokio::task::spawn_blocking(move || std::fs::read_to_string(told).unwrap()).await.unwrap()
    };
    let Rig { scratch, safe, pavel, ines } = Rig::new().await;
    let secret = secret(&scratch, &safe, &pavel).await;
    let scratch = scratch.configured(|config| config.alarm_command = Some(program)).await;
    let opening = BreakGlassOpening { secret: ShownOnce::new(secret), why: "nobody answers".into() };
    let turn = SPAWNING.write().await;
    scratch.fleet.break_glass_open(&ines, opening).await.unwrap();
    let text = called().await;
    drop(turn);
    assert!(text.starts_with("break-glass.open night prop_") && text.trim().ends_with(" ines"), "{text}");
    let (_scratch, again) = scratch.reopen_alone(called).await;
    assert_eq!(again, text, "a start raises it again");
}

#[tokio::test]
async fn a_registry_of_before_does_not_seal_again_what_was_opened() {
    let rig = Rig::new().await;
    let secret = rig.secret().await;
    let Rig { scratch, pavel, ines, .. } = rig;
    scratch.fleet.close().await;
    let (data, old) = (scratch.dir.path().join("data"), scratch.dir.path().join("old"));
    copy(&data, &old);
    let scratch = scratch.reopen().await;
    let opening = || BreakGlassOpening { secret: ShownOnce::new(secret.clone()), why: "nobody answers".into() };
    scratch.fleet.break_glass_open(&ines, opening()).await.unwrap();
    scratch.fleet.turn().await;
    scratch.fleet.close().await;
    std::fs::remove_dir_all(&data).unwrap();
    copy(&old, &data);
    let scratch = scratch.reopen().await;
    let found = scratch.fleet.break_glass_show(&pavel, "night").await.unwrap();
    assert_eq!(found.state, Some(BreakGlassState::Void));
    assert_eq!(field_of(&scratch.fleet.break_glass_open(&ines, opening()).await.unwrap_err()), "secret");
}

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_BREAK_GLASS_CHILD";

#[tokio::test]
async fn a_crash_at_any_durable_step_of_opening_leaves_it_sealed_or_used_and_never_usable_twice() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let directory = Path::new(&directory);
        let (fleet, ..) = Scratch::open_in(directory).await.unwrap();
        let secret = std::fs::read_to_string(directory.join("secret")).unwrap();
        let id = std::fs::read_to_string(directory.join("ines")).unwrap();
        let facility = fleet.facility_show(&Principal::server(), "plant-b").await.unwrap().id;
        let ines = Principal::new(id, "ines".into(), Role::FacilityOperator, [facility], Credential::Token);
        let opening = BreakGlassOpening { secret: ShownOnce::new(secret), why: "nobody answers".into() };
        fleet.break_glass_open(&ines, opening).await.unwrap();
        return;
    }
    let rig = Rig::new().await;
    let secret = rig.secret().await;
    let Rig { scratch, ines, .. } = rig;
    let closed = scratch.closed().await;
    std::fs::write(closed.path().join("secret"), &secret).unwrap();
    std::fs::write(closed.path().join("ines"), &ines.id).unwrap();
    let test = "break_glass::a_crash_at_any_durable_step_of_opening_leaves_it_sealed_or_used_and_never_usable_twice";
    let (mut crashes, mut used) = (0, 0);
    for when in 1..100 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        let page = PageRequest::default();
        let [found] = survivor.fleet.break_glass_list(&survivor.owner, page).await.unwrap().items.try_into().unwrap();
        let opening = BreakGlassOpening { secret: ShownOnce::new(secret.clone()), why: "again".into() };
        let outcome = survivor.fleet.break_glass_open(&ines, opening).await;
        match found.state.unwrap() {
            BreakGlassState::Sealed => assert!(outcome.is_ok(), "crash {when}: {outcome:?}"),
            _ => {
                used += 1;
                assert!(outcome.is_err(), "crash {when}");
                assert_eq!(
                    warnings(&survivor).await.len(),
                    1,
                    "crash {when}: a use that nobody acknowledged is loud too"
                );
            }
        }
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((4..90).contains(&crashes) && used >= 1, "{crashes} crashes, {used} times used");
}
