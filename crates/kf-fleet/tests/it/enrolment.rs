use kf_api::device::{Departure, DeviceAct, DeviceActRequest};
use kf_api::enrolment::EnrolmentDecision;
use kf_api::product_line::{Approval, EnrolmentPolicy};
use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_api::status::IssuanceSwitch;
use kf_crypto::PrivateKey;
use kf_fleet::{EnrolCredential, EnrolOutcome, EstLabel, FleetError, TlsClient};
use kf_key::{CertificateStatus, KeyAlgorithm, RevocationReason, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::request::make_request;

use crate::scratch::{HERE, Scratch, basic, csr, field_of, fresh_csr, issued, serial_of};

#[tokio::test]
async fn a_code_gives_the_device_a_certificate_with_the_names_of_the_registry() {
    let scratch = Scratch::new().await;
    let device = scratch.device("thermo-1").await;
    let code = scratch.code("thermo-1").await;
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let impostor = make_request(&key, "thermo-2").unwrap();
    let chain = issued(scratch.enrol_with("thermo-1", &code, &impostor).await.unwrap());
    let history = scratch.fleet.device_show(&scratch.owner, "thermo-1").await.unwrap();
    let certificate = &history.certificates[0];
    assert_eq!(certificate.serial, serial_of(&chain));
    assert_eq!(certificate.device, Some(device.id));
    assert!(certificate.subject.contains("thermo-1"), "{}", certificate.subject);
    assert!(!certificate.subject.contains("thermo-2"), "{}", certificate.subject);
    assert_eq!(history.device.state.name(), "active");
}

#[tokio::test]
async fn a_retry_of_the_same_code_with_the_same_key_returns_the_same_certificate() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let code = scratch.code("thermo-1").await;
    let request = fresh_csr();
    let first = issued(scratch.enrol_with("thermo-1", &code, &request).await.unwrap());
    let again = issued(scratch.enrol_with("thermo-1", &code, &request).await.unwrap());
    assert_eq!(first, again);
    let other_key = scratch.enrol_with("thermo-1", &code, &fresh_csr()).await;
    assert!(matches!(other_key, Err(FleetError::Unauthenticated)), "{other_key:?}");
}

#[tokio::test]
async fn a_code_opens_no_other_device_and_guessing_is_stopped() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    scratch.device("thermo-2").await;
    let code = scratch.code("thermo-1").await;
    for _ in 0..5 {
        let outcome = scratch.enrol_with("thermo-2", &code, &fresh_csr()).await;
        assert!(matches!(outcome, Err(FleetError::Unauthenticated)), "{outcome:?}");
    }
    let right = scratch.code("thermo-2").await;
    let outcome = scratch.enrol_with("thermo-2", &right, &fresh_csr()).await;
    assert!(matches!(outcome, Err(FleetError::TooMany { .. })), "{outcome:?}");
    scratch.pass(15 * 60 * UnixMillis::SECOND);
    issued(scratch.enrol_with("thermo-2", &right, &fresh_csr()).await.unwrap());
}

#[tokio::test]
async fn an_expired_code_is_not_accepted() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let code = scratch.code("thermo-1").await;
    scratch.pass(8 * UnixMillis::DAY);
    let outcome = scratch.enrol_with("thermo-1", &code, &fresh_csr()).await;
    assert!(matches!(outcome, Err(FleetError::Unauthenticated)), "{outcome:?}");
}

#[tokio::test]
async fn a_key_of_another_device_is_refused_and_nobody_learns_whose_it_is() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    scratch.device("thermo-2").await;
    let first = scratch.enrol("thermo-1").await;
    let code = scratch.code("thermo-2").await;
    let error = scratch.enrol_with("thermo-2", &code, &csr(&first.key)).await.unwrap_err();
    assert_eq!(field_of(&error), "csr.public_key");
    assert!(!error.to_string().contains("thermo-1"));
    issued(scratch.enrol_with("thermo-2", &code, &fresh_csr()).await.unwrap());
}

#[tokio::test]
async fn a_blocked_key_is_never_certified() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let hash = kf_crypto::sha256(&key.spki());
    let added = scratch.fleet.key_block(&scratch.owner, vec![hash], "found on a forum".into()).await.unwrap();
    assert_eq!(added, 1);
    let code = scratch.code("thermo-1").await;
    let error = scratch.enrol_with("thermo-1", &code, &csr(&key)).await.unwrap_err();
    assert_eq!(field_of(&error), "csr.public_key");
}

#[tokio::test]
async fn a_broken_request_names_its_field_and_changes_nothing() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let code = scratch.code("thermo-1").await;
    let mut forged = fresh_csr();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for body in [forged, b"nonsense".to_vec(), vec![0x30; 20_000]] {
        let error = scratch.enrol_with("thermo-1", &code, &body).await.unwrap_err();
        assert_eq!(field_of(&error), "csr");
    }
    let history = scratch.fleet.device_show(&scratch.owner, "thermo-1").await.unwrap();
    assert!(history.certificates.is_empty());
    issued(scratch.enrol_with("thermo-1", &code, &fresh_csr()).await.unwrap());
}

#[tokio::test]
async fn a_device_renews_itself_and_keeps_its_names() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let identity = scratch.enrol("thermo-1").await;
    scratch.pass(60 * UnixMillis::DAY);
    let chain = issued(scratch.renew(&identity, &fresh_csr()).await.unwrap());
    let old = PresentedCertificate::from_der(&identity.chain[0]).unwrap();
    let new = PresentedCertificate::from_der(&chain[0]).unwrap();
    assert_eq!(old.subject, new.subject);
    assert_eq!(old.subject_alt_name, new.subject_alt_name);
    assert_ne!(old.spki_sha256, new.spki_sha256);
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_is_answered_with_the_same_certificate() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let identity = scratch.enrol("thermo-1").await;
    let request = fresh_csr();
    let (first, beside) = tokio::join!(scratch.renew(&identity, &request), scratch.renew(&identity, &request));
    let first = issued(first.unwrap());
    assert_eq!(issued(beside.unwrap()), first, "two at the same time");
    for _ in 0..5 {
        scratch.pass(UnixMillis::DAY);
        assert_eq!(issued(scratch.renew(&identity, &request).await.unwrap()), first);
    }
    let history = scratch.fleet.device_show(&scratch.owner, "thermo-1").await.unwrap();
    let good = history.certificates.iter().filter(|certificate| certificate.status == CertificateStatus::Good);
    assert_eq!((good.count(), history.certificates.len()), (2, 2), "the one in use and its one successor");

    // A device that lost the key as well asks with another one.
    let other = issued(scratch.renew(&identity, &fresh_csr()).await.unwrap());
    assert_ne!(other, first);
}

#[tokio::test]
async fn a_device_that_may_have_one_certificate_and_lost_the_answer_is_not_locked_out() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let line = scratch.fleet.device_show(&scratch.owner, "thermo-1").await.unwrap().product_line_name;
    let policy = EnrolmentPolicy { max_live_ldevids: 1, ..EnrolmentPolicy::default() };
    scratch.fleet.product_line_set_policy(&scratch.owner, &line, policy).await.unwrap();
    let identity = scratch.enrol("thermo-1").await;
    let request = fresh_csr();
    let first = issued(scratch.renew(&identity, &request).await.unwrap());
    let status = |history: &kf_api::device::DeviceHistory| -> Vec<CertificateStatus> {
        history.certificates.iter().map(|certificate| certificate.status).collect()
    };
    let before = scratch.fleet.device_show(&scratch.owner, "thermo-1").await.unwrap();
    assert!(status(&before).contains(&CertificateStatus::Revoked), "the one it asked with is superseded");
    assert_eq!(issued(scratch.renew(&identity, &request).await.unwrap()), first);
    let after = scratch.fleet.device_show(&scratch.owner, "thermo-1").await.unwrap();
    assert_eq!(status(&after), status(&before), "nothing is issued for it");
    // With another key it is a renewal, and of a certificate that is revoked.
    let refused = scratch.renew(&identity, &fresh_csr()).await.unwrap_err();
    assert!(matches!(refused, FleetError::Forbidden { .. }), "{refused:?}");
    // A device that left the fleet gets nothing, whatever was answered before.
    let request_to_leave = DeviceActRequest {
        act: DeviceAct::Suspend,
        why: String::new(),
        departure: Departure::default(),
        dry_run: false,
    };
    scratch.fleet.device_act(&scratch.owner, "thermo-1", request_to_leave).await.unwrap();
    assert!(scratch.renew(&identity, &request).await.is_err());
}

#[tokio::test]
async fn a_renewal_is_not_answered_with_a_certificate_that_was_revoked_or_is_old() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let identity = scratch.enrol("thermo-1").await;
    let request = fresh_csr();
    let first = issued(scratch.renew(&identity, &request).await.unwrap());
    let target = RevocationTarget::Certificate(serial_of(&first));
    let (reason, why) = (RevocationReason::Superseded, "test".into());
    let act = RevokeRequest { target, reason, why, verify: false, dry_run: false };
    scratch.fleet.revoke(&scratch.owner, act).await.unwrap();
    let second = issued(scratch.renew(&identity, &request).await.unwrap());
    assert_ne!(second, first);
    scratch.pass(40 * UnixMillis::DAY);
    assert_eq!(issued(scratch.renew(&identity, &request).await.unwrap()), second);
    scratch.pass(10 * UnixMillis::DAY);
    assert_ne!(issued(scratch.renew(&identity, &request).await.unwrap()), second, "half of its life is over");
}

#[tokio::test]
async fn a_renewal_that_asks_for_another_name_is_refused() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let identity = scratch.enrol("thermo-1").await;
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let error = scratch.renew(&identity, &make_request(&key, "thermo-9").unwrap()).await.unwrap_err();
    assert_eq!(field_of(&error), "subject");
}

#[tokio::test]
async fn an_expired_certificate_renews_inside_the_grace_window_only() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let identity = scratch.enrol("thermo-1").await;
    scratch.pass(100 * UnixMillis::DAY);
    issued(scratch.renew(&identity, &fresh_csr()).await.unwrap());
    scratch.pass(30 * UnixMillis::DAY);
    let error = scratch.renew(&identity, &fresh_csr()).await.unwrap_err();
    assert!(matches!(error, FleetError::Forbidden { .. }), "{error}");
}

#[tokio::test]
async fn a_suspended_or_decommissioned_device_neither_enrols_nor_renews() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let identity = scratch.enrol("thermo-1").await;
    let code = scratch.code("thermo-1").await;
    for act in [DeviceAct::Suspend, DeviceAct::Quarantine, DeviceAct::Decommission] {
        let request = DeviceActRequest { act, why: "test".into(), departure: Default::default(), dry_run: false };
        assert!(scratch.fleet.device_act(&scratch.owner, "thermo-1", request).await.unwrap().done);
        assert!(scratch.renew(&identity, &fresh_csr()).await.is_err(), "{act:?}");
        assert!(scratch.enrol_with("thermo-1", &code, &fresh_csr()).await.is_err(), "{act:?}");
    }
}

#[tokio::test]
async fn no_credential_and_a_wrong_label_get_nothing() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    scratch.line("other", EnrolmentPolicy::default()).await;
    let client = TlsClient::anonymous(HERE);
    let nothing = scratch.fleet.est_simple_enroll(EstLabel::None, client, EnrolCredential::Nothing, &fresh_csr()).await;
    assert!(matches!(nothing, Err(FleetError::Unauthenticated)));
    let code = scratch.code("thermo-1").await;
    let wrong = scratch
        .fleet
        .est_simple_enroll(EstLabel::Line("other"), client, basic("thermo-1", &code), &fresh_csr())
        .await
        .unwrap_err();
    assert_eq!(field_of(&wrong), "label");
    let unknown = scratch
        .fleet
        .est_simple_enroll(EstLabel::Line("nowhere"), client, basic("thermo-1", &code), &fresh_csr())
        .await;
    assert!(matches!(unknown, Err(FleetError::NotFound(_))));
}

#[tokio::test]
async fn manual_approval_waits_then_grants_the_same_key_only() {
    let scratch = Scratch::new().await;
    let policy = EnrolmentPolicy { approval: Approval::Manual, ..EnrolmentPolicy::default() };
    scratch.line("careful", policy).await;
    scratch.device_at("valve-1", "plant-a", "careful").await;
    let code = scratch.code("valve-1").await;
    let request = fresh_csr();
    let ask = |body: Vec<u8>| {
        let credential = basic("valve-1", &code);
        let fleet = scratch.fleet.clone();
        async move { fleet.est_simple_enroll(EstLabel::None, TlsClient::anonymous(HERE), credential, &body).await }
    };
    assert!(matches!(ask(request.clone()).await.unwrap(), EnrolOutcome::Waiting { .. }));
    assert!(matches!(ask(request.clone()).await.unwrap(), EnrolOutcome::Waiting { .. }));
    let waiting = scratch.fleet.enrolment_list(&scratch.owner, Default::default()).await.unwrap();
    assert_eq!(waiting.items.len(), 1);
    let decision = EnrolmentDecision { approve: true, why: "seen it".into() };
    scratch.fleet.enrolment_decide(&scratch.owner, waiting.items[0].id, decision).await.unwrap();
    assert!(matches!(ask(fresh_csr()).await.unwrap(), EnrolOutcome::Waiting { .. }));
    issued(ask(request).await.unwrap());
}

#[tokio::test]
async fn stopped_issuance_issues_nothing_and_starts_again() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let code = scratch.code("thermo-1").await;
    let request = fresh_csr();
    let stop = IssuanceSwitch { run: false, why: "drill".into(), facility: None };
    scratch.fleet.issuance_switch(&scratch.owner, stop).await.unwrap();
    let outcome = scratch.enrol_with("thermo-1", &code, &request).await;
    assert!(matches!(outcome, Err(FleetError::IssuanceStopped(_))), "{outcome:?}");
    let scratch = scratch.reopen().await;
    let outcome = scratch.enrol_with("thermo-1", &code, &request).await;
    assert!(matches!(outcome, Err(FleetError::IssuanceStopped(_))), "{outcome:?}");
    let own = scratch.fleet.server_identity().await.unwrap();
    assert!(own.ocsp_staple.is_some(), "OCSP must go on while issuance is stopped");
    let start = IssuanceSwitch { run: true, why: String::new(), facility: None };
    scratch.fleet.issuance_switch(&scratch.owner, start).await.unwrap();
    issued(scratch.enrol_with("thermo-1", &code, &request).await.unwrap());
}

#[tokio::test]
async fn a_server_key_is_made_only_where_the_policy_says_so() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let policy = EnrolmentPolicy { server_keygen: true, ..EnrolmentPolicy::default() };
    scratch.line("keyless", policy).await;
    scratch.device_at("lamp-1", "plant-a", "keyless").await;
    let client = TlsClient::anonymous(HERE);
    let code = scratch.code("thermo-1").await;
    let refused = scratch.fleet.est_server_keygen(EstLabel::None, client, basic("thermo-1", &code), &fresh_csr()).await;
    assert_eq!(field_of(&refused.unwrap_err()), "serverkeygen");
    let code = scratch.code("lamp-1").await;
    let made =
        scratch.fleet.est_server_keygen(EstLabel::None, client, basic("lamp-1", &code), &fresh_csr()).await.unwrap();
    let key = PrivateKey::from_pkcs8(KeyAlgorithm::P256, &made.key_pkcs8).unwrap();
    let certificate = PresentedCertificate::from_der(&made.chain[0]).unwrap();
    assert_eq!(certificate.spki, key.spki());
}
