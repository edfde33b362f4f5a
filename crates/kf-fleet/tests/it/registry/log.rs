//! The log through the API, and keys that are never certified.

use kf_api::audit::AuditFilter;
use kf_api::operator::Role;
use kf_crypto::PrivateKey;
use kf_fleet::FleetError;
use kf_key::KeyAlgorithm;
use kf_log::tile::parse_bundle;
use kf_log::{Checkpoint, Tree, VerifierKey};

use crate::scratch::{Scratch, csr, field_of};

#[tokio::test]
async fn the_files_of_the_log_verify_under_its_public_key() {
    let scratch = Scratch::new().await;
    scratch.device("t-1").await;
    let scratch = scratch.reopen().await;
    let file = |path: String| {
        let (fleet, owner) = (scratch.fleet.clone(), scratch.owner.clone());
        async move { fleet.audit_file(&owner, &path).await }
    };
    let key = VerifierKey::from_text(&scratch.fleet.audit_verifier_key()).unwrap();
    let note = String::from_utf8(file("checkpoint".into()).await.unwrap()).unwrap();
    let checkpoint = Checkpoint::open(&note, &key).unwrap();
    assert!((2..256).contains(&checkpoint.size));
    let bundle = file(format!("tile/entries/000.p/{}", checkpoint.size)).await.unwrap();
    let mut tree = Tree::new();
    for entry in parse_bundle(&bundle).unwrap() {
        tree.append(kf_log::hash::leaf_hash(entry), &mut Vec::new());
    }
    assert_eq!((tree.size(), tree.root()), (checkpoint.size, checkpoint.root));
    let hashes = file(format!("tile/0/000.p/{}", checkpoint.size)).await.unwrap();
    assert_eq!(hashes.len(), usize::try_from(checkpoint.size).unwrap() * 32);

    let beyond = checkpoint.size + 1;
    for path in ["", "/checkpoint", "../keyfleet.toml", "tile/0/0", "tile/entries/000", "tile/64/000", "tile/0/001"] {
        assert!(matches!(file(path.into()).await, Err(FleetError::NotFound(_))), "{path}");
    }
    assert!(matches!(file(format!("tile/0/000.p/{beyond}")).await, Err(FleetError::NotFound(_))));
}

#[tokio::test]
async fn entries_are_listed_oldest_first_by_subject_and_page() {
    let scratch = Scratch::new().await;
    let device = scratch.device("t-1").await;
    let all = scratch.fleet.audit_list(&scratch.owner, AuditFilter::default()).await.unwrap().items;
    assert!(all.is_sorted_by_key(|record| record.index));
    let paged = AuditFilter { limit: Some(2), ..AuditFilter::default() };
    let page = scratch.fleet.audit_list(&scratch.owner, paged.clone()).await.unwrap();
    assert_eq!(page.items, all[..2]);
    let next = AuditFilter { after: page.next, ..paged };
    assert_eq!(scratch.fleet.audit_list(&scratch.owner, next).await.unwrap().items, all[2..4]);
    let of_device = AuditFilter { subject: Some(device.id.to_string()), ..AuditFilter::default() };
    let found = scratch.fleet.audit_list(&scratch.owner, of_device).await.unwrap().items;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].entry["who"]["name"], "olga");
    for subject in [String::new(), "x".repeat(129)] {
        let filter = AuditFilter { subject: Some(subject), ..AuditFilter::default() };
        let error = scratch.fleet.audit_list(&scratch.owner, filter).await.unwrap_err();
        assert_eq!(field_of(&error), "subject");
    }
}

#[tokio::test]
async fn the_files_of_the_log_take_the_scope_of_the_fleet() {
    let scratch = Scratch::new().await;
    let scratch = scratch.reopen().await;
    let lena = scratch.operator("lena", Role::FacilityOperator, &["plant-a", "plant-b"]).await;
    let anna = scratch.operator("anna", Role::Auditor, &[]).await;
    assert!(matches!(scratch.fleet.audit_file(&lena, "checkpoint").await, Err(FleetError::Denied(_))));
    assert!(scratch.fleet.audit_file(&anna, "checkpoint").await.is_ok());
}

#[tokio::test]
async fn a_blocked_key_is_never_certified() {
    let scratch = Scratch::new().await;
    scratch.device("t-1").await;
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let blocked = kf_crypto::sha256(&key.spki());
    let block = |keys: Vec<[u8; 32]>| scratch.fleet.key_block(&scratch.owner, keys, "leaked".into());
    assert_eq!(block(vec![blocked, [7; 32]]).await.unwrap(), 2);
    assert_eq!(block(vec![blocked]).await.unwrap(), 0);
    let code = scratch.code("t-1").await;
    assert!(scratch.enrol_with("t-1", &code, &csr(&key)).await.is_err());
    for keys in [Vec::new(), vec![[1; 32]; 100_001]] {
        assert_eq!(field_of(&block(keys).await.unwrap_err()), "spki_sha256");
    }
}
