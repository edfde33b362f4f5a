//! Increments: what changed since the backup before, brought forward by SQLite alone; points in time, and no way back from them either.

use std::path::{Path, PathBuf};

use kf_age::Identity;
use kf_api::backup::{Backup, BackupManifest, BackupState, NewBackup, NewBackupKey};
use kf_api::destruction::DestructionResult;
use kf_api::operator::Role;
use kf_api::status::Issuance;
use kf_fleet::{DataDir, FleetError, RestoreOptions, RestorePoint, restore, verify_backup, verify_backups};
use kf_key::{CertificateStatus, DeviceState, RevocationReason};
use kf_testkit::Tool;

use crate::backup::{Rig, approve, disable, is_enabled, keys, leaver, nightly, place, restored_at, revoke, status_of};
use crate::crash::{SPAWNING, copied, killed_child};
use crate::destruction::{decommission, of_device};
use crate::exchange::Firmware;
use crate::rollback::copy;
use crate::scratch::Scratch;

fn hourly() -> NewBackup {
    NewBackup { why: "hourly".into(), incremental: true }
}

async fn increment(scratch: &Scratch) -> Backup {
    scratch.pass(1_000);
    let made = scratch.fleet.backup_create(&scratch.owner, hourly()).await.unwrap();
    scratch.pass(1_000);
    made
}

fn manifest(backup: &Backup) -> &BackupManifest {
    backup.manifest.as_ref().unwrap()
}

fn number(backup: &Backup) -> u32 {
    manifest(backup).base.as_ref().map_or(0, |base| base.number)
}

/// A full backup and two increments on it: `thermo-1` came after the first, `thermo-2` after the second.
async fn chain(rig: &Rig) -> Vec<Backup> {
    let mut made = vec![rig.backup().await];
    for name in ["thermo-1", "thermo-2"] {
        rig.scratch.pass(1_000);
        rig.scratch.device(name).await;
        made.push(increment(&rig.scratch).await);
    }
    assert_eq!(made.iter().map(number).collect::<Vec<_>>(), [0, 1, 2]);
    made
}

#[tokio::test]
async fn increments_are_what_changed_and_age_and_sqlite_alone_bring_a_copy_forward() {
    let rig = Rig::new().await;
    let made = chain(&rig).await;
    // The programs below are started while nobody opens a registry.
    let _turn = SPAWNING.write().await;
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("key"), rig.key.to_file().expose()).unwrap();
    let open = |backup: &Backup, name: &str, to: &str| {
        let sealed = place(backup).join(name);
        let octets = std::fs::read(&sealed).unwrap();
        assert!(!octets.windows(8).any(|window| window == b"thermo-1"), "{name} is in clear");
        let _ = std::fs::remove_file(at(to));
        let age = Tool::new("age").run(&["-d", "-i", &at("key"), "-o", &at(to), sealed.to_str().unwrap()]);
        drop(age.expect_success());
        octets.len()
    };
    let whole = open(&made[0], "registry.sqlite.age", "clear");
    let program = "import sqlite3,sys;c=sqlite3.connect(sys.argv[1]);c.execute('pragma wal_checkpoint(truncate)');\
                   print(c.execute('pragma integrity_check').fetchone()[0],*(r[0] for r in c.execute('select name from device order by 1')))";
    for (backup, devices) in [(&made[1], "ok thermo-1"), (&made[2], "ok thermo-1 thermo-2")] {
        let part = open(backup, "registry.sqlite-wal.age", "clear-wal");
        assert!(part < whole / 2, "{part} octets of {whole}");
        let said = Tool::new("python3").run(&["-c", program, &at("clear")]).expect_success().stdout_text();
        assert_eq!(said.trim(), devices);
        let sum = Tool::new("sha256sum").run(&[&at("clear")]).expect_success().stdout_text();
        assert!(sum.starts_with(&manifest(backup).registry.sha256), "it is the very file that was copied");
    }
    let verified = verify_backup(&place(&made[2]), &rig.keys(), scratch.path()).unwrap();
    assert_eq!(&verified, manifest(&made[2]));
    let data = rig.scratch.dir.path().join("data");
    let left: Vec<_> = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("registry.backup-copy")), "{left:?}");
}

#[tokio::test]
async fn a_registry_comes_back_as_it_was_at_any_of_the_points() {
    let rig = Rig::new().await;
    let made = chain(&rig).await;
    let serial = rig.scratch.enrol("thermo-1").await.serial;
    rig.scratch.pass(1_000);
    revoke(&rig.scratch, serial, RevocationReason::KeyCompromise).await;
    let (closed, key, _) = rig.lost().await;
    let backups = closed.path().join("backups");
    let dry = |at: Option<RestorePoint>| {
        let options = RestoreOptions {
            from: backups.clone(),
            at,
            keys: keys(&key),
            witness: Some(closed.path().join("witness")),
            accept_loss: false,
            dry_run: true,
        };
        restore(&DataDir::new(closed.path().join("dry")), &options)
    };
    let newest = dry(None).unwrap();
    assert_eq!(newest.chain, made.iter().map(|backup| backup.id).collect::<Vec<_>>());
    assert_eq!((newest.lost["certificate.issue"], newest.lost["certificate.revoke"]), (1, 1), "{:?}", newest.lost);
    assert_eq!(newest.stopped_since, [("certificates", 1)].into());
    let first = manifest(&made[1]);
    for at in [
        RestorePoint::Time(first.as_of),
        RestorePoint::Time(manifest(&made[2]).as_of.minus(1)),
        RestorePoint::Entry(first.log_size),
        RestorePoint::Entry(manifest(&made[2]).log_size - 1),
    ] {
        let found = dry(Some(at)).unwrap();
        assert_eq!((found.manifest.id, found.chain.len(), found.done), (first.id, 2, false), "{at:?}");
        assert_eq!(found.lost["device.register"], 1, "{:?}", found.lost);
    }
    let early = dry(Some(RestorePoint::Entry(1))).unwrap_err().to_string();
    assert!(early.contains("none lies before that point"), "{early}");
    assert!(!closed.path().join("dry/registry.sqlite").exists());
    let old = restored_at((&backups, Some(RestorePoint::Entry(first.log_size))), closed.path(), &key, false);
    let old = old.unwrap_err().to_string();
    assert!(old.contains("older than the fence"), "{old}");
    restored_at((&backups, Some(RestorePoint::Entry(first.log_size))), closed.path(), &key, true).unwrap();
    let scratch = Scratch::at(closed).await;
    let devices = scratch.fleet.device_list(&scratch.owner, Default::default()).await.unwrap();
    assert_eq!(devices.items.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["thermo-1"]);
    assert_eq!(status_of(&scratch, serial).await, CertificateStatus::Revoked, "it was issued and revoked later");
    assert!(matches!(scratch.fleet.issuance(), Issuance::Fenced(_)));
    // The host is another one: what its pages were is not known.
    let next = increment(&scratch).await;
    assert_eq!((number(&next), next.full_because.is_some()), (0, true));
}

#[tokio::test]
async fn a_point_in_time_resurrects_nothing() {
    let rig = Rig::new().await;
    let scratch = &rig.scratch;
    scratch.device("thermo-1").await;
    let before = scratch.enrol("thermo-1").await.serial;
    let mut sold = Firmware::enrolled(scratch, "thermo-3").await;
    sold.exchange(scratch).await.unwrap();
    let (gone, token, gone_token) = leaver(scratch, "gone", Role::FleetOperator).await;
    let full = rig.backup().await;
    let point = increment(scratch).await;
    revoke(scratch, before, RevocationReason::KeyCompromise).await;
    disable(scratch, &gone, false).await;
    scratch.fleet.token_withdraw(&scratch.owner, token.id).await.unwrap();
    decommission(scratch, "thermo-3").await;
    let destroyed = scratch.fleet.destroy(&scratch.owner, of_device("thermo-3")).await.unwrap();
    assert_eq!(
        (destroyed.plan.result, destroyed.plan.barred_by),
        (DestructionResult::Barred, vec![full.id, point.id]),
        "the increment could bring it back as the full one could"
    );
    rig.approve(destroyed.proposal.unwrap()).await;
    let later = increment(scratch).await;
    let (closed, key, pavel) = rig.lost().await;
    let from = closed.path().join("backups");
    let at = RestorePoint::Time(manifest(&point).as_of);
    let done = restored_at((&from, Some(at)), closed.path(), &key, true).unwrap();
    assert_eq!(done.chain, [full.id, point.id]);
    assert_eq!(done.stopped_since["keys of devices"], 1, "{:?}", done.stopped_since);
    let scratch = Scratch::at(closed).await;
    assert_eq!(status_of(&scratch, before).await, CertificateStatus::Revoked);
    assert!(!is_enabled(&scratch, &gone).await);
    assert!(scratch.fleet.authenticate_token(&gone_token).await.is_err());
    let sold_device = scratch.fleet.device_show(&scratch.owner, "thermo-3").await.unwrap().device;
    assert_eq!(sold_device.state, DeviceState::Decommissioned);
    assert!(sold.exchange(&scratch).await.is_err());
    let known = scratch.fleet.backup_show(&scratch.owner, later.id).await.unwrap();
    assert_eq!(known.state, BackupState::Openable, "what was made later can still be opened");
    let proposal = scratch.fleet.restored_accept(&scratch.owner, "we looked".into()).await.unwrap().proposal;
    approve(&scratch, &pavel, proposal).await;
    assert_eq!(scratch.fleet.issuance(), Issuance::Running);
    scratch.fleet.turn().await;
    let scratch = scratch.reopen().await;
    assert_eq!(status_of(&scratch, before).await, CertificateStatus::Revoked);
}

fn edit_manifest(directory: &Path, edit: impl FnOnce(&mut BackupManifest)) {
    let path = directory.join("manifest.json");
    let mut manifest = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    std::fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn edit_file(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut octets = std::fs::read(path).unwrap();
    edit(&mut octets);
    std::fs::write(path, octets).unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_a_chain_is_named_and_nothing_is_restored() {
    const WAL: &str = "registry.sqlite-wal.age";
    let rig = Rig::new().await;
    let made = chain(&rig).await;
    rig.scratch.device("thermo-3").await;
    let other = rig.backup().await;
    let (closed, key, _) = rig.lost().await;
    let good = closed.path().join("backups");
    let [full, first, second] = [0, 1, 2].map(|at| made[at].id.to_string());
    let work = tempfile::tempdir().unwrap();
    let bad = |name: &str, edit: &dyn Fn(&Path)| {
        let shelf = work.path().join(name);
        copy(&good, &shelf);
        edit(&shelf);
        let error = restored_at((&shelf.join(&second), None), closed.path(), &key, true).expect_err(name).to_string();
        assert!(!closed.path().join("data/registry.sqlite").exists(), "{name}");
        let rows = verify_backups(&shelf, &keys(&key), &work.path().join("scratch")).unwrap();
        let row = rows.iter().find(|row| row.directory == shelf.join(&second)).unwrap();
        assert!(row.problem.is_some(), "{name}: {rows:?}");
        assert!(rows.iter().any(|row| row.id == Some(other.id) && row.problem.is_none()), "{name}: {rows:?}");
        error
    };
    for (name, link) in [("no-full", &full), ("no-first", &first)] {
        let said = bad(name, &|shelf| std::fs::remove_dir_all(shelf.join(link)).unwrap());
        assert!(said.contains("a link is missing") && said.contains(link.as_str()), "{said}");
    }
    let said = bad("other-chain", &|shelf| {
        edit_manifest(&shelf.join(&second), |manifest| manifest.base.as_mut().unwrap().backup = other.id);
    });
    assert!(said.contains("of another chain"), "{said}");
    let said = bad("order", &|shelf| {
        let on = &made[0];
        edit_manifest(&shelf.join(&second), |last| {
            let base = last.base.as_mut().unwrap();
            base.backup = on.id;
            base.registry_sha256 = on.manifest.as_ref().unwrap().registry.sha256.clone();
        });
    });
    assert!(said.contains("in the wrong order"), "{said}");
    let said = bad("endless", &|shelf| {
        edit_manifest(&shelf.join(&second), |last| {
            let (id, sha256) = (last.id, last.registry.sha256.clone());
            let base = last.base.as_mut().unwrap();
            (base.backup, base.registry_sha256) = (id, sha256);
        });
    });
    assert!(said.contains("in the wrong order"), "{said}");
    for link in [&first, &second] {
        let path = |shelf: &Path| shelf.join(link).join(WAL);
        let said =
            bad(&format!("short-{link}"), &|shelf| edit_file(&path(shelf), |octets| octets.truncate(octets.len() - 1)));
        assert!(said.contains("truncated"), "{said}");
        let said = bad(&format!("flipped-{link}"), &|shelf| edit_file(&path(shelf), |octets| octets[500] ^= 1));
        assert!(said.contains("was changed"), "{said}");
        // Whoever makes the manifest fit as well is stopped by age, and whoever seals something else by what comes of it.
        for (name, forged) in [("nothing", Vec::new()), ("rubbish", vec![7; 9_000])] {
            let said = bad(&format!("{name}-{link}"), &|shelf| {
                let mut sealed = Vec::new();
                kf_age::seal(&[key.recipient()], forged.as_slice(), &mut sealed).unwrap();
                std::fs::write(path(shelf), &sealed).unwrap();
                edit_manifest(&shelf.join(link), |manifest| {
                    manifest.files[0].octets = u64::try_from(sealed.len()).unwrap();
                    manifest.files[0].sha256 = hex::encode(kf_crypto::sha256(&sealed));
                });
            });
            assert!(said.contains("can be taken up") || said.contains("cannot be taken up"), "{said}");
        }
    }
    // A whole increment of other pages, which SQLite takes up, is not what the manifest says.
    let said = bad("swapped", &|shelf| {
        let from = manifest_at(&shelf.join(&first));
        std::fs::copy(shelf.join(&first).join(WAL), shelf.join(&second).join(WAL)).unwrap();
        edit_manifest(&shelf.join(&second), |last| {
            last.files[0] = from.files[0].clone();
            last.base.as_mut().unwrap().pages = from.base.unwrap().pages;
        });
    });
    assert!(said.contains("not the one of its manifest"), "{said}");
    let rows = verify_backups(&good, &keys(&key), work.path()).unwrap();
    assert!(rows.len() == 4 && rows.iter().all(|row| row.problem.is_none()), "{rows:?}");
    let stranger = verify_backups(&good, &keys(&Identity::generate()), work.path()).unwrap();
    assert!(stranger.iter().all(|row| row.problem.is_some()), "{stranger:?}");
}

fn manifest_at(directory: &Path) -> BackupManifest {
    serde_json::from_slice(&std::fs::read(directory.join("manifest.json")).unwrap()).unwrap()
}

#[tokio::test]
async fn an_increment_without_anything_to_build_on_is_a_full_backup_that_says_why() {
    let rig = Rig::new().await;
    let scratch = &rig.scratch;
    let pages = scratch.dir.path().join("data/backup.pages");
    let full = async |why: &str| {
        let made = increment(scratch).await;
        assert_eq!(number(&made), 0, "{why}");
        assert!(made.full_because.as_ref().is_some_and(|said| said.contains(why)), "{:?}", made.full_because);
        made
    };
    full("no earlier backup").await;
    assert_eq!(number(&increment(scratch).await), 1);
    edit_file(&pages, |octets| octets[100] ^= 1);
    full("damaged").await;
    let newest = increment(scratch).await;
    let asked = scratch.fleet.backup_retire(&scratch.owner, newest.id, "shredded".into()).await.unwrap();
    rig.approve(asked.proposal).await;
    full("was retired").await;
    let (next, person) = (Identity::generate(), Identity::generate());
    let new = NewBackupKey { recipient: next.recipient().to_string(), sealed_to: vec![person.recipient().to_string()] };
    scratch.fleet.backup_key_create(&scratch.owner, new).await.unwrap();
    full("earlier version of the backup key").await;
    assert_eq!(number(&increment(scratch).await), 1);
}

#[tokio::test]
async fn a_backup_is_retired_with_what_builds_on_it_and_then_the_key_is_destroyed() {
    let rig = Rig::new().await;
    let scratch = &rig.scratch;
    Firmware::enrolled(scratch, "thermo-1").await.exchange(scratch).await.unwrap();
    scratch.pass(1_000);
    let made = [rig.backup().await, increment(scratch).await, increment(scratch).await];
    decommission(scratch, "thermo-1").await;
    let proposed = scratch.fleet.destroy(&scratch.owner, of_device("thermo-1")).await.unwrap();
    rig.approve(proposed.proposal.unwrap()).await;
    let receipt =
        async || scratch.fleet.destruction_list(&scratch.owner, Default::default()).await.unwrap().items.remove(0);
    assert_eq!(receipt().await.barred_by, made.each_ref().map(|backup| backup.id));
    let after = increment(scratch).await;
    let asked = scratch.fleet.backup_retire(&scratch.owner, made[1].id, "tapes shredded".into()).await.unwrap();
    assert_eq!(asked.increments, [after.id, made[2].id]);
    rig.approve(asked.proposal).await;
    let states = async || {
        let mut states = Vec::new();
        for backup in made.iter().chain([&after]) {
            let state = scratch.fleet.backup_show(&scratch.owner, backup.id).await.unwrap().state;
            assert_eq!(place(backup).exists(), state == BackupState::Openable);
            states.push(state == BackupState::Openable);
        }
        states
    };
    assert_eq!(states().await, [true, false, false, false]);
    assert_eq!(receipt().await.result, DestructionResult::Barred);
    let asked = scratch.fleet.backup_retire(&scratch.owner, made[0].id, "tapes shredded".into()).await.unwrap();
    assert_eq!(asked.increments, []);
    rig.approve(asked.proposal).await;
    assert_eq!(receipt().await.result, DestructionResult::Destroyed);
}

/// Names the directory in which the child of a test below works.
const CHILD: &str = "KF_FLEET_INCREMENT_CHILD";

#[tokio::test]
async fn a_crash_at_any_durable_step_of_an_increment_leaves_a_chain_that_goes_on() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (fleet, _, owner, _) = Scratch::open_in(Path::new(&directory)).await.unwrap();
        fleet.backup_create(&owner, hourly()).await.unwrap();
        return;
    }
    let rig = Rig::new().await;
    let full = rig.backup().await;
    rig.scratch.device("thermo-1").await;
    let key = rig.key;
    let closed = rig.scratch.closed().await;
    let test = "increment::a_crash_at_any_durable_step_of_an_increment_leaves_a_chain_that_goes_on";
    let (mut crashes, mut whole, mut given_up) = (0, 0, 0);
    for when in 1..200 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        survivor.pass(1_000);
        let next = survivor.fleet.backup_create(&survivor.owner, hourly()).await.unwrap();
        let listed = survivor.fleet.backup_list(&survivor.owner, Default::default()).await.unwrap().items;
        let openable: Vec<_> = listed.iter().filter(|backup| backup.state == BackupState::Openable).collect();
        given_up += listed.len() - openable.len();
        whole += usize::from(openable.len() == 3);
        // Whatever was cut short: there is a full one, and the increment that was made now builds on the newest that is whole.
        assert_eq!(number(&next) + 1, u32::try_from(openable.len()).unwrap(), "crash {when}: {openable:?}");
        assert_eq!(manifest(&next).base.as_ref().unwrap().full, full.id, "crash {when}");
        let work = tempfile::tempdir().unwrap();
        let shelf = work.path().join("shelf");
        copy(&closed.path().join("data/backups"), &shelf);
        copy(&survivor.dir.path().join("data/backups"), &shelf);
        verify_backup(&shelf.join(next.id.to_string()), &keys(&key), work.path()).unwrap();
        assert!(!survivor.dir.path().join("data/backup.pages.new").exists(), "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((12..190).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
    assert!(whole >= 2 && given_up >= 2, "{whole} were whole, {given_up} were given up");
}

#[tokio::test]
async fn a_restore_of_a_chain_that_was_cut_short_at_any_durable_step_is_run_again() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let directory = Path::new(&directory);
        let key = Identity::from_file(&std::fs::read(directory.join("key")).unwrap()).unwrap();
        restored_at((&directory.join("backups"), None), directory, &key, true).unwrap();
        return;
    }
    let rig = Rig::new().await;
    rig.scratch.device("thermo-0").await;
    let serial = rig.scratch.enrol("thermo-0").await.serial;
    let made = chain(&rig).await;
    revoke(&rig.scratch, serial, RevocationReason::KeyCompromise).await;
    let (closed, key, _) = rig.lost().await;
    std::fs::write(closed.path().join("key"), key.to_file().expose()).unwrap();
    let test = "increment::a_restore_of_a_chain_that_was_cut_short_at_any_durable_step_is_run_again";
    let mut crashes = 0;
    for when in 1..100 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let backups: PathBuf = directory.path().join("backups");
        match restored_at((&backups, None), directory.path(), &key, true) {
            Ok(done) => assert_eq!((done.done, done.manifest.id), (true, made[2].id)),
            Err(FleetError::Conflict { problem, .. }) => assert!(problem.contains("holds a fleet"), "{problem}"),
            Err(other) => panic!("crash {when}: {other}"),
        }
        let survivor = Scratch::at(directory).await;
        assert_eq!(status_of(&survivor, serial).await, CertificateStatus::Revoked, "crash {when}");
        assert!(survivor.fleet.device_show(&survivor.owner, "thermo-2").await.is_ok(), "crash {when}");
        assert!(matches!(survivor.fleet.issuance(), Issuance::Fenced(_)), "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((8..90).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}

#[tokio::test]
async fn two_backups_that_are_asked_for_at_once_are_made_one_after_the_other() {
    let rig = Rig::new().await;
    rig.backup().await;
    let ask = || rig.scratch.fleet.backup_create(&rig.scratch.owner, hourly());
    let (left, right, whole) =
        tokio::join!(ask(), ask(), rig.scratch.fleet.backup_create(&rig.scratch.owner, nightly()));
    let work = tempfile::tempdir().unwrap();
    for made in [left, right, whole] {
        verify_backup(&place(&made.unwrap()), &rig.keys(), work.path()).unwrap();
    }
}
