//! A successor that is withdrawn before it takes over: what it leaves, what stands in its way, and a server that is killed at any
//! durable step.

use std::path::Path;

use kf_api::campaign::{CampaignAct, CampaignActRequest, CampaignKind, CampaignPlan, NewCampaign};
use kf_api::operator::Role;
use kf_api::proposal::ProposalDecision;
use kf_api::succession::{NewSuccession, SuccessionAct, SuccessionActRequest, SuccessionOutcome};
use kf_fleet::{Fleet, FleetError, Knows, Principal, TlsClient};
use kf_key::{CertificateStatus, SuccessionState, UnixMillis};
use kf_log::AuditEntry;
use kf_pki::crl::CrlScope;
use kf_pki::succession::remaining;
use kf_store::StoreError;
use kf_store::succession::Withdrawal;

use crate::authority_destruction::destroyed;
use crate::campaign::new;
use crate::crash::{copied, killed_child};
use crate::scratch::{HERE, Scratch};
use crate::succession::{act, default_of, der, enrolled, logged, named, offered, prove, request, status, succeed};

async fn withdraw(scratch: &Scratch, authority: &str) -> Result<SuccessionOutcome, FleetError> {
    act(scratch, authority, SuccessionAct::Withdraw).await
}

async fn start_asking(scratch: &Scratch) {
    let plan = CampaignPlan { canary: 10, jitter_seconds: 0, ..CampaignPlan::default() };
    scratch
        .fleet
        .campaign_create(&scratch.owner, NewCampaign { plan, ..new(CampaignKind::TrustAnchor) })
        .await
        .unwrap();
    assert!(campaign(scratch, CampaignAct::Start).await);
    for _ in 0..5 {
        scratch.pass(2 * UnixMillis::SECOND);
        scratch.fleet.turn().await;
    }
}

async fn campaign(scratch: &Scratch, act: CampaignAct) -> bool {
    let request = CampaignActRequest { act, allow_empty: false, why: "test".into(), dry_run: false };
    scratch.fleet.campaign_act(&scratch.owner, "keys", request).await.unwrap().done
}

#[tokio::test]
async fn a_prepared_root_is_withdrawn_with_all_that_is_below_it_and_the_old_one_goes_on_and_is_succeeded_anew() {
    let scratch = Scratch::new().await;
    let identity = enrolled(&scratch, "thermo-1").await;
    let (root, issuing) = (named(&scratch, "root").await, named(&scratch, "issuing").await);
    let link = succeed(&scratch, "root").await.succession.succession.new_with_old_pem.unwrap();
    let link = kf_pki::pem::decode_all("CERTIFICATE", &link).unwrap().remove(0);
    let new_root = named(&scratch, "root-2").await;
    // The server shows itself below the new root to whoever names it: that is nothing that keeps it.
    let proving = scratch.fleet.identity_plans().pop().unwrap();
    scratch.fleet.identity_of(&proving).await.unwrap();
    let below = withdraw(&scratch, "issuing").await.unwrap_err();
    assert!(below.to_string().contains("root above its successor"), "{below}");
    let lena = scratch.operator("lena", Role::FacilityOperator, &["plant-a"]).await;
    let denied = scratch.fleet.succession_act(&lena, "root", request(SuccessionAct::Withdraw)).await;
    assert!(matches!(denied, Err(FleetError::Denied(_))), "{denied:?}");
    let dry = SuccessionActRequest { dry_run: true, ..request(SuccessionAct::Withdraw) };
    let looked = scratch.fleet.succession_act(&scratch.owner, "root", dry).await.unwrap();
    assert_eq!((looked.done, looked.succession.succession.state), (false, SuccessionState::Prepared));

    let done = withdraw(&scratch, "root-2").await.unwrap();
    let (succession, log_index) = (done.succession.succession, done.log_index);
    assert!(done.done && log_index.is_some() && succession.withdrawn.is_some());
    assert_eq!((succession.state, succession.predecessor_name.as_str()), (SuccessionState::Withdrawn, "root"));
    let scratch = scratch.reopen().await;
    assert_eq!(offered(&scratch).await, [der(&root), der(&issuing)], "as if it had not been");
    let kept = [der(&root), der(&new_root)];
    assert_eq!(remaining(&kept, &offered(&scratch).await), Some(vec![der(&root)]), "devices let go of it");
    let [old, gone] = kept.map(|der| hex::encode_upper(kf_crypto::sha256(&der)));
    let device = scratch.client(&identity);
    let told = async |held: String| {
        let knows = Knows { roots: Some(&held), ..Knows::default() };
        let news = scratch.fleet.device_news(TlsClient::with_certificate(&device, HERE), knows).await.unwrap();
        assert_eq!(news.anchor, None);
        news.gone_anchor
    };
    assert_eq!(told(format!("{old} {gone}")).await, Some(gone.to_lowercase()), "with their next poll");
    assert_eq!(told(format!("{gone} {old}")).await, Some(gone.to_lowercase()));
    for keeps in [gone.clone(), old.clone(), String::new(), format!("{old} {old}"), format!("{old} nonsense {gone}0")] {
        assert_eq!(told(keeps.clone()).await, None, "{keeps}: nothing is to go, or nothing would be left");
    }
    assert_eq!(told(format!("{old} a b c {gone}")).await, None, "no device holds more than four");
    let file = std::fs::read_to_string(scratch.dir.path().join("data/root.pem")).unwrap();
    assert_eq!(kf_pki::pem::decode_all("CERTIFICATE", &file).unwrap(), [der(&root)]);
    for name in ["root-2", "issuing-2"] {
        let gone = named(&scratch, name).await;
        assert_eq!(gone.status, CertificateStatus::Revoked, "{name}");
        assert!(scratch.fleet.crl(gone.id, CrlScope::Full).await.unwrap().is_none(), "{name} issued nothing");
    }
    // The link is what would lead from the old root to a key that nobody uses: whoever verifies chains learns of its end.
    scratch.fleet.turn().await;
    let list = scratch.fleet.crl(root.id, CrlScope::Full).await.unwrap().unwrap();
    let serial = kf_pki::certificate::PresentedCertificate::from_der(&link).unwrap().serial.unwrap();
    assert!(list.der.windows(20).any(|octets| octets == serial.as_bytes()), "the link is in the old root's list");

    assert_eq!(scratch.fleet.identity_plans().len(), 1);
    assert_eq!(status(&scratch, "root-2").await.succession.state, SuccessionState::Withdrawn, "it stays to be seen");
    let none = scratch.fleet.succession_show(&scratch.owner, "root").await;
    assert!(matches!(none, Err(FleetError::NotFound("succession"))), "{none:?}");
    for step in [SuccessionAct::Switch, SuccessionAct::Withdraw] {
        let late = act(&scratch, "root-2", step).await;
        assert!(matches!(late, Err(FleetError::NotFound("succession"))), "{late:?}");
    }
    assert_eq!(logged(&scratch, "authority.withdraw").await, 1);
    enrolled(&scratch, "thermo-2").await;
    // The keys end as any CA's.
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    for name in ["issuing-2", "root-2"] {
        assert!(!destroyed(&scratch, &pavel, name).await.last_lists.is_empty(), "{name}");
        assert!(named(&scratch, name).await.key_destroyed.is_some(), "{name}");
    }
    assert_eq!(logged(&scratch, "authority.close").await, 2, "each says its last word once");
    // Another one, to the end of the way.
    let again = succeed(&scratch, "root").await.succession.succession;
    assert_eq!(again.successor_name, "root-3");
    act(&scratch, "root", SuccessionAct::Switch).await.unwrap();
    let late = withdraw(&scratch, "root").await.unwrap_err();
    assert!(late.to_string().contains("switched cannot become withdrawn"), "{late}");
    assert_eq!(named(&scratch, "issuing-3").await.issuer, Some(again.successor));
}

#[tokio::test]
async fn the_successor_of_an_issuing_authority_is_withdrawn_alone() {
    let scratch = Scratch::new().await;
    succeed(&scratch, "issuing").await;
    assert!(withdraw(&scratch, "issuing").await.unwrap().done);
    let identity = enrolled(&scratch, "thermo-1").await;
    let issuer = kf_pki::certificate::PresentedCertificate::from_der(&identity.chain[0]).unwrap().issuer;
    let subject = kf_pki::certificate::PresentedCertificate::from_der(&der(&named(&scratch, "issuing").await)).unwrap();
    assert_eq!(issuer, subject.subject);
    succeed(&scratch, "root").await;
    assert_eq!(status(&scratch, "issuing").await.succession.successor_name, "issuing-3", "it has no successor else");
}

#[tokio::test]
async fn a_root_that_devices_are_asked_to_trust_is_kept_and_one_that_they_trust_is_withdrawn_by_two_who_know_the_number()
 {
    let scratch = Scratch::new().await;
    let first = enrolled(&scratch, "thermo-1").await;
    let second = enrolled(&scratch, "thermo-2").await;
    scratch.device_at("elsewhere", "plant-b", "thermo").await;
    succeed(&scratch, "root").await;
    start_asking(&scratch).await;
    prove(&scratch, &first).await;
    let asking = withdraw(&scratch, "root").await.unwrap_err();
    assert!(asking.to_string().contains("1 campaigns ask devices"), "{asking}");
    assert!(matches!(&asking, FleetError::Conflict { remedy, .. } if remedy.contains("campaign rollback")));
    assert!(campaign(&scratch, CampaignAct::Abort).await);
    let trusting = withdraw(&scratch, "root").await.unwrap_err();
    assert!(trusting.to_string().contains("2 devices trust its successor, or were asked to"), "{trusting}");

    let although = SuccessionActRequest { although_trusted: true, ..request(SuccessionAct::Withdraw) };
    let waits = scratch.fleet.succession_act(&scratch.owner, "root", although.clone()).await.unwrap();
    assert!(!waits.done, "two people, always");
    let bert = scratch.operator("bert", Role::FleetOperator, &[]).await;
    let approve = ProposalDecision { approve: true, why: String::new() };
    // One more proves it while they think about it.
    let third = enrolled(&scratch, "thermo-3").await;
    prove(&scratch, &third).await;
    let more = scratch.fleet.proposal_decide(&bert, waits.proposal.unwrap(), approve.clone()).await.unwrap_err();
    assert!(more.to_string().contains("3 devices"), "{more}");
    assert_eq!(status(&scratch, "root").await.succession.state, SuccessionState::Prepared);
    // Counted again by the transaction, whatever was looked up before it.
    let (predecessors, at) = (vec![named(&scratch, "root").await.id], scratch.clock_now());
    let (scratch, refused) = scratch
        .edited(async |store, _signer| {
            let entry: AuditEntry = serde_json::from_slice(&store.log_entries(0..1).unwrap().remove(0)).unwrap();
            store.withdraw_successions(Withdrawal { predecessors, agreed: 2, at }, entry).await
        })
        .await;
    assert!(
        matches!(&refused, Err(StoreError::IllegalState { what: "successor", found, .. }) if found.contains("3 devices"))
    );

    let waits = scratch.fleet.succession_act(&scratch.owner, "root", although).await.unwrap();
    scratch.fleet.proposal_decide(&bert, waits.proposal.unwrap(), approve).await.unwrap();
    let found = status(&scratch, "root-2").await;
    assert_eq!((found.succession.state, found.trust.unwrap().proved), (SuccessionState::Withdrawn, 2));
    assert_eq!(scratch.news(&scratch.client(&second)).await.anchor, None);
    let key = kf_crypto::PrivateKey::generate(kf_key::KeyAlgorithm::P256).unwrap();
    crate::scratch::issued(scratch.renew(&first, &crate::scratch::csr(&key)).await.unwrap());
}

/// Makes a successor, withdraws it, and makes another; each only where it is not done.
async fn go_on(fleet: &Fleet, owner: &Principal) {
    if fleet.authority_show(owner, "root-2").await.is_err() {
        fleet.succession_create(owner, "root", NewSuccession::default()).await.unwrap();
    }
    let found = fleet.succession_show(owner, "root-2").await.unwrap().succession.state;
    if found == SuccessionState::Prepared {
        fleet.succession_act(owner, "root", request(SuccessionAct::Withdraw)).await.unwrap();
    }
    if fleet.authority_show(owner, "root-3").await.is_err() {
        fleet.succession_create(owner, "root", NewSuccession::default()).await.unwrap();
    }
    fleet.turn().await;
}

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_WITHDRAWAL_CHILD";

#[tokio::test]
async fn a_crash_at_any_durable_step_of_a_withdrawal_leaves_it_done_or_undone_and_going_on_finishes_it() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (fleet, _, owner, _) = Scratch::open_in(Path::new(&directory)).await.unwrap();
        go_on(&fleet, &owner).await;
        return;
    }
    let closed = Scratch::new().await.closed().await;
    let test =
        "withdrawal::a_crash_at_any_durable_step_of_a_withdrawal_leaves_it_done_or_undone_and_going_on_finishes_it";
    let (mut crashes, mut seen) = (0, std::collections::BTreeSet::new());
    for when in 1..400 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        let page = survivor.fleet.authority_list(&survivor.owner, Default::default()).await.unwrap();
        default_of(&page.items);
        let is_revoked = |name: &str| {
            let found = page.items.iter().find(|authority| authority.name == name);
            found.map(|authority| authority.status == CertificateStatus::Revoked)
        };
        assert_eq!(is_revoked("root-2"), is_revoked("issuing-2"), "crash {when}: both or neither");
        let withdrawn = logged(&survivor, "authority.withdraw").await;
        assert_eq!(withdrawn, usize::from(is_revoked("root-2") == Some(true)), "crash {when}");
        let before = offered(&survivor).await.len();
        assert!([2, 6].contains(&before), "crash {when}: {before} are handed out");
        seen.insert((is_revoked("root-2"), is_revoked("root-3")));
        go_on(&survivor.fleet, &survivor.owner).await;
        assert_eq!(logged(&survivor, "authority.withdraw").await, 1, "crash {when}");
        assert_eq!(offered(&survivor).await.len(), 6, "crash {when}");
        assert_eq!(status(&survivor, "root").await.succession.successor_name, "root-3", "crash {when}");
        let survivor = survivor.reopen().await;
        assert_eq!(status(&survivor, "root-2").await.succession.state, SuccessionState::Withdrawn, "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((9..390).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
    let all = [(None, None), (Some(false), None), (Some(true), None), (Some(true), Some(false))];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}
