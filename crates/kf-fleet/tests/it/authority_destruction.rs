//! The end of a CA's key: two people, its last word, one receipt, and no registry of before that signs again.

use std::path::Path;

use kf_age::Identity as BackupIdentity;
use kf_api::authority::{Authority, NewAuthority};
use kf_api::backup::{Backup, NewBackupKey};
use kf_api::certificate::{CertificateWithPem, IssueRequest};
use kf_api::destruction::{DestructionRequest, DestructionResult, DestructionTarget, Receipt};
use kf_api::operator::Role;
use kf_api::proposal::{ProposalState, ProposedAct};
use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_api::succession::{NewSuccession, SuccessionAct, SuccessionActRequest};
use kf_fleet::{FleetError, Principal};
use kf_key::{AuthorityId, CertificateProfile, ProposalId, RevocationReason, SerialNumber, UnixMillis};
use kf_pki::crl::{CrlScope, VerifiedCrl};
use kf_pki::issuer::Issuer;
use kf_store::proposal::ProposalChange;
use kf_store::{Options, Store};
use kf_testkit::Tool;

use crate::backup::nightly;
use crate::crash::{copied, killed_child};
use crate::destruction::{approve, receipts};
use crate::rollback::copy;
use crate::scratch::{Scratch, field_of, fresh_csr};

fn of_authority(authority: &str, certificates_stay: bool) -> DestructionRequest {
    DestructionRequest {
        target: DestructionTarget::AuthorityKey { authority: authority.into(), certificates_stay, certificates: 0 },
        why: "the line is closed".into(),
        station_records_erased: false,
        dry_run: false,
    }
}

async fn second_authority(scratch: &Scratch) -> Authority {
    let new = NewAuthority {
        name: "second".into(),
        facility: None,
        algorithm: None,
        lifetime_days: None,
        shard_count: None,
        make_default: true,
    };
    scratch.fleet.authority_create(&scratch.owner, new).await.unwrap()
}

async fn revoke(scratch: &Scratch, serial: SerialNumber) {
    let request = RevokeRequest {
        target: RevocationTarget::Certificate(serial),
        reason: RevocationReason::CessationOfOperation,
        why: "sold".into(),
        verify: false,
        dry_run: false,
    };
    assert!(scratch.fleet.revoke(&scratch.owner, request).await.unwrap().done);
}

/// A fleet whose first CA has certified one device, whose certificate is revoked, and is the default no more.
async fn retired_authority(scratch: &Scratch) -> (Authority, SerialNumber) {
    scratch.device("thermo-1").await;
    let serial = scratch.enrol("thermo-1").await.serial;
    second_authority(scratch).await;
    revoke(scratch, serial).await;
    scratch.fleet.turn().await;
    (scratch.fleet.authority_show(&scratch.owner, "issuing").await.unwrap(), serial)
}

async fn propose(scratch: &Scratch, request: DestructionRequest) -> ProposalId {
    scratch.fleet.destroy(&scratch.owner, request).await.unwrap().proposal.unwrap()
}

pub(crate) async fn destroyed(scratch: &Scratch, pavel: &Principal, authority: &str) -> Receipt {
    let proposal = propose(scratch, of_authority(authority, true)).await;
    approve(scratch, pavel, proposal).await.unwrap();
    receipts(scratch).await.into_iter().find(|receipt| receipt.proposal == proposal).unwrap()
}

fn issuer(scratch: &Scratch, authority: &Authority) -> Issuer {
    let der = kf_pki::pem::decode_all("CERTIFICATE", &authority.certificate_pem).unwrap().remove(0);
    Issuer::from_certificate(authority.id, &der, authority.shard_count, &scratch.fleet.config().listen.public_http)
        .unwrap()
}

/// The list of a scope as it is served, and what openssl reads in it.
async fn served(scratch: &Scratch, authority: AuthorityId, scope: CrlScope) -> (Vec<u8>, u64) {
    let list = scratch.fleet.crl(authority, scope).await.unwrap().unwrap();
    (list.der.to_vec(), list.number)
}

async fn issue_under(scratch: &Scratch, authority: &str) -> Result<CertificateWithPem, FleetError> {
    let request = IssueRequest {
        profile: CertificateProfile::LDevId,
        csr_pem: kf_pki::pem::encode("CERTIFICATE REQUEST", &fresh_csr()),
        device: Some("thermo-2".into()),
        authority: Some(authority.into()),
        operator: None,
        dns_names: Vec::new(),
        lifetime_hours: None,
        dry_run: false,
    };
    scratch.fleet.certificate_issue(&scratch.owner, request).await
}

#[tokio::test]
async fn a_ca_key_dies_by_two_people_after_its_last_word_which_stands_for_ever() {
    let scratch = Scratch::new().await;
    let (authority, serial) = retired_authority(&scratch).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let local = scratch.operator("berta", Role::FacilityOperator, &["plant-a"]).await;
    assert!(scratch.fleet.destroy(&local, of_authority("issuing", false)).await.is_err(), "a CA is the fleet's");
    let before = served(&scratch, authority.id, CrlScope::Full).await.1;
    let proposal = propose(&scratch, of_authority("issuing", false)).await;
    assert!(approve(&scratch, &scratch.owner, proposal).await.is_err(), "nobody approves an own proposal");
    assert!(approve(&scratch, &local, proposal).await.is_err());
    approve(&scratch, &pavel, proposal).await.unwrap();

    let [receipt] = receipts(&scratch).await.try_into().unwrap();
    assert_eq!(
        (receipt.result, receipt.target.as_str()),
        (DestructionResult::Destroyed, &*format!("authority-key {}", authority.id))
    );
    let scan = receipt.verification.unwrap();
    assert!(scan.fragments_before.unwrap() > 20 && scan.fragments_after == 0, "{scan:?}");
    assert_eq!(receipt.last_lists.len(), usize::from(authority.shard_count) + 1);
    assert!(receipt.proposed_by.starts_with("olga") && receipt.approved_by.starts_with("pavel"));
    let shown = scratch.fleet.authority_show(&scratch.owner, "issuing").await.unwrap();
    assert_eq!(shown.key_destroyed, Some(receipt.at));
    assert_eq!(
        field_of(&scratch.fleet.destroy(&scratch.owner, of_authority("issuing", true)).await.unwrap_err()),
        "authority"
    );

    // Sixty years later, by whoever has only the CA's certificate.
    scratch.pass(60 * 365 * UnixMillis::DAY);
    scratch.fleet.turn().await;
    let scratch = scratch.reopen().await;
    let issuer = issuer(&scratch, &authority);
    let work = tempfile::tempdir().unwrap();
    let mut revoked = 0;
    for list in &receipt.last_lists {
        let scope = list.shard.map_or(CrlScope::Full, CrlScope::Shard);
        let (der, number) = served(&scratch, authority.id, scope).await;
        assert_eq!((number, hex::encode(kf_crypto::sha256(&der))), (list.number, list.sha256.clone()));
        assert!(number > before, "numbers go on");
        let read = VerifiedCrl::from_der(&der, &issuer, scope, scratch.clock_now()).unwrap();
        revoked += usize::from(read.revokes(serial));
        let file = work.path().join("last.crl");
        std::fs::write(&file, &der).unwrap();
        let said = Tool::new("openssl")
            .run(&["crl", "-inform", "DER", "-in", file.to_str().unwrap(), "-noout", "-nextupdate"])
            .expect_success()
            .stdout_text();
        assert_eq!(said.trim(), "nextUpdate=Dec 31 23:59:59 9999 GMT");
    }
    assert_eq!(revoked, 2, "in its shard and in the full list");
    assert_eq!(scratch.fleet.broker_crls().await.unwrap().len(), 3, "root, the closed CA and the second");
}

#[tokio::test]
async fn nothing_is_left_without_a_status_unless_somebody_says_that_it_stays() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    scratch.enrol("thermo-1").await;
    let refused = scratch.fleet.destroy(&scratch.owner, of_authority("issuing", true)).await.unwrap_err();
    assert!(refused.to_string().contains("is the default of the fleet"), "{refused}");
    second_authority(&scratch).await;
    let refused = scratch.fleet.destroy(&scratch.owner, of_authority("issuing", false)).await.unwrap_err();
    assert!(
        refused.to_string().contains("`issuing`: 1 certificates of it are neither expired nor revoked"),
        "{refused}"
    );
    let dry = DestructionRequest { dry_run: true, ..of_authority("issuing", true) };
    let plan = scratch.fleet.destroy(&scratch.owner, dry).await.unwrap().plan;
    assert!(plan.exceptions.iter().any(|exception| exception.starts_with("1 certificates stay")), "{plan:?}");
    assert!(scratch.fleet.authority_show(&scratch.owner, "issuing").await.unwrap().key_destroyed.is_none());
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let receipt = destroyed(&scratch, &pavel, "issuing").await;
    assert!(receipt.exceptions.iter().any(|exception| exception.contains("nobody can revoke them any more")));
    // It issues nothing, and the other one does.
    scratch.device("thermo-2").await;
    let refused = issue_under(&scratch, "issuing").await.unwrap_err();
    assert!(matches!(refused, FleetError::Conflict { .. }), "{refused}");
    issue_under(&scratch, "second").await.unwrap();
    // A root goes the same way, and then makes no CA any more; those that there are go on.
    let scratch = scratch.reopen().await;
    destroyed(&scratch, &pavel, "root").await;
    let scratch = scratch.reopen().await;
    issue_under(&scratch, "second").await.unwrap();
    let new = NewAuthority {
        name: "third".into(),
        facility: None,
        algorithm: None,
        lifetime_days: None,
        shard_count: None,
        make_default: false,
    };
    let refused = scratch.fleet.authority_create(&scratch.owner, new).await.unwrap_err();
    assert!(refused.to_string().contains("is destroyed: it signs nothing any more"), "{refused}");
}

#[tokio::test]
async fn a_ca_with_a_successor_is_retired_first_and_two_people_agree_to_a_number_of_certificates() {
    let scratch = Scratch::new().await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    scratch.device("thermo-1").await;
    let first = scratch.enrol("thermo-1").await.serial;
    scratch.pass(10 * UnixMillis::DAY);
    scratch.device("thermo-2").await;
    scratch.enrol("thermo-2").await;
    let new = NewSuccession { why: "it ends".into(), ..NewSuccession::default() };
    scratch.fleet.succession_create(&scratch.owner, "issuing", new).await.unwrap();
    let act =
        |act| SuccessionActRequest { act, strand: false, although_trusted: false, why: "test".into(), dry_run: false };
    let refused = |error: FleetError, said: &str| assert!(error.to_string().contains(said), "{error}");
    let ask = async |stay| scratch.fleet.destroy(&scratch.owner, of_authority("issuing", stay)).await;
    refused(ask(true).await.unwrap_err(), "is the default of the fleet");
    scratch.fleet.succession_act(&scratch.owner, "issuing", act(SuccessionAct::Switch)).await.unwrap();
    refused(ask(true).await.unwrap_err(), "its successor is switched, and it is not retired");
    scratch.fleet.succession_act(&scratch.owner, "issuing", act(SuccessionAct::Retire)).await.unwrap();
    let ends = scratch.fleet.certificate_show(&scratch.owner, first).await.unwrap().certificate.not_after;
    scratch.clock.set(ends.plus(UnixMillis::HOUR));
    refused(ask(false).await.unwrap_err(), "1 certificates of it are neither expired nor revoked");
    let proposal = ask(true).await.unwrap().proposal.unwrap();
    let found = scratch.fleet.proposal_list(&scratch.owner, Default::default()).await.unwrap().items;
    let found = found.into_iter().find(|found| found.id == proposal).unwrap();
    let ProposedAct::Destroy { target: DestructionTarget::AuthorityKey { certificates, .. }, .. } = found.act else {
        panic!("{found:?}")
    };
    assert_eq!(certificates, 1);
    // The clock had been ahead: there is one more than they agreed to, and the consent is void.
    scratch.clock.set(ends.minus(UnixMillis::HOUR));
    let void = approve(&scratch, &pavel, proposal).await.unwrap_err();
    refused(void, "2 certificates of it are neither expired nor revoked");
    assert!(scratch.fleet.authority_show(&scratch.owner, "issuing").await.unwrap().key_destroyed.is_none());
    destroyed(&scratch, &pavel, "issuing").await;
}

#[tokio::test]
async fn ocsp_says_that_it_cannot_answer_for_a_closed_ca_and_answers_for_others() {
    let scratch = Scratch::new().await;
    let (authority, serial) = retired_authority(&scratch).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    destroyed(&scratch, &pavel, "issuing").await;
    let scratch = scratch.reopen().await;
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("ca.pem"), &authority.certificate_pem).unwrap();
    let number = format!("0x{}", hex::encode(serial.as_bytes()));
    let asked = ["ocsp", "-issuer", &at("ca.pem"), "-serial", &number, "-no_nonce", "-reqout", &at("request")];
    drop(Tool::new("openssl").run(&asked).expect_success());
    let answer = scratch.fleet.ocsp(&std::fs::read(at("request")).unwrap()).await;
    // OCSPResponse (RFC 6960 section 4.2.1) with responseStatus unauthorized(6).
    assert_eq!(&answer.der[..], [0x30, 3, 0x0a, 1, 6]);
}

/// A backup that can be opened, and what opens it.
async fn backed_up(scratch: &Scratch) -> (Backup, BackupIdentity) {
    let (key, alice) = (BackupIdentity::generate(), BackupIdentity::generate());
    let new = NewBackupKey { recipient: key.recipient().to_string(), sealed_to: vec![alice.recipient().to_string()] };
    scratch.fleet.backup_key_create(&scratch.owner, new).await.unwrap();
    (scratch.fleet.backup_create(&scratch.owner, nightly()).await.unwrap(), key)
}

#[tokio::test]
async fn backups_that_hold_the_key_bar_it_and_a_registry_of_before_ends_it_again_with_the_same_last_word() {
    let scratch = Scratch::new().await;
    let (authority, _) = retired_authority(&scratch).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let (backup, _key) = backed_up(&scratch).await;
    scratch.fleet.close().await;
    let (data, old) = (scratch.dir.path().join("data"), scratch.dir.path().join("old"));
    copy(&data, &old);
    let scratch = scratch.reopen().await;
    let receipt = destroyed(&scratch, &pavel, "issuing").await;
    assert_eq!((receipt.result, receipt.barred_by), (DestructionResult::Barred, vec![backup.id]));
    let last = served(&scratch, authority.id, CrlScope::Full).await;
    scratch.fleet.turn().await;
    scratch.fleet.close().await;

    std::fs::remove_dir_all(&data).unwrap();
    copy(&old, &data);
    let scratch = scratch.reopen().await;
    let shown = scratch.fleet.authority_show(&scratch.owner, "issuing").await.unwrap();
    assert!(shown.key_destroyed.is_some(), "the witness knows");
    assert_eq!(served(&scratch, authority.id, CrlScope::Full).await, last, "it is never said twice");
    let scratch = scratch.reopen().await;
    assert_eq!(served(&scratch, authority.id, CrlScope::Full).await, last);
    let store = Store::open(&data.join("registry.sqlite"), Options::default());
    assert!(store.is_err() || store.unwrap().wrapped_key(authority.key).unwrap().is_none());
}

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_AUTHORITY_DESTRUCTION_CHILD";

#[tokio::test]
async fn a_crash_at_any_durable_step_of_the_end_of_a_ca_key_is_finished_by_the_next_start() {
    if let Some(directory) = std::env::var_os(CHILD) {
        // Opening finishes what was approved.
        Scratch::open_in(Path::new(&directory)).await.unwrap();
        return;
    }
    let scratch = Scratch::new().await;
    let (authority, serial) = retired_authority(&scratch).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let issuer = issuer(&scratch, &authority);
    let proposal = propose(&scratch, of_authority("issuing", false)).await;
    let closed = scratch.closed().await;
    // Approved, and the machine stops before anything else.
    let store = Store::open(&closed.path().join("data/registry.sqlite"), Options::default()).unwrap();
    let change = ProposalChange { id: proposal, to: ProposalState::Done, by: pavel.id.parse().ok() };
    let entry = store.log_entries(0..1).unwrap().remove(0);
    let entry: kf_log::AuditEntry = serde_json::from_slice(&entry).unwrap();
    store.change_proposal(change, entry).await.unwrap();
    store.close().await;
    drop(store);
    let test =
        "authority_destruction::a_crash_at_any_durable_step_of_the_end_of_a_ca_key_is_finished_by_the_next_start";
    let mut crashes = 0;
    for when in 1..300 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        let shown = survivor.fleet.authority_show(&survivor.owner, "issuing").await.unwrap();
        assert!(shown.key_destroyed.is_some(), "crash {when}");
        let [receipt] = receipts(&survivor).await.try_into().unwrap();
        assert_eq!(receipt.result, DestructionResult::Destroyed, "crash {when}");
        let (der, number) = served(&survivor, authority.id, CrlScope::Full).await;
        let read = VerifiedCrl::from_der(&der, &issuer, CrlScope::Full, survivor.clock_now()).unwrap();
        assert!(read.revokes(serial) && receipt.last_lists[0].number == number, "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((15..290).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}
