use kf_key::UnixMillis;
use kf_store::StoreError;
use kf_store::endorsement::ProvenKey;

use crate::fixture::{NOW, device_id, done, fleet, random, register};

fn proven(device: u64, key: u64, endorsement: u64, at: UnixMillis) -> ProvenKey {
    ProvenKey { device: device_id(device), spki: random(key), endorsement_key: random(endorsement), proven: at }
}

#[tokio::test]
async fn a_device_stays_with_the_tpm_that_it_showed_first() {
    let store = fleet().await;
    register(&store, 2).await;
    assert_eq!(store.bound_endorsement_key(device_id(1)).unwrap(), None);
    store.record_proven_key(proven(1, 10, 1, NOW), false, done()).await.unwrap();
    store.record_proven_key(proven(1, 11, 1, NOW.plus(1)), false, done()).await.unwrap();
    let other = store.record_proven_key(proven(1, 12, 2, NOW.plus(2)), false, done()).await.unwrap_err();
    assert_eq!(other, StoreError::Conflict { field: "endorsement_key" });
    assert_eq!(store.bound_endorsement_key(device_id(1)).unwrap(), Some(random(1)));
    assert_eq!(store.proven_key(device_id(1), &random(10)).unwrap(), Some(random(1)));
    assert_eq!(store.proven_key(device_id(1), &random(12)).unwrap(), None);
    assert_eq!(store.proven_key(device_id(2), &random(10)).unwrap(), None);
}

#[tokio::test]
async fn the_registered_tpm_replaces_the_one_that_was_bound() {
    let store = fleet().await;
    register(&store, 1).await;
    store.record_proven_key(proven(1, 10, 1, NOW), false, done()).await.unwrap();
    store.record_proven_key(proven(1, 12, 2, NOW.plus(2)), true, done()).await.unwrap();
    assert_eq!(store.bound_endorsement_key(device_id(1)).unwrap(), Some(random(2)));
    assert_eq!(store.proven_key(device_id(1), &random(10)).unwrap(), None);
}

#[tokio::test]
async fn of_many_proven_keys_the_newest_are_kept() {
    let store = fleet().await;
    register(&store, 1).await;
    for key in 0..20 {
        store.record_proven_key(proven(1, 100 + key, 1, NOW.plus(key)), false, done()).await.unwrap();
    }
    let kept = (0..20).filter(|key| store.proven_key(device_id(1), &random(100 + key)).unwrap().is_some());
    assert_eq!(kept.collect::<Vec<_>>(), (4..20).collect::<Vec<_>>());
}
