//! One-time enrolment codes, as operators make them.

use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_api::enrolment::CodeRequest;
use kf_api::operator::Role;
use kf_api::product_line::EnrolmentPolicy;
use kf_enrol::claim::parse_claim;
use kf_fleet::FleetError;
use kf_key::UnixMillis;

use crate::scratch::{Scratch, field_of, fresh_csr};

fn request(device: &str, lifetime_hours: Option<u32>) -> CodeRequest {
    CodeRequest { device: device.into(), lifetime_hours }
}

#[tokio::test]
async fn a_new_code_carries_a_claim_and_withdraws_the_earlier_ones() {
    let scratch = Scratch::new().await;
    let device = scratch.device("t-1").await;
    let first = scratch.fleet.code_create(&scratch.owner, request("t-1", None)).await.unwrap();
    assert_eq!((first.device, first.device_name.as_str()), (device.id, "t-1"));
    assert_eq!(first.expires, crate::scratch::START.plus(168 * UnixMillis::HOUR));
    let claim = parse_claim(first.claim_uri.expose()).unwrap();
    assert_eq!((claim.server.as_str(), claim.device.as_str()), ("https://localhost:8443", "t-1"));
    assert!(claim.code.equals(first.code.expose().as_bytes()));
    let root = scratch.fleet.root_certificate().unwrap();
    assert_eq!(claim.root_sha256, kf_crypto::sha256(&root));

    scratch.pass(1);
    let second = scratch.fleet.code_create(&scratch.owner, request("t-1", Some(1))).await.unwrap();
    let codes = scratch.fleet.code_list(&scratch.owner, "t-1").await.unwrap();
    assert_eq!(
        codes.iter().map(|code| (code.id, code.withdrawn)).collect::<Vec<_>>(),
        [(second.id, false), (first.id, true)]
    );
    let refused = scratch.enrol_with("t-1", first.code.expose(), &fresh_csr()).await;
    assert!(matches!(refused, Err(FleetError::Unauthenticated)));
    assert!(scratch.enrol_with("t-1", second.code.expose(), &fresh_csr()).await.is_ok());
}

#[tokio::test]
async fn a_withdrawn_code_enrols_nothing_and_is_withdrawn_once() {
    let scratch = Scratch::new().await;
    scratch.device("t-1").await;
    let code = scratch.fleet.code_create(&scratch.owner, request("t-1", None)).await.unwrap();
    scratch.fleet.code_withdraw(&scratch.owner, code.id).await.unwrap();
    let refused = scratch.enrol_with("t-1", code.code.expose(), &fresh_csr()).await;
    assert!(matches!(refused, Err(FleetError::Unauthenticated)));
    let again = scratch.fleet.code_withdraw(&scratch.owner, code.id).await;
    assert!(matches!(again, Err(FleetError::Conflict { .. })));
}

#[tokio::test]
async fn a_code_is_made_only_where_it_can_be_used() {
    let scratch = Scratch::new().await;
    scratch.device("t-1").await;
    for hours in [0, 8_761] {
        let error = scratch.fleet.code_create(&scratch.owner, request("t-1", Some(hours))).await.unwrap_err();
        assert_eq!(field_of(&error), "lifetime_hours");
    }
    let missing = scratch.fleet.code_create(&scratch.owner, request("t-2", None)).await;
    assert!(matches!(missing, Err(FleetError::NotFound("device"))));
    let suspend =
        DeviceActRequest { act: DeviceAct::Suspend, why: String::new(), departure: Default::default(), dry_run: false };
    scratch.fleet.device_act(&scratch.owner, "t-1", suspend).await.unwrap();
    let suspended = scratch.fleet.code_create(&scratch.owner, request("t-1", None)).await;
    assert!(matches!(suspended, Err(FleetError::Conflict { .. })));
    scratch.line("sealed", EnrolmentPolicy { bootstrap_by_code: false, ..EnrolmentPolicy::default() }).await;
    scratch.device_at("s-1", "plant-a", "sealed").await;
    let sealed = scratch.fleet.code_create(&scratch.owner, request("s-1", None)).await;
    assert!(matches!(sealed, Err(FleetError::Conflict { .. })));
}

#[tokio::test]
async fn codes_of_another_facility_do_not_exist() {
    let scratch = Scratch::new().await;
    scratch.device_at("t-1", "plant-b", "thermo").await;
    let code = scratch.fleet.code_create(&scratch.owner, request("t-1", None)).await.unwrap();
    let lena = scratch.operator("lena", Role::FacilityOperator, &["plant-a"]).await;
    let made = scratch.fleet.code_create(&lena, request("t-1", None)).await;
    assert!(matches!(made, Err(FleetError::NotFound(_))));
    assert!(matches!(scratch.fleet.code_list(&lena, "t-1").await, Err(FleetError::NotFound(_))));
    assert!(matches!(scratch.fleet.code_withdraw(&lena, code.id).await, Err(FleetError::NotFound(_))));
    assert!(scratch.enrol_with("t-1", code.code.expose(), &fresh_csr()).await.is_ok());
}
