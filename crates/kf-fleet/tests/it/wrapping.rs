//! The wrapping key rotates: everything is moved, nothing is lost at any crash, and what is destroyed ends in every backup.

use std::path::Path;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_age::Identity;
use kf_api::backup::NewBackupKey;
use kf_api::destruction::{DestructionRequest, DestructionResult, DestructionTarget};
use kf_api::encryption_key::{CipherItem, CipherRequest, DecryptOutcome, EncryptRequest, NewEncryptionKey, PlainItem};
use kf_api::inventory::InventoryFilter;
use kf_api::operator::{Credential, Role};
use kf_api::proposal::{ProposalDecision, ProposalState};
use kf_api::rotation::{RotateRequest, RotationOperation, RotationOutcome, RotationReport};
use kf_fleet::{Fleet, FleetError, Principal};
use kf_key::{KeyState, UnixMillis};

use crate::backup::{Rig, nightly, place, restored_at};
use crate::crash::{copied, killed_child};
use crate::destruction::{approve, decommission, of_device, receipts};
use crate::exchange::Firmware;
use crate::scratch::{Scratch, field_of};

fn now(dry_run: bool) -> RotateRequest {
    RotateRequest { class: Some("wrapping-key".into()), now: true, dry_run, why: "test".into(), ..Default::default() }
}

fn due(dry_run: bool) -> RotateRequest {
    RotateRequest { now: false, ..now(dry_run) }
}

async fn rotate(fleet: &Fleet, who: &Principal, request: RotateRequest) -> RotationReport {
    fleet.rotate(who, request).await.unwrap()
}

/// Version, state, and how many rows lie under it.
async fn versions(fleet: &Fleet, who: &Principal) -> Vec<(String, KeyState, u64)> {
    let filter = InventoryFilter { class: Some("wrapping-key".into()), ended: true, ..InventoryFilter::default() };
    let page = fleet.inventory(who, filter).await.unwrap();
    page.items.into_iter().map(|key| (key.key, key.state, key.protects.unwrap())).collect()
}

async fn sweep(fleet: &Fleet) -> u64 {
    let mut moved = 0;
    loop {
        let part = fleet.rewrap_some(3).await.unwrap();
        assert_eq!(part.unreadable, 0, "a row does not open");
        moved += part.moved;
        if !part.more {
            return moved;
        }
    }
}

async fn encrypted(scratch: &Scratch) -> String {
    let new = NewEncryptionKey { name: "patients".into(), facility: "plant-a".into() };
    scratch.fleet.encryption_key_create(&scratch.owner, new).await.unwrap();
    let clinic = scratch.operator("clinic", Role::FleetOperator, &[]).await;
    let item = PlainItem { plaintext: BASE64_STANDARD.encode("x"), external_aad: String::new() };
    let request = EncryptRequest { items: vec![item] };
    scratch.fleet.data_encrypt(&clinic, "patients", request).await.unwrap().ciphertexts.remove(0)
}

fn person(role: Role) -> Principal {
    Principal::new("op_00000000000000000000000001".into(), "somebody".into(), role, [], Credential::Token)
}

async fn decrypts(fleet: &Fleet, ciphertext: &str) -> bool {
    let item = CipherItem { ciphertext: ciphertext.into(), external_aad: String::new() };
    let request = CipherRequest { items: vec![item] };
    let answer = fleet.data_decrypt(&person(Role::FleetOperator), "patients", request).await.unwrap();
    matches!(&answer.items[..], [DecryptOutcome::Decrypted { .. }])
}

fn of_version(version: u32) -> DestructionRequest {
    DestructionRequest {
        target: DestructionTarget::WrappingVersion { version },
        why: "rotated".into(),
        station_records_erased: false,
        dry_run: false,
    }
}

async fn destroyed(scratch: &Scratch, by: &Principal, version: u32) {
    let proposal = scratch.fleet.destroy(&scratch.owner, of_version(version)).await.unwrap().proposal.unwrap();
    approve(scratch, by, proposal).await.unwrap();
}

/// A fleet with a device that holds its key, an encryption key, and everything of it under version 2.
async fn at_version_two() -> (Scratch, Firmware, String) {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    device.exchange(&scratch).await.unwrap();
    let ciphertext = encrypted(&scratch).await;
    rotate(&scratch.fleet, &scratch.owner, now(false)).await;
    sweep(&scratch.fleet).await;
    (scratch, device, ciphertext)
}

#[tokio::test]
async fn a_rotation_moves_every_row_in_the_background_and_nobody_who_uses_them_notices() {
    let scratch = Scratch::new().await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    device.exchange(&scratch).await.unwrap();
    let ciphertext = encrypted(&scratch).await;
    let before = versions(&scratch.fleet, &scratch.owner).await;
    let [(one, KeyState::Active, rows)] = &before[..] else { panic!("{before:?}") };
    // Root, issuing CA, log, delivery, order; one salt; one version of an encryption key.
    assert_eq!((one.as_str(), *rows), ("wrap:1", 7));
    let dry = rotate(&scratch.fleet, &scratch.owner, now(true)).await;
    assert_eq!(dry.items[0].outcome, RotationOutcome::Planned);
    assert_eq!(versions(&scratch.fleet, &scratch.owner).await, before, "a dry run changes nothing");
    assert!(rotate(&scratch.fleet, &scratch.owner, due(false)).await.items.is_empty(), "it is not due");

    let report = rotate(&scratch.fleet, &scratch.owner, now(false)).await;
    assert_eq!(
        (report.items[0].operation, report.items[0].outcome),
        (RotationOperation::MakeSuccessor, RotationOutcome::Done)
    );
    let between = versions(&scratch.fleet, &scratch.owner).await;
    assert_eq!(between[0], ("wrap:1".into(), KeyState::Deactivated, 7));
    assert_eq!(between[1], ("wrap:2".into(), KeyState::Active, 0));
    // Both are readable meanwhile, and what is new lies under the new one.
    assert!(decrypts(&scratch.fleet, &ciphertext).await);
    device.exchange(&scratch).await.unwrap();
    Firmware::enrolled(&scratch, "thermo-2").await.exchange(&scratch).await.unwrap();
    assert_eq!(versions(&scratch.fleet, &scratch.owner).await[1].2, 1);
    assert_eq!(scratch.fleet.rewrap_some(2).await.unwrap().moved, 2);
    let step = &rotate(&scratch.fleet, &scratch.owner, due(true)).await.items[0];
    assert_eq!((step.operation, step.remaining), (RotationOperation::Reprotect, Some(5)));
    let early = scratch.fleet.destroy(&scratch.owner, of_version(1)).await.unwrap_err();
    assert!(early.to_string().contains("5 rows"), "{early}");
    scratch.fleet.turn().await;
    assert_eq!(versions(&scratch.fleet, &scratch.owner).await[1], ("wrap:2".into(), KeyState::Active, 8));
    assert_eq!(sweep(&scratch.fleet).await, 0, "what is done is not done again");
    let step = &rotate(&scratch.fleet, &scratch.owner, due(true)).await.items[0];
    assert_eq!((step.operation, step.remaining), (RotationOperation::Destroy, Some(0)));

    let scratch = scratch.reopen().await;
    assert!(decrypts(&scratch.fleet, &ciphertext).await);
    device.exchange(&scratch).await.unwrap();
    scratch.enrol_again("thermo-1").await;
    scratch.fleet.turn().await;
}

#[tokio::test]
async fn only_who_manages_the_servers_keys_rotates_them_and_of_two_one_is_told() {
    let scratch = Scratch::new().await;
    let berta = scratch.operator("berta", Role::FacilityOperator, &["plant-a"]).await;
    rotate(&scratch.fleet, &berta, now(false)).await;
    assert_eq!(versions(&scratch.fleet, &scratch.owner).await.len(), 1);
    assert!(matches!(scratch.fleet.destroy(&berta, of_version(1)).await, Err(FleetError::Denied(_))));
    let asked = RotateRequest { class: Some("facility-key".into()), ..now(false) };
    assert_eq!(field_of(&scratch.fleet.rotate(&scratch.owner, asked).await.unwrap_err()), "now");
    let asked = RotateRequest { class: Some("no-such-key".into()), ..due(false) };
    assert_eq!(field_of(&scratch.fleet.rotate(&scratch.owner, asked).await.unwrap_err()), "class");
    let active = scratch.fleet.destroy(&scratch.owner, of_version(1)).await.unwrap_err();
    assert!(active.to_string().contains("the newest"), "{active}");

    let (one, other) = tokio::join!(
        scratch.fleet.rotate(&scratch.owner, now(false)),
        scratch.fleet.rotate(&scratch.owner, now(false))
    );
    let steps = [one.unwrap(), other.unwrap()].map(|report| report.items.into_iter().next().unwrap());
    let done = steps.iter().filter(|step| step.outcome == RotationOutcome::Done).count();
    let refused = steps.iter().filter(|step| step.outcome == RotationOutcome::Refused).count();
    let made = versions(&scratch.fleet, &scratch.owner).await.len() - 1;
    assert_eq!((done, done + refused), (made, 2), "{steps:?}");
}

#[tokio::test]
async fn the_policy_makes_the_next_version_when_it_is_due() {
    let scratch = Scratch::with(|config| config.rotation_automatic = true).await;
    scratch.fleet.turn().await;
    assert_eq!(versions(&scratch.fleet, &scratch.owner).await.len(), 1);
    scratch.pass(3 * 365 * UnixMillis::DAY);
    scratch.fleet.turn().await;
    scratch.fleet.turn().await;
    let found = versions(&scratch.fleet, &scratch.owner).await;
    assert_eq!((found.len(), found[0].2), (2, 0), "{found:?}");
}

#[tokio::test]
async fn a_destroyed_version_ends_what_it_wrapped_in_every_backup_and_the_receipt_names_them() {
    let (scratch, _device, ciphertext) = at_version_two().await;
    let (key, alice) = (Identity::generate(), Identity::generate());
    let new = NewBackupKey { recipient: key.recipient().to_string(), sealed_to: vec![alice.recipient().to_string()] };
    scratch.fleet.backup_key_create(&scratch.owner, new).await.unwrap();
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    destroyed(&scratch, &pavel, 1).await;
    let first = receipts(&scratch).await.remove(0);
    assert_eq!((first.result, first.barred_otherwise), (DestructionResult::Barred, true));
    assert!(first.exceptions.iter().any(|exception| exception.contains("derived from the root")), "{first:?}");
    scratch.pass(UnixMillis::HOUR);
    let backup = scratch.fleet.backup_create(&scratch.owner, nightly()).await.unwrap();
    scratch.pass(UnixMillis::HOUR);
    decommission(&scratch, "thermo-1").await;
    let proposal = scratch.fleet.destroy(&scratch.owner, of_device("thermo-1")).await.unwrap().proposal.unwrap();
    approve(&scratch, &pavel, proposal).await.unwrap();
    let barred = receipts(&scratch).await.remove(0);
    assert_eq!((barred.result, &barred.barred_by[..]), (DestructionResult::Barred, &[backup.id][..]));

    rotate(&scratch.fleet, &scratch.owner, now(false)).await;
    sweep(&scratch.fleet).await;
    let dry = DestructionRequest { dry_run: true, ..of_version(2) };
    let plan = scratch.fleet.destroy(&scratch.owner, dry).await.unwrap().plan;
    assert_eq!(plan.result, DestructionResult::Destroyed);
    assert!(plan.exceptions.iter().any(|exception| exception.contains(&backup.id.to_string())), "{plan:?}");
    destroyed(&scratch, &pavel, 2).await;
    let all = receipts(&scratch).await;
    let second = all.iter().find(|receipt| receipt.target == "wrapping-version 2").unwrap();
    assert_eq!(second.result, DestructionResult::Destroyed);
    let scan = second.verification.unwrap();
    assert!(scan.fragments_before.unwrap() > 0 && scan.fragments_after == 0 && scan.files == 2, "{scan:?}");
    let settled = all.iter().find(|receipt| receipt.id == barred.id).unwrap();
    assert_eq!(settled.result, DestructionResult::Destroyed, "the backup holds its salt, and nobody opens it");
    assert!(decrypts(&scratch.fleet, &ciphertext).await);
    let again = scratch.fleet.destroy(&scratch.owner, of_version(2)).await.unwrap_err();
    assert!(again.to_string().contains("destroyed already"), "{again}");
    let scratch = scratch.reopen().await;
    assert!(decrypts(&scratch.fleet, &ciphertext).await);
    let states: Vec<_> =
        versions(&scratch.fleet, &scratch.owner).await.into_iter().map(|(_, state, _)| state).collect();
    assert_eq!(states, [KeyState::Destroyed, KeyState::Destroyed, KeyState::Active]);
}

#[tokio::test]
async fn a_file_of_wrapping_keys_that_is_lost_comes_back_from_the_witness_or_is_asked_for_by_name() {
    let (scratch, _device, ciphertext) = at_version_two().await;
    let closed = scratch.closed().await;
    let data = closed.path().join("data/wrapping.keys");
    let kept = std::fs::read(&data).unwrap();
    std::fs::remove_file(&data).unwrap();
    let without = copied(closed.path());
    let scratch = Scratch::at(closed).await;
    assert!(decrypts(&scratch.fleet, &ciphertext).await);
    assert_eq!(std::fs::read(&data).unwrap(), kept);

    std::fs::remove_file(without.path().join("witness/wrapping.keys")).unwrap();
    let refused = Scratch::try_at(copied(without.path())).await.err().unwrap();
    assert!(refused.to_string().contains("wrapping.keys") && refused.to_string().contains("version 2"), "{refused}");
    std::fs::write(without.path().join("data/wrapping.keys"), &kept).unwrap();
    assert!(decrypts(&Scratch::at(without).await.fleet, &ciphertext).await);
}

#[tokio::test]
async fn a_registry_of_before_the_rotation_adopts_the_version_and_one_of_before_a_destruction_says_what_is_lost() {
    let (scratch, _device, ciphertext) = at_version_two().await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let closed = scratch.closed().await;
    let old = copied(closed.path());
    let scratch = Scratch::at(closed).await;
    rotate(&scratch.fleet, &scratch.owner, now(false)).await;
    let file = std::fs::read(scratch.dir.path().join("data/wrapping.keys")).unwrap();
    sweep(&scratch.fleet).await;
    let adopting = copied(old.path());
    std::fs::write(adopting.path().join("data/wrapping.keys"), &file).unwrap();
    let adopting = Scratch::at(adopting).await;
    assert_eq!(versions(&adopting.fleet, &adopting.owner).await.last().unwrap().0, "wrap:3");
    sweep(&adopting.fleet).await;
    assert!(decrypts(&adopting.fleet, &ciphertext).await);

    destroyed(&scratch, &pavel, 2).await;
    let closed = scratch.closed().await;
    let losing = copied(old.path());
    std::fs::copy(closed.path().join("witness/wrapping.keys"), losing.path().join("witness/wrapping.keys")).unwrap();
    // Its CA keys are gone with version 2: it does not serve as if nothing had happened.
    let lost = Scratch::try_at(losing).await;
    if let Ok(lost) = lost {
        assert!(
            lost.fleet
                .data_decrypt(
                    &person(Role::FleetOperator),
                    "patients",
                    CipherRequest {
                        items: vec![CipherItem { ciphertext: ciphertext.clone(), external_aad: String::new() }],
                    }
                )
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn a_backup_of_before_a_rotation_is_restored_and_one_whose_version_is_destroyed_is_refused_by_its_number() {
    let (scratch, _device, ciphertext) = at_version_two().await;
    let rig = Rig::over(scratch).await;
    let made = rig.backup().await;
    rotate(&rig.scratch.fleet, &rig.scratch.owner, now(false)).await;
    sweep(&rig.scratch.fleet).await;
    rig.scratch.fleet.turn().await;
    let from = tempfile::tempdir().unwrap();
    crate::rollback::copy(&place(&made), &from.path().join("backup"));
    let from = from.path().join("backup");
    let (closed, key, pavel) = rig.lost().await;
    let lost = copied(closed.path());
    restored_at((&from, None), closed.path(), &key, true).unwrap();
    let scratch = Scratch::at(closed).await;
    let newest = versions(&scratch.fleet, &scratch.owner).await.pop().unwrap().0;
    assert_eq!(newest, "wrap:3", "what was made later wraps what is made now");
    assert!(scratch.fleet.rewrap_some(3).await.is_err(), "it is fenced");
    let proposal = scratch.fleet.restored_accept(&scratch.owner, "we looked".into()).await.unwrap().proposal;
    approve(&scratch, &pavel, proposal).await.unwrap();
    assert!(decrypts(&scratch.fleet, &ciphertext).await, "the witness has every version");
    sweep(&scratch.fleet).await;
    destroyed(&scratch, &pavel, 2).await;
    assert!(decrypts(&scratch.fleet, &ciphertext).await);
    scratch.fleet.turn().await;
    let closed = scratch.closed().await;
    std::fs::remove_dir_all(lost.path().join("witness")).unwrap();
    crate::rollback::copy(&closed.path().join("witness"), &lost.path().join("witness"));
    let refused = restored_at((&from, None), lost.path(), &key, true).unwrap_err().to_string();
    assert!(refused.contains("under version 2 of the wrapping key, which is destroyed"), "{refused}");
    assert!(!lost.path().join("data/registry.sqlite").exists());
}

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_WRAPPING_CHILD";

/// From wherever a crash left it to the end: version 3, everything under it, version 2 destroyed.
async fn to_the_end(fleet: &Arc<Fleet>, owner: &Principal) {
    if versions(fleet, owner).await.len() < 3 {
        rotate(fleet, owner, now(false)).await;
    }
    sweep(fleet).await;
    let is_left =
        versions(fleet, owner).await.iter().any(|(key, state, _)| key == "wrap:2" && *state != KeyState::Destroyed);
    let all = fleet.proposal_list(owner, Default::default()).await.unwrap().items;
    let proposal = match all.iter().find(|proposal| proposal.state == ProposalState::Waiting) {
        Some(proposal) => Some(proposal.id),
        None if is_left => fleet.destroy(owner, of_version(2)).await.unwrap().proposal,
        None => None,
    };
    if let Some(proposal) = proposal {
        let yes = ProposalDecision { approve: true, why: "agreed".into() };
        fleet.proposal_decide(&person(Role::FleetOperator), proposal, yes).await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_at_any_durable_step_of_a_rotation_and_a_destruction_loses_nothing_and_is_finished() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (fleet, _, owner, _) = Scratch::open_in(Path::new(&directory)).await.unwrap();
        to_the_end(&fleet, &owner).await;
        return;
    }
    let (scratch, _device, ciphertext) = at_version_two().await;
    let closed = scratch.closed().await;
    let test = "wrapping::a_crash_at_any_durable_step_of_a_rotation_and_a_destruction_loses_nothing_and_is_finished";
    let mut crashes = 0;
    for when in 1..300 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        assert!(decrypts(&survivor.fleet, &ciphertext).await, "crash {when}: nothing is unreadable");
        to_the_end(&survivor.fleet, &survivor.owner).await;
        let found = versions(&survivor.fleet, &survivor.owner).await;
        let states: Vec<_> = found.iter().map(|(_, state, rows)| (*state, *rows)).collect();
        let expected = [(KeyState::Deactivated, 0), (KeyState::Destroyed, 0), (KeyState::Active, 7)];
        assert_eq!(states, expected, "crash {when}");
        assert!(decrypts(&survivor.fleet, &ciphertext).await, "crash {when}");
        survivor.fleet.turn().await;
        assert_eq!(receipts(&survivor).await.len(), 1, "crash {when}: one receipt, whatever happened");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((12..290).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}
