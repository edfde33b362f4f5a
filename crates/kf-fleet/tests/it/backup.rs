//! Backups: made while everything works, opened by people, and never a way back for what was stopped.

use std::path::{Path, PathBuf};

use kf_age::Identity;
use kf_api::backup::{Backup, BackupState, NewBackup, NewBackupKey};
use kf_api::destruction::DestructionResult;
use kf_api::operator::{Role, Token, TokenRequest};
use kf_api::proposal::{ProposalDecision, ProposalState};
use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_api::status::Issuance;
use kf_fleet::{
    BackupKeys, DataDir, FleetError, Principal, Restoration, RestoreOptions, RestorePoint, restore, verify_backup,
};
use kf_key::{CertificateStatus, DeviceState, ProposalId, RevocationReason, SecretBytes, SerialNumber};
use kf_store::proposal::ProposalChange;
use kf_testkit::Tool;

use crate::crash::{copied, killed_child};
use crate::destruction::{decommission, of_device};
use crate::exchange::Firmware;
use crate::rollback::copy;
use crate::scratch::{Scratch, fresh_csr};

/// What a full backup is asked for with.
pub(crate) fn nightly() -> NewBackup {
    NewBackup { why: "nightly".into(), incremental: false }
}

/// A fleet with a backup key, whose private half the test has.
pub(crate) struct Rig {
    pub(crate) scratch: Scratch,
    pub(crate) key: Identity,
    pub(crate) pavel: Principal,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::over(Scratch::new().await).await
    }

    pub(crate) async fn over(scratch: Scratch) -> Self {
        let (key, alice) = (Identity::generate(), Identity::generate());
        let none = scratch.fleet.backup_create(&scratch.owner, NewBackup::default()).await.unwrap_err();
        assert!(none.to_string().contains("there is none"), "{none}");
        let new =
            NewBackupKey { recipient: key.recipient().to_string(), sealed_to: vec![alice.recipient().to_string()] };
        assert_eq!(scratch.fleet.backup_key_create(&scratch.owner, new).await.unwrap().version, 1);
        let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
        Self { scratch, key, pavel }
    }

    pub(crate) async fn backup(&self) -> Backup {
        self.scratch.fleet.backup_create(&self.scratch.owner, nightly()).await.unwrap()
    }

    pub(crate) async fn approve(&self, proposal: ProposalId) {
        approve(&self.scratch, &self.pavel, proposal).await;
    }

    pub(crate) fn keys(&self) -> BackupKeys {
        keys(&self.key)
    }

    /// The fleet as it is after its host burnt down: the root and the witness are left, and the backups.
    pub(crate) async fn lost(self) -> (tempfile::TempDir, Identity, Principal) {
        self.scratch.fleet.turn().await;
        let closed = self.scratch.closed().await;
        std::fs::rename(closed.path().join("data/backups"), closed.path().join("backups")).unwrap();
        std::fs::remove_dir_all(closed.path().join("data")).unwrap();
        (closed, self.key, self.pavel)
    }
}

pub(crate) async fn approve(scratch: &Scratch, who: &Principal, proposal: ProposalId) {
    let yes = ProposalDecision { approve: true, why: "agreed".into() };
    scratch.fleet.proposal_decide(who, proposal, yes).await.unwrap();
}

pub(crate) fn keys(key: &Identity) -> BackupKeys {
    let file = key.to_file();
    BackupKeys::open(&[], &[SecretBytes::fill(file.len(), |place| place.copy_from_slice(file.expose()))]).unwrap()
}

pub(crate) fn restored(
    from: &Path,
    directory: &Path,
    key: &Identity,
    accept_loss: bool,
) -> Result<Restoration, FleetError> {
    restored_at((from, None), directory, key, accept_loss)
}

pub(crate) fn restored_at(
    (from, at): (&Path, Option<RestorePoint>),
    directory: &Path,
    key: &Identity,
    accept_loss: bool,
) -> Result<Restoration, FleetError> {
    let options = RestoreOptions {
        from: from.into(),
        at,
        keys: keys(key),
        witness: Some(directory.join("witness")),
        accept_loss,
        dry_run: false,
    };
    restore(&DataDir::new(directory.join("data")), &options)
}

pub(crate) async fn revoke(scratch: &Scratch, serial: SerialNumber, reason: RevocationReason) {
    let request = RevokeRequest {
        target: RevocationTarget::Certificate(serial),
        reason,
        why: "lost".into(),
        verify: false,
        dry_run: false,
    };
    assert!(scratch.fleet.revoke(&scratch.owner, request).await.unwrap().done);
}

pub(crate) async fn status_of(scratch: &Scratch, serial: SerialNumber) -> CertificateStatus {
    scratch.fleet.certificate_show(&scratch.owner, serial).await.unwrap().certificate.status
}

pub(crate) fn place(backup: &Backup) -> PathBuf {
    PathBuf::from(&backup.directory)
}

#[tokio::test]
async fn a_backup_is_ciphertext_that_age_and_sqlite_open_and_its_log_is_the_fleets() {
    let rig = Rig::new().await;
    rig.scratch.device("thermo-secret-name").await;
    rig.scratch.enrol("thermo-secret-name").await;
    let made = rig.backup().await;
    let directory = place(&made);
    let manifest = made.manifest.clone().unwrap();
    for file in &manifest.files {
        let octets = std::fs::read(directory.join(&file.name)).unwrap();
        assert_eq!(u64::try_from(octets.len()).unwrap(), file.octets);
        assert!(!octets.windows(18).any(|window| window == b"thermo-secret-name"), "{} is in clear", file.name);
        let sum = Tool::new("sha256sum").run(&[directory.join(&file.name).to_str().unwrap()]).expect_success();
        assert!(sum.stdout_text().starts_with(&file.sha256), "{}", file.name);
    }
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("key"), rig.key.to_file().expose()).unwrap();
    let sealed = directory.join("registry.sqlite.age");
    drop(
        Tool::new("age").run(&["-d", "-i", &at("key"), "-o", &at("clear"), sealed.to_str().unwrap()]).expect_success(),
    );
    let clear = std::fs::read(at("clear")).unwrap();
    assert!(clear.windows(18).any(|window| window == b"thermo-secret-name"), "and it is in there");
    let program = "import sqlite3,sys;c=sqlite3.connect(sys.argv[1]);print(c.execute('pragma integrity_check').fetchone()[0],\
                   c.execute('select count(*) from device').fetchone()[0])";
    let said = Tool::new("python3").run(&["-c", program, &at("clear")]).expect_success().stdout_text();
    assert_eq!(said.trim(), "ok 1");
    assert_eq!(verify_backup(&directory, &rig.keys(), scratch.path()).unwrap(), manifest);
    assert!(verify_backup(&directory, &keys(&Identity::generate()), scratch.path()).is_err());
    // The one name stays: nothing in clear is left beside the registry.
    let data = rig.scratch.dir.path().join("data");
    assert!(!data.join("registry.backup-copy").exists());
    let listed = rig.scratch.fleet.backup_list(&rig.scratch.owner, Default::default()).await.unwrap().items;
    assert_eq!(listed, [made]);
}

#[tokio::test]
async fn what_is_wrong_with_a_backup_is_named_and_nothing_is_restored() {
    let rig = Rig::new().await;
    let made = rig.backup().await;
    let (closed, key, _) = rig.lost().await;
    let good = closed.path().join("backups").join(made.id.to_string());
    let work = tempfile::tempdir().unwrap();
    let bad = |name: &str, edit: &dyn Fn(&Path)| {
        let copied = work.path().join(name);
        copy(&good, &copied);
        edit(&copied);
        let error = restored(&copied, closed.path(), &key, true).expect_err(name);
        assert!(!closed.path().join("data/registry.sqlite").exists(), "{name}");
        error.to_string()
    };
    let edit_file = |file: &'static str, change: fn(&mut Vec<u8>)| {
        move |copied: &Path| {
            let mut octets = std::fs::read(copied.join(file)).unwrap();
            change(&mut octets);
            std::fs::write(copied.join(file), octets).unwrap();
        }
    };
    for file in ["registry.sqlite.age", "keyfleet.toml.age"] {
        let said = bad(&format!("short-{file}"), &edit_file(file, |octets| octets.truncate(octets.len() - 1)));
        assert!(said.contains("truncated"), "{said}");
        let said = bad(&format!("flipped-{file}"), &edit_file(file, |octets| *octets.last_mut().unwrap() ^= 1));
        assert!(said.contains("was changed"), "{said}");
    }
    let said = bad("manifest", &edit_file("manifest.json", |octets| octets[0] = b'x'));
    assert!(said.contains("manifest.json cannot be read"), "{said}");
    // A manifest that somebody made fit the changed file: the stream of age does not open.
    let said = bad("resealed", &|copied| {
        let path = copied.join("registry.sqlite.age");
        let mut octets = std::fs::read(&path).unwrap();
        *octets.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &octets).unwrap();
        let text = std::fs::read_to_string(copied.join("manifest.json")).unwrap();
        let mut manifest: kf_api::backup::BackupManifest = serde_json::from_str(&text).unwrap();
        manifest.files[0].sha256 = hex::encode(kf_crypto::sha256(&octets));
        std::fs::write(copied.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    });
    assert!(said.contains("cut off or changed"), "{said}");
    let stranger = restored(&good, closed.path(), &Identity::generate(), true).unwrap_err();
    assert!(stranger.to_string().contains("none of the keys given opens it"), "{stranger}");
    let other = Rig::new().await;
    let foreign = other.backup().await;
    let said = restored(&place(&foreign), closed.path(), &other.key, true).unwrap_err();
    assert!(said.to_string().contains("of another fleet"), "{said}");
    // Without a witness to compare with, the root recognises its own.
    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["root", "owner"] {
        std::fs::copy(closed.path().join(name), elsewhere.path().join(name)).unwrap();
    }
    restored(&place(&foreign), elsewhere.path(), &other.key, false).unwrap();
    let said = Scratch::try_at(elsewhere).await.err().unwrap().to_string();
    assert!(said.contains("not sealed by the root of this fleet"), "{said}");
}

#[tokio::test]
async fn a_restored_backup_resurrects_nothing_and_is_accepted_by_two_people() {
    let rig = Rig::new().await;
    let scratch = &rig.scratch;
    for name in ["thermo-1", "thermo-2"] {
        scratch.device(name).await;
    }
    let before = scratch.enrol("thermo-1").await.serial;
    let held = scratch.enrol("thermo-2").await.serial;
    let mut sold = Firmware::enrolled(scratch, "thermo-3").await;
    sold.exchange(scratch).await.unwrap();
    let made = rig.backup().await;
    // A month passes.
    let code = scratch.code("thermo-2").await;
    scratch.device("thermo-4").await;
    let after = scratch.enrol("thermo-4").await.serial;
    revoke(scratch, before, RevocationReason::KeyCompromise).await;
    revoke(scratch, after, RevocationReason::KeyCompromise).await;
    revoke(scratch, held, RevocationReason::CertificateHold).await;
    decommission(scratch, "thermo-3").await;
    let destroyed = scratch.fleet.destroy(&scratch.owner, of_device("thermo-3")).await.unwrap();
    assert_eq!((destroyed.plan.result, destroyed.plan.barred_by), (DestructionResult::Barred, vec![made.id]));
    rig.approve(destroyed.proposal.unwrap()).await;
    let newer = rig.backup().await;
    let (closed, key, pavel) = rig.lost().await;
    let from = closed.path().join("backups").join(made.id.to_string());
    let early = restored(&from, closed.path(), &key, false).unwrap_err();
    assert!(early.to_string().contains("older than the fence"), "{early}");
    let done = restored(&from, closed.path(), &key, true).unwrap();
    assert!(done.done && done.entries_since.unwrap() > 8, "{done:?}");
    assert!(restored(&from, closed.path(), &key, true).is_err(), "there is a fleet now");

    let scratch = Scratch::at(closed).await;
    assert!(matches!(scratch.fleet.issuance(), Issuance::Fenced(_)), "{:?}", scratch.fleet.issuance());
    assert_eq!(status_of(&scratch, before).await, CertificateStatus::Revoked);
    assert_eq!(status_of(&scratch, held).await, CertificateStatus::Held);
    assert_eq!(status_of(&scratch, after).await, CertificateStatus::Revoked, "it was issued after the backup");
    let gone = scratch.fleet.device_show(&scratch.owner, "thermo-3").await.unwrap();
    assert_eq!(gone.device.state, DeviceState::Decommissioned);
    assert!(sold.exchange(&scratch).await.is_err());
    let found = scratch.fleet.restored(&scratch.owner).await.unwrap().unwrap();
    assert_eq!(
        (found.backup, found.stopped, found.blind),
        (Some(made.id), 4, false),
        "two revoked, one held, and that of the device that was sold"
    );
    assert_eq!(found.lost["code.create"], 2, "{:?}", found.lost);
    let known = scratch.fleet.backup_show(&scratch.owner, newer.id).await.unwrap();
    assert_eq!(known.state, BackupState::Openable, "what was backed up later can still be opened");
    // Fenced: it answers and revokes, and issues nothing.
    assert!(scratch.enrol_with("thermo-2", &code, &fresh_csr()).await.is_err());
    let proposal = scratch.fleet.restored_accept(&scratch.owner, "we looked".into()).await.unwrap().proposal;
    let own = ProposalDecision { approve: true, why: String::new() };
    assert!(scratch.fleet.proposal_decide(&scratch.owner, proposal, own).await.is_err());
    approve(&scratch, &pavel, proposal).await;
    assert_eq!(scratch.fleet.issuance(), Issuance::Running);
    scratch.device("thermo-5").await;
    scratch.enrol("thermo-5").await;
    // The log goes on where the witness had seen it: nothing forked, and a restart finds nothing wrong.
    scratch.fleet.turn().await;
    let scratch = scratch.reopen().await;
    assert_eq!(scratch.fleet.issuance(), Issuance::Running);
    assert_eq!(status_of(&scratch, before).await, CertificateStatus::Revoked);
    assert!(scratch.fleet.restored(&scratch.owner).await.unwrap().is_none());
}

/// Somebody with a token, whom a restored registry would let in again.
pub(crate) async fn leaver(scratch: &Scratch, name: &str, role: Role) -> (String, Token, SecretBytes) {
    scratch.operator(name, role, &[]).await;
    let request = TokenRequest { operator: name.into(), lifetime_days: None };
    let made = scratch.fleet.token_create(&scratch.owner, request).await.unwrap();
    let token = scratch.fleet.token_list(&scratch.owner, name).await.unwrap().remove(0);
    // Exposed to sign in with it, as its owner does.
    let text = SecretBytes::from_vec(made.token.expose().as_bytes().to_vec());
    assert!(scratch.fleet.authenticate_token(&text).await.is_ok());
    (name.to_owned(), token, text)
}

pub(crate) async fn is_enabled(scratch: &Scratch, name: &str) -> bool {
    let all = scratch.fleet.operator_list(&scratch.owner, Default::default()).await.unwrap().items;
    all.into_iter().find(|operator| operator.name == name).unwrap().enabled
}

pub(crate) async fn disable(scratch: &Scratch, name: &str, enabled: bool) {
    scratch.fleet.operator_enable(&scratch.owner, name, enabled, "left".into()).await.unwrap();
}

#[tokio::test]
async fn whoever_was_shut_out_after_the_backup_stays_out_and_whoever_was_let_in_again_does_not() {
    let rig = Rig::new().await;
    let scratch = &rig.scratch;
    let (gone, _, gone_token) = leaver(scratch, "gone", Role::FleetOperator).await;
    let (leaked, token, leaked_token) = leaver(scratch, "leaked", Role::FleetOperator).await;
    let (back, _, back_token) = leaver(scratch, "back", Role::FleetOperator).await;
    let made = rig.backup().await;
    disable(scratch, &gone, false).await;
    disable(scratch, &back, false).await;
    disable(scratch, &back, true).await;
    scratch.fleet.token_withdraw(&scratch.owner, token.id).await.unwrap();
    let (closed, key, pavel) = rig.lost().await;
    let from = closed.path().join("backups").join(made.id.to_string());
    restored(&from, closed.path(), &key, true).unwrap();
    let scratch = Scratch::at(closed).await;
    assert!(
        !is_enabled(&scratch, &gone).await && is_enabled(&scratch, &leaked).await && is_enabled(&scratch, &back).await
    );
    for (token, is_in) in [(&gone_token, false), (&leaked_token, false), (&back_token, true)] {
        let outcome = scratch.fleet.authenticate_token(token).await;
        assert_eq!(outcome.is_ok(), is_in, "{outcome:?}");
    }
    let found = scratch.fleet.restored(&scratch.owner).await.unwrap().unwrap();
    assert_eq!((found.operators, found.tokens, found.owners_left.len()), (1, 1, 0), "{found:?}");
    let proposal = scratch.fleet.restored_accept(&scratch.owner, "we looked".into()).await.unwrap().proposal;
    approve(&scratch, &pavel, proposal).await;
    let scratch = scratch.reopen().await;
    assert!(!is_enabled(&scratch, &gone).await, "nor after it was accepted");
    assert!(scratch.fleet.authenticate_token(&leaked_token).await.is_err());
    disable(&scratch, &gone, true).await;
    let scratch = scratch.reopen().await;
    assert!(is_enabled(&scratch, &gone).await, "whoever is let in now is in");
}

#[tokio::test]
async fn the_last_owner_of_a_restored_registry_is_left_and_named_and_the_leaked_token_is_dead() {
    let rig = Rig::new().await;
    let made = rig.backup().await;
    let scratch = &rig.scratch;
    // After the backup the owner hands over, and is disabled by who comes next.
    let next = scratch.operator("next", Role::Owner, &[]).await;
    let token = scratch.fleet.token_list(&scratch.owner, "olga").await.unwrap().remove(0);
    scratch.fleet.token_withdraw(&next, token.id).await.unwrap();
    scratch.fleet.operator_enable(&next, "olga", false, "left".into()).await.unwrap();
    let (closed, key, _) = rig.lost().await;
    let from = closed.path().join("backups").join(made.id.to_string());
    restored(&from, closed.path(), &key, true).unwrap();
    let scratch = Scratch::at(closed).await;
    let found = scratch.fleet.restored(&scratch.owner).await.unwrap().unwrap();
    assert_eq!((found.operators, found.tokens, found.owners_left), (0, 1, vec!["olga".to_owned()]));
    assert!(is_enabled(&scratch, "olga").await);
    assert!(scratch.fleet.token_list(&scratch.owner, "olga").await.unwrap().iter().all(|token| token.withdrawn));
}

#[tokio::test]
async fn the_newest_backup_loses_nothing_and_is_not_fenced() {
    let rig = Rig::new().await;
    rig.scratch.device("thermo-1").await;
    let serial = rig.scratch.enrol("thermo-1").await.serial;
    let made = rig.backup().await;
    let (closed, key, _) = rig.lost().await;
    let from = closed.path().join("backups").join(made.id.to_string());
    let done = restored(&from, closed.path(), &key, false).unwrap();
    assert_eq!(done.entries_since, Some(0));
    let scratch = Scratch::at(closed).await;
    assert_eq!(scratch.fleet.issuance(), Issuance::Running);
    assert_eq!(status_of(&scratch, serial).await, CertificateStatus::Good);
    assert!(scratch.fleet.restored(&scratch.owner).await.unwrap().is_none());
    assert_eq!(scratch.fleet.backup_show(&scratch.owner, made.id).await.unwrap().manifest, made.manifest);
}

#[tokio::test]
async fn without_a_witness_a_restored_registry_says_that_nothing_can_be_known() {
    let rig = Rig::over(Scratch::with(|config| config.witness_dir = None).await).await;
    let made = rig.backup().await;
    let (closed, key, pavel) = rig.lost().await;
    let from = closed.path().join("backups").join(made.id.to_string());
    let done = restored(&from, closed.path(), &key, false).unwrap();
    assert!(done.notes.iter().any(|note| note.contains("undetectable")), "{:?}", done.notes);
    let scratch = Scratch::at(closed).await;
    let Issuance::Fenced(why) = scratch.fleet.issuance() else { panic!("{:?}", scratch.fleet.issuance()) };
    assert!(why.contains("undetectable"), "{why}");
    let proposal =
        scratch.fleet.restored_accept(&scratch.owner, "all devices were asked".into()).await.unwrap().proposal;
    approve(&scratch, &pavel, proposal).await;
    assert_eq!(scratch.fleet.issuance(), Issuance::Running);
}

#[tokio::test]
async fn a_barred_key_is_destroyed_when_the_last_backup_with_it_is_retired() {
    let rig = Rig::new().await;
    let scratch = &rig.scratch;
    let early = rig.backup().await;
    scratch.pass(1_000);
    Firmware::enrolled(scratch, "thermo-1").await.exchange(scratch).await.unwrap();
    scratch.pass(1_000);
    let with = rig.backup().await;
    decommission(scratch, "thermo-1").await;
    let proposed = scratch.fleet.destroy(&scratch.owner, of_device("thermo-1")).await.unwrap();
    rig.approve(proposed.proposal.unwrap()).await;
    let receipt =
        || async { scratch.fleet.destruction_list(&scratch.owner, Default::default()).await.unwrap().items.remove(0) };
    let barred = receipt().await;
    assert_eq!((barred.result, barred.barred_by), (DestructionResult::Barred, vec![with.id]), "not by {}", early.id);
    let asked = scratch.fleet.backup_retire(&scratch.owner, with.id, "tapes shredded".into()).await.unwrap();
    assert!(place(&with).exists());
    rig.approve(asked.proposal).await;
    assert!(!place(&with).exists() && place(&early).exists());
    let settled = receipt().await;
    assert_eq!((settled.result, settled.settled.is_some()), (DestructionResult::Destroyed, true));
    let again = scratch.fleet.backup_retire(&scratch.owner, with.id, "again".into()).await;
    assert!(matches!(again, Err(FleetError::Conflict { .. })), "{again:?}");
    // The next backup does not hold it.
    let after = rig.backup().await;
    let work = tempfile::tempdir().unwrap();
    verify_backup(&place(&after), &rig.keys(), work.path()).unwrap();
}

#[tokio::test]
async fn a_retirement_that_was_approved_before_a_crash_is_finished_by_the_next_start() {
    let rig = Rig::new().await;
    let backup = rig.backup().await;
    let asked = rig.scratch.fleet.backup_retire(&rig.scratch.owner, backup.id, "shredded".into()).await.unwrap();
    let by = rig.pavel.id.parse().ok();
    let (scratch, ()) = rig
        .scratch
        .edited(async |store, _signer| {
            let entry = store.log_entries(0..1).unwrap().remove(0);
            let entry: kf_log::AuditEntry = serde_json::from_slice(&entry).unwrap();
            let change = ProposalChange { id: asked.proposal, to: ProposalState::Done, by };
            store.change_proposal(change, entry).await.unwrap();
        })
        .await;
    assert!(!place(&backup).exists());
    assert_eq!(scratch.fleet.backup_show(&scratch.owner, backup.id).await.unwrap().state, BackupState::Retired);
}

/// Names the directory in which the child of a test below works.
const CHILD: &str = "KF_FLEET_BACKUP_CHILD";

#[tokio::test]
async fn a_crash_at_any_durable_step_of_shutting_somebody_out_leaves_no_way_back_once_it_was_acknowledged() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (fleet, _, owner, _) = Scratch::open_in(Path::new(&directory)).await.unwrap();
        fleet.operator_enable(&owner, "gone", false, "left".into()).await.unwrap();
        let token = fleet.token_list(&owner, "gone").await.unwrap().remove(0);
        fleet.token_withdraw(&owner, token.id).await.unwrap();
        return;
    }
    let rig = Rig::new().await;
    leaver(&rig.scratch, "gone", Role::FleetOperator).await;
    let made = rig.backup().await;
    rig.scratch.fleet.turn().await;
    let key = rig.key;
    let closed = rig.scratch.closed().await;
    let test =
        "backup::a_crash_at_any_durable_step_of_shutting_somebody_out_leaves_no_way_back_once_it_was_acknowledged";
    let (mut crashes, mut out) = (0, 0);
    for when in 1..100 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        // What the registry says after the crash must hold after a restore.
        let survivor = Scratch::at(directory).await;
        let was_disabled = !is_enabled(&survivor, "gone").await;
        let was_withdrawn = survivor.fleet.token_list(&survivor.owner, "gone").await.unwrap()[0].withdrawn;
        out += usize::from(was_disabled);
        survivor.fleet.turn().await;
        let directory = survivor.closed().await;
        let backups = directory.path().join("backups");
        std::fs::rename(directory.path().join("data/backups"), &backups).unwrap();
        std::fs::remove_dir_all(directory.path().join("data")).unwrap();
        restored(&backups.join(made.id.to_string()), directory.path(), &key, true).unwrap();
        let restored = Scratch::at(directory).await;
        assert!(!was_disabled || !is_enabled(&restored, "gone").await, "crash {when}");
        let token = restored.fleet.token_list(&restored.owner, "gone").await.unwrap().remove(0);
        assert!(!was_withdrawn || token.withdrawn, "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((4..90).contains(&crashes) && out >= 2, "{crashes} crashes, {out} times disabled");
}

#[tokio::test]
async fn a_crash_at_any_durable_step_of_a_backup_leaves_a_whole_one_or_none() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (fleet, _, owner, _) = Scratch::open_in(Path::new(&directory)).await.unwrap();
        fleet.backup_create(&owner, nightly()).await.unwrap();
        return;
    }
    let rig = Rig::new().await;
    rig.scratch.device("thermo-1").await;
    let key = rig.key;
    let closed = rig.scratch.closed().await;
    let test = "backup::a_crash_at_any_durable_step_of_a_backup_leaves_a_whole_one_or_none";
    let (mut crashes, mut whole, mut given_up) = (0, 0, 0);
    for when in 1..200 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        let listed = survivor.fleet.backup_list(&survivor.owner, Default::default()).await.unwrap().items;
        assert!(listed.len() <= 1, "crash {when}");
        for backup in &listed {
            let work = tempfile::tempdir().unwrap();
            match backup.state {
                BackupState::Openable => drop(verify_backup(&place(backup), &keys(&key), work.path()).unwrap()),
                BackupState::Retired => assert!(!place(backup).exists(), "crash {when}"),
            }
        }
        whole += listed.iter().filter(|backup| backup.state == BackupState::Openable).count();
        given_up += listed.iter().filter(|backup| backup.state == BackupState::Retired).count();
        let data = survivor.dir.path().join("data");
        assert!(!data.join("registry.backup-copy").exists(), "crash {when}: a copy in clear is left");
        let partial = std::fs::read_dir(data.join("backups")).into_iter().flatten();
        let partial = partial.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(partial.count(), 0, "crash {when}");
        survivor.fleet.backup_create(&survivor.owner, nightly()).await.unwrap();
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((12..190).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
    assert!(whole >= 2 && given_up >= 2, "{whole} were whole, {given_up} were given up");
}

#[tokio::test]
async fn a_restore_that_was_cut_short_at_any_durable_step_is_run_again() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let directory = Path::new(&directory);
        let key = Identity::from_file(&std::fs::read(directory.join("key")).unwrap()).unwrap();
        let from = std::fs::read_dir(directory.join("backups")).unwrap().next().unwrap().unwrap().path();
        restored(&from, directory, &key, true).unwrap();
        return;
    }
    let rig = Rig::new().await;
    rig.scratch.device("thermo-1").await;
    let serial = rig.scratch.enrol("thermo-1").await.serial;
    let made = rig.backup().await;
    revoke(&rig.scratch, serial, RevocationReason::KeyCompromise).await;
    let (closed, key, _) = rig.lost().await;
    std::fs::write(closed.path().join("key"), key.to_file().expose()).unwrap();
    let test = "backup::a_restore_that_was_cut_short_at_any_durable_step_is_run_again";
    let mut crashes = 0;
    for when in 1..100 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let from = directory.path().join("backups").join(made.id.to_string());
        match restored(&from, directory.path(), &key, true) {
            Ok(done) => assert!(done.done),
            Err(FleetError::Conflict { problem, .. }) => assert!(problem.contains("holds a fleet"), "{problem}"),
            Err(other) => panic!("crash {when}: {other}"),
        }
        let survivor = Scratch::at(directory).await;
        assert_eq!(status_of(&survivor, serial).await, CertificateStatus::Revoked, "crash {when}");
        assert!(matches!(survivor.fleet.issuance(), Issuance::Fenced(_)), "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((5..90).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}

#[tokio::test]
async fn a_start_of_a_restored_registry_that_was_cut_short_anywhere_stops_nothing_twice_and_forgets_nothing() {
    if let Some(directory) = std::env::var_os(CHILD) {
        Scratch::open_in(Path::new(&directory)).await.unwrap();
        return;
    }
    let rig = Rig::new().await;
    rig.scratch.device("thermo-1").await;
    let serial = rig.scratch.enrol("thermo-1").await.serial;
    let (gone, token, _) = leaver(&rig.scratch, "gone", Role::FleetOperator).await;
    let made = rig.backup().await;
    revoke(&rig.scratch, serial, RevocationReason::KeyCompromise).await;
    disable(&rig.scratch, &gone, false).await;
    rig.scratch.fleet.token_withdraw(&rig.scratch.owner, token.id).await.unwrap();
    let (closed, key, _) = rig.lost().await;
    let from = closed.path().join("backups").join(made.id.to_string());
    restored(&from, closed.path(), &key, true).unwrap();
    let test =
        "backup::a_start_of_a_restored_registry_that_was_cut_short_anywhere_stops_nothing_twice_and_forgets_nothing";
    let mut crashes = 0;
    for when in 1..200 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        assert_eq!(status_of(&survivor, serial).await, CertificateStatus::Revoked, "crash {when}");
        assert!(matches!(survivor.fleet.issuance(), Issuance::Fenced(_)), "crash {when}");
        let found = survivor.fleet.restored(&survivor.owner).await.unwrap().unwrap();
        assert_eq!(found.backup, Some(made.id), "crash {when}");
        assert!(found.lost.contains_key("certificate.revoke"), "crash {when}: {:?}", found.lost);
        assert!(!is_enabled(&survivor, &gone).await, "crash {when}");
        let tokens = survivor.fleet.token_list(&survivor.owner, &gone).await.unwrap();
        assert!(tokens.iter().all(|token| token.withdrawn), "crash {when}");
        assert_eq!((found.operators, found.tokens), (1, 1), "crash {when}: counted once");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((5..190).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}
