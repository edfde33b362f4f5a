use kf_key::{KeyState, KeyType};
use kf_store::StoreError;
use kf_store::key::{KeyChange, KeyMaterial, KeyRecord};

use crate::fixture::{NOW, done, fleet, key};

fn in_state(number: u64, key_type: KeyType, state: KeyState) -> KeyRecord {
    let at = |wanted| (state == wanted).then_some(NOW);
    KeyRecord {
        state,
        activated: at(KeyState::Active),
        suspended: at(KeyState::Suspended),
        deactivated: at(KeyState::Deactivated),
        compromised: at(KeyState::Compromised),
        destroyed: at(KeyState::Destroyed),
        material: if state == KeyState::Destroyed { KeyMaterial::Destroyed } else { KeyMaterial::Wrapped(vec![1; 60]) },
        ..key(number, key_type)
    }
}

#[tokio::test]
async fn every_illegal_pair_of_key_states_is_refused_for_every_type() {
    let store = fleet().await;
    let mut number = 0;
    for key_type in KeyType::ALL {
        for from in KeyState::ALL {
            for to in KeyState::ALL {
                number += 1;
                let record = in_state(number, key_type, from);
                store.insert_key(record.clone(), done()).await.unwrap();
                let change = KeyChange { id: record.id, seen: from, to, at: NOW };
                let result = store.change_key(change, done()).await;
                let after = store.key(record.id).unwrap().unwrap();
                if from.transition(to, key_type).is_ok() {
                    assert!(result.is_ok(), "{key_type:?} {from} -> {to}");
                    assert_eq!(after.state, to);
                    assert_eq!(after.material == KeyMaterial::Destroyed, to == KeyState::Destroyed);
                } else {
                    let refused = matches!(result, Err(StoreError::IllegalKeyTransition(_)));
                    assert!(refused, "{key_type:?} {from} -> {to}: {result:?}");
                    assert_eq!(after, record);
                }
            }
        }
    }
    assert_eq!(number, 684);
}

#[tokio::test]
async fn a_change_from_a_state_that_is_past_is_refused() {
    let store = fleet().await;
    let record = key(1, KeyType::PrivateSignature);
    store.insert_key(record.clone(), done()).await.unwrap();
    let activate = KeyChange { id: record.id, seen: KeyState::PreActivation, to: KeyState::Active, at: NOW };
    store.change_key(activate, done()).await.unwrap();
    assert!(matches!(store.change_key(activate, done()).await, Err(StoreError::IllegalState { .. })));
    assert_eq!(store.key(record.id).unwrap().unwrap().activated, Some(NOW));
}

#[tokio::test]
async fn a_compromise_may_be_recorded_after_destruction_only_there() {
    let store = fleet().await;
    let record = key(1, KeyType::PrivateSignature);
    store.insert_key(record.clone(), done()).await.unwrap();
    assert!(store.record_late_compromise(record.id, NOW, done()).await.is_err());
    let destroy = KeyChange { id: record.id, seen: KeyState::PreActivation, to: KeyState::Destroyed, at: NOW };
    store.change_key(destroy, done()).await.unwrap();
    store.record_late_compromise(record.id, NOW.plus(9), done()).await.unwrap();
    let after = store.key(record.id).unwrap().unwrap();
    assert_eq!((after.state, after.compromised), (KeyState::Destroyed, Some(NOW.plus(9))));
}

#[tokio::test]
async fn keys_are_listed_by_purpose_and_their_octets_are_not_printed() {
    let store = fleet().await;
    for (number, purpose) in [(1, "ocsp:a"), (2, "ocsp:b"), (3, "log")] {
        let record = KeyRecord { purpose: purpose.into(), ..key(number, KeyType::PrivateSignature) };
        store.insert_key(record, done()).await.unwrap();
    }
    let found = store.keys("ocsp:").unwrap();
    assert_eq!(found.iter().map(|key| key.purpose.as_str()).collect::<Vec<_>>(), ["ocsp:b", "ocsp:a"]);
    assert!(!format!("{found:?}").contains("90, 90"), "{found:?}");
    let wrong = KeyRecord { activated: Some(NOW), ..key(9, KeyType::PrivateSignature) };
    assert!(matches!(store.insert_key(wrong, done()).await, Err(StoreError::Invalid { .. })));
}
