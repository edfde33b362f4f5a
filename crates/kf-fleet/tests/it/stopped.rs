//! Devices out of service, blocked keys and stopped issuance: none of it un-happens by a restore.

use std::path::Path;

use kf_api::device::{Departure, DeviceAct, DeviceActRequest};
use kf_api::status::{Issuance, IssuanceSwitch};
use kf_crypto::PrivateKey;
use kf_fleet::RestorePoint;
use kf_key::{DeviceState, KeyAlgorithm};

use crate::backup::{Rig, approve, nightly, place, restored_at};
use crate::crash::{copied, killed_child};
use crate::scratch::{Scratch, csr, fresh_csr};

async fn act(scratch: &Scratch, device: &str, act: DeviceAct, departure: Departure) {
    let request = DeviceActRequest { act, departure, why: "test".into(), dry_run: false };
    assert!(scratch.fleet.device_act(&scratch.owner, device, request).await.unwrap().done, "{device}");
}

async fn state(scratch: &Scratch, device: &str) -> DeviceState {
    scratch.fleet.device_show(&scratch.owner, device).await.unwrap().device.state
}

async fn switch(scratch: &Scratch, facility: Option<&str>, run: bool) {
    let switch = IssuanceSwitch { run, why: "drill".into(), facility: facility.map(str::to_owned) };
    scratch.fleet.issuance_switch(&scratch.owner, switch).await.unwrap();
}

const DEVICES: [&str; 6] = ["suspended", "quarantined", "retired", "stolen", "resumed", "untouched"];

/// Active devices, a backup of then and an increment, and what happens to them afterwards.
async fn stopped(rig: &Rig, blocked: &PrivateKey) -> RestorePoint {
    let scratch = &rig.scratch;
    for name in DEVICES {
        scratch.device(name).await;
        scratch.enrol(name).await;
    }
    scratch.device_at("elsewhere", "plant-b", "thermo").await;
    rig.backup().await;
    let point =
        scratch.fleet.backup_create(&scratch.owner, kf_api::backup::NewBackup { incremental: true, ..nightly() });
    let point = RestorePoint::Entry(point.await.unwrap().manifest.unwrap().log_size);
    scratch.pass(1_000);
    act(scratch, "suspended", DeviceAct::Suspend, Departure::Retired).await;
    act(scratch, "quarantined", DeviceAct::Quarantine, Departure::Retired).await;
    act(scratch, "retired", DeviceAct::Decommission, Departure::Retired).await;
    act(scratch, "stolen", DeviceAct::Decommission, Departure::Stolen).await;
    act(scratch, "resumed", DeviceAct::Suspend, Departure::Retired).await;
    act(scratch, "resumed", DeviceAct::Resume, Departure::Retired).await;
    let spki = kf_crypto::sha256(&blocked.spki());
    scratch.fleet.key_block(&scratch.owner, vec![spki], "leaked".into()).await.unwrap();
    switch(scratch, Some("plant-b"), false).await;
    switch(scratch, None, false).await;
    switch(scratch, None, true).await;
    point
}

#[tokio::test]
async fn what_was_stopped_after_the_backup_is_stopped_again_and_what_went_on_goes_on() {
    let rig = Rig::new().await;
    let blocked = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let point = stopped(&rig, &blocked).await;
    let (closed, key, pavel) = rig.lost().await;
    let from = closed.path().join("backups");
    let done = restored_at((&from, Some(point)), closed.path(), &key, true).unwrap();
    assert_eq!((done.stopped_since["devices"], done.stopped_since["blocked keys"]), (4, 1), "{:?}", done.stopped_since);
    let scratch = Scratch::at(closed).await;
    let expected = [
        DeviceState::Suspended,
        DeviceState::Quarantined,
        DeviceState::Decommissioned,
        DeviceState::Decommissioned,
        DeviceState::Active,
        DeviceState::Active,
    ];
    for (name, expected) in DEVICES.into_iter().zip(expected) {
        assert_eq!(state(&scratch, name).await, expected, "{name}");
    }
    let found = scratch.fleet.restored(&scratch.owner).await.unwrap().unwrap();
    assert_eq!(found.devices, 4, "{found:?}");
    let proposal = scratch.fleet.restored_accept(&scratch.owner, "we looked".into()).await.unwrap().proposal;
    approve(&scratch, &pavel, proposal).await;
    // Nor afterwards, nor after the next start.
    let scratch = scratch.reopen().await;
    assert_eq!(scratch.fleet.issuance(), Issuance::Running);
    for (name, expected) in DEVICES.into_iter().zip(expected) {
        assert_eq!(state(&scratch, name).await, expected, "{name}");
    }
    let code = scratch.code("untouched").await;
    let leaked = scratch.enrol_with("untouched", &code, &csr(&blocked)).await;
    assert!(leaked.is_err(), "{leaked:?}");
    let code = scratch.code("elsewhere").await;
    let refused = scratch.enrol_with("elsewhere", &code, &fresh_csr()).await;
    assert!(refused.unwrap_err().to_string().contains("stopped"));
    switch(&scratch, Some("plant-b"), true).await;
    act(&scratch, "suspended", DeviceAct::Resume, Departure::Retired).await;
    let scratch = scratch.reopen().await;
    assert_eq!(state(&scratch, "suspended").await, DeviceState::Active, "whoever is let in now is in");
    scratch.enrol("elsewhere").await;
}

/// Names the directory in which the child of a test below works.
const CHILD: &str = "KF_FLEET_STOPPED_CHILD";

#[tokio::test]
async fn a_start_that_was_cut_short_anywhere_stops_every_device_once() {
    if let Some(directory) = std::env::var_os(CHILD) {
        Scratch::open_in(Path::new(&directory)).await.unwrap();
        return;
    }
    let rig = Rig::new().await;
    let blocked = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let point = stopped(&rig, &blocked).await;
    let (closed, key, _) = rig.lost().await;
    restored_at((&closed.path().join("backups"), Some(point)), closed.path(), &key, true).unwrap();
    let test = "stopped::a_start_that_was_cut_short_anywhere_stops_every_device_once";
    let mut crashes = 0;
    for when in 1..200 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        assert_eq!(state(&survivor, "suspended").await, DeviceState::Suspended, "crash {when}");
        assert_eq!(state(&survivor, "stolen").await, DeviceState::Decommissioned, "crash {when}");
        assert_eq!(state(&survivor, "resumed").await, DeviceState::Active, "crash {when}");
        let found = survivor.fleet.restored(&survivor.owner).await.unwrap().unwrap();
        assert_eq!(found.devices, 4, "crash {when}: counted once");
        assert!(matches!(survivor.fleet.issuance(), Issuance::Fenced(_)), "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((5..190).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}

#[tokio::test]
async fn a_crash_at_any_durable_step_of_a_suspension_leaves_no_way_back_once_it_was_acknowledged() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (fleet, _, owner, _) = Scratch::open_in(Path::new(&directory)).await.unwrap();
        let request = |act| DeviceActRequest { act, departure: Departure::Retired, why: "test".into(), dry_run: false };
        fleet.device_act(&owner, "thermo-1", request(DeviceAct::Suspend)).await.unwrap();
        fleet.turn().await;
        fleet.device_act(&owner, "thermo-2", request(DeviceAct::Resume)).await.unwrap();
        fleet.turn().await;
        return;
    }
    let rig = Rig::new().await;
    for name in ["thermo-1", "thermo-2"] {
        rig.scratch.device(name).await;
        rig.scratch.enrol(name).await;
    }
    let made = rig.backup().await;
    act(&rig.scratch, "thermo-2", DeviceAct::Suspend, Departure::Retired).await;
    rig.scratch.fleet.turn().await;
    let key = rig.key;
    let from = place(&made);
    let closed = rig.scratch.closed().await;
    let kept = tempfile::tempdir().unwrap();
    crate::rollback::copy(&from, &kept.path().join("backup"));
    let test = "stopped::a_crash_at_any_durable_step_of_a_suspension_leaves_no_way_back_once_it_was_acknowledged";
    let (mut crashes, mut stopped, mut resumed) = (0, 0, 0);
    for when in 1..200 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        // What the registry says after the crash, and its next start, must hold after a restore.
        let survivor = Scratch::at(directory).await;
        let seen = [state(&survivor, "thermo-1").await, state(&survivor, "thermo-2").await];
        stopped += usize::from(seen[0] == DeviceState::Suspended);
        resumed += usize::from(seen[1] == DeviceState::Active);
        let directory = survivor.closed().await;
        std::fs::remove_dir_all(directory.path().join("data")).unwrap();
        restored_at((&kept.path().join("backup"), None), directory.path(), &key, true).unwrap();
        let restored = Scratch::at(directory).await;
        let found = [state(&restored, "thermo-1").await, state(&restored, "thermo-2").await];
        assert_eq!(found, seen, "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((4..190).contains(&crashes) && stopped >= 2 && resumed >= 1, "{crashes}, {stopped}, {resumed}");
}
