use kf_api::product_line::{EndorsementPolicy, EnrolmentPolicy};
use kf_key::{CodeId, DeviceState, KeyAlgorithm, OperatorId, VendorId};

use super::*;
use crate::RefusalClass;
use crate::sample::{self, NEW_KEY, NOW, OLD_KEY};

/// A bootstrap in which everything holds, whichever proof is chosen.
struct Sample {
    device: Device,
    presented: PresentedCertificate,
    registered: Certificate,
    vendor: Vendor,
    listed: VendorDevice,
    code: Code,
    used_with: Option<[u8; 32]>,
    voucher: Voucher,
    station: Operator,
    label: Option<ProductLineId>,
    key: RequestedKey,
    policy: EnrolmentPolicy,
    registered_endorsement: Option<[u8; 32]>,
    proven: Option<[u8; 32]>,
    now: UnixMillis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    IDevId,
    VendorIDevId,
    Code,
    Voucher,
}

const METHODS: [By; 4] = [By::IDevId, By::VendorIDevId, By::Code, By::Voucher];
/// SHA-256 of the vendor's certificate.
const CERTIFICATE: [u8; 32] = [0xcc; 32];

fn sample_vendor() -> Vendor {
    Vendor {
        id: VendorId::from_parts(NOW, [3; 10]),
        name: "acme".into(),
        subject: "CN=acme root".into(),
        anchor_pem: String::new(),
        not_after: NOW.plus(UnixMillis::DAY),
        created: NOW,
        withdrawn: None,
    }
}

fn sample() -> Sample {
    let station = OperatorId::from_parts(NOW, [7; 10]);
    Sample {
        device: Device { state: DeviceState::Registered, ..sample::device() },
        presented: sample::presented(),
        registered: sample::registered(CertificateProfile::IDevId),
        vendor: sample_vendor(),
        listed: VendorDevice {
            device: sample::device_id(1),
            vendor: sample_vendor().id,
            identifier: "S-1".into(),
            certificate_sha256: None,
            first_used: None,
        },
        code: Code {
            id: CodeId::from_parts(NOW, [1; 10]),
            device: sample::device_id(1),
            expires: NOW.plus(UnixMillis::HOUR),
            key_sha256: None,
            used: None,
            withdrawn: false,
        },
        used_with: None,
        voucher: Voucher {
            device: "pump-7".into(),
            spki_sha256: NEW_KEY,
            station,
            issued: NOW.minus(UnixMillis::HOUR),
            expires: NOW.plus(UnixMillis::HOUR),
            id: "v1".into(),
        },
        station: Operator {
            id: station,
            name: "station-1".into(),
            role: Role::Station,
            facilities: vec![sample::facility(1)],
            enabled: true,
            voucher_key_pem: None,
            created: NOW,
        },
        label: None,
        key: sample::request(KeyAlgorithm::P256).key,
        policy: EnrolmentPolicy::default(),
        registered_endorsement: None,
        proven: None,
        now: NOW,
    }
}

fn check(by: By, change: impl FnOnce(&mut Sample), expected: Result<BootstrapGrant, Refusal>) {
    let mut sample = sample();
    change(&mut sample);
    let Sample { device, presented, registered, code, used_with, voucher, station, label, key, policy, now, .. } =
        &sample;
    let endorsed = Endorsed {
        policy: policy.endorsement.as_ref(),
        registered: sample.registered_endorsement,
        proven: sample.proven,
    };
    let proof = match by {
        By::IDevId => Proof::IDevId { presented, registered },
        By::VendorIDevId => {
            let (vendor, registered) = (&sample.vendor, &sample.listed);
            Proof::VendorIDevId { presented, certificate: CERTIFICATE, vendor, registered }
        }
        By::Code => Proof::Code { code, used_with: *used_with },
        By::Voucher => Proof::Voucher { voucher, station },
    };
    assert_eq!(
        decide(&Bootstrap { device, proof, label: *label, key, policy, endorsed, now: *now }),
        expected,
        "{by:?}"
    );
}

const GRANT: BootstrapGrant = BootstrapGrant { approval: Approval::Automatic, retry: false };

#[test]
fn each_proof_bootstraps_a_registered_device() {
    for by in METHODS {
        check(by, |_| (), Ok(GRANT));
    }
}

#[test]
fn a_method_that_the_policy_does_not_name_is_refused() {
    check(By::IDevId, |s| s.policy.bootstrap_by_idevid = false, Err(Refusal::MethodNotAllowed("an IDevID")));
    check(By::Code, |s| s.policy.bootstrap_by_code = false, Err(Refusal::MethodNotAllowed("a one-time code")));
    check(By::Voucher, |s| s.policy.bootstrap_by_voucher = false, Err(Refusal::MethodNotAllowed("a voucher")));
    let only_code = |s: &mut Sample| {
        s.policy.bootstrap_by_idevid = false;
        s.policy.bootstrap_by_voucher = false;
    };
    check(By::Code, only_code, Ok(GRANT));
}

#[test]
fn only_a_device_that_may_enrol_is_bootstrapped() {
    for by in METHODS {
        for state in DeviceState::ALL {
            let expected = if state.may_enrol() { Ok(GRANT) } else { Err(Refusal::DeviceState(state)) };
            check(by, |s| s.device.state = state, expected);
        }
    }
}

#[test]
fn label_algorithm_and_approval_hold_for_every_proof() {
    for by in METHODS {
        check(by, |s| s.label = Some(sample::line(1)), Ok(GRANT));
        check(by, |s| s.label = Some(sample::line(2)), Err(Refusal::OtherLine));
        check(by, |s| s.key.algorithm = KeyAlgorithm::Rsa2048, Err(Refusal::Algorithm(KeyAlgorithm::Rsa2048)));
        check(
            by,
            |s| s.policy.approval = Approval::Manual,
            Ok(BootstrapGrant { approval: Approval::Manual, retry: false }),
        );
    }
}

#[test]
fn only_an_idevid_bootstraps() {
    for profile in CertificateProfile::ALL {
        let expected =
            if profile == CertificateProfile::IDevId { Ok(GRANT) } else { Err(Refusal::NotBootstrapping(profile)) };
        check(By::IDevId, |s| s.registered.profile = profile, expected);
    }
    assert!(Refusal::NotBootstrapping(CertificateProfile::LDevId).remedy().contains("simplereenroll"));
}

#[test]
fn an_idevid_of_another_device_serial_or_key_is_refused() {
    check(By::IDevId, |s| s.registered.device = Some(sample::device_id(2)), Err(Refusal::OtherDevice));
    check(By::IDevId, |s| s.registered.device = None, Err(Refusal::OtherDevice));
    check(By::IDevId, |s| s.presented.serial = None, Err(Refusal::OtherDevice));
    check(By::IDevId, |s| s.presented.spki_sha256 = NEW_KEY, Err(Refusal::OtherDevice));
}

#[test]
fn a_held_or_revoked_idevid_is_refused() {
    for status in [CertificateStatus::Held, CertificateStatus::Revoked] {
        check(By::IDevId, |s| s.registered.status = status, Err(Refusal::NotGood(status)));
    }
}

#[test]
fn an_expired_idevid_is_accepted_where_the_policy_says_so() {
    let late = sample::presented().not_after.plus(1);
    check(By::IDevId, |s| s.now = late, Ok(GRANT));
    let strict = |s: &mut Sample| {
        s.now = late;
        s.policy.accept_expired_idevid = false;
    };
    check(By::IDevId, strict, Err(Refusal::ExpiredIDevId));
    check(By::IDevId, |s| s.now = s.presented.not_before.minus(1), Err(Refusal::NotYetValid));
}

#[test]
fn a_vendors_certificate_is_the_one_that_is_known_of_the_device_or_its_first() {
    let by = By::VendorIDevId;
    check(by, |s| s.listed.certificate_sha256 = Some(hex::encode(CERTIFICATE)), Ok(GRANT));
    check(by, |s| s.listed.certificate_sha256 = Some(hex::encode([0xdd; 32])), Err(Refusal::OtherDevice));
    check(by, |s| s.listed.device = sample::device_id(2), Err(Refusal::OtherDevice));
    check(by, |s| s.listed.vendor = VendorId::from_parts(NOW, [4; 10]), Err(Refusal::OtherDevice));
    check(by, |s| s.vendor.withdrawn = Some(NOW), Err(Refusal::VendorWithdrawn));
    check(by, |s| s.policy.bootstrap_by_idevid = false, Err(Refusal::MethodNotAllowed("an IDevID")));
    check(by, |s| s.now = s.presented.not_before.minus(1), Err(Refusal::NotYetValid));
}

#[test]
fn a_code_is_good_until_its_last_moment_for_its_device_and_not_after_withdrawal() {
    check(By::Code, |s| s.now = s.code.expires, Ok(GRANT));
    check(By::Code, |s| s.now = s.code.expires.plus(1), Err(Refusal::Secret));
    check(By::Code, |s| s.code.withdrawn = true, Err(Refusal::Secret));
    check(By::Code, |s| s.code.device = sample::device_id(2), Err(Refusal::Secret));
}

#[test]
fn a_code_of_a_label_certifies_the_key_that_the_station_saw_and_no_other() {
    check(By::Code, |s| s.code.key_sha256 = Some(hex::encode(NEW_KEY)), Ok(GRANT));
    check(By::Code, |s| s.code.key_sha256 = Some(hex::encode(OLD_KEY)), Err(Refusal::Secret));
}

#[test]
fn a_used_code_is_good_again_for_the_key_it_was_used_with_and_for_no_other() {
    let used = |with: Option<[u8; 32]>| {
        move |s: &mut Sample| {
            s.code.used = Some(NOW);
            s.used_with = with;
        }
    };
    check(By::Code, used(Some(NEW_KEY)), Ok(BootstrapGrant { approval: Approval::Automatic, retry: true }));
    check(By::Code, used(Some(OLD_KEY)), Err(Refusal::Secret));
    check(By::Code, used(None), Err(Refusal::Secret));
    check(By::Code, |s| s.used_with = Some(NEW_KEY), Err(Refusal::Secret));
}

#[test]
fn a_voucher_is_for_its_device_and_its_key_in_its_time() {
    check(By::Voucher, |s| s.voucher.device = "pump-8".into(), Err(Refusal::Secret));
    check(By::Voucher, |s| s.voucher.spki_sha256 = OLD_KEY, Err(Refusal::Secret));
    check(By::Voucher, |s| s.now = s.voucher.expires, Ok(GRANT));
    check(By::Voucher, |s| s.now = s.voucher.expires.plus(1), Err(Refusal::Secret));
}

#[test]
fn a_voucher_counts_only_from_an_enabled_station_of_the_devices_facility() {
    check(By::Voucher, |s| s.station.enabled = false, Err(Refusal::Secret));
    check(By::Voucher, |s| s.station.facilities = vec![sample::facility(2)], Err(Refusal::Secret));
    check(By::Voucher, |s| s.station.id = OperatorId::from_parts(NOW, [8; 10]), Err(Refusal::Secret));
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Station) {
        check(By::Voucher, |s| s.station.role = role, Err(Refusal::Secret));
    }
}

#[test]
fn who_proved_nothing_learns_nothing_about_the_device() {
    for state in DeviceState::ALL {
        let wrong = |s: &mut Sample| {
            s.code.withdrawn = true;
            s.device.state = state;
            s.policy.bootstrap_by_code = false;
        };
        check(By::Code, wrong, Err(Refusal::Secret));
    }
    assert_eq!(Refusal::Secret.class(), RefusalClass::Credential);
}

#[test]
fn a_line_that_demands_a_tpm_takes_proven_keys_of_the_registered_tpm_only() {
    let demands = |s: &mut Sample| s.policy.endorsement = Some(EndorsementPolicy::default());
    let refused = Err(Refusal::KeyNotEndorsed);
    check(By::Code, demands, refused);
    check(
        By::Code,
        |s| {
            demands(s);
            s.proven = Some([1; 32]);
            s.registered_endorsement = Some([2; 32]);
        },
        refused,
    );
    check(
        By::Code,
        |s| {
            demands(s);
            s.registered_endorsement = Some([1; 32]);
        },
        refused,
    );
    check(
        By::Code,
        |s| {
            demands(s);
            s.proven = Some([1; 32]);
            s.registered_endorsement = Some([1; 32]);
        },
        Ok(GRANT),
    );
    check(
        By::Code,
        |s| {
            demands(s);
            s.proven = Some([1; 32]);
        },
        Ok(GRANT),
    );
}
