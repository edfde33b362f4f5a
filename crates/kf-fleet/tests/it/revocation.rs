use std::path::Path;

use kf_api::device::{Departure, DeviceAct, DeviceActRequest};
use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_fleet::{Fleet, FleetError, Principal};
use kf_key::{CertificateStatus, RevocationReason, SerialNumber, UnixMillis};
use kf_pki::crl::CrlScope;
use kf_pki::issuer::Issuer;
use kf_pki::ocsp::{CertStatus, make_request, verify_response};
use kf_store::Options;

use crate::backup::{Rig, place, restored_at, status_of};
use crate::crash::{copied, killed_child};
use crate::scratch::{Scratch, fresh_csr};

fn issuer(scratch: &Scratch, authority: &kf_api::authority::Authority) -> Issuer {
    let der = scratch.fleet.authority_certificate(authority.id).unwrap();
    Issuer::from_certificate(authority.id, &der, authority.shard_count, "http://127.0.0.1:8080").unwrap()
}

async fn issuing(scratch: &Scratch) -> kf_api::authority::Authority {
    scratch.fleet.authority_show(&scratch.owner, "issuing").await.unwrap()
}

async fn ocsp_says(scratch: &Scratch, serial: SerialNumber, nonce: Option<&[u8]>) -> CertStatus {
    let issuer = issuer(scratch, &issuing(scratch).await);
    let answer = scratch.fleet.ocsp(&make_request(&issuer, serial, nonce)).await;
    verify_response(&answer.der, &issuer, serial, nonce, scratch.fleet.clock().now()).unwrap()
}

async fn crl_holds(scratch: &Scratch, serial: SerialNumber) -> bool {
    let authority = issuing(scratch).await;
    let shard = serial.shard(authority.shard_count);
    let crl = scratch.fleet.crl(authority.id, CrlScope::Shard(shard)).await.unwrap().unwrap();
    let full = scratch.fleet.crl(authority.id, CrlScope::Full).await.unwrap().unwrap();
    let needle = serial.as_bytes();
    let holds = |der: &[u8]| der.windows(needle.len()).any(|window| window == needle);
    assert_eq!(holds(&crl.der), holds(&full.der), "shard and full list differ");
    holds(&crl.der)
}

fn request(target: RevocationTarget, reason: RevocationReason) -> RevokeRequest {
    RevokeRequest { target, reason, why: "test".into(), verify: false, dry_run: false }
}

#[tokio::test]
async fn a_revocation_is_in_ocsp_when_it_is_answered_and_in_the_crl_after_one_turn() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let serial = scratch.enrol("thermo-1").await.serial;
    assert_eq!(ocsp_says(&scratch, serial, None).await, CertStatus::Good);
    assert!(!crl_holds(&scratch, serial).await);
    let target = RevocationTarget::Device("thermo-1".into());
    let outcome = scratch.fleet.revoke(&scratch.owner, request(target, RevocationReason::KeyCompromise)).await.unwrap();
    assert!(outcome.done);
    assert_eq!((outcome.certificates, outcome.devices), (1, 1));
    for nonce in [None, Some(&b"sixteen octets !"[..])] {
        let status = ocsp_says(&scratch, serial, nonce).await;
        assert!(matches!(status, CertStatus::Revoked { reason: RevocationReason::KeyCompromise, .. }), "{status:?}");
    }
    scratch.fleet.turn().await;
    assert!(crl_holds(&scratch, serial).await);
}

#[tokio::test]
async fn a_certificate_that_was_never_issued_is_not_good() {
    let scratch = Scratch::new().await;
    let serial = SerialNumber::from_parts(UnixMillis(1_800_000_000_000), [7; 16]);
    let status = ocsp_says(&scratch, serial, None).await;
    assert!(!matches!(status, CertStatus::Good), "{status:?}");
}

#[tokio::test]
async fn a_hold_is_released_and_a_revocation_is_not() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let serial = scratch.enrol("thermo-1").await.serial;
    let target = RevocationTarget::Certificate(serial);
    for (reason, good) in [
        (RevocationReason::CertificateHold, false),
        (RevocationReason::RemoveFromCrl, true),
        (RevocationReason::Superseded, false),
    ] {
        scratch.fleet.revoke(&scratch.owner, request(target.clone(), reason)).await.unwrap();
        scratch.fleet.turn().await;
        assert_eq!(ocsp_says(&scratch, serial, None).await == CertStatus::Good, good, "{reason}");
        assert_eq!(crl_holds(&scratch, serial).await, !good, "{reason}");
    }
    let undo = scratch.fleet.revoke(&scratch.owner, request(target, RevocationReason::RemoveFromCrl)).await;
    assert!(matches!(undo, Err(FleetError::Conflict { .. })), "{undo:?}");
    assert!(crl_holds(&scratch, serial).await);
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let serial = scratch.enrol("thermo-1").await.serial;
    let mut asked = request(RevocationTarget::Batch("batch-1".into()), RevocationReason::KeyCompromise);
    asked.dry_run = true;
    let outcome = scratch.fleet.revoke(&scratch.owner, asked).await.unwrap();
    assert!(!outcome.done);
    assert_eq!((outcome.certificates, outcome.devices), (1, 1));
    assert_eq!(ocsp_says(&scratch, serial, None).await, CertStatus::Good);
}

#[tokio::test]
async fn decommissioning_revokes_the_ldevids_in_the_same_act_and_is_final() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let serial = scratch.enrol("thermo-1").await.serial;
    let act = |act| DeviceActRequest { act, why: "sold".into(), departure: Departure::Retired, dry_run: false };
    let outcome = scratch.fleet.device_act(&scratch.owner, "thermo-1", act(DeviceAct::Decommission)).await.unwrap();
    assert!(outcome.done);
    assert!(matches!(ocsp_says(&scratch, serial, None).await, CertStatus::Revoked { .. }));
    let back = scratch.fleet.device_act(&scratch.owner, "thermo-1", act(DeviceAct::Resume)).await;
    assert!(matches!(back, Err(FleetError::Conflict { .. })), "{back:?}");
}

#[tokio::test]
async fn revocations_and_crl_numbers_survive_a_restart() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let serial = scratch.enrol("thermo-1").await.serial;
    let target = RevocationTarget::Certificate(serial);
    scratch.fleet.revoke(&scratch.owner, request(target, RevocationReason::KeyCompromise)).await.unwrap();
    scratch.fleet.turn().await;
    let authority = issuing(&scratch).await;
    let before = scratch.fleet.crl(authority.id, CrlScope::Full).await.unwrap().unwrap().number;
    let scratch = scratch.reopen().await;
    let after = scratch.fleet.crl(authority.id, CrlScope::Full).await.unwrap().unwrap().number;
    assert!(after > before, "{after} after {before}");
    assert!(crl_holds(&scratch, serial).await);
    assert!(matches!(ocsp_says(&scratch, serial, None).await, CertStatus::Revoked { .. }));
}

#[tokio::test]
async fn an_expired_entry_leaves_the_crl_after_it_was_on_one_past_its_expiry() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let serial = scratch.enrol("thermo-1").await.serial;
    let target = RevocationTarget::Certificate(serial);
    scratch.fleet.revoke(&scratch.owner, request(target, RevocationReason::KeyCompromise)).await.unwrap();
    scratch.fleet.turn().await;
    scratch.pass(91 * UnixMillis::DAY);
    scratch.fleet.turn().await;
    let authority = issuing(&scratch).await;
    scratch.fleet.crl(authority.id, CrlScope::Full).await.unwrap();
    assert!(crl_holds(&scratch, serial).await, "it must be on one list past its expiry");
    scratch.pass(UnixMillis::DAY);
    scratch.fleet.turn().await;
    assert!(!crl_holds(&scratch, serial).await);
}

#[tokio::test]
async fn on_a_full_disk_revocation_goes_on_and_issuance_says_why_not() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    scratch.device("thermo-2").await;
    let serial = scratch.enrol("thermo-1").await.serial;
    let code = scratch.code("thermo-2").await;
    let pages = std::fs::metadata(scratch.dir.path().join("data/registry.sqlite")).unwrap().len() / 4_096;
    let options = Options {
        max_pages: Some(u32::try_from(pages).unwrap() + 80),
        reserve_octets: 64 * 4_096,
        ..Options::default()
    };
    let scratch = scratch.reopen_with(options).await;
    let mut full = false;
    for number in 0..5_000 {
        let new = kf_api::device::NewDevice {
            name: format!("filler-{number}"),
            facility: "plant-a".into(),
            product_line: "thermo".into(),
            batch: None,
            attributes: Default::default(),
        };
        match scratch.fleet.device_register(&scratch.owner, new).await {
            Ok(_) => {}
            Err(FleetError::StoreFull) => {
                full = true;
                break;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(full, "the store never filled up");
    let refused = scratch.enrol_with("thermo-2", &code, &fresh_csr()).await;
    assert!(matches!(refused, Err(FleetError::StoreFull)), "{refused:?}");
    let target = RevocationTarget::Certificate(serial);
    let outcome = scratch.fleet.revoke(&scratch.owner, request(target, RevocationReason::KeyCompromise)).await.unwrap();
    assert!(outcome.done);
    assert!(scratch.fleet.device_show(&scratch.owner, "thermo-1").await.is_ok());
}

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_REVOCATION_CHILD";
const REVOKED: [&str; 3] = ["thermo-1", "thermo-2", "thermo-3"];

/// Everything of `REVOKED`, at once.
async fn revoke_plant(fleet: &Fleet, who: &Principal) -> bool {
    let target = RevocationTarget::Facility("plant-a".into());
    fleet.revoke(who, request(target, RevocationReason::KeyCompromise)).await.unwrap().done
}

#[tokio::test]
async fn a_crash_at_any_durable_step_of_a_revocation_leaves_all_or_none_revoked_and_no_way_back() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (fleet, _, owner, _) = Scratch::open_in(Path::new(&directory)).await.unwrap();
        assert!(revoke_plant(&fleet, &owner).await);
        fleet.turn().await;
        return;
    }
    let rig = Rig::new().await;
    let mut serials = Vec::new();
    for name in REVOKED {
        rig.scratch.device(name).await;
        serials.push(rig.scratch.enrol(name).await.serial);
    }
    rig.scratch.device_at("elsewhere", "plant-b", "thermo").await;
    let untouched = rig.scratch.enrol("elsewhere").await.serial;
    let from = place(&rig.backup().await);
    rig.scratch.fleet.turn().await;
    let key = rig.key;
    let closed = rig.scratch.closed().await;
    let kept = tempfile::tempdir().unwrap();
    crate::rollback::copy(&from, &kept.path().join("backup"));
    let test = "revocation::a_crash_at_any_durable_step_of_a_revocation_leaves_all_or_none_revoked_and_no_way_back";
    let (mut crashes, mut revoked) = (0, 0);
    for when in 1..200 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        // The next start: registry, OCSP and list say one thing, of all certificates the same.
        let survivor = Scratch::at(directory).await;
        survivor.fleet.turn().await;
        let is_revoked = status_of(&survivor, serials[0]).await == CertificateStatus::Revoked;
        for serial in &serials {
            let status = status_of(&survivor, *serial).await;
            assert_eq!(status == CertificateStatus::Revoked, is_revoked, "crash {when}");
            let answer = ocsp_says(&survivor, *serial, None).await;
            assert_eq!(matches!(answer, CertStatus::Revoked { .. }), is_revoked, "crash {when}: {answer:?}");
            assert_eq!(crl_holds(&survivor, *serial).await, is_revoked, "crash {when}");
        }
        assert_eq!(ocsp_says(&survivor, untouched, None).await, CertStatus::Good, "crash {when}");
        revoked += usize::from(is_revoked);
        // Restored from before, it stays so.
        let directory = survivor.closed().await;
        std::fs::remove_dir_all(directory.path().join("data")).unwrap();
        restored_at((&kept.path().join("backup"), None), directory.path(), &key, true).unwrap();
        let restored = Scratch::at(directory).await;
        for serial in &serials {
            let status = status_of(&restored, *serial).await;
            assert_eq!(status == CertificateStatus::Revoked, is_revoked, "crash {when}: after a restore");
        }
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((4..190).contains(&crashes) && revoked >= 2, "{crashes} crashes, {revoked} times revoked");
}
