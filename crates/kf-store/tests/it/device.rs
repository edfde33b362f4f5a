use kf_access::Visibility;
use kf_key::{DeviceState, RevocationReason, UnixMillis};
use kf_store::certificate::StatusAnswer;
use kf_store::device::{CertificateEffect, DeviceChange, DeviceTarget, Registration};
use kf_store::{Store, StoreError};

use crate::fixture::{
    NOW, authority_id, certificate, device, device_id, done, enrol, facility_id, fleet, issuance, only, register,
    serial,
};

fn change(number: u64, seen: DeviceState, to: DeviceState, certificates: CertificateEffect) -> DeviceChange {
    DeviceChange { target: DeviceTarget::Device { id: device_id(number), seen }, to, certificates, at: NOW.plus(5) }
}

async fn act(store: &Store, change: DeviceChange) -> Result<u64, StoreError> {
    store.change_devices(change, Visibility::Fleet, done()).await.map(|done| done.value.certificates)
}

#[tokio::test]
async fn a_registered_device_is_found_by_id_and_by_name() {
    let store = fleet().await;
    let mut wanted = device(1);
    wanted.batch = Some("b".into());
    wanted.attributes.insert("colour".into(), "red".into());
    store.register_device(wanted.clone(), done()).await.unwrap();
    assert_eq!(store.device(wanted.id, &Visibility::Fleet).unwrap(), Some(wanted.clone()));
    assert_eq!(store.device_by_name(&wanted.name, &only(1)).unwrap(), Some(wanted.clone()));
    assert_eq!(store.device_by_name(&wanted.name, &only(2)).unwrap(), None);
    assert_eq!(store.device(wanted.id, &Visibility::Facilities([].into())).unwrap(), None);
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let store = fleet().await;
    register(&store, 1).await;
    let mut twin = device(2);
    twin.name = device(1).name;
    assert_eq!(store.register_device(twin, done()).await.unwrap_err(), StoreError::Conflict { field: "name" });
    let mut twin = device(2);
    twin.id = device(1).id;
    assert_eq!(store.register_device(twin, done()).await.unwrap_err(), StoreError::Conflict { field: "id" });
    let mut stray = device(3);
    stray.facility = facility_id(77);
    assert_eq!(store.register_device(stray, done()).await.unwrap_err(), StoreError::NotFound { what: "facility" });
}

#[tokio::test]
async fn a_registration_that_is_sent_again_resumes() {
    let store = fleet().await;
    register(&store, 2).await;
    let mut other_facts = device(2);
    other_facts.batch = Some("other".into());
    let mut refused = device(3);
    refused.facility = facility_id(77);
    let mut again = device(1);
    again.id = device_id(500);
    let size = store.tree().size;
    let rows = [again, other_facts, refused, device(4)].map(|device| (device, done())).into();
    let outcome = store.register_devices(rows).await.unwrap();
    assert_eq!(
        outcome,
        [
            Registration::AlreadyThere { id: device_id(1), same_facts: true },
            Registration::AlreadyThere { id: device_id(2), same_facts: false },
            Registration::Refused(StoreError::NotFound { what: "facility" }),
            Registration::Registered { index: size },
        ]
    );
    assert_eq!(store.tree().size, size + 1);
}

#[tokio::test]
async fn every_illegal_pair_of_device_states_is_refused() {
    for from in DeviceState::ALL {
        for to in DeviceState::ALL {
            let store = fleet().await;
            register(&store, 1).await;
            bring_to(&store, from).await;
            let result = act(&store, change(1, from, to, CertificateEffect::Keep)).await;
            let activates = from == DeviceState::Registered && to == DeviceState::Active;
            let legal = from.transition(to).is_ok() && !activates;
            assert_eq!(result.is_ok(), legal, "{from} -> {to}: {result:?}");
            if let Err(error) = result {
                assert!(matches!(error, StoreError::IllegalDeviceTransition(_)), "{error}");
            }
        }
    }
}

async fn bring_to(store: &Store, state: DeviceState) {
    match state {
        DeviceState::Registered => {}
        DeviceState::Active => {
            let issuance = issuance(certificate(1, Some(&device(1))), DeviceState::Registered);
            store.record_issuance(issuance, done()).await.unwrap();
        }
        other => {
            act(store, change(1, DeviceState::Registered, other, CertificateEffect::Keep)).await.unwrap();
        }
    }
    assert_eq!(store.device(device_id(1), &Visibility::Fleet).unwrap().unwrap().state, state);
}

#[tokio::test]
async fn an_act_on_a_device_that_changed_meanwhile_is_refused() {
    let store = fleet().await;
    register(&store, 1).await;
    let stale = change(1, DeviceState::Active, DeviceState::Suspended, CertificateEffect::Hold);
    assert!(matches!(act(&store, stale).await, Err(StoreError::IllegalState { what: "device", .. })));
    let hidden = change(1, DeviceState::Registered, DeviceState::Suspended, CertificateEffect::Hold);
    assert_eq!(
        store.change_devices(hidden, only(2), done()).await.unwrap_err(),
        StoreError::NotFound { what: "device" }
    );
}

#[tokio::test]
async fn suspension_holds_and_resumption_releases() {
    let store = fleet().await;
    enrol(&store, 2).await;
    let suspend = change(1, DeviceState::Active, DeviceState::Suspended, CertificateEffect::Hold);
    assert_eq!(act(&store, suspend).await, Ok(1));
    let held = StatusAnswer::Revoked { at: NOW.plus(5), reason: RevocationReason::CertificateHold };
    assert_eq!(store.status(authority_id(1), serial(1)).unwrap(), held);
    assert_eq!(store.status(authority_id(1), serial(2)).unwrap(), StatusAnswer::Good);
    let resume = change(1, DeviceState::Suspended, DeviceState::Registered, CertificateEffect::Release);
    assert_eq!(act(&store, resume).await, Ok(1));
    assert_eq!(store.status(authority_id(1), serial(1)).unwrap(), StatusAnswer::Good);
    // It holds an LDevID, so it is active whatever was asked for.
    assert_eq!(store.device(device_id(1), &Visibility::Fleet).unwrap().unwrap().state, DeviceState::Active);
}

#[tokio::test]
async fn decommissioning_a_facility_touches_it_alone() {
    let store = fleet().await;
    enrol(&store, 6).await;
    let wipe = DeviceChange {
        target: DeviceTarget::Facility(facility_id(1)),
        to: DeviceState::Decommissioned,
        certificates: CertificateEffect::Revoke { ldevid: RevocationReason::CessationOfOperation, idevid: None },
        at: NOW,
    };
    assert_eq!(store.count_device_change(&wipe, &Visibility::Fleet).unwrap(), (3, 3));
    assert_eq!(store.count_device_change(&wipe, &only(2)).unwrap(), (0, 0));
    assert_eq!(
        store.change_devices(wipe.clone(), only(2), done()).await.unwrap_err(),
        StoreError::NotFound { what: "facility" }
    );
    let done_now = store.change_devices(wipe, only(1), done()).await.unwrap();
    assert_eq!((done_now.value.devices, done_now.value.certificates), (3, 3));
    assert_eq!(store.device_counts(&only(1)).unwrap()[4], (DeviceState::Decommissioned, 3));
    assert_eq!(store.device_counts(&only(2)).unwrap()[1], (DeviceState::Active, 3));
    assert_eq!(store.certificate_counts(&only(2)).unwrap(), (3, 0, 0));
    let entry = store.log_entries(done_now.index..done_now.index + 1).unwrap();
    let entry: kf_log::AuditEntry = serde_json::from_slice(&entry[0]).unwrap();
    assert_eq!(entry.detail.get("devices").map(String::as_str), Some("3"));
}

#[tokio::test]
async fn a_batch_never_reaches_beyond_the_callers_facilities() {
    let store = fleet().await;
    enrol(&store, 12).await;
    let quarantine = DeviceChange {
        target: DeviceTarget::Batch("batch-3".into()),
        to: DeviceState::Quarantined,
        certificates: CertificateEffect::Hold,
        at: NOW,
    };
    // Devices 3, 6, 9 and 12 are in the batch; 3 and 9 in facility 1.
    let value = store.change_devices(quarantine, only(1), done()).await.unwrap().value;
    assert_eq!((value.devices, value.certificates), (2, 2));
    assert_eq!(store.device_counts(&only(2)).unwrap()[3], (DeviceState::Quarantined, 0));
}

#[tokio::test]
async fn a_moved_device_takes_its_certificates_along() {
    let store = fleet().await;
    enrol(&store, 1).await;
    let stale = store.move_device(device_id(1), facility_id(2), facility_id(1), done()).await.unwrap_err();
    assert!(matches!(stale, StoreError::IllegalState { .. }));
    store.move_device(device_id(1), facility_id(1), facility_id(2), done()).await.unwrap();
    assert_eq!(store.certificate(serial(1), &only(1)).unwrap(), None);
    assert!(store.certificate(serial(1), &only(2)).unwrap().is_some());
    assert_eq!(store.certificate_counts(&only(2)).unwrap(), (1, 0, 0));
    assert_eq!(store.certificate_counts(&only(1)).unwrap(), (0, 0, 0));
    assert_eq!(store.device_counts(&only(2)).unwrap()[1], (DeviceState::Active, 1));
}

#[tokio::test]
async fn a_sighting_is_written_when_it_is_asked_for_and_never_goes_back() {
    const MINUTE: u64 = 60 * UnixMillis::SECOND;
    let store = fleet().await;
    register(&store, 1).await;
    store.touch_device(device_id(1), NOW.plus(UnixMillis::HOUR));
    store.write_sightings();
    store.append_log(done()).await.unwrap();
    store.touch_device(device_id(1), NOW);
    store.write_sightings();
    store.append_log(done()).await.unwrap();
    let seen = || store.device(device_id(1), &Visibility::Fleet).unwrap().unwrap().last_seen;
    assert_eq!(seen(), Some(NOW.plus(UnixMillis::HOUR)));
    // It is known to the minute.
    for (later, known) in [(MINUTE, 0), (MINUTE + 1, MINUTE + 1)] {
        store.touch_device(device_id(1), NOW.plus(UnixMillis::HOUR + later));
        store.write_sightings();
        store.append_log(done()).await.unwrap();
        assert_eq!(seen(), Some(NOW.plus(UnixMillis::HOUR + known)));
    }
}
