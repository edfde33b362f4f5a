use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_api::status::Issuance;
use kf_fleet::FleetError;
use kf_key::RevocationReason;
use kf_pki::crl::CrlScope;

use crate::scratch::{Scratch, fresh_csr};

pub(crate) fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_rolled_back_registry_is_noticed_and_fenced_and_still_revokes() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    let serial = scratch.enrol("thermo-1").await.serial;
    scratch.device("thermo-0").await;
    let other = scratch.enrol("thermo-0").await.serial;
    scratch.fleet.close().await;
    let data = scratch.dir.path().join("data");
    let backup = scratch.dir.path().join("backup");
    std::fs::create_dir_all(&backup).unwrap();
    copy(&data, &backup);

    let scratch = scratch.reopen().await;
    scratch.device("thermo-2").await;
    let code = scratch.code("thermo-2").await;
    let issuing = scratch.fleet.authority_show(&scratch.owner, "issuing").await.unwrap().id;
    let mut seen = 0;
    for reason in [RevocationReason::CertificateHold, RevocationReason::RemoveFromCrl, RevocationReason::KeyCompromise]
    {
        let target = RevocationTarget::Certificate(serial);
        let request = RevokeRequest { target, reason, why: String::new(), verify: false, dry_run: false };
        scratch.fleet.revoke(&scratch.owner, request).await.unwrap();
        scratch.fleet.turn().await;
        seen = scratch.fleet.crl(issuing, CrlScope::Full).await.unwrap().unwrap().number;
    }
    scratch.fleet.turn().await;
    scratch.fleet.close().await;

    std::fs::remove_dir_all(&data).unwrap();
    std::fs::create_dir_all(&data).unwrap();
    copy(&backup, &data);
    let scratch = scratch.reopen().await;
    assert!(matches!(scratch.fleet.issuance(), Issuance::Fenced(_)), "{:?}", scratch.fleet.issuance());
    assert!(!scratch.fleet.not_ready().await.is_empty());
    assert!(scratch.fleet.server_identity().await.unwrap().ocsp_staple.is_some());
    let number = scratch.fleet.crl(issuing, CrlScope::Full).await.unwrap().unwrap().number;
    assert!(number > seen, "cRLNumber {number} after {seen} was published");
    let found = scratch.fleet.certificate_show(&scratch.owner, serial).await.unwrap().certificate.status;
    assert_eq!(found, kf_key::CertificateStatus::Revoked, "the registry forgot it, the witness did not");
    let refused = scratch.enrol_with("thermo-1", &code, &fresh_csr()).await;
    assert!(refused.is_err(), "{refused:?}");
    let request = RevokeRequest {
        target: RevocationTarget::Certificate(other),
        reason: RevocationReason::KeyCompromise,
        why: "while fenced".into(),
        verify: false,
        dry_run: false,
    };
    assert!(scratch.fleet.revoke(&scratch.owner, request).await.unwrap().done);
}

#[tokio::test]
async fn a_registry_that_was_not_touched_opens_unfenced() {
    let scratch = Scratch::new().await;
    scratch.device("thermo-1").await;
    scratch.enrol("thermo-1").await;
    let scratch = scratch.reopen().await.reopen().await;
    assert_eq!(scratch.fleet.issuance(), Issuance::Running);
}

#[tokio::test]
async fn without_a_witness_the_status_says_that_rollback_is_undetectable() {
    let scratch = Scratch::with(|config| config.witness_dir = None).await;
    let status = scratch.fleet.status(&scratch.owner).await.unwrap();
    assert!(!status.witness);
    assert!(status.warnings.iter().any(|warning| warning.contains("rolled back")), "{:?}", status.warnings);
}

#[tokio::test]
async fn a_fleet_is_not_founded_twice() {
    let scratch = Scratch::new().await;
    let data = kf_fleet::DataDir::new(scratch.dir.path().join("data"));
    let config = data.load_config().unwrap();
    assert!(matches!(kf_fleet::DataDir::new("/nonexistent").load_config(), Err(FleetError::Local { .. })));
    let text = std::fs::read_to_string(data.config_file()).unwrap();
    std::fs::write(data.config_file(), format!("surprise = 1\n{text}")).unwrap();
    assert!(matches!(data.load_config(), Err(FleetError::Invalid { .. })));
    assert_eq!(config.fleet, "Scratch");
}
