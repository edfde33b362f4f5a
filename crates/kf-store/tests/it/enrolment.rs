use kf_access::Visibility;
use kf_api::PageRequest;
use kf_api::enrolment::{Code, Enrolment, EnrolmentState};
use kf_key::{CodeId, DeviceState, EnrolmentId, RevocationReason, UnixMillis};
use kf_store::StoreError;
use kf_store::device::{CertificateEffect, DeviceChange, DeviceTarget};
use kf_store::enrolment::{CodeRecord, FailedAttempts};

use crate::fixture::{NOW, device, device_id, done, fleet, only, open, populate, random, register, small_reserve};

fn code(number: u64, device: u64) -> CodeRecord {
    let code = Code {
        id: CodeId::from_parts(NOW.plus(number), random(number)),
        device: device_id(device),
        expires: NOW.plus(UnixMillis::HOUR),
        key_sha256: None,
        used: None,
        withdrawn: false,
    };
    CodeRecord { code, hash: random(number), used_with: None }
}

fn enrolment(number: u64, device_number: u64) -> Enrolment {
    Enrolment {
        id: EnrolmentId::from_parts(NOW.plus(number), random(number)),
        device: device_id(device_number),
        device_name: device(device_number).name,
        spki_sha256: hex::encode(random::<32>(number)),
        requested: NOW,
        state: EnrolmentState::Waiting,
    }
}

#[tokio::test]
async fn codes_belong_to_a_device_that_exists() {
    let store = fleet().await;
    register(&store, 2).await;
    store.insert_code(code(1, 1), done()).await.unwrap();
    store.insert_code(code(2, 1), done()).await.unwrap();
    assert_eq!(store.codes_of_device(device_id(1)).unwrap(), [code(2, 1), code(1, 1)]);
    assert_eq!(store.codes_of_device(device_id(2)).unwrap(), []);
    assert_eq!(store.code(code(1, 1).code.id).unwrap(), Some(code(1, 1)));
    let stray = store.insert_code(code(3, 9), done()).await.unwrap_err();
    assert_eq!(stray, StoreError::NotFound { what: "device" });
    let mut twin = code(4, 2);
    twin.hash = code(1, 1).hash;
    let taken = store.insert_code(twin, done()).await.unwrap_err();
    assert_eq!(taken, StoreError::Conflict { field: "code" });
}

#[tokio::test]
async fn failed_attempts_are_not_forgotten_by_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, small_reserve());
    populate(&store).await;
    for attempt in 1..=3 {
        let attempts = store.count_failed_attempt(device_id(1), NOW.plus(attempt)).await.unwrap();
        assert_eq!(attempts.count, u32::try_from(attempt).unwrap());
    }
    drop(store);
    let store = open(&directory, small_reserve());
    let expected = FailedAttempts { count: 3, last: Some(NOW.plus(3)) };
    assert_eq!(store.failed_attempts(device_id(1)).unwrap(), expected);
    assert_eq!(store.failed_attempts(device_id(2)).unwrap(), FailedAttempts::default());
}

#[tokio::test]
async fn asking_again_with_the_same_key_is_one_enrolment() {
    let store = fleet().await;
    register(&store, 2).await;
    let first = store.request_enrolment(enrolment(1, 1), done()).await.unwrap();
    let size = store.tree().size;
    let mut again = enrolment(1, 1);
    again.id = enrolment(99, 1).id;
    assert_eq!(store.request_enrolment(again, done()).await.unwrap(), first);
    assert_eq!(store.tree().size, size, "nothing new is logged");
    for number in 2..=16 {
        store.request_enrolment(enrolment(number, 1), done()).await.unwrap();
    }
    let flood = store.request_enrolment(enrolment(17, 1), done()).await;
    assert!(matches!(flood, Err(StoreError::Invalid { field: "device", .. })));
    store.request_enrolment(enrolment(18, 2), done()).await.unwrap();
    let page = PageRequest { after: None, limit: Some(10) };
    let waiting = store.enrolments(EnrolmentState::Waiting, &only(1), &page).unwrap();
    assert_eq!(waiting.items.len(), 10);
    let rest = PageRequest { after: waiting.next, limit: None };
    let rest = store.enrolments(EnrolmentState::Waiting, &only(1), &rest).unwrap();
    assert_eq!((rest.items.len(), rest.next), (6, None));
    assert_eq!(store.enrolments(EnrolmentState::Waiting, &only(2), &page).unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_decision_is_made_once_by_somebody_who_sees_the_device() {
    let store = fleet().await;
    register(&store, 1).await;
    let id = store.request_enrolment(enrolment(1, 1), done()).await.unwrap().id;
    let decide = |to, visibility| store.decide_enrolment(id, to, visibility, done());
    let hidden = decide(EnrolmentState::Approved, only(2)).await.unwrap_err();
    assert_eq!(hidden, StoreError::NotFound { what: "enrolment" });
    assert!(decide(EnrolmentState::Issued, Visibility::Fleet).await.is_err());
    let refused = decide(EnrolmentState::Refused, only(1)).await.unwrap().value;
    assert_eq!(refused.state, EnrolmentState::Refused);
    let late = decide(EnrolmentState::Approved, only(1)).await;
    assert!(matches!(late, Err(StoreError::IllegalState { .. })));
    assert_eq!(store.enrolment(id, &only(1)).unwrap().unwrap().state, EnrolmentState::Refused);
    assert_eq!(store.enrolment(id, &only(2)).unwrap(), None);
}

#[tokio::test]
async fn decommissioning_ends_every_way_of_bootstrap() {
    let store = fleet().await;
    register(&store, 2).await;
    for number in [1, 2] {
        store.insert_code(code(number, number), done()).await.unwrap();
        store.request_enrolment(enrolment(number, number), done()).await.unwrap();
    }
    let change = DeviceChange {
        target: DeviceTarget::Device { id: device_id(1), seen: DeviceState::Registered },
        to: DeviceState::Decommissioned,
        certificates: CertificateEffect::Revoke { ldevid: RevocationReason::CessationOfOperation, idevid: None },
        at: NOW,
    };
    store.change_devices(change, Visibility::Fleet, done()).await.unwrap();
    for (number, withdrawn, state) in [(1, true, EnrolmentState::Refused), (2, false, EnrolmentState::Waiting)] {
        assert_eq!(store.code(code(number, number).code.id).unwrap().unwrap().code.withdrawn, withdrawn);
        let found = store.enrolment_of(device_id(number), &random(number)).unwrap().unwrap();
        assert_eq!(found.state, state);
    }
}
