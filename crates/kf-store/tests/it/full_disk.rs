use kf_access::Visibility;
use kf_api::status::Issuance;
use kf_key::{DeviceState, RevocationReason};
use kf_store::certificate::StatusAnswer;
use kf_store::device::{CertificateEffect, DeviceChange, DeviceTarget};
use kf_store::revocation::{Profiles, Revocation, Selection};
use kf_store::{Options, Store, StoreError};

use crate::fixture::{
    NOW, authority_id, certificate, device, device_id, done, issuance, open, populate, register, serial,
};

/// A store that may grow to `pages`, of which a quarter is reserved.
fn limited(pages: u32) -> Options {
    Options { max_pages: Some(pages), reserve_octets: u64::from(pages) / 4 * 4_096, ..Options::default() }
}

/// Issues until the store is full; how many certificates there are.
async fn fill(store: &Store) -> u64 {
    for number in 1.. {
        let registered = store.register_device(device(number), done()).await;
        let wanted = issuance(certificate(number, Some(&device(number))), DeviceState::Registered);
        let result = match registered {
            Ok(_) => store.record_issuance(wanted, done()).await.map(drop),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {}
            Err(StoreError::Full) => return number - 1,
            Err(other) => panic!("{other}"),
        }
    }
    0
}

fn revocation(selection: Selection) -> Revocation {
    Revocation { selection, profiles: Profiles::All, reason: RevocationReason::KeyCompromise, at: NOW }
}

#[tokio::test]
async fn a_full_disk_stops_issuance_and_not_revocation() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, limited(400));
    populate(&store).await;
    let issued = fill(&store).await;
    assert!(issued > 50, "{issued}");
    assert!(store.health().full);
    assert_eq!(store.issuance(), Issuance::StoreFull);
    let size = store.tree().size;

    // Reading goes on, and so does stopping: one by one, in bulk, devices, the switch, what must be published.
    assert!(store.certificate(serial(1), &Visibility::Fleet).unwrap().is_some());
    for number in 1..=20 {
        let one = revocation(Selection::Certificate(serial(number)));
        let logged = store.revoke(one, Visibility::Fleet, done()).await.unwrap();
        assert!(logged.index >= size);
        let status = store.status(authority_id(1), serial(number)).unwrap();
        assert!(matches!(status, StatusAnswer::Revoked { .. }));
    }
    let suspend = DeviceChange {
        target: DeviceTarget::Device { id: device_id(25), seen: DeviceState::Active },
        to: DeviceState::Suspended,
        certificates: CertificateEffect::Hold,
        at: NOW,
    };
    store.change_devices(suspend, Visibility::Fleet, done()).await.unwrap();
    store.reserve_crl_numbers(authority_id(1), 1).await.unwrap();
    store.set_issuance(Some("full".into()), done()).await.unwrap();
    let all = revocation(Selection::Authority(authority_id(1)));
    let outcome = store.revoke(all, Visibility::Fleet, done()).await.unwrap();
    assert_eq!(outcome.value.certificates, issued - 20);
    assert_eq!(store.tree().size, size + 23);

    let refused = store.register_device(device(9_999), done()).await;
    assert_eq!(refused.unwrap_err(), StoreError::Full);
}

#[tokio::test]
async fn a_store_that_was_full_serves_again_when_it_has_room() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, limited(300));
    populate(&store).await;
    let issued = fill(&store).await;
    drop(store);
    let store = open(&directory, limited(300));
    assert!(store.health().full, "a store that starts full knows it");
    drop(store);
    let store = open(&directory, limited(3_000));
    assert!(!store.health().full);
    register_more(&store, issued + 2).await;
}

async fn register_more(store: &Store, number: u64) {
    store.register_device(device(number), done()).await.unwrap();
}

#[tokio::test]
async fn the_reserve_is_a_file_that_occupies_its_space() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Options { reserve_octets: 1 << 20, ..Options::default() });
    populate(&store).await;
    register(&store, 1).await;
    let reserve = std::fs::metadata(directory.path().join("registry.db-reserve")).unwrap();
    assert_eq!(reserve.len(), 1 << 20);
    assert!(reserve.blocks() * 512 >= 1 << 20, "the file is sparse");
    assert!(!store.health().full);
}

#[tokio::test]
async fn a_failing_group_beside_a_full_disk_answers_each_with_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, limited(300));
    populate(&store).await;
    let issued = fill(&store).await;
    let tasks: Vec<_> = (1..=issued.min(40))
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let one = revocation(Selection::Certificate(serial(number)));
                let revoked = store.revoke(one, Visibility::Fleet, done());
                let registered = store.register_device(device(50_000 + number), done());
                let (revoked, registered) = tokio::join!(revoked, registered);
                assert!(revoked.is_ok(), "{revoked:?}");
                assert_eq!(registered.unwrap_err(), StoreError::Full);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
