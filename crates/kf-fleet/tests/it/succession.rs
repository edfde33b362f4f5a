//! One CA after another: what is handed out, who issues, what devices prove, and a server that is stopped between any two steps.

use std::path::Path;

use kf_api::PageRequest;
use kf_api::authority::{Authority, NewAuthority};
use kf_api::campaign::{CampaignAct, CampaignActRequest, CampaignFilter, CampaignKind, CampaignPlan, NewCampaign};
use kf_api::operator::Role;
use kf_api::proposal::ProposalDecision;
use kf_api::succession::{NewSuccession, SuccessionAct, SuccessionActRequest, SuccessionOutcome, SuccessionStatus};
use kf_fleet::{EstLabel, Fleet, FleetError, IdentityPlan, Principal, TlsClient};
use kf_key::{AuthorityId, KeyAlgorithm, SuccessionState, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::chain::{Currency, verify_client};
use kf_pki::crl::CrlScope;
use kf_pki::ocsp::{CertStatus, make_request, verify_response};
use kf_pki::succession::{remaining, vouched};
use kf_store::StoreError;
use kf_store::succession::SuccessionChange;

use crate::crash::{copied, killed_child};
use crate::scratch::{HERE, Identity, START, Scratch, field_of};

pub(crate) async fn succeed(scratch: &Scratch, authority: &str) -> SuccessionOutcome {
    let new = NewSuccession { why: "it ends next year".into(), ..NewSuccession::default() };
    scratch.fleet.succession_create(&scratch.owner, authority, new).await.unwrap()
}

pub(crate) fn request(act: SuccessionAct) -> SuccessionActRequest {
    SuccessionActRequest { act, strand: false, although_trusted: false, why: "test".into(), dry_run: false }
}

pub(crate) async fn act(
    scratch: &Scratch,
    authority: &str,
    act: SuccessionAct,
) -> Result<SuccessionOutcome, FleetError> {
    scratch.fleet.succession_act(&scratch.owner, authority, request(act)).await
}

pub(crate) async fn status(scratch: &Scratch, authority: &str) -> SuccessionStatus {
    scratch.fleet.succession_show(&scratch.owner, authority).await.unwrap()
}

pub(crate) async fn named(scratch: &Scratch, name: &str) -> Authority {
    scratch.fleet.authority_show(&scratch.owner, name).await.unwrap()
}

pub(crate) fn der(authority: &Authority) -> Vec<u8> {
    kf_pki::pem::decode_all("CERTIFICATE", &authority.certificate_pem).unwrap().remove(0)
}

pub(crate) async fn offered(scratch: &Scratch) -> Vec<Vec<u8>> {
    scratch.fleet.est_ca_certificates(EstLabel::Line("thermo")).await.unwrap()
}

pub(crate) async fn enrolled(scratch: &Scratch, name: &str) -> Identity {
    scratch.device(name).await;
    scratch.enrol(name).await
}

/// What a handshake would have shown of a device: a chain that the root which takes over explains alone.
pub(crate) async fn prove(scratch: &Scratch, identity: &Identity) {
    let root = proving(&scratch.fleet).only_for.unwrap().root;
    let certificate = scratch.client(identity);
    let client = TlsClient::with_certificate(&certificate, HERE);
    scratch.fleet.note_trust(&certificate, root, client).await;
}

fn proving(fleet: &Fleet) -> IdentityPlan {
    fleet.identity_plans().pop().unwrap()
}

fn issuer_of(certificate: &[u8]) -> Vec<u8> {
    PresentedCertificate::from_der(certificate).unwrap().issuer
}

fn subject_of(certificate: &[u8]) -> Vec<u8> {
    PresentedCertificate::from_der(certificate).unwrap().subject
}

/// The acts of this name in the log.
pub(crate) async fn logged(scratch: &Scratch, name: &str) -> usize {
    let filter = kf_api::audit::AuditFilter { limit: Some(1_000), ..Default::default() };
    let page = scratch.fleet.audit_list(&scratch.owner, filter).await.unwrap();
    assert!(page.next.is_none(), "more than one page");
    page.items.iter().filter(|record| record.entry["act"] == name).count()
}

#[tokio::test]
async fn a_new_root_is_handed_out_beside_the_old_one_and_issues_nothing_until_it_takes_over() {
    let scratch = Scratch::new().await;
    let (old_root, old_issuing) = (named(&scratch, "root").await, named(&scratch, "issuing").await);
    let made = succeed(&scratch, "root").await;
    assert!(made.done && made.log_index.is_some());
    let (new_root, new_issuing) = (named(&scratch, "root-2").await, named(&scratch, "issuing-2").await);
    assert_eq!((new_root.algorithm, new_root.issuer), (old_root.algorithm, None));
    assert_eq!(new_issuing.issuer, Some(new_root.id));
    assert_ne!(new_root.subject, old_root.subject, "no name stands for two keys");
    let offer = offered(&scratch).await;
    for authority in [&old_root, &new_root, &old_issuing, &new_issuing] {
        assert!(offer.contains(&der(authority)), "{}", authority.name);
    }
    assert_eq!(offer.len(), 6, "and both links (RFC 7030 section 4.1.3)");
    assert_eq!(offer[0], der(&old_root), "the root of today stands first");
    assert_eq!(vouched(&[der(&old_root)], &offer, scratch.clock_now()), [der(&new_root)]);
    let file = std::fs::read_to_string(scratch.dir.path().join("data/root.pem")).unwrap();
    assert_eq!(kf_pki::pem::decode_all("CERTIFICATE", &file).unwrap(), [der(&old_root), der(&new_root)]);

    let identity = enrolled(&scratch, "thermo-1").await;
    assert_eq!(issuer_of(&identity.chain[0]), subject_of(&der(&old_issuing)), "it issues as before");
    let [everybody, proving] = <[IdentityPlan; 2]>::try_from(scratch.fleet.identity_plans()).unwrap();
    let shown = scratch.fleet.identity_of(&everybody).await.unwrap().chain;
    assert_eq!((shown.len(), &shown[1]), (2, &der(&old_issuing)));
    let shown = scratch.fleet.identity_of(&proving).await.unwrap().chain;
    assert_eq!((shown.len(), &shown[1]), (2, &der(&new_issuing)), "nothing leads from it to the old root");
    assert_eq!(proving.only_for.unwrap().name, subject_of(&der(&new_root)));

    for (authority, why) in [("root", "a successor"), ("root-2", "waits"), ("issuing", "a successor")] {
        let again = scratch.fleet.succession_create(&scratch.owner, authority, NewSuccession::default()).await;
        assert_eq!(field_of(&again.unwrap_err()), "authority", "{authority}: {why}");
    }
    assert_eq!(field_of(&act(&scratch, "root", SuccessionAct::Retire).await.unwrap_err()), "authority", "not yet");
    let alone = act(&scratch, "issuing", SuccessionAct::Switch).await.unwrap_err();
    assert!(alone.to_string().contains("has not taken over"), "{alone}");
}

#[tokio::test]
async fn retiring_a_root_is_refused_with_the_number_of_devices_that_would_be_stranded() {
    let scratch = Scratch::new().await;
    let (first, second) = (enrolled(&scratch, "thermo-1").await, enrolled(&scratch, "thermo-2").await);
    scratch.device_at("never", "plant-b", "thermo").await;
    succeed(&scratch, "root").await;
    let trust = status(&scratch, "root").await.trust.unwrap();
    assert_eq!((trust.devices, trust.proved, trust.unproved), (3, 0, 3));
    prove(&scratch, &first).await;
    prove(&scratch, &first).await;
    let trust = status(&scratch, "root-2").await.trust.unwrap();
    assert_eq!((trust.proved, trust.unproved, trust.unproved_unheard.never), (1, 2, 1));
    assert_eq!(logged(&scratch, "trust.prove").await, 1, "the same proof twice is one");

    act(&scratch, "root", SuccessionAct::Switch).await.unwrap();
    act(&scratch, "issuing", SuccessionAct::Retire).await.unwrap();
    let refused = act(&scratch, "root", SuccessionAct::Retire).await.unwrap_err();
    assert!(refused.to_string().contains("2 devices"), "{refused}");
    let dry = SuccessionActRequest { dry_run: true, ..request(SuccessionAct::Retire) };
    assert!(!scratch.fleet.succession_act(&scratch.owner, "root", dry).await.unwrap().done);

    // Two people may leave them behind; what they agreed to is a number.
    let strand = SuccessionActRequest { strand: true, ..request(SuccessionAct::Retire) };
    let waits = scratch.fleet.succession_act(&scratch.owner, "root", strand.clone()).await.unwrap();
    assert!(!waits.done);
    let approve = ProposalDecision { approve: true, why: String::new() };
    let own = scratch.fleet.proposal_decide(&scratch.owner, waits.proposal.unwrap(), approve.clone()).await;
    assert_eq!(field_of(&own.unwrap_err()), "proposal", "nobody approves an own proposal");
    let bert = scratch.operator("bert", Role::FleetOperator, &[]).await;
    scratch.device("one-more").await;
    let more = scratch.fleet.proposal_decide(&bert, waits.proposal.unwrap(), approve.clone()).await.unwrap_err();
    assert!(more.to_string().contains("3 devices"), "{more}");
    assert_eq!(status(&scratch, "root").await.succession.state, SuccessionState::Switched);
    let waits = scratch.fleet.succession_act(&scratch.owner, "root", strand).await.unwrap();
    scratch.fleet.proposal_decide(&bert, waits.proposal.unwrap(), approve).await.unwrap();
    assert_eq!(status(&scratch, "root").await.succession.state, SuccessionState::Retired);
    // Those who were left behind stay visible, by name.
    let page = scratch.fleet.succession_unproved(&scratch.owner, "root", PageRequest::default()).await.unwrap();
    let mut names: Vec<_> = page.items.iter().map(|device| device.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["never", "one-more", "thermo-2"]);
    let anna = scratch.operator("anna", Role::FacilityOperator, &["plant-a"]).await;
    let page = scratch.fleet.succession_unproved(&anna, "root", PageRequest::default()).await.unwrap();
    assert!(page.items.iter().all(|device| device.name != "never"), "it is another facility's");
    assert!(
        scratch.fleet.succession_show(&anna, "root").await.unwrap().trust.is_none(),
        "counts are the whole fleet's"
    );
    // Their certificates are good as ever: it is they who do not find the server.
    assert_eq!(scratch.client(&second).currency, Currency::Current);
}

#[tokio::test]
async fn devices_that_come_after_the_question_are_counted_by_the_transaction_that_retires() {
    let scratch = Scratch::new().await;
    let first = enrolled(&scratch, "thermo-1").await;
    succeed(&scratch, "root").await;
    prove(&scratch, &first).await;
    act(&scratch, "root", SuccessionAct::Switch).await.unwrap();
    act(&scratch, "issuing", SuccessionAct::Retire).await.unwrap();
    let root = named(&scratch, "root").await.id;
    // Whoever asked saw nobody stranded; one comes before the commit.
    scratch.device("one-more").await;
    let retire = async |store: &kf_store::Store, agreed| {
        let entry = store.log_entries(0..1).unwrap().remove(0);
        let entry: kf_log::AuditEntry = serde_json::from_slice(&entry).unwrap();
        let (seen, to) = (SuccessionState::Switched, SuccessionState::Retired);
        let change = SuccessionChange { predecessors: vec![root], seen, to, agreed, at: START };
        let outcome = store.change_successions(change, entry).await;
        let newest = store.log_entries(store.tree().size - 1..store.tree().size).unwrap().remove(0);
        (outcome, String::from_utf8(newest).unwrap())
    };
    let (scratch, ((refused, _), (done, noted))) =
        scratch.edited(async |store, _signer| (retire(store, 0).await, retire(store, 1).await)).await;
    assert!(
        matches!(&refused, Err(StoreError::IllegalState { found, .. }) if found.contains("1 devices")),
        "{refused:?}"
    );
    assert!(done.is_ok() && noted.contains("\"stranded\":\"1\""), "{noted}");
    assert_eq!(status(&scratch, "root").await.succession.state, SuccessionState::Retired);
}

#[tokio::test]
async fn after_the_switch_the_new_authority_issues_and_both_generations_are_verified_both_ways() {
    let scratch = Scratch::new().await;
    let before = enrolled(&scratch, "thermo-1").await;
    let (old_root, old_issuing) = (named(&scratch, "root").await, named(&scratch, "issuing").await);
    succeed(&scratch, "root").await;
    act(&scratch, "root", SuccessionAct::Switch).await.unwrap();
    let (new_root, new_issuing) = (named(&scratch, "root-2").await, named(&scratch, "issuing-2").await);
    assert!(new_issuing.is_default && !named(&scratch, "issuing").await.is_default);
    let after = enrolled(&scratch, "thermo-2").await;
    assert_eq!(issuer_of(&after.chain[0]), subject_of(&der(&new_issuing)));
    assert_eq!(after.chain.len(), 3, "with the link, for whoever knows the old root alone");
    let chain: Vec<&[u8]> = after.chain[1..].iter().map(Vec::as_slice).collect();
    for root in [der(&old_root), der(&new_root)] {
        assert_eq!(verify_client(&after.chain[0], &chain, &[&root], scratch.clock_now()), Ok(Currency::Current));
    }
    for identity in [&before, &after] {
        assert_eq!(scratch.client(identity).currency, Currency::Current);
    }
    assert_eq!(offered(&scratch).await[0], der(&new_root));
    let plans = scratch.fleet.identity_plans();
    let shown = scratch.fleet.identity_of(&plans[0]).await.unwrap().chain;
    assert_eq!(shown.len(), 3, "leaf, issuing CA, link");
    assert_eq!(scratch.fleet.identity_of(&plans[1]).await.unwrap().chain.len(), 2);

    // The old one answers for what it issued.
    let issuer = kf_pki::issuer::Issuer::from_certificate(old_issuing.id, &der(&old_issuing), 8, "http://x").unwrap();
    let asked = make_request(&issuer, before.serial, None);
    let answer = scratch.fleet.ocsp(&asked).await;
    assert_eq!(verify_response(&answer.der, &issuer, before.serial, None, scratch.clock_now()), Ok(CertStatus::Good));
    prove(&scratch, &before).await;
    prove(&scratch, &after).await;
    act(&scratch, "issuing", SuccessionAct::Retire).await.unwrap();
    act(&scratch, "root", SuccessionAct::Retire).await.unwrap();
    let offer = offered(&scratch).await;
    assert_eq!(offer, [der(&new_root), der(&new_issuing)]);
    assert_eq!(remaining(&[der(&old_root), der(&new_root)], &offer), Some(vec![der(&new_root)]));
    assert_eq!(scratch.fleet.identity_plans().len(), 1);
    assert_eq!(scratch.fleet.server_identity().await.unwrap().chain.len(), 2, "no link any more");
    assert!(scratch.fleet.crl(old_issuing.id, CrlScope::Full).await.unwrap().is_some());
    // A device of before renews, and gets its certificate from the new one.
    let key = kf_crypto::PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let renewed = crate::scratch::issued(scratch.renew(&before, &crate::scratch::csr(&key)).await.unwrap());
    assert_eq!(issuer_of(&renewed[0]), subject_of(&der(&new_issuing)));
}

#[tokio::test]
async fn an_old_authority_signs_lists_until_its_last_certificate_has_expired_and_is_closed_then() {
    let mut scratch = Scratch::new().await;
    let identity = enrolled(&scratch, "thermo-1").await;
    let old = named(&scratch, "issuing").await;
    succeed(&scratch, "issuing").await;
    assert_eq!(named(&scratch, "issuing-2").await.issuer, old.issuer, "below the same root: nobody has to be told");
    act(&scratch, "issuing", SuccessionAct::Switch).await.unwrap();
    act(&scratch, "issuing", SuccessionAct::Retire).await.unwrap();
    let shown = status(&scratch, "issuing").await;
    let last = shown.last_expiry.unwrap();
    assert!(shown.unexpired >= 1 && shown.trust.is_none(), "{shown:?}");
    for _ in 0..2 {
        scratch.fleet.turn().await;
        assert_eq!(status(&scratch, "issuing").await.succession.state, SuccessionState::Retired);
        scratch = scratch.reopen().await;
    }
    assert!(PresentedCertificate::from_der(&identity.chain[0]).unwrap().not_after <= last);
    scratch.clock.set(last.plus(UnixMillis::HOUR));
    scratch.fleet.turn().await;
    assert_eq!(status(&scratch, "issuing").await.succession.state, SuccessionState::Closed);
    assert!(scratch.fleet.crl(old.id, CrlScope::Full).await.unwrap().is_none(), "nothing is revoked there any more");
    assert_eq!(logged(&scratch, "authority.close").await, 1);
    let scratch = scratch.reopen().await;
    assert!(scratch.fleet.crl(old.id, CrlScope::Full).await.unwrap().is_none());
    let next = enrolled(&scratch, "thermo-2").await;
    assert_eq!(issuer_of(&next.chain[0]), subject_of(&der(&named(&scratch, "issuing-2").await)));
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let receipt = crate::authority_destruction::destroyed(&scratch, &pavel, "issuing").await;
    assert!(!receipt.last_lists.is_empty(), "its key ends as any CA's");
}

#[tokio::test]
async fn a_root_is_not_switched_past_an_authority_without_successor_nor_retired_before_those_below_it() {
    let scratch = Scratch::new().await;
    succeed(&scratch, "root").await;
    let new = NewAuthority {
        name: "late".into(),
        facility: None,
        algorithm: None,
        lifetime_days: Some(365),
        shard_count: None,
        make_default: false,
    };
    scratch.fleet.authority_create(&scratch.owner, new).await.unwrap();
    let refused = act(&scratch, "root", SuccessionAct::Switch).await.unwrap_err();
    assert!(refused.to_string().contains("1 CAs below it have no successor"), "{refused}");
    succeed(&scratch, "late").await;
    assert_eq!(named(&scratch, "late-2").await.issuer, Some(named(&scratch, "root-2").await.id));
    act(&scratch, "root", SuccessionAct::Switch).await.unwrap();
    let refused = act(&scratch, "root", SuccessionAct::Retire).await.unwrap_err();
    assert!(refused.to_string().contains("still handed out"), "{refused}");
    for name in ["issuing", "late", "root"] {
        act(&scratch, name, SuccessionAct::Retire).await.unwrap();
    }
    // The next generation.
    succeed(&scratch, "root-2").await;
    assert_eq!(named(&scratch, "root-3").await.issuer, None);
    assert_eq!(named(&scratch, "issuing-3").await.issuer, Some(named(&scratch, "root-3").await.id));
}

#[tokio::test]
async fn a_fleet_moves_to_roots_of_ml_dsa_and_devices_of_elliptic_curves_enrol_below_them() {
    let scratch = Scratch::new().await;
    let new = NewSuccession { algorithm: Some(KeyAlgorithm::MlDsa65), ..NewSuccession::default() };
    scratch.fleet.succession_create(&scratch.owner, "root", new).await.unwrap();
    act(&scratch, "root", SuccessionAct::Switch).await.unwrap();
    let (root, issuing) = (named(&scratch, "root-2").await, named(&scratch, "issuing-2").await);
    assert_eq!((root.algorithm, issuing.algorithm), (KeyAlgorithm::MlDsa65, KeyAlgorithm::MlDsa65));
    let identity = enrolled(&scratch, "thermo-1").await;
    assert_eq!(scratch.client(&identity).currency, Currency::Current);
    assert!(scratch.fleet.crl(issuing.id, CrlScope::Full).await.unwrap().is_some());
    let issuer = kf_pki::issuer::Issuer::from_certificate(issuing.id, &der(&issuing), 8, "http://x").unwrap();
    let answer = scratch.fleet.ocsp(&make_request(&issuer, identity.serial, None)).await;
    let found = verify_response(&answer.der, &issuer, identity.serial, None, scratch.clock_now());
    assert_eq!(found, Ok(CertStatus::Good));
    let refused = NewSuccession { algorithm: Some(KeyAlgorithm::Rsa4096), ..NewSuccession::default() };
    let refused = scratch.fleet.succession_create(&scratch.owner, "root-2", refused).await.unwrap_err();
    assert_eq!(field_of(&refused), "algorithm");
}

#[tokio::test]
async fn a_campaign_for_a_root_needs_one_that_takes_over() {
    let scratch = Scratch::new().await;
    let new = NewCampaign {
        name: "anchors".into(),
        kind: CampaignKind::TrustAnchor,
        filter: Default::default(),
        plan: Default::default(),
        algorithm: None,
        why: String::new(),
        dry_run: false,
    };
    assert_eq!(field_of(&scratch.fleet.campaign_create(&scratch.owner, new.clone()).await.unwrap_err()), "kind");
    succeed(&scratch, "root").await;
    assert!(scratch.fleet.campaign_create(&scratch.owner, new).await.unwrap().done);
}

#[tokio::test]
async fn a_device_whose_program_is_older_polls_as_ever_and_is_shown_as_not_having_answered() {
    let scratch = Scratch::new().await;
    let (new, old) = (enrolled(&scratch, "thermo-1").await, enrolled(&scratch, "thermo-2").await);
    succeed(&scratch, "root").await;
    let campaign = NewCampaign {
        name: "anchors".into(),
        kind: CampaignKind::TrustAnchor,
        filter: CampaignFilter { facility: Some("plant-a".into()), ..CampaignFilter::default() },
        plan: CampaignPlan { canary: 10, jitter_seconds: 0, patience_seconds: 60, ..CampaignPlan::default() },
        algorithm: None,
        why: String::new(),
        dry_run: false,
    };
    scratch.fleet.campaign_create(&scratch.owner, campaign).await.unwrap();
    let request =
        CampaignActRequest { act: CampaignAct::Start, allow_empty: false, why: String::new(), dry_run: false };
    assert!(scratch.fleet.campaign_act(&scratch.owner, "anchors", request).await.unwrap().done);
    let turns = async || {
        for _ in 0..5 {
            scratch.pass(2 * UnixMillis::SECOND);
            scratch.fleet.turn().await;
        }
    };
    turns().await;
    let fingerprint = hex::encode(kf_crypto::sha256(&der(&named(&scratch, "root-2").await)));
    for identity in [&new, &old] {
        let certificate = scratch.client(identity);
        // The answer that devices have always read is the same; what is new stands beside it.
        let news = scratch.news(&certificate).await;
        assert_eq!((news.order, news.anchor.as_ref()), (None, Some(&fingerprint)));
    }
    prove(&scratch, &new).await;
    scratch.pass(UnixMillis::HOUR);
    turns().await;
    let progress = scratch.fleet.campaign_show(&scratch.owner, "anchors").await.unwrap().progress;
    assert_eq!((progress.done, progress.offered, progress.silent), (1, 1, 1), "{progress:?}");
    let certificate = scratch.client(&new);
    assert_eq!(scratch.news(&certificate).await.anchor, None, "it is asked until it has proved it");
    // It renews and works as before; the link leads it to the server until the old root is retired.
    let key = kf_crypto::PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    crate::scratch::issued(scratch.renew(&old, &crate::scratch::csr(&key)).await.unwrap());
}

/// Takes whatever step comes next, to the end.
async fn go_on(fleet: &Fleet, owner: &Principal) {
    for authority in ["root", "issuing", "root"] {
        loop {
            let act = match fleet.succession_show(owner, authority).await.map(|found| found.succession.state) {
                Err(FleetError::NotFound(_)) => {
                    fleet.succession_create(owner, authority, NewSuccession::default()).await.unwrap();
                    continue;
                }
                Ok(SuccessionState::Prepared) => SuccessionAct::Switch,
                Ok(SuccessionState::Switched) => SuccessionAct::Retire,
                Ok(_) => break,
                Err(other) => panic!("{other}"),
            };
            if let Err(error) = fleet.succession_act(owner, authority, request(act)).await {
                assert!(error.to_string().contains("still handed out"), "{error}");
                break;
            }
        }
    }
}

pub(crate) fn default_of(authorities: &[Authority]) -> AuthorityId {
    let defaults: Vec<_> = authorities.iter().filter(|authority| authority.is_default).collect();
    assert_eq!(defaults.len(), 1, "one default, whatever happened");
    defaults[0].id
}

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_SUCCESSION_CHILD";
#[tokio::test]
async fn a_crash_at_any_durable_step_of_a_roll_over_leaves_the_old_or_the_new_and_going_on_finishes_it() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (fleet, _, owner, _) = Scratch::open_in(Path::new(&directory)).await.unwrap();
        go_on(&fleet, &owner).await;
        return;
    }
    let closed = Scratch::new().await.closed().await;
    let test =
        "succession::a_crash_at_any_durable_step_of_a_roll_over_leaves_the_old_or_the_new_and_going_on_finishes_it";
    let mut crashes = 0;
    for when in 1..400 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        let page = survivor.fleet.authority_list(&survivor.owner, PageRequest::default()).await.unwrap();
        let default = default_of(&page.items);
        let root = page.items.iter().find(|authority| authority.id == default).unwrap().issuer;
        let of_today = offered(&survivor).await.remove(0);
        let root = page.items.iter().find(|authority| Some(authority.id) == root).unwrap();
        assert_eq!(of_today, der(root), "crash {when}: the default is below the root of today");
        let identity = survivor.fleet.server_identity().await.unwrap();
        let plan = survivor.fleet.identity_plans();
        assert!(identity.chain.len() >= 2 && (1..=2).contains(&plan.len()), "crash {when}");
        go_on(&survivor.fleet, &survivor.owner).await;
        for (name, acts) in [("authority.succeed", 1), ("authority.switch", 1), ("authority.retire", 2)] {
            assert_eq!(logged(&survivor, name).await, acts, "crash {when}: {name}");
        }
        assert_eq!(status(&survivor, "root").await.succession.state, SuccessionState::Retired);
        assert_eq!(offered(&survivor).await.len(), 2, "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((12..390).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}
