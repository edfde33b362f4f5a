use kf_api::product_line::{EndorsementPolicy, EnrolmentPolicy};
use kf_key::{CertificateProfile, CertificateStatus, DeviceState, KeyAlgorithm};

use super::*;
use crate::RefusalClass;
use crate::sample::{self, NOW, OLD_KEY};

/// A renewal in which everything holds.
struct Sample {
    presented: PresentedCertificate,
    registered: Certificate,
    device: Device,
    label: Option<ProductLineId>,
    request: CertificationRequest,
    policy: EnrolmentPolicy,
    registered_endorsement: Option<[u8; 32]>,
    proven: Option<[u8; 32]>,
    now: UnixMillis,
}

fn sample() -> Sample {
    Sample {
        presented: sample::presented(),
        registered: sample::registered(CertificateProfile::LDevId),
        device: sample::device(),
        label: None,
        request: sample::request(KeyAlgorithm::P256),
        policy: EnrolmentPolicy::default(),
        registered_endorsement: None,
        proven: None,
        now: NOW,
    }
}

fn check(change: impl FnOnce(&mut Sample), expected: Result<RenewalGrant, Refusal>) {
    let mut sample = sample();
    change(&mut sample);
    let Sample { presented, registered, device, label, request, policy, now, .. } = &sample;
    let endorsed = Endorsed {
        policy: policy.endorsement.as_ref(),
        registered: sample.registered_endorsement,
        proven: sample.proven,
    };
    let renewal = Renewal { presented, registered, device, label: *label, request, policy, endorsed, now: *now };
    assert_eq!(decide(&renewal), expected);
}

const GRANT: RenewalGrant = RenewalGrant { rekey: true, in_grace: false };

#[test]
fn a_good_ldevid_with_a_new_key_is_renewed() {
    check(|_| (), Ok(GRANT));
}

#[test]
fn the_same_key_is_allowed_and_recorded() {
    check(|s| s.request.key.spki_sha256 = OLD_KEY, Ok(RenewalGrant { rekey: false, in_grace: false }));
}

#[test]
fn only_an_ldevid_renews_itself() {
    for profile in CertificateProfile::ALL {
        let expected =
            if profile == CertificateProfile::LDevId { Ok(GRANT) } else { Err(Refusal::NotRenewable(profile)) };
        check(|s| s.registered.profile = profile, expected);
    }
    assert!(Refusal::NotRenewable(CertificateProfile::IDevId).remedy().contains("simpleenroll"));
}

#[test]
fn a_held_or_revoked_certificate_does_not_renew() {
    for status in [CertificateStatus::Held, CertificateStatus::Revoked] {
        check(|s| s.registered.status = status, Err(Refusal::NotGood(status)));
    }
}

#[test]
fn a_certificate_of_another_device_serial_or_key_is_refused() {
    check(|s| s.registered.device = Some(sample::device_id(2)), Err(Refusal::OtherDevice));
    check(|s| s.registered.device = None, Err(Refusal::OtherDevice));
    check(|s| s.presented.serial = Some(sample::serial(2)), Err(Refusal::OtherDevice));
    check(|s| s.presented.serial = None, Err(Refusal::OtherDevice));
    check(|s| s.presented.spki_sha256 = [0xcc; 32], Err(Refusal::OtherDevice));
}

#[test]
fn only_a_device_that_may_enrol_renews() {
    for state in DeviceState::ALL {
        let expected = if state.may_enrol() { Ok(GRANT) } else { Err(Refusal::DeviceState(state)) };
        check(|s| s.device.state = state, expected);
    }
}

#[test]
fn an_expired_certificate_renews_until_the_grace_is_over_and_not_a_moment_longer() {
    let end = sample::presented().not_after;
    let grace = 720 * UnixMillis::HOUR;
    let in_grace = Ok(RenewalGrant { rekey: true, in_grace: true });
    check(|s| s.now = end, Ok(GRANT));
    check(|s| s.now = end.plus(1), in_grace);
    check(|s| s.now = end.plus(grace), in_grace);
    check(|s| s.now = end.plus(grace + 1), Err(Refusal::GraceOver { grace_hours: 720 }));
    let no_grace = |s: &mut Sample| {
        s.policy.renewal_grace_hours = 0;
        s.now = end.plus(1);
    };
    check(no_grace, Err(Refusal::GraceOver { grace_hours: 0 }));
}

#[test]
fn a_certificate_that_is_not_yet_valid_does_not_renew() {
    let start = sample::presented().not_before;
    check(|s| s.now = start, Ok(GRANT));
    check(|s| s.now = start.minus(1), Err(Refusal::NotYetValid));
}

#[test]
fn the_label_of_another_product_line_is_refused() {
    check(|s| s.label = Some(sample::line(1)), Ok(GRANT));
    check(|s| s.label = Some(sample::line(2)), Err(Refusal::OtherLine));
}

#[test]
fn the_subject_is_empty_or_that_of_the_certificate() {
    check(|s| s.request.subject = sample::subject("pump-7"), Ok(GRANT));
    let printable = |s: &mut Sample| {
        s.request.subject = sample::subject("pump-7");
        s.request.subject[11] = 0x13;
    };
    check(printable, Ok(GRANT));
    check(|s| s.request.subject = sample::subject("pump-8"), Err(Refusal::SubjectDiffers));
}

#[test]
fn the_alternative_name_is_absent_or_that_of_the_certificate() {
    check(|s| s.request.subject_alt_name = s.presented.subject_alt_name.clone(), Ok(GRANT));
    check(
        |s| s.request.subject_alt_name = Some(vec![0x30, 0x03, 0x86, 0x01, b'b']),
        Err(Refusal::SubjectAltNameDiffers),
    );
    let invented = |s: &mut Sample| {
        s.request.subject_alt_name = s.presented.subject_alt_name.take();
    };
    check(invented, Err(Refusal::SubjectAltNameDiffers));
}

#[test]
fn only_allowed_algorithms_are_certified() {
    let allowed = EnrolmentPolicy::default().allowed_algorithms;
    for algorithm in KeyAlgorithm::ALL {
        let expected = if allowed.contains(&algorithm) { Ok(GRANT) } else { Err(Refusal::Algorithm(algorithm)) };
        check(|s| s.request.key.algorithm = algorithm, expected);
    }
}

#[test]
fn what_a_corrected_request_could_mend_is_the_requests_fault_and_the_rest_is_not() {
    assert_eq!(Refusal::SubjectDiffers.class(), RefusalClass::Request);
    assert_eq!(Refusal::GraceOver { grace_hours: 1 }.class(), RefusalClass::Forbidden);
    assert_eq!(Refusal::NotGood(CertificateStatus::Revoked).class(), RefusalClass::Forbidden);
    assert_eq!(Refusal::OtherDevice.class(), RefusalClass::Credential);
}

#[test]
fn a_line_that_demands_a_tpm_takes_proven_keys_of_the_registered_tpm_only() {
    let demands = |s: &mut Sample| s.policy.endorsement = Some(EndorsementPolicy::default());
    let refused = Err(Refusal::KeyNotEndorsed);
    check(demands, refused);
    check(
        |s| {
            demands(s);
            s.proven = Some([1; 32]);
            s.registered_endorsement = Some([2; 32]);
        },
        refused,
    );
    check(
        |s| {
            demands(s);
            s.registered_endorsement = Some([1; 32]);
        },
        refused,
    );
    check(
        |s| {
            demands(s);
            s.proven = Some([1; 32]);
            s.registered_endorsement = Some([1; 32]);
        },
        Ok(GRANT),
    );
    check(
        |s| {
            demands(s);
            s.proven = Some([1; 32]);
        },
        Ok(GRANT),
    );
}
