//! What the server knows of escrows, asks for, and alarms about. Shares are in the tests of the command line.

use kf_api::escrow::{Custodian, Escrow, ShareUse, ShareUseRequest};
use kf_api::operator::Role;
use kf_api::proposal::ProposalDecision;
use kf_fleet::FleetError;
use kf_key::{ProposalId, UnixMillis};

use crate::scratch::{START, Scratch, field_of};

const CEREMONY: &str = "0011223344556677";

fn escrow() -> Escrow {
    let custodian = |index, person: &str| Custodian { index, person: person.into(), recipient: None };
    Escrow {
        v: 1,
        ceremony: CEREMONY.into(),
        name: "acme root".into(),
        class: "root".into(),
        threshold: 2,
        custodians: vec![custodian(1, "alice"), custodian(2, "bob")],
        made: START,
        rehearse_days: 30,
        reviewed_sha256: "00".repeat(32),
        replaces: None,
        replaced_by: None,
        rehearsed: None,
    }
}

async fn warnings(scratch: &Scratch) -> Vec<String> {
    let status = scratch.fleet.status(&scratch.owner).await.unwrap();
    status.warnings.into_iter().filter(|warning| warning.contains("overdue for a rehearsal")).collect()
}

async fn use_share(scratch: &Scratch, index: u8, proposal: Option<ProposalId>) -> Result<(), FleetError> {
    let request = ShareUseRequest { index, purpose: ShareUse::Release, proposal };
    scratch.fleet.escrow_use(&scratch.owner, CEREMONY, request).await
}

#[tokio::test]
async fn an_escrow_that_nobody_rehearses_alarms_until_somebody_does() {
    let scratch = Scratch::new().await;
    scratch.fleet.escrow_create(&scratch.owner, escrow()).await.unwrap();
    let twice = scratch.fleet.escrow_create(&scratch.owner, escrow()).await;
    assert!(matches!(twice, Err(FleetError::Conflict { .. })), "{twice:?}");
    assert!(warnings(&scratch).await.is_empty());
    scratch.pass(31 * UnixMillis::DAY);
    assert_eq!(warnings(&scratch).await.len(), 1);
    scratch.fleet.escrow_rehearsed(&scratch.owner, CEREMONY, "it opened".into()).await.unwrap();
    assert!(warnings(&scratch).await.is_empty());
    scratch.pass(31 * UnixMillis::DAY);
    assert_eq!(warnings(&scratch).await.len(), 1);
}

#[tokio::test]
async fn new_custodians_take_over_once_their_shares_were_shown_to_open_and_not_before() {
    const NEW: &str = "8899aabbccddeeff";
    let scratch = Scratch::new().await;
    scratch.fleet.escrow_create(&scratch.owner, escrow()).await.unwrap();
    let new = Escrow { ceremony: NEW.into(), replaces: Some(CEREMONY.into()), made: START, ..escrow() };
    let other_class = Escrow { class: "backup-key".into(), ..new.clone() };
    assert_eq!(field_of(&scratch.fleet.escrow_create(&scratch.owner, other_class).await.unwrap_err()), "replaces");
    let unknown = Escrow { replaces: Some("0".repeat(16)), ..new.clone() };
    assert!(matches!(scratch.fleet.escrow_create(&scratch.owner, unknown).await, Err(FleetError::NotFound(_))));
    // Whoever sends it does not decide that it has been replaced itself.
    let sly = Escrow { replaced_by: Some(CEREMONY.into()), ..new };
    assert_eq!(scratch.fleet.escrow_create(&scratch.owner, sly).await.unwrap().replaced_by, None);
    scratch.pass(31 * UnixMillis::DAY);
    assert_eq!(
        warnings(&scratch).await.len(),
        2,
        "the old shares count as long as the new ones were not shown to open"
    );
    scratch.fleet.escrow_rehearsed(&scratch.owner, NEW, "it opened".into()).await.unwrap();
    assert!(warnings(&scratch).await.is_empty());
    let old = scratch.fleet.escrow_list(&scratch.owner).await.unwrap().into_iter().find(|one| one.ceremony == CEREMONY);
    assert_eq!(old.unwrap().replaced_by.as_deref(), Some(NEW));
    let third = Escrow { ceremony: "1".repeat(16), replaces: Some(CEREMONY.into()), ..escrow() };
    assert_eq!(field_of(&scratch.fleet.escrow_create(&scratch.owner, third).await.unwrap_err()), "replaces");
}

#[tokio::test]
async fn a_share_is_used_for_a_release_only_under_an_approval_of_this_escrow_that_has_not_lapsed() {
    let scratch = Scratch::new().await;
    scratch.fleet.escrow_create(&scratch.owner, escrow()).await.unwrap();
    let silent = scratch.fleet.escrow_release(&scratch.owner, CEREMONY, " ".into()).await.unwrap_err();
    assert_eq!(field_of(&silent), "why");
    let asked = scratch.fleet.escrow_release(&scratch.owner, CEREMONY, "host lost".into()).await.unwrap();
    let proposal = Some(asked.proposal);
    for unapproved in [None, proposal] {
        assert!(matches!(use_share(&scratch, 1, unapproved).await, Err(FleetError::Conflict { .. })));
    }
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let yes = ProposalDecision { approve: true, why: "agreed".into() };
    assert!(scratch.fleet.proposal_decide(&scratch.owner, asked.proposal, yes.clone()).await.is_err());
    scratch.fleet.proposal_decide(&pavel, asked.proposal, yes).await.unwrap();
    let before = scratch.fleet.status(&scratch.owner).await.unwrap().log_size;
    use_share(&scratch, 1, proposal).await.unwrap();
    assert_eq!(scratch.fleet.status(&scratch.owner).await.unwrap().log_size, before + 1);
    assert!(matches!(use_share(&scratch, 3, proposal).await, Err(FleetError::NotFound(_))));
    scratch.pass(8 * UnixMillis::DAY);
    assert!(matches!(use_share(&scratch, 2, proposal).await, Err(FleetError::Conflict { .. })), "it has lapsed");
    let auditor = scratch.operator("arno", Role::Auditor, &[]).await;
    assert!(scratch.fleet.escrow_create(&auditor, escrow()).await.is_err());
    assert_eq!(scratch.fleet.escrow_list(&auditor).await.unwrap().len(), 1);
}
