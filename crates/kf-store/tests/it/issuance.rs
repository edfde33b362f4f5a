use kf_access::Visibility;
use kf_api::enrolment::{Code, Enrolment, EnrolmentState};
use kf_key::{
    CertificateStatus, CodeId, DeviceState, EnrolmentId, KeyProtection, OperatorId, RevocationReason, UnixMillis,
};
use kf_store::certificate::{Basis, DeviceIssuance, Issuance, IssuanceOutcome, KeyHolder, PreImage, StatusAnswer};
use kf_store::enrolment::CodeRecord;
use kf_store::{Store, StoreError};

use crate::fixture::{
    NOW, authority_id, certificate, device, device_id, done, enrol, fleet, issuance, random, register, serial,
};

async fn record(store: &Store, issuance: Issuance) -> Result<IssuanceOutcome, StoreError> {
    store.record_issuance(issuance, done()).await
}

fn code_id(number: u64) -> CodeId {
    CodeId::from_parts(NOW, random(number))
}

async fn add_code(store: &Store, number: u64, device: u64) {
    let code = Code {
        id: code_id(number),
        device: device_id(device),
        expires: NOW.plus(UnixMillis::HOUR),
        key_sha256: None,
        used: None,
        withdrawn: false,
    };
    let record = CodeRecord { code, hash: random(number), used_with: None };
    store.insert_code(record, done()).await.unwrap();
}

fn with_basis(number: u64, device_number: u64, seen: DeviceState, basis: Basis) -> Issuance {
    Issuance { basis, ..issuance(certificate(number, Some(&device(device_number))), seen) }
}

#[tokio::test]
async fn an_issuance_writes_everything_together() {
    let store = fleet().await;
    register(&store, 1).await;
    let size = store.tree().size;
    let mut wanted = issuance(certificate(1, Some(&device(1))), DeviceState::Registered);
    wanted.device.as_mut().unwrap().protection = Some(KeyProtection::Tpm);
    let outcome = record(&store, wanted.clone()).await.unwrap();
    assert_eq!(outcome, IssuanceOutcome::Recorded { index: size, superseded: Vec::new() });
    let stored = store.certificate(serial(1), &Visibility::Fleet).unwrap().unwrap();
    assert_eq!((stored.certificate, stored.der), (wanted.certificate, wanted.der));
    let after = store.device(device_id(1), &Visibility::Fleet).unwrap().unwrap();
    assert_eq!((after.state, after.protection), (DeviceState::Active, KeyProtection::Tpm));
    assert_eq!(store.key_standing(&random(1)).unwrap().holder, Some(KeyHolder::Device(device_id(1))));
    assert_eq!(store.status(authority_id(1), serial(1)).unwrap(), StatusAnswer::Good);
    assert_eq!(store.status(authority_id(2), serial(1)).unwrap(), StatusAnswer::NeverIssued);
    assert_eq!(store.status(authority_id(1), serial(2)).unwrap(), StatusAnswer::NeverIssued);
    assert_eq!(store.tree().size, size + 1);
}

#[tokio::test]
async fn an_issuance_that_the_device_asked_for_is_a_sighting_and_never_goes_back() {
    let store = fleet().await;
    register(&store, 1).await;
    let states = [(1, 2, DeviceState::Registered), (2, 0, DeviceState::Active), (3, 5, DeviceState::Active)];
    let mut seen = Vec::new();
    for (number, hours, state) in states {
        let mut wanted = issuance(certificate(number, Some(&device(1))), state);
        wanted.at = NOW.plus(hours * UnixMillis::HOUR);
        wanted.device.as_mut().unwrap().is_sighting = true;
        record(&store, wanted).await.unwrap();
        seen.push(store.device(device_id(1), &Visibility::Fleet).unwrap().unwrap().last_seen);
    }
    assert_eq!(seen, [2, 2, 5].map(|hours| Some(NOW.plus(hours * UnixMillis::HOUR))));
}

#[tokio::test]
async fn an_issuance_that_an_operator_asked_for_is_no_sighting() {
    let store = fleet().await;
    register(&store, 1).await;
    record(&store, issuance(certificate(1, Some(&device(1))), DeviceState::Registered)).await.unwrap();
    assert_eq!(store.device(device_id(1), &Visibility::Fleet).unwrap().unwrap().last_seen, None);
}

#[tokio::test]
async fn a_device_that_may_not_enrol_gets_nothing() {
    let store = fleet().await;
    enrol(&store, 1).await;
    let size = store.tree().size;
    for (seen, what) in [(DeviceState::Registered, "stale"), (DeviceState::Suspended, "not active")] {
        let result = record(&store, issuance(certificate(5, Some(&device(1))), seen)).await;
        assert!(matches!(result, Err(StoreError::IllegalState { what: "device", .. })), "{what}: {result:?}");
    }
    let result = record(&store, issuance(certificate(5, Some(&device(9))), DeviceState::Registered)).await;
    assert_eq!(result, Err(StoreError::NotFound { what: "device" }));
    let mut elsewhere = issuance(certificate(5, Some(&device(1))), DeviceState::Active);
    elsewhere.certificate.facility = Some(device(2).facility);
    assert!(matches!(record(&store, elsewhere).await, Err(StoreError::IllegalState { .. })));
    assert_eq!(store.certificate(serial(5), &Visibility::Fleet).unwrap(), None);
    assert_eq!(store.tree().size, size);
}

#[tokio::test]
async fn a_key_belongs_to_one_subject() {
    let store = fleet().await;
    enrol(&store, 2).await;
    let mut stolen = issuance(certificate(5, Some(&device(2))), DeviceState::Active);
    stolen.certificate.spki_sha256 = certificate(1, None).spki_sha256;
    assert_eq!(record(&store, stolen).await, Err(StoreError::KeyInUse { holder: device_id(1).to_string() }));
    let mut renewed = issuance(certificate(6, Some(&device(1))), DeviceState::Active);
    renewed.certificate.spki_sha256 = certificate(1, None).spki_sha256;
    assert!(record(&store, renewed).await.is_ok());
    let mut server = issuance(certificate(7, None), DeviceState::Active);
    server.certificate.spki_sha256 = certificate(1, None).spki_sha256;
    assert!(matches!(record(&store, server).await, Err(StoreError::KeyInUse { .. })));
}

#[tokio::test]
async fn a_blocked_key_is_never_certified() {
    let store = fleet().await;
    register(&store, 1).await;
    assert_eq!(store.block_keys(vec![random(1), random(1), random(2)], NOW, done()).await.unwrap().value, 2);
    assert!(store.key_standing(&random(1)).unwrap().is_blocked);
    let result = record(&store, issuance(certificate(1, Some(&device(1))), DeviceState::Registered)).await;
    assert!(matches!(result, Err(StoreError::IllegalState { what: "public key", .. })), "{result:?}");
}

#[tokio::test]
async fn a_serial_number_is_used_once() {
    let store = fleet().await;
    enrol(&store, 2).await;
    let mut twin = issuance(certificate(9, Some(&device(2))), DeviceState::Active);
    twin.certificate.serial = serial(1);
    assert_eq!(record(&store, twin).await, Err(StoreError::Conflict { field: "serial" }));
    assert_eq!(store.key_standing(&random(9)).unwrap().holder, None, "the key binding was undone");
}

#[tokio::test]
async fn stopped_issuance_refuses_and_says_why_until_it_is_started() {
    let store = fleet().await;
    register(&store, 1).await;
    store.set_issuance(Some("drill".into()), done()).await.unwrap();
    let wanted = issuance(certificate(1, Some(&device(1))), DeviceState::Registered);
    assert_eq!(record(&store, wanted.clone()).await, Err(StoreError::Stopped { why: "drill".into() }));
    assert_eq!(store.issuance(), kf_api::status::Issuance::Stopped("drill".into()));
    store.set_issuance(None, done()).await.unwrap();
    assert_eq!(store.issuance(), kf_api::status::Issuance::Running);
    assert!(record(&store, wanted).await.is_ok());
}

#[tokio::test]
async fn the_oldest_ldevids_beyond_the_limit_are_superseded() {
    let store = fleet().await;
    enrol(&store, 1).await;
    for number in 11..=13 {
        let mut next = issuance(certificate(number, Some(&device(1))), DeviceState::Active);
        next.device = Some(DeviceIssuance {
            seen: DeviceState::Active,
            protection: None,
            max_live_ldevids: Some(2),
            is_sighting: false,
        });
        let IssuanceOutcome::Recorded { superseded, index } = record(&store, next).await.unwrap() else { panic!() };
        let expected = match number {
            11 => Vec::new(),
            12 => vec![serial(1)],
            _ => vec![serial(11)],
        };
        assert_eq!(superseded.iter().map(|change| change.serial).collect::<Vec<_>>(), expected);
        let entry = String::from_utf8(store.log_entries(index..index + 1).unwrap().remove(0)).unwrap();
        assert_eq!(entry.contains("superseded"), number != 11, "{entry}");
    }
    let old = store.certificate(serial(1), &Visibility::Fleet).unwrap().unwrap().certificate;
    assert_eq!(
        (old.status, old.revoked, old.reason),
        (CertificateStatus::Revoked, Some(NOW), Some(RevocationReason::Superseded))
    );
    assert_eq!(store.certificate_counts(&Visibility::Fleet).unwrap(), (3, 0, 2), "two LDevIDs and the CA are good");
}

#[tokio::test]
async fn the_newest_certificate_is_never_superseded_by_an_older_one_whose_serial_number_is_from_a_clock_that_was_ahead()
{
    let store = fleet().await;
    register(&store, 1).await;
    record(&store, issuance(certificate(90, Some(&device(1))), DeviceState::Registered)).await.unwrap();
    let mut superseded_so_far = Vec::new();
    // Serial numbers go down, as they do when the clock was an hour ahead and is set.
    for number in [89, 88, 87] {
        let mut next = issuance(certificate(number, Some(&device(1))), DeviceState::Active);
        next.device.as_mut().unwrap().max_live_ldevids = Some(1);
        let IssuanceOutcome::Recorded { superseded, .. } = record(&store, next).await.unwrap() else { panic!() };
        superseded_so_far.extend(superseded.iter().map(|change| change.serial));
        let status = store.certificate(serial(number), &Visibility::Fleet).unwrap().unwrap().certificate.status;
        assert_eq!(status, CertificateStatus::Good, "{number}");
    }
    assert_eq!(superseded_so_far, [serial(90), serial(89), serial(88)]);
}

#[tokio::test]
async fn the_same_code_with_the_same_key_gives_the_same_certificate_again() {
    let store = fleet().await;
    register(&store, 2).await;
    add_code(&store, 1, 1).await;
    store.count_failed_attempt(device_id(1), NOW).await.unwrap();
    let basis = Basis::Code(code_id(1));
    let first = with_basis(1, 1, DeviceState::Registered, basis.clone());
    assert!(matches!(record(&store, first.clone()).await, Ok(IssuanceOutcome::Recorded { .. })));
    assert_eq!(store.failed_attempts(device_id(1)).unwrap().count, 0);
    let size = store.tree().size;
    let mut again = with_basis(2, 1, DeviceState::Active, basis.clone());
    again.certificate.spki_sha256 = first.certificate.spki_sha256.clone();
    let Ok(IssuanceOutcome::Before(before)) = record(&store, again.clone()).await else { panic!() };
    assert_eq!(before.certificate.serial, serial(1));
    assert_eq!(store.issued_before(&basis, &random(1)).unwrap().unwrap().certificate.serial, serial(1));
    assert_eq!(store.tree().size, size, "a retry writes nothing");

    let other_key = with_basis(3, 1, DeviceState::Active, basis.clone());
    assert!(matches!(record(&store, other_key).await, Err(StoreError::IllegalState { what: "code", .. })));
    assert_eq!(store.issued_before(&basis, &random(3)).unwrap(), None);
    let other_device = with_basis(4, 2, DeviceState::Registered, basis);
    assert_eq!(record(&store, other_device).await, Err(StoreError::NotFound { what: "code" }));
    let late = Issuance { at: NOW.plus(2 * UnixMillis::HOUR), ..again };
    assert!(matches!(record(&store, late).await, Err(StoreError::IllegalState { what: "code", .. })));
}

#[tokio::test]
async fn two_racing_requests_with_one_code_get_one_certificate() {
    let store = fleet().await;
    register(&store, 1).await;
    add_code(&store, 1, 1).await;
    let race = (1..=32).map(|number| {
        let mut issuance = with_basis(number, 1, DeviceState::Registered, Basis::Code(code_id(1)));
        issuance.certificate.spki_sha256 = certificate(1, None).spki_sha256;
        tokio::spawn({
            let store = store.clone();
            async move { record(&store, issuance).await.unwrap() }
        })
    });
    let mut serials = std::collections::BTreeSet::new();
    let mut recorded = 0;
    for racer in race.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            IssuanceOutcome::Recorded { .. } => recorded += 1,
            IssuanceOutcome::Before(before) => {
                serials.insert(before.certificate.serial);
            }
        }
    }
    assert_eq!((recorded, serials.len()), (1, 1));
    assert_eq!(store.certificates_of_device(device_id(1), &Visibility::Fleet).unwrap().len(), 1);
}

#[tokio::test]
async fn a_withdrawn_code_is_worth_nothing() {
    let store = fleet().await;
    register(&store, 1).await;
    add_code(&store, 1, 1).await;
    store.withdraw_code(code_id(1), done()).await.unwrap();
    assert!(matches!(store.withdraw_code(code_id(1), done()).await, Err(StoreError::IllegalState { .. })));
    let result = record(&store, with_basis(1, 1, DeviceState::Registered, Basis::Code(code_id(1)))).await;
    assert!(matches!(result, Err(StoreError::IllegalState { what: "code", .. })));
}

#[tokio::test]
async fn a_voucher_is_used_once() {
    let store = fleet().await;
    register(&store, 2).await;
    let station = OperatorId::from_parts(NOW, random(1));
    let basis = Basis::Voucher { id: "jti-1".into(), station, expires: NOW.plus(1) };
    assert!(!store.voucher_used("jti-1").unwrap());
    record(&store, with_basis(1, 1, DeviceState::Registered, basis.clone())).await.unwrap();
    assert!(store.voucher_used("jti-1").unwrap());
    let replay = with_basis(2, 2, DeviceState::Registered, basis.clone());
    assert_eq!(record(&store, replay).await, Err(StoreError::Conflict { field: "voucher" }));
    let mut retry = with_basis(3, 1, DeviceState::Active, basis);
    retry.certificate.spki_sha256 = certificate(1, None).spki_sha256;
    assert!(matches!(record(&store, retry).await, Ok(IssuanceOutcome::Before(_))));
}

#[tokio::test]
async fn a_renewal_asked_for_again_gives_the_certificate_that_it_gave_while_that_one_will_do() {
    let store = fleet().await;
    enrol(&store, 1).await;
    let (of, authority) = (serial(1), authority_id(1));
    let basis = Basis::Renewal { of, authority, valid_until: NOW.plus(45 * UnixMillis::DAY) };
    let first = with_basis(11, 1, DeviceState::Active, basis.clone());
    assert!(matches!(record(&store, first.clone()).await, Ok(IssuanceOutcome::Recorded { .. })));
    assert_eq!(
        store.issued_before(&basis, &random(11)).unwrap().map(|found| found.certificate.serial),
        Some(serial(11))
    );
    let size = store.tree().size;
    let again = |number: u64, basis: Basis| {
        let mut again = with_basis(number, 1, DeviceState::Active, basis);
        again.certificate.spki_sha256.clone_from(&first.certificate.spki_sha256);
        again
    };
    let outcome = record(&store, again(12, basis.clone())).await.unwrap();
    assert!(matches!(&outcome, IssuanceOutcome::Before(found) if found.der == first.der), "{outcome:?}");
    assert_eq!(store.tree().size, size, "nothing was written");

    // Another certificate to renew, another authority, or too little time left: another certificate.
    let late = NOW.plus(91 * UnixMillis::DAY);
    for (number, basis) in [
        (13, Basis::Renewal { of: serial(11), authority, valid_until: NOW }),
        (14, Basis::Renewal { of, authority: authority_id(2), valid_until: NOW }),
        (15, Basis::Renewal { of, authority, valid_until: late }),
    ] {
        assert_eq!(store.issued_before(&basis, &random(11)).unwrap(), None, "{number}");
        assert!(matches!(record(&store, again(number, basis)).await, Ok(IssuanceOutcome::Recorded { .. })), "{number}");
    }
    // Another key too.
    assert_eq!(store.issued_before(&basis, &random(16)).unwrap(), None);
}

#[tokio::test]
async fn an_enrolment_that_waits_is_granted_once_after_approval() {
    let store = fleet().await;
    register(&store, 1).await;
    let id = EnrolmentId::from_parts(NOW, random(1));
    let enrolment = Enrolment {
        id,
        device: device_id(1),
        device_name: device(1).name,
        spki_sha256: certificate(1, None).spki_sha256,
        requested: NOW,
        state: EnrolmentState::Waiting,
    };
    store.request_enrolment(enrolment, done()).await.unwrap();
    let wanted = with_basis(1, 1, DeviceState::Registered, Basis::Enrolment(id));
    assert!(matches!(record(&store, wanted.clone()).await, Err(StoreError::IllegalState { .. })));
    store.decide_enrolment(id, EnrolmentState::Approved, Visibility::Fleet, done()).await.unwrap();
    assert!(matches!(record(&store, wanted).await, Ok(IssuanceOutcome::Recorded { .. })));
    let found = store.enrolment_of(device_id(1), &random(1)).unwrap().unwrap();
    assert_eq!(found.state, EnrolmentState::Issued);
    let mut retry = with_basis(2, 1, DeviceState::Active, Basis::Enrolment(id));
    retry.certificate.spki_sha256 = certificate(1, None).spki_sha256;
    assert!(matches!(record(&store, retry).await, Ok(IssuanceOutcome::Before(_))));
}

#[tokio::test]
async fn what_was_about_to_be_signed_is_either_issued_or_revoked() {
    let store = fleet().await;
    register(&store, 2).await;
    for number in [1, 2] {
        let pre_image = PreImage { serial: serial(number), authority: authority_id(1), tbs: vec![0x30; 500], at: NOW };
        store.record_tbs(pre_image.clone(), &Basis::Standing).await.unwrap();
        assert_eq!(store.record_tbs(pre_image, &Basis::Standing).await, Err(StoreError::Conflict { field: "serial" }));
    }
    record(&store, issuance(certificate(1, Some(&device(1))), DeviceState::Registered)).await.unwrap();
    let orphans = store.orphans().unwrap();
    assert_eq!(orphans.iter().map(|orphan| orphan.serial).collect::<Vec<_>>(), [serial(2)]);
    let mut orphan = certificate(2, Some(&device(2)));
    orphan.status = CertificateStatus::Revoked;
    orphan.revoked = Some(NOW);
    orphan.reason = Some(RevocationReason::CessationOfOperation);
    store.revoke_orphan(orphan.clone(), done()).await.unwrap();
    assert_eq!(store.orphans().unwrap(), []);
    assert!(matches!(store.status(authority_id(1), serial(2)).unwrap(), StatusAnswer::Revoked { .. }));
    assert_eq!(store.revoke_orphan(orphan, done()).await.unwrap_err(), StoreError::NotFound { what: "pre-image" });
}
