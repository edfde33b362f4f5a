use kf_access::Visibility;
use kf_key::DeviceState;
use kf_store::StoreError;
use kf_store::certificate::IssuanceOutcome;

use crate::fixture::{certificate, device, done, enrol, fleet, issuance, random, register, serial};

#[tokio::test]
async fn a_failing_operation_does_not_hurt_its_neighbours() {
    let store = fleet().await;
    register(&store, 200).await;
    let size = store.tree().size;
    // Every third one claims a key that another device holds, which is seen before anything is written; every seventh a
    // serial number that is taken, which is seen after its key was bound.
    let waiting: Vec<_> = (1..=200)
        .map(|number: u64| {
            let mut wanted = issuance(certificate(number, Some(&device(number))), DeviceState::Registered);
            if number.is_multiple_of(3) {
                wanted.certificate.spki_sha256 = certificate(1, None).spki_sha256;
            } else if number.is_multiple_of(7) {
                wanted.certificate.serial = serial(1);
            }
            let store = store.clone();
            (number, tokio::spawn(async move { store.record_issuance(wanted, done()).await }))
        })
        .collect();
    let mut recorded = 0;
    for (number, task) in waiting {
        let result = task.await.unwrap();
        if number.is_multiple_of(3) {
            assert!(matches!(result, Err(StoreError::KeyInUse { .. })), "{number}: {result:?}");
        } else if number.is_multiple_of(7) {
            assert_eq!(result, Err(StoreError::Conflict { field: "serial" }), "{number}");
            assert_eq!(store.key_standing(&random(number)).unwrap().holder, None, "{number}");
        } else {
            assert!(result.is_ok(), "{number}: {result:?}");
            recorded += 1;
            continue;
        }
        assert_eq!(store.certificate(serial(number), &Visibility::Fleet).unwrap(), None);
        let device = store.device(device(number).id, &Visibility::Fleet).unwrap().unwrap();
        assert_eq!(device.state, DeviceState::Registered);
    }
    assert_eq!(store.tree().size, size + recorded);
    assert_eq!(store.certificate_counts(&Visibility::Fleet).unwrap().0, recorded + 1);
}

#[tokio::test]
async fn an_issuance_that_was_announced_and_never_comes_holds_nobody_up() {
    let store = fleet().await;
    let coming = store.announce_issuance();
    let first = store.append_log(done()).await.unwrap().index;
    drop(coming);
    assert_eq!(store.append_log(done()).await.unwrap().index, first + 1);
}

#[tokio::test]
async fn each_read_sees_what_was_committed_before_it_while_an_issuance_is_announced() {
    let store = fleet().await;
    let _coming = store.announce_issuance();
    let entries = || store.log_entries(0..1_000).unwrap().len();
    for expected in entries() + 1..entries() + 6 {
        store.append_log(done()).await.unwrap();
        assert_eq!((entries(), entries()), (expected, expected));
        assert_eq!(store.tree().size, u64::try_from(expected).unwrap());
    }
}

#[tokio::test]
async fn a_read_while_an_issuance_is_announced_does_not_keep_the_wal() {
    let store = fleet().await;
    let coming = store.announce_issuance();
    for _ in 0..2 {
        assert!(!store.log_entries(0..1).unwrap().is_empty());
        assert!(store.scrub(None).await.unwrap().rebuilt);
    }
    assert!(!store.log_entries(0..1).unwrap().is_empty());
    drop(coming);
    assert!(store.scrub(None).await.unwrap().rebuilt);
}

#[tokio::test]
async fn an_announced_issuance_is_recorded_beside_one_that_came_without_a_word() {
    let store = fleet().await;
    register(&store, 2).await;
    let [first, second] =
        [1, 2].map(|number: u64| issuance(certificate(number, Some(&device(number))), DeviceState::Registered));
    let (coming, early) = (store.announce_issuance(), store.clone());
    let early = tokio::spawn(async move { early.record_issuance(first, done()).await });
    let late = coming.record(second, done());
    let (early, late) = (early.await.unwrap().unwrap(), late.await.unwrap());
    let index = |outcome| match outcome {
        IssuanceOutcome::Recorded { index, .. } => index,
        other => panic!("{other:?}"),
    };
    assert_eq!(index(early).abs_diff(index(late)), 1);
}

#[tokio::test]
async fn log_indices_are_given_once_and_without_gaps() {
    let store = fleet().await;
    let size = store.tree().size;
    let tasks: Vec<_> = (0..300)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.append_log(done()).await.unwrap().index })
        })
        .collect();
    let mut indices = Vec::new();
    for task in tasks {
        indices.push(task.await.unwrap());
    }
    indices.sort_unstable();
    assert_eq!(indices, (size..size + 300).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_act_without_a_log_entry_is_refused() {
    let store = fleet().await;
    let result = store.register_device(device(1), Vec::new()).await;
    assert!(matches!(result, Err(StoreError::Invalid { field: "audit", .. })));
    assert_eq!(store.device(device(1).id, &Visibility::Fleet).unwrap(), None);
}

#[tokio::test]
async fn a_closed_store_answers_what_waited_and_refuses_the_rest() {
    let store = fleet().await;
    enrol(&store, 1).await;
    store.close().await;
    assert_eq!(store.append_log(done()).await.unwrap_err(), StoreError::Closed);
    assert!(store.certificate(serial(1), &Visibility::Fleet).unwrap().is_some(), "reading goes on");
}

#[tokio::test]
async fn a_fenced_store_revokes_and_issues_nothing() {
    let store = fleet().await;
    enrol(&store, 2).await;
    store.fence("older than the witness".into());
    let wanted = issuance(certificate(5, Some(&device(1))), DeviceState::Active);
    assert!(matches!(store.record_issuance(wanted, done()).await, Err(StoreError::Fenced { .. })));
    assert!(matches!(store.issuance(), kf_api::status::Issuance::Fenced(_)));
    let revocation = kf_store::revocation::Revocation {
        selection: kf_store::revocation::Selection::Certificate(serial(1)),
        profiles: kf_store::revocation::Profiles::All,
        reason: kf_key::RevocationReason::KeyCompromise,
        at: crate::fixture::NOW,
    };
    assert!(store.revoke(revocation, Visibility::Fleet, done()).await.is_ok());
}
