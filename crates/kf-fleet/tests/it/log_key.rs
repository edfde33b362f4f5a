//! The log's key is succeeded: whoever has the first key follows, and nobody follows a key that was not announced.

use std::path::Path;

use kf_api::rotation::{RotateRequest, RotationOutcome};
use kf_api::status::Issuance;
use kf_fleet::Fleet;
use kf_key::UnixMillis;
use kf_log::{Finding, Report, TileSource, VerifierKey, verify_log};

use crate::backup::{Rig, approve, restored_at};
use crate::crash::{copied, killed_child};
use crate::scratch::Scratch;

/// The published files, as an auditor has them.
struct Files(std::path::PathBuf);

impl TileSource for Files {
    type Error = std::convert::Infallible;

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(std::fs::read(self.0.join(path)).ok())
    }
}

fn verified(directory: &Path, key: &str) -> Report {
    verify_log(&Files(directory.join("data/log")), &VerifierKey::from_text(key).unwrap(), &[]).unwrap()
}

async fn succeed(fleet: &Fleet, who: &kf_fleet::Principal) -> RotationOutcome {
    let request = RotateRequest { class: Some("log-key".into()), now: true, why: "test".into(), ..Default::default() };
    fleet.rotate(who, request).await.unwrap().items[0].outcome
}

#[tokio::test]
async fn whoever_was_given_the_first_key_follows_every_successor_offline() {
    let scratch = Scratch::new().await;
    scratch.fleet.turn().await;
    let mut keys = vec![scratch.fleet.audit_verifier_key()];
    for _ in 0..3 {
        scratch.pass(UnixMillis::DAY);
        assert_eq!(succeed(&scratch.fleet, &scratch.owner).await, RotationOutcome::Done);
        scratch.device(&format!("device-{}", keys.len())).await;
        scratch.fleet.turn().await;
        keys.push(scratch.fleet.audit_verifier_key());
        for (number, key) in keys.iter().enumerate() {
            let report = verified(scratch.dir.path(), key);
            assert!(report.holds(), "key {number}: {:?}", report.findings);
            assert_eq!(report.successions, keys.len() - 1 - number);
        }
    }
    scratch.pass(15 * UnixMillis::DAY);
    scratch.fleet.turn().await;
    scratch.device("later").await;
    scratch.fleet.turn().await;
    let note = std::fs::read_to_string(scratch.dir.path().join("data/log/checkpoint")).unwrap();
    assert_eq!(
        note.lines().filter(|line| line.starts_with('\u{2014}')).count(),
        1,
        "the old keys sign no more: {note}"
    );
    let scratch = scratch.reopen().await;
    scratch.device("after").await;
    scratch.fleet.turn().await;
    assert!(scratch.fleet.status(&scratch.owner).await.is_ok());
    assert!(verified(scratch.dir.path(), &keys[0]).holds());
    assert_eq!(std::fs::read_to_string(scratch.dir.path().join("data/log.vkey")).unwrap().trim(), keys[3]);
}

#[tokio::test]
async fn a_key_that_was_not_announced_or_is_announced_by_another_log_is_not_followed() {
    let scratch = Scratch::new().await;
    scratch.fleet.turn().await;
    let first = scratch.fleet.audit_verifier_key();
    succeed(&scratch.fleet, &scratch.owner).await;
    scratch.pass(15 * UnixMillis::DAY);
    scratch.fleet.turn().await;
    scratch.device("later").await;
    scratch.fleet.turn().await;
    let log = scratch.dir.path().join("data/log");
    assert!(verified(scratch.dir.path(), &first).holds());
    // Without its link, the new key is anybody's.
    let links = std::fs::read(log.join("succession")).unwrap();
    std::fs::remove_file(log.join("succession")).unwrap();
    let alone = verified(scratch.dir.path(), &first);
    assert!(matches!(&alone.findings[..], [Finding::Checkpoint(_)]), "{:?}", alone.findings);
    std::fs::write(log.join("succession"), "[]x").unwrap();
    assert!(!verified(scratch.dir.path(), &first).holds());
    // A link of a log that names another key at that place: signed by the old key of another fleet.
    let other = Scratch::new().await;
    other.fleet.turn().await;
    succeed(&other.fleet, &other.owner).await;
    std::fs::copy(other.dir.path().join("data/log/succession"), log.join("succession")).unwrap();
    assert!(!verified(scratch.dir.path(), &first).holds());
    std::fs::write(log.join("succession"), &links).unwrap();
    assert!(verified(scratch.dir.path(), &first).holds());
}

#[tokio::test]
async fn a_registry_of_before_a_succession_goes_on_under_a_key_that_the_one_before_announces() {
    // While both keys sign, and after the older one was destroyed.
    for (days, signatures) in [(1, 2), (20, 1)] {
        let rig = Rig::new().await;
        let scratch = &rig.scratch;
        scratch.fleet.turn().await;
        let first = scratch.fleet.audit_verifier_key();
        let made = rig.backup().await;
        scratch.pass(UnixMillis::DAY);
        succeed(&scratch.fleet, &scratch.owner).await;
        let second = scratch.fleet.audit_verifier_key();
        scratch.pass(days * UnixMillis::DAY);
        scratch.fleet.turn().await;
        scratch.device("later").await;
        scratch.fleet.turn().await;
        let (closed, key, pavel) = rig.lost().await;
        let from = closed.path().join("backups").join(made.id.to_string());
        let done = restored_at((&from, None), closed.path(), &key, true).unwrap();
        assert_eq!(done.stopped_since.contains_key("keys of the log"), days > 14, "{:?}", done.stopped_since);
        let scratch = Scratch::at(closed).await;
        assert!(matches!(scratch.fleet.issuance(), Issuance::Fenced(_)), "{:?}", scratch.fleet.issuance());
        let lost = scratch.fleet.restored(&scratch.owner).await.unwrap().unwrap().lost;
        assert_eq!((lost["log.succeed"], lost["device.register"]), (1, 1), "{lost:?}");
        let warned =
            |status: kf_api::status::FleetStatus| status.warnings.iter().any(|warning| warning.contains(&second));
        assert!(warned(scratch.fleet.status(&scratch.owner).await.unwrap()));
        scratch.fleet.turn().await;
        assert_eq!(scratch.fleet.audit_verifier_key(), first, "nobody has agreed to anything yet");
        let proposal = scratch.fleet.restored_accept(&scratch.owner, "we looked".into()).await.unwrap().proposal;
        approve(&scratch, &pavel, proposal).await;
        scratch.fleet.turn().await;
        let third = scratch.fleet.audit_verifier_key();
        assert!(third != first && third != second);
        assert!(!warned(scratch.fleet.status(&scratch.owner).await.unwrap()));
        // Another start, and whoever has the first key follows; the second one leads nowhere, and says so.
        let scratch = scratch.reopen().await;
        assert_eq!(scratch.fleet.issuance(), Issuance::Running);
        scratch.device("after").await;
        scratch.fleet.turn().await;
        let note = std::fs::read_to_string(scratch.dir.path().join("data/log/checkpoint")).unwrap();
        let signed = note.lines().filter(|line| line.starts_with('\u{2014}')).count();
        assert_eq!(signed, signatures, "{days} days: what was destroyed signs no more");
        for place in ["data", "witness"] {
            for key in [&first, &third] {
                let files = Files(scratch.dir.path().join(place).join("log"));
                let report = verify_log(&files, &VerifierKey::from_text(key).unwrap(), &[]).unwrap();
                assert!(report.holds(), "{place}, {key}: {:?}", report.findings);
            }
        }
        assert!(!verified(scratch.dir.path(), &second).holds());
    }
}

#[tokio::test]
async fn a_witness_whose_links_were_made_up_teaches_a_restored_registry_no_key() {
    let rig = Rig::new().await;
    let scratch = &rig.scratch;
    scratch.fleet.turn().await;
    let made = rig.backup().await;
    succeed(&scratch.fleet, &scratch.owner).await;
    scratch.pass(15 * UnixMillis::DAY);
    scratch.fleet.turn().await;
    scratch.device("later").await;
    scratch.fleet.turn().await;
    let (closed, key, _) = rig.lost().await;
    let from = closed.path().join("backups").join(made.id.to_string());
    restored_at((&from, None), closed.path(), &key, true).unwrap();
    // The announcement of another fleet's key in the place of the real one: no checkpoint covers it.
    let stranger = Scratch::new().await.fleet.audit_verifier_key();
    let mirror = closed.path().join("witness/log");
    let mut changed = 0;
    let mut places = vec![mirror.join("tile/entries")];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                places.push(entry);
                continue;
            }
            let octets = std::fs::read(&entry).unwrap();
            let text = String::from_utf8_lossy(&octets).into_owned();
            if let Some(at) = text.find("\"successor\":\"") {
                let name = at + "\"successor\":\"".len();
                let end = name + text[name..].find('"').unwrap();
                let made_up =
                    [&octets[..name], &stranger.as_bytes()[..(end - name).min(stranger.len())], &octets[end..]];
                std::fs::write(&entry, made_up.concat()).unwrap();
                changed += 1;
            }
        }
    }
    assert!(changed > 0);
    let scratch = Scratch::at(closed).await;
    let Issuance::Fenced(why) = scratch.fleet.issuance() else { panic!("{:?}", scratch.fleet.issuance()) };
    assert!(why.contains("checkpoint"), "{why}");
    assert!(scratch.fleet.restored_accept(&scratch.owner, "anyway".into()).await.is_err());
}

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_LOG_KEY_CHILD";

#[tokio::test]
async fn a_crash_at_any_durable_step_of_a_succession_is_finished_and_the_log_verifies_at_each() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (fleet, _, owner, _) = Scratch::open_in(Path::new(&directory)).await.unwrap();
        succeed(&fleet, &owner).await;
        return;
    }
    let scratch = Scratch::new().await;
    scratch.fleet.turn().await;
    let first = scratch.fleet.audit_verifier_key();
    let closed = scratch.closed().await;
    let test = "log_key::a_crash_at_any_durable_step_of_a_succession_is_finished_and_the_log_verifies_at_each";
    let mut crashes = 0;
    for when in 1..200 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        assert!(
            survivor
                .fleet
                .status(&survivor.owner)
                .await
                .unwrap()
                .warnings
                .iter()
                .all(|warning| !warning.contains("fenced"))
        );
        survivor.fleet.turn().await;
        survivor.device("after").await;
        survivor.fleet.turn().await;
        let report = verified(survivor.dir.path(), &first);
        assert!(report.holds() && report.successions <= 1, "crash {when}: {:?}", report.findings);
        if survivor.fleet.audit_verifier_key() == first {
            succeed(&survivor.fleet, &survivor.owner).await;
        }
        assert_ne!(survivor.fleet.audit_verifier_key(), first, "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((12..190).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}
