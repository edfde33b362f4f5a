use kf_access::Visibility;
use kf_key::{CertificateStatus, RevocationReason, SerialNumber};
use kf_store::certificate::StatusAnswer;
use kf_store::revocation::{Profiles, Revocation, Selection};
use kf_store::{Store, StoreError};

use crate::fixture::{NOW, authority, authority_id, device_id, done, enrol, facility_id, fleet, only, serial};

fn revocation(selection: Selection, reason: RevocationReason) -> Revocation {
    Revocation { selection, profiles: Profiles::LDevIdOnly, reason, at: NOW.plus(7) }
}

async fn revoke(store: &Store, selection: Selection, reason: RevocationReason) -> Result<u64, StoreError> {
    let revocation = revocation(selection, reason);
    let counted = store.count_revocation(&revocation, &Visibility::Fleet).unwrap();
    let result = store.revoke(revocation, Visibility::Fleet, done()).await;
    result.map(|done| {
        assert_eq!((done.value.certificates, done.value.devices), counted);
        assert!(done.value.is_complete());
        done.value.certificates
    })
}

fn revoked(store: &Store, authority: u64) -> Vec<SerialNumber> {
    let mut serials = Vec::new();
    store.for_each_revoked(authority_id(authority), &mut |entry| serials.push(entry.serial)).unwrap();
    serials
}

#[tokio::test]
async fn every_reason_revokes_and_only_a_hold_comes_back() {
    for reason in RevocationReason::ALL {
        let store = fleet().await;
        enrol(&store, 1).await;
        let one = Selection::Certificate(serial(1));
        let result = revoke(&store, one.clone(), reason).await;
        if reason == RevocationReason::RemoveFromCrl {
            assert!(matches!(result, Err(StoreError::IllegalState { what: "certificate", .. })));
            continue;
        }
        assert_eq!(result, Ok(1));
        let status = store.status(authority_id(1), serial(1)).unwrap();
        assert_eq!(status, StatusAnswer::Revoked { at: NOW.plus(7), reason });
        let again = revoke(&store, one.clone(), reason).await;
        assert!(matches!(again, Err(StoreError::IllegalState { .. })), "{reason}");
        let released = revoke(&store, one, RevocationReason::RemoveFromCrl).await;
        assert_eq!(released.is_ok(), reason == RevocationReason::CertificateHold, "{reason}");
        let good = store.status(authority_id(1), serial(1)).unwrap() == StatusAnswer::Good;
        assert_eq!(good, reason == RevocationReason::CertificateHold);
    }
}

#[tokio::test]
async fn a_held_certificate_may_be_revoked_for_good() {
    let store = fleet().await;
    enrol(&store, 2).await;
    let one = Selection::Certificate(serial(1));
    assert_eq!(revoke(&store, one.clone(), RevocationReason::CertificateHold).await, Ok(1));
    assert_eq!(store.certificate_counts(&only(1)).unwrap(), (0, 1, 0));
    assert_eq!(revoke(&store, one, RevocationReason::KeyCompromise).await, Ok(1));
    assert_eq!(store.certificate_counts(&only(1)).unwrap(), (0, 0, 1));
    assert_eq!(revoked(&store, 1), [serial(1)]);
}

#[tokio::test]
async fn each_selection_takes_what_it_names_and_nothing_else() {
    let cases: [(Selection, Vec<u64>); 4] = [
        (Selection::Device(device_id(4)), vec![4]),
        (Selection::Batch("batch-3".into()), vec![3, 6, 9]),
        (Selection::Facility(facility_id(2)), vec![2, 4, 6, 8]),
        (Selection::Authority(authority_id(1)), (1..=9).collect()),
    ];
    for (selection, expected) in cases {
        let store = fleet().await;
        enrol(&store, 9).await;
        let revocation = revocation(selection.clone(), RevocationReason::KeyCompromise);
        let outcome = store.revoke(revocation, Visibility::Fleet, done()).await.unwrap().value;
        let expected: Vec<_> = expected.into_iter().map(serial).collect();
        assert_eq!(revoked(&store, 1), expected, "{selection:?}");
        let shards = outcome.changes.iter().map(|change| (change.authority, change.shard)).collect();
        assert_eq!(outcome.shards, shards);
        assert!(outcome.changes.iter().all(|change| change.shard == change.serial.shard(8)));
    }
}

#[tokio::test]
async fn the_cas_own_certificate_survives_the_revocation_of_all_it_issued() {
    let store = fleet().await;
    enrol(&store, 3).await;
    let mut all = revocation(Selection::Authority(authority_id(1)), RevocationReason::CaCompromise);
    all.profiles = Profiles::All;
    assert_eq!(store.revoke(all, Visibility::Fleet, done()).await.unwrap().value.certificates, 3);
    assert_eq!(store.authority(authority_id(1)).unwrap().unwrap().status, CertificateStatus::Good);
    let own = store.authority_certificate(authority_id(1)).unwrap().unwrap().certificate.serial;
    assert_eq!(revoke(&store, Selection::Certificate(own), RevocationReason::CaCompromise).await, Ok(1));
    assert_eq!(store.authority(authority_id(1)).unwrap().unwrap().status, CertificateStatus::Revoked);
}

#[tokio::test]
async fn a_ca_that_dies_takes_its_own_certificate_and_all_it_issued_with_it_in_one_commit() {
    let store = fleet().await;
    enrol(&store, 3).await;
    let kill = |reason| store.revoke_authority(authority_id(1), reason, NOW, done());
    let undone = kill(RevocationReason::CertificateHold).await.unwrap_err();
    assert!(matches!(undone, StoreError::Invalid { field: "reason", .. }), "{undone:?}");
    let dead = kill(RevocationReason::CaCompromise).await.unwrap().value;
    assert_eq!((dead.certificates, dead.devices, dead.is_complete()), (4, 3, true));
    assert_eq!(store.authority(authority_id(1)).unwrap().unwrap().status, CertificateStatus::Revoked);
    let nobody = store.revoke_authority(authority_id(5), RevocationReason::CaCompromise, NOW, done()).await;
    assert_eq!(nobody.unwrap_err(), StoreError::NotFound { what: "authority" });
}

#[tokio::test]
async fn nobody_revokes_what_they_cannot_see() {
    let store = fleet().await;
    enrol(&store, 6).await;
    let attempts = [
        (Selection::Certificate(serial(2)), "certificate"),
        (Selection::Device(device_id(2)), "device"),
        (Selection::Facility(facility_id(2)), "facility"),
        (Selection::Batch("none".into()), "batch"),
        (Selection::Authority(authority_id(5)), "authority"),
    ];
    for (selection, what) in attempts {
        let revocation = revocation(selection, RevocationReason::KeyCompromise);
        let result = store.revoke(revocation, only(1), done()).await;
        assert_eq!(result.unwrap_err(), StoreError::NotFound { what });
    }
    // A batch and a CA reach over facilities: only what is visible is touched.
    for (selection, count) in [(Selection::Batch("batch-3".into()), 1), (Selection::Authority(authority_id(1)), 2)] {
        let revocation = revocation(selection, RevocationReason::KeyCompromise);
        assert_eq!(store.revoke(revocation, only(1), done()).await.unwrap().value.certificates, count);
    }
    assert_eq!(store.certificate_counts(&only(2)).unwrap(), (3, 0, 0));
}

#[tokio::test]
async fn crl_numbers_only_grow() {
    let store = fleet().await;
    assert_eq!(store.reserve_crl_numbers(authority_id(1), 1).await, Ok(1));
    assert_eq!(store.reserve_crl_numbers(authority_id(1), 9).await, Ok(2));
    assert_eq!(store.reserve_crl_numbers(authority_id(1), 1).await, Ok(11));
    store.raise_crl_number(authority_id(1), 500).await.unwrap();
    store.raise_crl_number(authority_id(1), 5).await.unwrap();
    assert_eq!(store.reserve_crl_numbers(authority_id(1), 1).await, Ok(501));
    assert!(store.reserve_crl_numbers(authority_id(9), 1).await.is_err());
}

#[tokio::test]
async fn a_second_default_authority_takes_over() {
    let store = fleet().await;
    let mut second = authority(2);
    second.authority.is_default = true;
    store.insert_authority(second.clone(), done()).await.unwrap();
    let defaults = |store: &Store| -> Vec<_> {
        let all = store.authorities().unwrap();
        all.into_iter().filter(|authority| authority.is_default).map(|authority| authority.id).collect()
    };
    assert_eq!(defaults(&store), [authority_id(2)]);
    store.set_default_authority(authority_id(1), done()).await.unwrap();
    assert_eq!(defaults(&store), [authority_id(1)]);
    assert!(store.set_default_authority(authority_id(9), done()).await.is_err());
    assert_eq!(defaults(&store), [authority_id(1)], "a failing act undoes its first half");
    let found = store.authority_by_name("ca-2").unwrap().unwrap();
    assert_eq!(found, kf_api::authority::Authority { is_default: false, ..second.authority.clone() });
    assert_eq!(store.insert_authority(second, done()).await.unwrap_err(), StoreError::Conflict { field: "key" });
}
