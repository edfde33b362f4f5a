//! What keys sign is counted before it happens, and a limit that a policy sets is one.

use std::path::Path;

use kf_api::certificate::CertificateFilter;
use kf_api::inventory::{InventoryFilter, InventoryKey};
use kf_api::operator::Role;
use kf_api::order::{OrderAct, OrderRequest};
use kf_api::product_line::EnrolmentPolicy;
use kf_api::rotation::{RotateRequest, RotationOperation};
use kf_crypto::PrivateKey;
use kf_fleet::{EstLabel, FleetError, Knows, TlsClient};
use kf_key::{CertificateStatus, RevocationReason, SecretArray};

use crate::backup::{revoke, status_of};
use crate::crash::{copied, killed_child};
use crate::exchange::Firmware;
use crate::scratch::{HERE, Scratch, csr, field_of, fresh_csr, issued};

async fn one(scratch: &Scratch, class: &str) -> InventoryKey {
    let filter = InventoryFilter { class: Some(class.into()), ..InventoryFilter::default() };
    scratch.fleet.inventory(&scratch.owner, filter).await.unwrap().items.remove(0)
}

async fn uses(scratch: &Scratch, class: &str) -> u64 {
    one(scratch, class).await.uses.unwrap()
}

async fn limited(class: &str, uses: u64) -> (Scratch, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.toml");
    std::fs::write(&file, format!("version = 1\n[class.{class}]\nuses = {uses}\n")).unwrap();
    (Scratch::with(|config| config.rotation_policy_file = Some(file)).await, directory)
}

#[tokio::test]
async fn signatures_are_counted_and_a_start_loses_none_of_them() {
    let scratch = Scratch::new().await;
    let before = uses(&scratch, "issuing-authority-key").await;
    let mut device = Firmware::enrolled(&scratch, "thermo-1").await;
    device.exchange(&scratch).await.unwrap();
    scratch.fleet.turn().await;
    for class in ["issuing-authority-key", "delivery-key", "log-key"] {
        let counted = uses(&scratch, class).await;
        assert!(counted >= 1 && counted % 1_024 == 0, "{class}: {counted}");
    }
    assert_eq!(uses(&scratch, "issuing-authority-key").await, before.max(1_024), "one block for many");
    assert_eq!(uses(&scratch, "order-key").await, 0);
    // Another life of the process cannot know how much of the block was used: it counts as used.
    let directory = scratch.closed().await;
    let scratch = Scratch::at(directory).await;
    let at_start = uses(&scratch, "delivery-key").await;
    assert_eq!(at_start, 1_024);
    device.exchange(&scratch).await.unwrap();
    assert!(uses(&scratch, "delivery-key").await >= at_start);
}

#[tokio::test]
async fn an_order_key_at_its_limit_orders_nothing_more_until_a_device_obeys_its_successor() {
    let (scratch, _policy) = limited("order-key", 3).await;
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    scratch.device("thermo-1").await;
    let identity = scratch.enrol("thermo-1").await;
    let order = async || -> Result<(), FleetError> {
        let request = OrderRequest {
            device: "thermo-1".into(),
            act: OrderAct::Rotate,
            lifetime_hours: Some(1),
            why: "test".into(),
        };
        let proposal = scratch.fleet.order_create(&scratch.owner, request).await?.proposal.unwrap();
        let yes = kf_api::proposal::ProposalDecision { approve: true, why: "agreed".into() };
        scratch.fleet.proposal_decide(&pavel, proposal, yes).await.map(drop)
    };
    for number in 1..=3 {
        order().await.unwrap_or_else(|error| panic!("order {number}: {error}"));
    }
    let refused = order().await.unwrap_err();
    assert_eq!(field_of(&refused), "key");
    let text = format!("{refused:?}");
    assert!(text.contains("as often as the policy allows") && text.contains("keyfleet rotate"), "{text}");
    assert_eq!((uses(&scratch, "order-key").await, one(&scratch, "order-key").await.verdict.as_str()), (3, "overdue"));
    // The link to its successor goes on.
    let request = RotateRequest { class: Some("order-key".into()), why: "used up".into(), ..Default::default() };
    let report = scratch.fleet.rotate(&scratch.owner, request).await.unwrap();
    assert_eq!(report.items[0].operation, RotationOperation::MakeSuccessor, "{report:?}");
    assert!(report.items[0].because.contains('4') || report.items[0].because.contains('3'), "{report:?}");
    assert!(order().await.is_err(), "the device obeys the old key, as far as is known");
    let certificate = scratch.client(&identity);
    let newest = scratch.fleet.device_pins().unwrap().order_key_sha256;
    let knows = Knows { order_key: Some(&newest), ..Knows::default() };
    scratch.fleet.device_news(TlsClient::with_certificate(&certificate, HERE), knows).await.unwrap();
    order().await.unwrap();
}

#[tokio::test]
async fn a_ca_at_its_limit_certifies_nothing_more_and_still_revokes() {
    let (scratch, _policy) = limited("issuing-authority-key", 12).await;
    let mut last = None;
    let refused = loop {
        let name = format!("thermo-{}", last.as_ref().map_or(0, |(number, _)| *number));
        scratch.device(&name).await;
        let code = scratch.code(&name).await;
        match scratch.enrol_with(&name, &code, &fresh_csr()).await {
            Ok(outcome) => {
                let serial = crate::scratch::serial_of(&issued(outcome));
                last = Some((last.map_or(0, |(number, _)| number) + 1, serial));
            }
            Err(error) => break error,
        }
        assert!(last.is_some_and(|(number, _)| number < 12), "no end of it");
    };
    assert_eq!(field_of(&refused), "key", "{refused:?}");
    assert!(format!("{refused:?}").contains("authority succeed"), "{refused:?}");
    let (_, serial) = last.unwrap();
    revoke(&scratch, serial, RevocationReason::Superseded).await;
    scratch.pass(kf_key::UnixMillis::DAY);
    scratch.fleet.turn().await;
    assert_eq!(status_of(&scratch, serial).await, CertificateStatus::Revoked);
    assert!(uses(&scratch, "issuing-authority-key").await > 12, "its lists are counted, and go on");
    // And stays so after a start.
    let scratch = scratch.reopen().await;
    scratch.device("later").await;
    let code = scratch.code("later").await;
    assert_eq!(field_of(&scratch.enrol_with("later", &code, &fresh_csr()).await.unwrap_err()), "key");
}

/// Names the directory to a child process.
const CHILD: &str = "KF_SIGNATURE_CHILD";

fn key_of(version: u8) -> PrivateKey {
    PrivateKey::p256_from_scalar(&SecretArray::fill(|octets| *octets = [version; 32])).unwrap()
}

/// A device renews, three times, from the certificate in the directory on.
async fn renewals(directory: &Path) {
    let (fleet, ..) = Scratch::open_in(directory).await.unwrap();
    let text = std::fs::read_to_string(directory.join("chain")).unwrap();
    let mut chain: Vec<Vec<u8>> = text.lines().map(|line| hex::decode(line).unwrap()).collect();
    for version in 2..5 {
        let above: Vec<&[u8]> = chain[1..].iter().map(Vec::as_slice).collect();
        let certificate = fleet.verify_client_path(&chain[0], &above).unwrap();
        let client = TlsClient::with_certificate(&certificate, HERE);
        chain = issued(fleet.est_simple_reenroll(EstLabel::None, client, &csr(&key_of(version))).await.unwrap());
    }
    fleet.close().await;
}

/// What the issuing CA has signed, as far as the registry has it, and how often it is counted.
async fn signed_and_counted(scratch: &Scratch) -> (u64, u64) {
    let filter = InventoryFilter { class: Some("issuing-authority-key".into()), ..InventoryFilter::default() };
    let ca = scratch.fleet.inventory(&scratch.owner, filter).await.unwrap().items.remove(0);
    let filter =
        CertificateFilter { authority: Some("issuing".into()), limit: Some(1_000), ..CertificateFilter::default() };
    let found = scratch.fleet.certificate_list(&scratch.owner, filter).await.unwrap().items;
    (u64::try_from(found.len()).unwrap(), ca.uses.unwrap())
}

#[tokio::test]
async fn a_crash_at_any_durable_step_leaves_no_signature_uncounted_and_gives_up_one_block_at_most() {
    if let Some(directory) = std::env::var_os(CHILD) {
        renewals(Path::new(&directory)).await;
        return;
    }
    let scratch = Scratch::new().await;
    // So that the certificate with which it begins anew is good whatever was issued before the crash.
    let policy = EnrolmentPolicy { max_live_ldevids: 8, ..EnrolmentPolicy::default() };
    scratch.fleet.product_line_set_policy(&scratch.owner, "thermo", policy).await.unwrap();
    scratch.device("thermo-1").await;
    let code = scratch.code("thermo-1").await;
    let chain = issued(scratch.enrol_with("thermo-1", &code, &csr(&key_of(1))).await.unwrap());
    let (_, before) = signed_and_counted(&scratch).await;
    assert_eq!(before, 1_024);
    let closed = scratch.closed().await;
    std::fs::write(closed.path().join("chain"), chain.iter().map(hex::encode).collect::<Vec<_>>().join("\n")).unwrap();
    let test =
        "signature_count::a_crash_at_any_durable_step_leaves_no_signature_uncounted_and_gives_up_one_block_at_most";
    let mut seen = std::collections::BTreeSet::new();
    for when in 1..200 {
        let directory = copied(closed.path());
        let was_killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        let (signed, counted) = signed_and_counted(&survivor).await;
        assert!(signed <= counted && counted % 1_024 == 0, "crash {when}: {signed} of {counted}");
        // A block of the fleet before, one of the child, one of the survivor.
        assert!((1_024..=3_072).contains(&counted), "crash {when}: {counted}");
        seen.insert((signed, counted));
        let directory = survivor.closed().await;
        renewals(directory.path()).await;
        let (signed, counted) = signed_and_counted(&Scratch::at(directory).await).await;
        assert!(signed <= counted && counted <= 5_120, "crash {when}: {signed} of {counted}");
        if !was_killed {
            break;
        }
        assert!(when < 199, "no end of it");
    }
    assert!(seen.len() >= 3, "{seen:?}");
}
