//! Every use case of the registry for every role, compared with what the roles are for.

use std::fmt::Write;

use kf_api::device::{ImportFormat, NewDevice};
use kf_api::enrolment::CodeRequest;
use kf_api::facility::NewFacility;
use kf_api::operator::{NewOperator, Role, TokenRequest};
use kf_api::product_line::{EnrolmentPolicy, NewProductLine};
use kf_fleet::{FleetError, Principal};
use kf_key::SerialNumber;

use crate::scratch::Scratch;

/// One letter per outcome: allowed, denied, not found (hidden), other.
fn letter<T>(outcome: Result<T, FleetError>) -> char {
    match outcome {
        Ok(_) => '+',
        Err(FleetError::Denied(_)) => '-',
        Err(FleetError::NotFound(_)) => '?',
        Err(error) => panic!("neither allowed nor refused: {error:?}"),
    }
}

/// What `who` may do: acts at the own facility, and the same at another one.
async fn row(scratch: &Scratch, who: &Principal, serials: [SerialNumber; 2]) -> String {
    let fleet = &scratch.fleet;
    let tag = &who.name;
    let mut row = String::new();
    let facility = NewFacility { name: format!("site-{tag}"), description: String::new() };
    row.push(letter(fleet.facility_create(who, facility).await));
    let line = NewProductLine { name: format!("line-{tag}"), authority: None, policy: EnrolmentPolicy::default() };
    row.push(letter(fleet.product_line_create(who, line).await));
    row.push(letter(fleet.product_line_set_policy(who, "thermo", EnrolmentPolicy::default()).await));
    row.push(letter(fleet.product_line_list(who, Default::default()).await));
    let operator = NewOperator {
        name: format!("made-by-{tag}"),
        role: Role::Auditor,
        facilities: Vec::new(),
        voucher_key_pem: None,
    };
    row.push(letter(fleet.operator_create(who, operator).await));
    row.push(letter(fleet.operator_list(who, Default::default()).await));
    row.push(letter(fleet.operator_enable(who, "spare", false, String::new()).await));
    row.push(letter(fleet.token_create(who, TokenRequest { operator: "olga".into(), lifetime_days: None }).await));
    row.push(letter(fleet.token_list(who, "olga").await));
    row.push(letter(fleet.key_block(who, vec![[9; 32]], String::new()).await));
    row.push(letter(fleet.audit_list(who, Default::default()).await));
    row.push(letter(fleet.enrolment_list(who, Default::default()).await));
    for (place, serial) in ["a", "b"].into_iter().zip(serials) {
        row.push(' ');
        let facility = format!("plant-{place}");
        let device = format!("t-{place}");
        row.push(letter(fleet.facility_show(who, &facility).await));
        let new = NewDevice {
            name: format!("{tag}-{place}"),
            facility: facility.clone(),
            product_line: "thermo".into(),
            batch: None,
            attributes: Default::default(),
        };
        row.push(letter(fleet.device_register(who, new).await));
        row.push(letter(fleet.device_show(who, &device).await));
        row.push(letter(fleet.certificate_show(who, serial).await));
        row.push(letter(fleet.code_create(who, CodeRequest { device: device.clone(), lifetime_hours: None }).await));
        row.push(letter(fleet.code_list(who, &device).await));
    }
    row.push(' ');
    let csv = b"name,facility,product_line\n";
    row.push(letter(fleet.device_import(who, ImportFormat::Csv, csv, true).await));
    row.push(letter(fleet.certificate_list(who, Default::default()).await));
    row.push(letter(fleet.device_list(who, Default::default()).await));
    row
}

/// Columns: facility, product line, policy, lines; operator, operators, disable, token, tokens; block; log; enrolments.
/// Then twice, own facility and another: facility, register, device, certificate, code, codes. Then import,
/// certificates, devices. `?` hides that the thing exists.
const EXPECTED: &str = "\
owner             ++++++++++++ ++++++ ++++++ +++
fleet-operator    -+++-----+++ ++++++ ++++++ +++
facility-operator ---+------++ ++++++ ?????? +++
auditor           ---+-+--+-+- +-++-- +-++-- -++
station           ---+-------- ++++++ ?????? +++
relay             ------------ ------ ?????? ---
application       ------------ ------ ?????? ---
";

#[tokio::test]
async fn every_role_may_do_what_it_is_for_and_nothing_else() {
    let scratch = Scratch::new().await;
    scratch.operator("spare", Role::Auditor, &[]).await;
    let mut serials = Vec::new();
    for place in ["a", "b"] {
        scratch.device_at(&format!("t-{place}"), &format!("plant-{place}"), "thermo").await;
        serials.push(scratch.enrol(&format!("t-{place}")).await.serial);
    }
    let mut found = String::new();
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Device) {
        let is_of_the_fleet = matches!(role, Role::Owner | Role::FleetOperator | Role::Auditor);
        let facilities: &[&str] = if is_of_the_fleet { &[] } else { &["plant-a"] };
        let who = scratch.operator(&format!("the-{}", role.name()), role, facilities).await;
        let row = row(&scratch, &who, [serials[0], serials[1]]).await;
        writeln!(found, "{:<17} {row}", role.name()).unwrap();
    }
    assert_eq!(found, EXPECTED, "\n{found}");
}
