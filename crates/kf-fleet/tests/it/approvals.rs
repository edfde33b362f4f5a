use std::path::Path;

use kf_api::authority::AuthorityKind;
use kf_api::operator::Role;
use kf_api::proposal::{ProposalDecision, ProposalState};
use kf_api::revocation::{RevocationTarget, RevokeOutcome, RevokeRequest};
use kf_fleet::{FleetError, Principal};
use kf_key::{AuthorityId, CertificateStatus, ProposalId, RevocationReason, UnixMillis};

use crate::crash::{copied, killed_child};
use crate::scratch::Scratch;

/// The directory that a child works in.
const CHILD: &str = "KF_APPROVALS_CHILD";

const YES: fn() -> ProposalDecision = || ProposalDecision { approve: true, why: "agreed".into() };
const NO: fn() -> ProposalDecision = || ProposalDecision { approve: false, why: "mistake".into() };

async fn scratch(single_control: bool) -> Scratch {
    let scratch = Scratch::with(|config| {
        config.dual_control_above = 1;
        config.single_control = single_control;
    })
    .await;
    for name in ["thermo-1", "thermo-2"] {
        scratch.device(name).await;
        scratch.enrol(name).await;
    }
    scratch
}

async fn revoke_all(scratch: &Scratch, who: &Principal, reason: RevocationReason) -> RevokeOutcome {
    let target = RevocationTarget::Facility("plant-a".into());
    let request = RevokeRequest { target, reason, why: "theft".into(), verify: false, dry_run: false };
    scratch.fleet.revoke(who, request).await.unwrap()
}

async fn revoked(scratch: &Scratch) -> usize {
    let page = scratch.fleet.certificate_list(&scratch.owner, Default::default()).await.unwrap();
    page.items.iter().filter(|certificate| certificate.status == CertificateStatus::Revoked).count()
}

#[tokio::test]
async fn one_person_holds_a_whole_facility_at_once() {
    let scratch = scratch(false).await;
    let outcome = revoke_all(&scratch, &scratch.owner, RevocationReason::CertificateHold).await;
    assert!(outcome.done);
    assert_eq!(outcome.certificates, 2);
}

#[tokio::test]
async fn a_permanent_act_at_scale_waits_for_a_second_person() {
    let scratch = scratch(false).await;
    let outcome = revoke_all(&scratch, &scratch.owner, RevocationReason::KeyCompromise).await;
    assert!(!outcome.done);
    assert_eq!(revoked(&scratch).await, 0);
    let id = outcome.proposal.unwrap();
    let own = scratch.fleet.proposal_decide(&scratch.owner, id, YES()).await;
    assert!(matches!(own, Err(FleetError::Conflict { .. })), "{own:?}");
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let done = scratch.fleet.proposal_decide(&second, id, YES()).await.unwrap();
    assert_eq!(done.state, ProposalState::Done);
    assert_eq!(revoked(&scratch).await, 2);
    let twice = scratch.fleet.proposal_decide(&second, id, YES()).await;
    assert!(matches!(twice, Err(FleetError::Conflict { .. })), "{twice:?}");
}

#[tokio::test]
async fn a_second_person_needs_the_scope_for_the_act() {
    let scratch = scratch(false).await;
    let id = revoke_all(&scratch, &scratch.owner, RevocationReason::KeyCompromise).await.proposal.unwrap();
    let stranger = scratch.operator("boris", Role::FacilityOperator, &["plant-b"]).await;
    let outcome = scratch.fleet.proposal_decide(&stranger, id, YES()).await;
    assert!(matches!(outcome, Err(FleetError::NotFound(_))), "{outcome:?}");
    let auditor = scratch.operator("anna", Role::Auditor, &[]).await;
    let outcome = scratch.fleet.proposal_decide(&auditor, id, YES()).await;
    assert!(matches!(outcome, Err(FleetError::Denied(_))), "{outcome:?}");
    let local = scratch.operator("lena", Role::FacilityOperator, &["plant-a"]).await;
    scratch.fleet.proposal_decide(&local, id, YES()).await.unwrap();
    assert_eq!(revoked(&scratch).await, 2);
}

#[tokio::test]
async fn a_cancelled_or_lapsed_proposal_is_never_carried_out() {
    let scratch = scratch(false).await;
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let id = revoke_all(&scratch, &scratch.owner, RevocationReason::KeyCompromise).await.proposal.unwrap();
    scratch.fleet.proposal_decide(&scratch.owner, id, NO()).await.unwrap();
    assert!(scratch.fleet.proposal_decide(&second, id, YES()).await.is_err());
    let id = revoke_all(&scratch, &scratch.owner, RevocationReason::KeyCompromise).await.proposal.unwrap();
    scratch.pass(8 * UnixMillis::DAY);
    scratch.fleet.turn().await;
    assert!(scratch.fleet.proposal_decide(&second, id, YES()).await.is_err());
    let lapsed = scratch.fleet.proposal_show(&scratch.owner, id).await.unwrap();
    assert_eq!(lapsed.state, ProposalState::Expired);
    assert_eq!(revoked(&scratch).await, 0);
}

#[tokio::test]
async fn single_control_waits_a_day_and_the_evidence_says_so() {
    let scratch = scratch(true).await;
    let outcome = revoke_all(&scratch, &scratch.owner, RevocationReason::KeyCompromise).await;
    let id = outcome.proposal.unwrap();
    scratch.pass(23 * UnixMillis::HOUR);
    scratch.fleet.turn().await;
    assert_eq!(revoked(&scratch).await, 0);
    scratch.pass(2 * UnixMillis::HOUR);
    scratch.fleet.turn().await;
    assert_eq!(revoked(&scratch).await, 2);
    assert_eq!(scratch.fleet.proposal_show(&scratch.owner, id).await.unwrap().state, ProposalState::Done);
    let page = scratch.fleet.audit_list(&scratch.owner, Default::default()).await.unwrap();
    let revocation = page.items.iter().find(|record| record.entry["act"] == "certificate.revoke").unwrap();
    assert_eq!(revocation.entry["detail"]["control"], "single");
}

#[tokio::test]
async fn a_delayed_act_can_be_cancelled_until_its_delay_is_over() {
    let scratch = scratch(true).await;
    let id = revoke_all(&scratch, &scratch.owner, RevocationReason::KeyCompromise).await.proposal.unwrap();
    scratch.fleet.proposal_decide(&scratch.owner, id, NO()).await.unwrap();
    scratch.pass(2 * UnixMillis::DAY);
    scratch.fleet.turn().await;
    assert_eq!(revoked(&scratch).await, 0);
}

#[tokio::test]
async fn a_move_between_facilities_waits_for_a_second_person() {
    let scratch = scratch(false).await;
    let outcome = scratch
        .fleet
        .device_move(&scratch.owner, "thermo-1", "plant-b", "sent to the other site".into())
        .await
        .unwrap();
    let id = outcome.proposal.unwrap();
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    scratch.fleet.proposal_decide(&second, id, YES()).await.unwrap();
    let local = scratch.operator("boris", Role::FacilityOperator, &["plant-b"]).await;
    assert!(scratch.fleet.device_show(&local, "thermo-1").await.is_ok());
}

#[tokio::test]
async fn a_batch_that_spans_facilities_is_revoked_by_two_people_and_held_by_one() {
    let scratch = Scratch::new().await;
    for (name, facility) in [("here-1", "plant-a"), ("there-1", "plant-b")] {
        scratch.device_at(name, facility, "thermo").await;
        scratch.enrol(name).await;
    }
    let request = |reason| RevokeRequest {
        target: RevocationTarget::Batch("batch-1".into()),
        reason,
        why: "bad solder".into(),
        verify: false,
        dry_run: false,
    };
    let held = scratch.fleet.revoke(&scratch.owner, request(RevocationReason::CertificateHold)).await.unwrap();
    assert!(held.done);
    let waiting = scratch.fleet.revoke(&scratch.owner, request(RevocationReason::KeyCompromise)).await.unwrap();
    assert!(waiting.proposal.is_some());
    assert_eq!(revoked(&scratch).await, 0);
}

/// Approves everything that waits, oldest first, as the second person whose id lies beside the fleet.
async fn approve_all(directory: &Path) {
    let (fleet, _, owner, _) = Scratch::open_in(directory).await.unwrap();
    let id = std::fs::read_to_string(directory.join("second")).unwrap();
    let second = Principal::new(id, "pavel".into(), Role::FleetOperator, [], kf_api::operator::Credential::Token);
    let mut waiting = fleet.proposal_list(&owner, Default::default()).await.unwrap().items;
    waiting.retain(|proposal| proposal.state == ProposalState::Waiting);
    waiting.reverse();
    for proposal in waiting {
        fleet.proposal_decide(&second, proposal.id, YES()).await.unwrap();
    }
    fleet.close().await;
}

#[tokio::test]
async fn a_crash_at_any_durable_step_of_an_approval_leaves_decision_and_act_or_neither() {
    if let Some(directory) = std::env::var_os(CHILD) {
        approve_all(Path::new(&directory)).await;
        return;
    }
    let scratch = scratch(false).await;
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let moved = scratch.fleet.device_move(&scratch.owner, "thermo-1", "plant-b", "sent there".into()).await.unwrap();
    // Proposals of one millisecond have no order.
    scratch.pass(1);
    let authorities = scratch.fleet.authority_list(&scratch.owner, Default::default()).await.unwrap().items;
    let issuing = authorities.into_iter().find(|authority| authority.kind == AuthorityKind::Issuing).unwrap().id;
    let request = RevokeRequest {
        target: RevocationTarget::Authority(issuing.to_string()),
        reason: RevocationReason::CaCompromise,
        why: "its key was copied".into(),
        verify: false,
        dry_run: false,
    };
    let revoked = scratch.fleet.revoke(&scratch.owner, request).await.unwrap();
    let (moved, killed) = (moved.proposal.unwrap(), revoked.proposal.unwrap());
    let closed = scratch.closed().await;
    std::fs::write(closed.path().join("second"), &second.id).unwrap();
    let test = "approvals::a_crash_at_any_durable_step_of_an_approval_leaves_decision_and_act_or_neither";
    let mut seen = std::collections::BTreeSet::new();
    for when in 1..200 {
        let directory = copied(closed.path());
        let was_killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        let stands = whole(&survivor, moved, killed, issuing).await;
        seen.insert(stands);
        if !was_killed {
            assert_eq!(stands, (true, true));
            break;
        }
        // Whoever got no answer approves once more.
        let directory = survivor.closed().await;
        approve_all(directory.path()).await;
        let survivor = Scratch::at(directory).await;
        assert_eq!(whole(&survivor, moved, killed, issuing).await, (true, true), "crash {when}");
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(false, false), (true, false), (true, true)]);
}

/// Whether the move and the revocation of a CA are decided; each must be so if and only if it was done, once.
async fn whole(scratch: &Scratch, moved: ProposalId, killed: ProposalId, issuing: AuthorityId) -> (bool, bool) {
    let fleet = &scratch.fleet;
    let mut decided = Vec::new();
    for id in [moved, killed] {
        decided.push(fleet.proposal_show(&scratch.owner, id).await.unwrap().state == ProposalState::Done);
    }
    let entries = fleet.audit_list(&scratch.owner, Default::default()).await.unwrap().items;
    let count = |act: &str| entries.iter().filter(|record| record.entry["act"] == act).count();
    let device = fleet.device_show(&scratch.owner, "thermo-1").await.unwrap().device;
    let there = fleet.facility_show(&scratch.owner, "plant-b").await.unwrap().id;
    assert_eq!((device.facility == there, count("device.move")), (decided[0], usize::from(decided[0])));
    let authority = fleet.authority_show(&scratch.owner, &issuing.to_string()).await.unwrap();
    assert_eq!(authority.status == CertificateStatus::Revoked, decided[1]);
    assert_eq!(count("certificate.revoke"), usize::from(decided[1]));
    let certificates = fleet.certificate_list(&scratch.owner, Default::default()).await.unwrap().items;
    let of_devices = certificates.iter().filter(|certificate| certificate.device.is_some());
    let dead = of_devices.filter(|certificate| certificate.status == CertificateStatus::Revoked).count();
    assert_eq!(dead, if decided[1] { 2 } else { 0 });
    assert_eq!(count("proposal.approve"), decided.iter().filter(|decided| **decided).count());
    (decided[0], decided[1])
}
