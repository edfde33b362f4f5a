//! What is wiped is gone from the files, and the search that says so finds what is there.

use std::collections::BTreeSet;

use kf_access::Visibility;
use kf_key::{DeviceState, RevocationReason};
use kf_store::destruction::Salts;
use kf_store::device::{CertificateEffect, DeviceChange, DeviceTarget};
use kf_store::device_key::KeyPlace;
use kf_store::{Options, Store};

use crate::fixture::{NOW, device_id, done, facility_id, open, populate, register};

/// A wrapped salt as the signer makes them: a version, an epoch, then octets that look random.
fn salt(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let random = std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    [1, 0, 0, 0, 1].into_iter().chain(random.take(44)).collect()
}

async fn deliver(store: &Store, number: u64) {
    let place = KeyPlace { facility: facility_id(2 - number % 2), facility_epoch: 1, device_epoch: 1 };
    store.offer_device_key(device_id(number), place, salt(number), NOW, done()).await.unwrap();
}

async fn decommission(store: &Store, number: u64) {
    let change = DeviceChange {
        target: DeviceTarget::Device { id: device_id(number), seen: DeviceState::Registered },
        to: DeviceState::Decommissioned,
        certificates: CertificateEffect::Revoke { ldevid: RevocationReason::CessationOfOperation, idevid: None },
        at: NOW,
    };
    store.change_devices(change, Visibility::Fleet, done()).await.unwrap();
}

/// Octets of the files that a copy of the directory would hold.
fn files(directory: &tempfile::TempDir) -> Vec<u8> {
    let mut octets = Vec::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with("-reserve") {
            octets.extend(std::fs::read(path).unwrap());
        }
    }
    octets
}

/// How many runs of 8 octets of a salt lie in some octets: another search than the one under test.
fn runs(octets: &[u8], salt: &[u8]) -> usize {
    let wanted: BTreeSet<&[u8]> = salt[5..].windows(8).collect();
    octets.windows(8).filter(|window| wanted.contains(window)).collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn a_wiped_salt_is_in_no_file_and_its_neighbours_are() {
    const DEVICES: u64 = 300;
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Options { reserve_octets: 0, ..Options::default() });
    populate(&store).await;
    register(&store, DEVICES).await;
    for number in 1..=DEVICES {
        deliver(&store, number).await;
    }
    decommission(&store, 7).await;
    decommission(&store, 8).await;
    let counts = store.count_salts(Salts::Epoch(facility_id(1), 1)).unwrap();
    assert_eq!((counts.wipeable, counts.in_service, counts.in_station_records), (1, 149, 0));
    let wanted = Salts::Device(device_id(7));
    let found = store.wipeable_salts(wanted).unwrap();
    assert_eq!(found.devices(), [device_id(7)]);
    let before = store.search_salts(&found).await.unwrap();
    assert!(before.fragments_after >= 37, "the search finds what is there: {before:?}");
    assert!(runs(&files(&directory), &salt(7)) == 37);
    let size = store.tree().size;
    assert_eq!(store.wipe_salts(wanted, NOW, done()).await.unwrap(), 1);
    assert_eq!(store.tree().size, size + 1);
    let after = store.scrub(Some(&found)).await.unwrap();
    assert_eq!((after.fragments_after, after.files), (0, 2), "{after:?}");
    let octets = files(&directory);
    assert_eq!(runs(&octets, &salt(7)), 0);
    for number in [6, 8, 9] {
        assert_eq!(runs(&octets, &salt(number)), 37, "{number} was not to be wiped");
    }
    assert!(store.device_key(device_id(7), 1, 1, &Visibility::Fleet).unwrap().is_none());
    assert!(store.device_key(device_id(9), 1, 1, &Visibility::Fleet).unwrap().is_some());
    assert_eq!(store.wipe_salts(wanted, NOW, done()).await.unwrap(), 0);
    assert_eq!(store.tree().size, size + 1, "nothing was wiped, so nothing is logged");
    assert!(store.first_offer(wanted).unwrap().is_some(), "that there was a key is not forgotten");
}

#[tokio::test]
async fn a_device_in_service_keeps_its_salt_whoever_asks() {
    let store = crate::fixture::fleet().await;
    register(&store, 2).await;
    deliver(&store, 1).await;
    for salts in [Salts::Device(device_id(1)), Salts::Epoch(facility_id(1), 1)] {
        assert!(store.wipeable_salts(salts).unwrap().devices().is_empty());
        assert_eq!(store.wipe_salts(salts, NOW, done()).await.unwrap(), 0);
    }
    assert!(store.delivery(device_id(1)).unwrap().unwrap().salt.is_some());
}

#[tokio::test]
async fn files_are_written_anew_where_nothing_is_left_to_search_for() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Options { reserve_octets: 0, ..Options::default() });
    populate(&store).await;
    register(&store, 20).await;
    for number in 1..=20 {
        deliver(&store, number).await;
        decommission(&store, number).await;
    }
    store.wipe_salts(Salts::Epoch(facility_id(1), 1), NOW, done()).await.unwrap();
    let scan = store.scrub(None).await.unwrap();
    assert!(scan.rebuilt && scan.fragments_after == 0, "{scan:?}");
    let octets = files(&directory);
    assert_eq!((1..=20).map(|number| runs(&octets, &salt(number))).sum::<usize>(), 10 * 37);
    // And everything else is there.
    drop(store);
    let store = open(&directory, Options { reserve_octets: 0, ..Options::default() });
    assert_eq!(store.count_salts(Salts::Epoch(facility_id(2), 1)).unwrap().wipeable, 10);
}
