//! Key epochs of facilities and devices: what advancing, delivering, acknowledging, moving and retiring do to each other.

use kf_access::Visibility;
use kf_api::PageRequest;
use kf_api::epoch::{DeviceKeyState, EpochState};
use kf_key::DeviceState;
use kf_store::device::{CertificateEffect, DeviceChange, DeviceTarget};
use kf_store::device_key::{Acknowledged, KeyPlace};
use kf_store::{Store, StoreError};

use crate::fixture::{NOW, device_id, done, facility_id, fleet, only, open, populate, register};

fn place(facility: u64, facility_epoch: u32, device_epoch: u32) -> KeyPlace {
    KeyPlace { facility: facility_id(facility), facility_epoch, device_epoch }
}

async fn offer(store: &Store, device: u64, place: KeyPlace) -> Result<Option<u64>, StoreError> {
    store.offer_device_key(device_id(device), place, vec![7; 50], NOW, done()).await
}

async fn acknowledge(store: &Store, device: u64, place: KeyPlace) -> Result<Acknowledged, StoreError> {
    store.acknowledge_device_key(device_id(device), place, NOW.plus(1), done()).await
}

async fn deliver(store: &Store, device: u64, place: KeyPlace) {
    offer(store, device, place).await.unwrap();
    assert!(matches!(acknowledge(store, device, place).await, Ok(Acknowledged::First(_))));
}

fn states(store: &Store, facility: u64) -> Vec<(u32, EpochState, u64)> {
    let epochs = store.facility_epochs(facility_id(facility), &Visibility::Fleet).unwrap();
    epochs.into_iter().map(|epoch| (epoch.epoch, epoch.state, epoch.devices)).collect()
}

fn holders(store: &Store, facility: u64, epoch: u32) -> Vec<kf_key::DeviceId> {
    let page = store.epoch_holders(facility_id(facility), epoch, &Visibility::Fleet, &PageRequest::default());
    page.unwrap().items.into_iter().map(|holder| holder.device).collect()
}

async fn retire(store: &Store, facility: u64, epoch: u32) -> Result<(), StoreError> {
    store.retire_facility_epoch(facility_id(facility), epoch, NOW, done()).await.map(|_| ())
}

#[tokio::test]
async fn a_registered_device_costs_no_key_until_one_is_delivered() {
    let store = fleet().await;
    register(&store, 1).await;
    let wanted = store.delivery(device_id(1)).unwrap().unwrap();
    assert_eq!((wanted.place, wanted.salt, wanted.acknowledged), (place(1, 1, 1), None, false));
    assert_eq!(states(&store, 1), [(1, EpochState::Current, 0)]);
    assert_eq!(store.delivery(device_id(2)).unwrap(), None);
}

#[tokio::test]
async fn a_delivery_is_written_once_however_often_it_is_repeated() {
    let store = fleet().await;
    register(&store, 1).await;
    let before = store.tree().size;
    assert_eq!(offer(&store, 1, place(1, 1, 1)).await.unwrap(), Some(before));
    assert_eq!(offer(&store, 1, place(1, 1, 1)).await.unwrap(), None);
    assert_eq!(acknowledge(&store, 1, place(1, 1, 1)).await.unwrap(), Acknowledged::First(before + 1));
    assert_eq!(acknowledge(&store, 1, place(1, 1, 1)).await.unwrap(), Acknowledged::Again);
    assert_eq!(offer(&store, 1, place(1, 1, 1)).await.unwrap(), None, "sent again to a device that lost it");
    assert_eq!(store.tree().size, before + 2);
    assert!(store.delivery(device_id(1)).unwrap().unwrap().acknowledged);
}

#[tokio::test]
async fn a_key_that_was_never_offered_is_not_acknowledged() {
    let store = fleet().await;
    register(&store, 1).await;
    let refused = acknowledge(&store, 1, place(1, 1, 1)).await.unwrap_err();
    assert_eq!(refused, StoreError::NotFound { what: "offered key" });
    deliver(&store, 1, place(1, 1, 1)).await;
    for elsewhere in [place(2, 1, 1), place(1, 2, 1), place(1, 1, 2)] {
        assert!(matches!(acknowledge(&store, 1, elsewhere).await, Err(StoreError::NotFound { .. })), "{elsewhere:?}");
    }
}

#[tokio::test]
async fn an_offer_from_a_stale_reading_is_refused() {
    let store = fleet().await;
    register(&store, 1).await;
    assert!(matches!(offer(&store, 1, place(2, 1, 1)).await, Err(StoreError::IllegalState { .. })));
    assert!(matches!(offer(&store, 1, place(1, 2, 1)).await, Err(StoreError::IllegalState { .. })));
    offer(&store, 1, place(1, 1, 1)).await.unwrap();
    let other_salt = store.offer_device_key(device_id(1), place(1, 1, 1), vec![8; 50], NOW, done()).await;
    assert!(matches!(other_salt, Err(StoreError::IllegalState { .. })), "two first deliveries at once: one salt stays");
}

#[tokio::test]
async fn the_old_epoch_stays_until_every_device_has_the_new_one_or_is_barred() {
    let store = fleet().await;
    register(&store, 5).await;
    for number in [1, 3, 5] {
        deliver(&store, number, place(1, 1, 1)).await;
    }
    let size = store.tree().size;
    let next = store.advance_facility_epoch(facility_id(1), 1, NOW, done()).await.unwrap();
    assert_eq!((next.value, next.index), (2, size), "one row and one entry, however many devices");
    assert_eq!(states(&store, 1), [(2, EpochState::Pending, 0), (1, EpochState::Current, 3)]);
    assert!(store.advance_facility_epoch(facility_id(1), 2, NOW, done()).await.is_err(), "one at a time");
    assert!(matches!(retire(&store, 1, 1).await, Err(StoreError::IllegalState { .. })));
    deliver(&store, 1, place(1, 2, 1)).await;
    // Offered, and perhaps held: still missing.
    offer(&store, 3, place(1, 2, 1)).await.unwrap();
    assert_eq!(holders(&store, 1, 1), [device_id(3), device_id(5)]);
    assert!(retire(&store, 1, 1).await.is_err());
    acknowledge(&store, 3, place(1, 2, 1)).await.unwrap();
    let bar = DeviceChange {
        target: DeviceTarget::Device { id: device_id(5), seen: DeviceState::Registered },
        to: DeviceState::Quarantined,
        certificates: CertificateEffect::Hold,
        at: NOW,
    };
    store.change_devices(bar, Visibility::Fleet, done()).await.unwrap();
    assert_eq!(holders(&store, 1, 1), []);
    assert!(retire(&store, 1, 2).await.is_err(), "the pending one");
    retire(&store, 1, 1).await.unwrap();
    assert_eq!(states(&store, 1), [(2, EpochState::Current, 2), (1, EpochState::Retired, 1)]);
    assert!(retire(&store, 1, 1).await.is_err(), "twice");
    let key = store.device_key(device_id(1), 1, 1, &Visibility::Fleet).unwrap().unwrap();
    assert_eq!((key.state, key.epoch), (DeviceKeyState::Superseded, EpochState::Retired));
}

#[tokio::test]
async fn a_device_never_goes_back_to_an_older_key() {
    let store = fleet().await;
    register(&store, 1).await;
    offer(&store, 1, place(1, 1, 1)).await.unwrap();
    store.advance_facility_epoch(facility_id(1), 1, NOW, done()).await.unwrap();
    deliver(&store, 1, place(1, 2, 1)).await;
    assert!(matches!(acknowledge(&store, 1, place(1, 1, 1)).await, Err(StoreError::IllegalState { .. })));
    assert!(matches!(offer(&store, 1, place(1, 1, 1)).await, Err(StoreError::IllegalState { .. })));
}

#[tokio::test]
async fn a_device_epoch_advances_alone() {
    let store = fleet().await;
    register(&store, 1).await;
    let refused = store.advance_device_epoch(device_id(1), 1, done()).await.unwrap_err();
    assert_eq!(refused, StoreError::NotFound { what: "key of the device" });
    deliver(&store, 1, place(1, 1, 1)).await;
    assert_eq!(store.advance_device_epoch(device_id(1), 1, done()).await.unwrap().value, 2);
    assert!(matches!(store.advance_device_epoch(device_id(1), 1, done()).await, Err(StoreError::IllegalState { .. })));
    assert_eq!(store.delivery(device_id(1)).unwrap().unwrap().place, place(1, 1, 2));
    deliver(&store, 1, place(1, 1, 2)).await;
    assert_eq!(states(&store, 1), [(1, EpochState::Current, 1)]);
}

#[tokio::test]
async fn a_device_that_moves_is_sent_a_key_of_its_new_facility() {
    let store = fleet().await;
    register(&store, 1).await;
    deliver(&store, 1, place(1, 1, 1)).await;
    store.move_device(device_id(1), facility_id(1), facility_id(2), done()).await.unwrap();
    let wanted = store.delivery(device_id(1)).unwrap().unwrap();
    assert_eq!((wanted.place, wanted.acknowledged), (place(2, 1, 2), false));
    let old = store.device_key(device_id(1), 1, 1, &only(2)).unwrap().unwrap();
    assert_eq!((old.place, old.state), (place(1, 1, 1), DeviceKeyState::Held), "until the device says otherwise");
    assert_eq!(store.device_key(device_id(1), 1, 1, &only(1)).unwrap(), None, "it is the other facility's now");
    deliver(&store, 1, place(2, 1, 2)).await;
    let old = store.device_key(device_id(1), 1, 1, &only(2)).unwrap().unwrap();
    assert_eq!(old.state, DeviceKeyState::Superseded);
    // And back: never the same place twice.
    store.move_device(device_id(1), facility_id(2), facility_id(1), done()).await.unwrap();
    assert_eq!(store.delivery(device_id(1)).unwrap().unwrap().place, place(1, 1, 3));
}

#[tokio::test]
async fn a_barred_device_is_sent_nothing() {
    let store = fleet().await;
    register(&store, 1).await;
    let bar = DeviceChange {
        target: DeviceTarget::Device { id: device_id(1), seen: DeviceState::Registered },
        to: DeviceState::Suspended,
        certificates: CertificateEffect::Hold,
        at: NOW,
    };
    store.change_devices(bar, Visibility::Fleet, done()).await.unwrap();
    assert!(matches!(offer(&store, 1, place(1, 1, 1)).await, Err(StoreError::IllegalState { what: "device", .. })));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, kf_store::Options::default());
    populate(&store).await;
    register(&store, 1).await;
    deliver(&store, 1, place(1, 1, 1)).await;
    store.advance_facility_epoch(facility_id(1), 1, NOW, done()).await.unwrap();
    offer(&store, 1, place(1, 2, 1)).await.unwrap();
    store.close().await;
    drop(store);
    let store = open(&directory, kf_store::Options::default());
    let wanted = store.delivery(device_id(1)).unwrap().unwrap();
    assert_eq!((wanted.place, wanted.acknowledged), (place(1, 2, 1), false));
    assert_eq!(acknowledge(&store, 1, place(1, 2, 1)).await.unwrap(), Acknowledged::First(store.tree().size - 1));
}

#[tokio::test]
async fn holders_come_in_pages_and_not_to_other_facilities() {
    let store = fleet().await;
    register(&store, 9).await;
    for number in [1, 3, 5, 7, 9] {
        deliver(&store, number, place(1, 1, 1)).await;
    }
    let mut page = PageRequest { after: None, limit: Some(2) };
    let mut seen = Vec::new();
    loop {
        let found = store.epoch_holders(facility_id(1), 1, &only(1), &page).unwrap();
        seen.extend(found.items.into_iter().map(|holder| holder.device));
        page.after = found.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, [1, 3, 5, 7, 9].map(device_id));
    assert!(store.epoch_holders(facility_id(1), 1, &only(2), &page).is_err());
    assert!(store.facility_epochs(facility_id(1), &only(2)).unwrap().is_empty());
}
