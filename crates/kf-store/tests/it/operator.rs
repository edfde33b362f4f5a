//! Operators, tokens, proposals, intents, facts, product lines: what is small and must be exact.

use kf_access::Visibility;
use kf_api::PageRequest;
use kf_api::operator::{Operator, Role, Token};
use kf_api::product_line::{Approval, EnrolmentPolicy};
use kf_api::proposal::{Proposal, ProposalState, ProposedAct};
use kf_api::revocation::RevocationTarget;
use kf_key::{
    CertificateProfile, DeviceState, IntentId, OperatorId, ProposalId, RevocationReason, TokenId, UnixMillis,
};
use kf_store::StoreError;
use kf_store::certificate::{KeyHolder, StatusAnswer};
use kf_store::intent::Intent;
use kf_store::proposal::ProposalChange;

use crate::fixture::{
    NOW, authority_id, certificate, done, facility_id, fleet, issuance, line_id, only, random, serial,
};

fn operator(number: u64) -> Operator {
    Operator {
        id: OperatorId::from_parts(NOW.plus(number), random(number)),
        name: format!("operator-{number}"),
        role: Role::FacilityOperator,
        facilities: vec![facility_id(1), facility_id(2)],
        enabled: true,
        voucher_key_pem: None,
        created: NOW,
    }
}

#[tokio::test]
async fn an_operator_is_found_by_id_name_certificate_and_token() {
    let store = fleet().await;
    store.insert_operator(operator(1), done()).await.unwrap();
    assert_eq!(store.operator(operator(1).id).unwrap(), Some(operator(1)));
    assert_eq!(store.operator_by_name("operator-1").unwrap(), Some(operator(1)));
    let mut issued = issuance(certificate(5, None), DeviceState::Active);
    issued.certificate.operator = Some(operator(1).id);
    issued.certificate.profile = CertificateProfile::Operator;
    store.record_issuance(issued, done()).await.unwrap();
    assert_eq!(store.operator_by_certificate(serial(5)).unwrap(), Some((operator(1), StatusAnswer::Good)));
    assert_eq!(store.operator_by_certificate(serial(6)).unwrap(), None);
    assert_eq!(store.key_standing(&random(5)).unwrap().holder, Some(KeyHolder::Operator(operator(1).id)));

    let token = Token {
        id: TokenId::from_parts(NOW, random(1)),
        operator: operator(1).id,
        created: NOW,
        expires: NOW.plus(UnixMillis::DAY),
        withdrawn: false,
    };
    store.insert_token(token.clone(), [7; 32], done()).await.unwrap();
    assert_eq!(store.token_by_hash(&[7; 32]).unwrap(), Some((token.clone(), operator(1))));
    assert_eq!(store.token_by_hash(&[8; 32]).unwrap(), None);
    store.withdraw_token(token.id, done()).await.unwrap();
    assert!(store.token(token.id).unwrap().unwrap().withdrawn);
    assert!(store.tokens_of_operator(operator(1).id).unwrap()[0].withdrawn);
    store.set_operator_enabled(operator(1).id, false, done()).await.unwrap();
    assert!(!store.token_by_hash(&[7; 32]).unwrap().unwrap().1.enabled);
    let twin = store.insert_token(Token { id: TokenId::from_parts(NOW, random(2)), ..token }, [7; 32], done()).await;
    assert_eq!(twin.unwrap_err(), StoreError::Conflict { field: "token" });
}

#[tokio::test]
async fn operators_are_listed_with_their_facilities() {
    let store = fleet().await;
    for number in 1..=5 {
        store.insert_operator(operator(number), done()).await.unwrap();
    }
    let first = store.operators(&PageRequest { after: None, limit: Some(3) }).unwrap();
    assert_eq!(first.items, [operator(1), operator(2), operator(3)]);
    let rest = store.operators(&PageRequest { after: first.next, limit: Some(3) }).unwrap();
    assert_eq!((rest.items, rest.next), (vec![operator(4), operator(5)], None));
    let mut stray = operator(6);
    stray.facilities.push(facility_id(9));
    assert_eq!(store.insert_operator(stray, done()).await.unwrap_err(), StoreError::NotFound { what: "facility" });
    assert_eq!(store.operator(operator(6).id).unwrap(), None, "nothing of it stays");
}

fn proposal(number: u64, effective: Option<UnixMillis>) -> Proposal {
    Proposal {
        id: ProposalId::from_parts(NOW.plus(number), random(number)),
        act: ProposedAct::Revoke {
            target: RevocationTarget::Batch("b".into()),
            reason: RevocationReason::KeyCompromise,
            why: "leak".into(),
        },
        devices: 20,
        certificates: 21,
        proposer: operator(1).id,
        proposer_name: "operator-1".into(),
        decided_by: None,
        created: NOW,
        expires: effective.map_or(NOW.plus(100), |effective| effective.plus(1_000)),
        effective,
        state: ProposalState::Waiting,
    }
}

#[tokio::test]
async fn exactly_one_decision_on_a_proposal_succeeds() {
    let store = fleet().await;
    store.insert_proposal(proposal(1, None), Some(facility_id(1)), done()).await.unwrap();
    let decide = |to, by| {
        let change = ProposalChange { id: proposal(1, None).id, to, by };
        store.change_proposal(change, done())
    };
    let (yes, no) = tokio::join!(
        decide(ProposalState::Done, Some(operator(2).id)),
        decide(ProposalState::Cancelled, Some(operator(3).id))
    );
    assert!(yes.is_ok() != no.is_ok(), "{yes:?} {no:?}");
    let found = store.proposal(proposal(1, None).id, &only(1)).unwrap().unwrap();
    let winner = if yes.is_ok() { operator(2).id } else { operator(3).id };
    assert_eq!(found.decided_by, Some(winner));
    assert_eq!(store.proposal(proposal(1, None).id, &only(2)).unwrap(), None);
}

#[tokio::test]
async fn only_drawn_changes_of_a_proposal_are_allowed() {
    use ProposalState::{Cancelled, Done, Expired, Failed, Waiting};
    let states = [Waiting, Done, Cancelled, Expired, Failed];
    let mut number = 0;
    for from in states {
        for to in states {
            let store = fleet().await;
            number += 1;
            let wanted = Proposal { state: from, ..proposal(number, None) };
            store.insert_proposal(wanted.clone(), None, done()).await.unwrap();
            let change = ProposalChange { id: wanted.id, to, by: None };
            let legal = from == Waiting && to != Waiting;
            assert_eq!(store.change_proposal(change, done()).await.is_ok(), legal, "{from:?} {to:?}");
        }
    }
}

#[tokio::test]
async fn due_and_lapsed_proposals_are_told_apart() {
    let store = fleet().await;
    for (number, effective) in [(1, None), (2, Some(NOW.plus(50))), (3, Some(NOW.plus(500)))] {
        store.insert_proposal(proposal(number, effective), Some(facility_id(number % 2 + 1)), done()).await.unwrap();
    }
    let ids = |found: Vec<Proposal>| found.into_iter().map(|proposal| proposal.id).collect::<Vec<_>>();
    assert_eq!(ids(store.due_proposals(NOW.plus(49)).unwrap()), []);
    assert_eq!(ids(store.due_proposals(NOW.plus(200)).unwrap()), [proposal(2, None).id]);
    assert_eq!(ids(store.lapsed_proposals(NOW.plus(100)).unwrap()), []);
    assert_eq!(ids(store.lapsed_proposals(NOW.plus(101)).unwrap()), [proposal(1, None).id]);
    // What could not be carried out for all that time lapses too.
    assert_eq!(ids(store.due_proposals(NOW.plus(1_051)).unwrap()), [proposal(3, None).id]);
    assert_eq!(ids(store.lapsed_proposals(NOW.plus(1_051)).unwrap()), [1, 2].map(|number| proposal(number, None).id));
    let all = store.proposals(None, &Visibility::Fleet, &PageRequest::default()).unwrap();
    assert_eq!(ids(all.items), [3, 2, 1].map(|number| proposal(number, None).id));
    let page = PageRequest { after: None, limit: Some(1) };
    let first = store.proposals(Some(ProposalState::Waiting), &only(2), &page).unwrap();
    let second = PageRequest { after: first.next.clone(), limit: Some(1) };
    let second = store.proposals(Some(ProposalState::Waiting), &only(2), &second).unwrap();
    assert_eq!((ids(first.items), ids(second.items)), (vec![proposal(3, None).id], vec![proposal(1, None).id]));
    assert_eq!(second.next, None);
}

#[tokio::test]
async fn an_intent_stays_open_until_its_outcome() {
    let store = fleet().await;
    let intent = |number| Intent {
        id: IntentId::from_parts(NOW.plus(number), random(number)),
        act: "key.generate".into(),
        detail: serde_json::json!({ "label": number }),
        at: NOW,
    };
    for number in [1, 2] {
        store.record_intent(intent(number), done()).await.unwrap();
    }
    assert_eq!(store.open_intents().unwrap(), [intent(1), intent(2)]);
    store.record_outcome(intent(1).id, "done".into(), done()).await.unwrap();
    assert_eq!(store.open_intents().unwrap(), [intent(2)]);
    let twice = store.record_outcome(intent(1).id, "done".into(), done()).await;
    assert!(matches!(twice, Err(StoreError::IllegalState { .. })));
    let unknown = store.record_outcome(intent(3).id, "done".into(), done()).await;
    assert_eq!(unknown.unwrap_err(), StoreError::NotFound { what: "intent" });
}

#[tokio::test]
async fn facts_and_policies_are_kept_and_logged() {
    let store = fleet().await;
    let size = store.tree().size;
    assert_eq!(store.fact("fleet.name").unwrap(), None);
    store.set_fact("fleet.name", "north".into(), done()).await.unwrap();
    store.set_fact("fleet.name", "south".into(), done()).await.unwrap();
    assert_eq!(store.fact("fleet.name").unwrap().as_deref(), Some("south"));
    assert!(store.set_fact("big", "x".repeat(70_000), done()).await.is_err());
    let policy = EnrolmentPolicy { approval: Approval::Manual, ..EnrolmentPolicy::default() };
    store.update_product_line(line_id(), Some(authority_id(1)), policy.clone(), done()).await.unwrap();
    let line = store.product_line_by_name("meter").unwrap().unwrap();
    assert_eq!((line.policy, line.authority), (policy.clone(), Some(authority_id(1))));
    assert_eq!(store.product_line(line_id()).unwrap().unwrap().name, "meter");
    assert_eq!(store.product_lines(&PageRequest::default()).unwrap().items.len(), 1);
    let stray = store.update_product_line(line_id(), Some(authority_id(9)), policy, done()).await;
    assert_eq!(stray.unwrap_err(), StoreError::NotFound { what: "authority" });
    assert_eq!(store.tree().size, size + 3);
}
