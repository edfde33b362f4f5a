use super::*;

const A: FacilityId = FacilityId::from_bytes([1; 16]);
const B: FacilityId = FacilityId::from_bytes([2; 16]);

fn somebody(role: Role, facilities: &[FacilityId]) -> Principal {
    Principal::new("op".into(), "op".into(), role, facilities.iter().copied(), Credential::Token)
}

#[test]
fn a_facility_operator_of_a_reaches_nothing_of_b() {
    let operator = somebody(Role::FacilityOperator, &[A]);
    for action in Action::ALL {
        let denied = authorize(&operator, *action, Target::Facility(B)).unwrap_err();
        assert!(!denied.may_know, "{action:?} reveals that something of B exists");
    }
    assert!(authorize(&operator, Action::DeviceRead, Target::Facility(A)).is_ok());
}

#[test]
fn a_facility_operator_reaches_nothing_of_the_whole_fleet_but_shared_reading() {
    let operator = somebody(Role::FacilityOperator, &[A]);
    for action in Action::ALL {
        let allowed = authorize(&operator, *action, Target::Fleet).is_ok();
        assert_eq!(allowed, action.is_shared_reading(), "{action:?}");
    }
}

#[test]
fn a_device_and_a_code_holder_may_do_nothing_here() {
    for action in Action::ALL {
        for target in [Target::Fleet, Target::Facility(A), Target::Visible] {
            assert!(authorize(&somebody(Role::Device, &[A]), *action, target).is_err());
            for credential in [Credential::Code, Credential::Voucher] {
                let mut owner = somebody(Role::Owner, &[]);
                owner.credential = credential;
                assert!(authorize(&owner, *action, target).is_err(), "{action:?} by {credential:?}");
            }
        }
    }
}

#[test]
fn an_auditor_reads_and_changes_nothing() {
    let auditor = somebody(Role::Auditor, &[]);
    for action in Action::ALL {
        let allowed = authorize(&auditor, *action, Target::Fleet).is_ok();
        assert_eq!(allowed, action.name().ends_with(".read"), "{action:?}");
    }
}

#[test]
fn nobody_may_do_what_the_table_does_not_name() {
    for action in Action::ALL {
        for role in Role::ALL {
            let allowed = authorize(&somebody(role, &[A]), *action, Target::Facility(A)).is_ok();
            assert_eq!(allowed, action.allowed_to(role) && role != Role::Device, "{action:?} for {role:?}");
        }
    }
}

#[test]
fn a_scope_that_is_empty_sees_nothing() {
    let operator = somebody(Role::FacilityOperator, &[]);
    assert!(!operator.visibility().sees(A));
}

#[test]
fn stopping_needs_one_person_and_permanence_at_scale_two() {
    let settings = DualControl::default();
    let now = UnixMillis(1_000);
    let stake = Stake { permanent: true, devices: 11, crosses_facilities: false, kills_authority: false };
    assert!(matches!(settings.control(stake, now), Control::Second { .. }));
    assert_eq!(settings.control(Stake { devices: 10, ..stake }, now), Control::Single);
    assert_eq!(settings.control(Stake { permanent: false, devices: 1_000_000, ..stake }, now), Control::Single);
    let move_one = Stake { permanent: false, devices: 1, crosses_facilities: true, kills_authority: false };
    assert!(matches!(settings.control(move_one, now), Control::Second { .. }));
    let authority = Stake { devices: 0, kills_authority: true, ..stake };
    assert!(matches!(settings.control(authority, now), Control::Second { .. }));
}

#[test]
fn an_explanation_says_what_the_decision_is_and_why() {
    for role in Role::ALL {
        for action in Action::ALL {
            for target in [Target::Fleet, Target::Facility(A), Target::Facility(B), Target::Visible] {
                let who = somebody(role, &[A]);
                let explained = explain(&who, *action, target);
                assert_eq!(
                    explained.allowed,
                    authorize(&who, *action, target).is_ok(),
                    "{role:?} {action:?} {target:?}"
                );
                assert!(!explained.because.is_empty());
                if !explained.allowed {
                    let text = explained.because.join("; ");
                    assert!(
                        ["may not", "not in scope", "as a whole", "enrols"].iter().any(|why| text.contains(why)),
                        "{text}"
                    );
                }
            }
        }
    }
    assert_eq!(Action::named("certificate.revoke"), Some(Action::CertificateRevoke));
    assert_eq!(Action::named("certificate.forge"), None);
}

#[test]
fn single_control_replaces_the_second_person_by_a_day() {
    let settings = DualControl { single_control: true, ..DualControl::default() };
    let stake = Stake { permanent: true, devices: 11, crosses_facilities: false, kills_authority: false };
    let effective = UnixMillis(UnixMillis::DAY);
    assert_eq!(settings.control(stake, UnixMillis(0)), Control::Delayed { effective });
}

use kf_key::UnixMillis;
