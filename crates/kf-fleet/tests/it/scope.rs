use kf_api::device::{DeviceAct, DeviceActRequest};
use kf_api::operator::Role;
use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_fleet::FleetError;
use kf_key::RevocationReason;

use crate::scratch::Scratch;

#[tokio::test]
async fn a_facility_operator_of_a_neither_sees_nor_touches_b() {
    let scratch = Scratch::new().await;
    scratch.device_at("here-1", "plant-a", "thermo").await;
    scratch.device_at("there-1", "plant-b", "thermo").await;
    let there = scratch.enrol("there-1").await;
    let lena = scratch.operator("lena", Role::FacilityOperator, &["plant-a"]).await;

    let page = scratch.fleet.device_list(&lena, Default::default()).await.unwrap();
    assert_eq!(page.items.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["here-1"]);
    let page = scratch.fleet.facility_list(&lena, Default::default()).await.unwrap();
    assert_eq!(page.items.len(), 1);
    let page = scratch.fleet.certificate_list(&lena, Default::default()).await.unwrap();
    assert!(page.items.is_empty());
    let page = scratch.fleet.audit_list(&lena, Default::default()).await.unwrap();
    assert!(page.items.iter().all(|record| !record.entry.to_string().contains("there-1")));

    assert!(matches!(scratch.fleet.device_show(&lena, "there-1").await, Err(FleetError::NotFound(_))));
    assert!(matches!(scratch.fleet.certificate_show(&lena, there.serial).await, Err(FleetError::NotFound(_))));
    assert!(matches!(scratch.fleet.facility_show(&lena, "plant-b").await, Err(FleetError::NotFound(_))));
    let act =
        DeviceActRequest { act: DeviceAct::Suspend, why: String::new(), departure: Default::default(), dry_run: false };
    assert!(matches!(scratch.fleet.device_act(&lena, "there-1", act).await, Err(FleetError::NotFound(_))));
    for target in [
        RevocationTarget::Device("there-1".into()),
        RevocationTarget::Certificate(there.serial),
        RevocationTarget::Facility("plant-b".into()),
    ] {
        let request = RevokeRequest {
            target,
            reason: RevocationReason::CertificateHold,
            why: String::new(),
            verify: false,
            dry_run: false,
        };
        assert!(matches!(scratch.fleet.revoke(&lena, request).await, Err(FleetError::NotFound(_))));
    }
    let batch = RevokeRequest {
        target: RevocationTarget::Batch("batch-1".into()),
        reason: RevocationReason::CertificateHold,
        why: String::new(),
        verify: false,
        dry_run: false,
    };
    let outcome = scratch.fleet.revoke(&lena, batch).await.unwrap();
    assert_eq!(outcome.certificates, 0, "a batch that spans facilities was touched beyond the scope");
}

#[tokio::test]
async fn an_auditor_reads_and_changes_nothing() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let anna = scratch.operator("anna", Role::Auditor, &[]).await;
    assert!(scratch.fleet.device_show(&anna, "thermo-1").await.is_ok());
    assert!(scratch.fleet.audit_list(&anna, Default::default()).await.is_ok());
    let act =
        DeviceActRequest { act: DeviceAct::Suspend, why: String::new(), departure: Default::default(), dry_run: false };
    assert!(matches!(scratch.fleet.device_act(&anna, "thermo-1", act).await, Err(FleetError::Denied(_))));
}
