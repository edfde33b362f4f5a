//! Versions of the wrapping key in the registry: what lies under which, and what moves.

use kf_key::{EncryptionKeyId, KeyState, KeyType};
use kf_store::StoreError;
use kf_store::device_key::KeyPlace;
use kf_store::encryption_key::WrappedMaterial;
use kf_store::key::{KeyMaterial, KeyRecord};
use kf_store::wrapping::{MovedRow, WrappedPlace};

use crate::fixture::{NOW, device_id, done, facility_id, fleet, key, register};

fn under(version: u32, content: u8) -> Vec<u8> {
    [&[1][..], &version.to_be_bytes(), &[content; 40]].concat()
}

/// A signature key and an encryption key under version 1.
async fn wrapped() -> (kf_store::Store, kf_key::KeyId, EncryptionKeyId) {
    let store = fleet().await;
    let record = KeyRecord { material: KeyMaterial::Wrapped(vec![1, 9, 9, 9]), ..key(77, KeyType::PrivateSignature) };
    store.insert_key(record.clone(), done()).await.unwrap();
    let id = EncryptionKeyId::from_bytes([5; 16]);
    let made = kf_api::encryption_key::EncryptionKey {
        id,
        name: "patients".into(),
        facility: facility_id(1),
        created: NOW,
        newest_version: 1,
        minimum_version: 1,
        versions: Vec::new(),
    };
    store.insert_encryption_key(made, WrappedMaterial(under(1, 3)), done()).await.unwrap();
    (store, record.id, id)
}

#[tokio::test]
async fn what_lies_under_a_version_is_known_and_moves_only_as_it_was_read() {
    let (store, key, encryption) = wrapped().await;
    let counts = store.wrapped_under(1).unwrap();
    assert_eq!(counts.encryption_versions, 1);
    let all = store.wrapped_below(2, None, 1_000).unwrap();
    assert_eq!(u64::try_from(all.len()).unwrap(), counts.total());
    let mut places: Vec<_> = all.iter().map(|row| row.place).collect();
    assert!(places.is_sorted() && places.contains(&WrappedPlace::SignatureKey(key)), "{places:?}");
    // Read one by one behind the one before, they are the same.
    let mut after = None;
    let mut one_by_one = Vec::new();
    while let Some(row) = store.wrapped_below(2, after, 1).unwrap().pop() {
        after = Some(row.place);
        one_by_one.push(row.place);
    }
    assert_eq!(one_by_one, places);

    let row = all.iter().find(|row| row.place == WrappedPlace::EncryptionVersion(encryption, 1)).unwrap();
    let moved = MovedRow { from: row.clone(), to: under(2, 3) };
    assert_eq!(store.move_wrapped(vec![moved.clone()], done()).await.unwrap(), 1);
    let size = store.tree().size;
    assert_eq!(store.move_wrapped(vec![moved], done()).await.unwrap(), 0, "it is not as it was read any more");
    assert_eq!(store.tree().size, size, "and nothing is logged");
    assert_eq!(store.wrapped_under(2).unwrap().encryption_versions, 1);
    places.retain(|place| !matches!(place, WrappedPlace::EncryptionVersion(..)));
    let left: Vec<_> = store.wrapped_below(2, None, 1_000).unwrap().into_iter().map(|row| row.place).collect();
    assert_eq!(left, places);
    assert!(!format!("{row:?}").contains("3, 3"), "{row:?}");
}

#[tokio::test]
async fn salts_are_found_version_by_version_wherever_a_sweep_goes_on() {
    let store = fleet().await;
    register(&store, 6).await;
    for (number, version) in [(1, 2), (2, 1), (3, 4), (4, 2), (5, 1), (6, 3)] {
        let place = KeyPlace { facility: facility_id(2 - number % 2), facility_epoch: 1, device_epoch: 1 };
        store.offer_device_key(device_id(number), place, under(version, 7), NOW, done()).await.unwrap();
    }
    let places = |after, limit| {
        let rows = store.wrapped_below(4, after, limit).unwrap();
        rows.into_iter().map(|row| row.place).collect::<Vec<_>>()
    };
    let salts: Vec<_> = [(1, 2), (1, 5), (2, 1), (2, 4), (3, 6)]
        .map(|(version, number)| WrappedPlace::Salt(version, device_id(number)))
        .into_iter()
        .collect();
    let all = places(None, 1_000);
    assert_eq!(all[all.len() - 5..], salts, "those under version 4 are not below it");
    for (passed, place) in salts.iter().enumerate() {
        assert_eq!(places(Some(*place), 1_000), salts[passed + 1..]);
        assert_eq!(places(Some(*place), 1), salts[passed + 1..].iter().take(1).copied().collect::<Vec<_>>());
    }
    let newest = WrappedPlace::Salt(4, device_id(1));
    assert_eq!(places(Some(newest), 1_000), [], "what lies under the version itself is none of them");
}

#[tokio::test]
async fn a_version_is_destroyed_once_nothing_lies_under_it_and_only_the_newest_has_a_successor() {
    let (store, ..) = wrapped().await;
    assert!(matches!(store.advance_wrapping((4, 5), NOW, done()).await, Err(StoreError::IllegalState { .. })));
    store.advance_wrapping((1, 2), NOW, done()).await.unwrap();
    assert!(matches!(store.advance_wrapping((1, 3), NOW, done()).await, Err(StoreError::IllegalState { .. })));
    let states: Vec<_> = store.wrapping_versions().unwrap().iter().map(|one| (one.version, one.state)).collect();
    assert_eq!(states, [(1, KeyState::Deactivated), (2, KeyState::Active)]);
    for version in [1, 2] {
        let refused = store.destroy_wrapping(version, false, NOW, done()).await;
        assert!(matches!(refused, Err(StoreError::IllegalState { .. })), "{version}");
    }
    assert!(matches!(store.destroy_wrapping(9, false, NOW, done()).await, Err(StoreError::NotFound { .. })));
    let rows = store.wrapped_below(2, None, 1_000).unwrap();
    let moved = rows.into_iter().map(|from| {
        let to = match from.place {
            WrappedPlace::SignatureKey(_) => [&[2, 1][..], &2_u32.to_be_bytes(), &[9; 40]].concat(),
            _ => under(2, 4),
        };
        MovedRow { from, to }
    });
    store.move_wrapped(moved.collect(), done()).await.unwrap();
    assert_eq!(store.wrapped_under(1).unwrap().total(), 0);
    assert!(store.destroy_wrapping(1, false, NOW, done()).await.unwrap());
    assert!(!store.destroy_wrapping(1, false, NOW, done()).await.unwrap(), "once");
    let first = store.wrapping_versions().unwrap()[0];
    assert_eq!((first.state, first.destroyed), (KeyState::Destroyed, Some(NOW)));
}
