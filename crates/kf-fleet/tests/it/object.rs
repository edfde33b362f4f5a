//! Objects that programs store: brought along by the server when their key rotates, and never readable to others.

use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_api::PageRequest;
use kf_api::destruction::{DestructionRequest, DestructionTarget};
use kf_api::encryption_key::{NewEncryptionKey, RaiseMinimum, RotateKey};
use kf_api::object::{MAX_OBJECT_OCTETS, PutObject, StoredObject};
use kf_api::operator::Role;
use kf_api::rotation::{RotateRequest, RotationOperation};
use kf_fleet::{Fleet, FleetError, Principal};

use crate::crash::{copied, killed_child};
use crate::destruction::{approve, receipts};
use crate::scratch::{Scratch, field_of};

fn content(text: &str) -> PutObject {
    PutObject { plaintext: BASE64_STANDARD.encode(text), generation: None }
}

async fn with_objects(count: usize) -> (Scratch, Principal) {
    let scratch = Scratch::new().await;
    let new = NewEncryptionKey { name: "patients".into(), facility: "plant-a".into() };
    scratch.fleet.encryption_key_create(&scratch.owner, new).await.unwrap();
    let clinic = scratch.operator("clinic", Role::Application, &["plant-a"]).await;
    for number in 0..count {
        let name = format!("record-{number:03}");
        scratch.fleet.object_put(&clinic, "patients", &name, content(&name)).await.unwrap();
    }
    (scratch, clinic)
}

async fn get(fleet: &Fleet, who: &Principal, name: &str) -> Result<String, FleetError> {
    let found = fleet.object_get(who, "patients", name).await?;
    Ok(String::from_utf8(BASE64_STANDARD.decode(found.plaintext).unwrap()).unwrap())
}

async fn all(fleet: &Fleet, who: &Principal) -> Vec<StoredObject> {
    let page = PageRequest { after: None, limit: Some(1_000) };
    fleet.object_list(who, "patients", page).await.unwrap().items
}

/// How many objects lie under each version, newest first, as the key shows it.
async fn under(fleet: &Fleet, who: &Principal) -> Vec<u64> {
    let key = fleet.encryption_key_show(who, "patients").await.unwrap();
    key.versions.iter().map(|version| version.objects).collect()
}

async fn rotate(scratch: &Scratch) {
    let request = RotateKey { newest_version: None, why: "yearly".into() };
    scratch.fleet.encryption_key_rotate(&scratch.owner, "patients", request).await.unwrap();
}

fn of_version(version: u32) -> DestructionRequest {
    DestructionRequest {
        target: DestructionTarget::EncryptionVersion { key: "patients".into(), version },
        why: "rotated".into(),
        station_records_erased: false,
        dry_run: false,
    }
}

#[tokio::test]
async fn an_object_is_put_changed_listed_and_deleted_and_of_two_who_change_it_one_is_refused() {
    let (scratch, clinic) = with_objects(3).await;
    let fleet = &scratch.fleet;
    assert_eq!(get(fleet, &clinic, "record-001").await.unwrap(), "record-001");
    let seen = PutObject { generation: Some(1), ..content("new") };
    let changed = fleet.object_put(&clinic, "patients", "record-001", seen.clone()).await.unwrap();
    assert_eq!((changed.generation, changed.octets, changed.key_version), (2, 3, 1));
    let refused = fleet.object_put(&clinic, "patients", "record-001", seen).await.unwrap_err();
    assert_eq!(field_of(&refused), "generation");
    let fresh = PutObject { generation: Some(0), ..content("x") };
    assert!(fleet.object_put(&clinic, "patients", "record-002", fresh).await.is_err(), "it is there already");
    assert_eq!(get(fleet, &clinic, "record-001").await.unwrap(), "new");
    let page = PageRequest { after: Some("record-000".into()), limit: Some(1) };
    let page = fleet.object_list(&clinic, "patients", page).await.unwrap();
    assert_eq!((page.items[0].name.as_str(), page.next.as_deref()), ("record-001", Some("record-001")));
    fleet.object_delete(&clinic, "patients", "record-001").await.unwrap();
    assert!(matches!(get(fleet, &clinic, "record-001").await, Err(FleetError::NotFound("object"))));
    assert!(matches!(fleet.object_delete(&clinic, "patients", "record-001").await, Err(FleetError::NotFound(_))));
    for name in ["", "..", "a/b", "ä", &"x".repeat(129)] {
        let refused = fleet.object_put(&clinic, "patients", name, content("x")).await.unwrap_err();
        assert_eq!(field_of(&refused), "name", "{name}");
    }
    let large = content(&"x".repeat(MAX_OBJECT_OCTETS + 1));
    assert_eq!(field_of(&fleet.object_put(&clinic, "patients", "a", large).await.unwrap_err()), "plaintext");
    fleet.object_put(&clinic, "patients", "a", content(&"x".repeat(MAX_OBJECT_OCTETS))).await.unwrap();
}

#[tokio::test]
async fn nobody_of_another_facility_reaches_an_object_and_who_manages_keys_does_not_read_them() {
    let (scratch, _) = with_objects(1).await;
    let bakery = scratch.operator("bakery", Role::Application, &["plant-b"]).await;
    let auditor = scratch.operator("ada", Role::Auditor, &[]).await;
    for who in [&bakery, &auditor, &scratch.owner] {
        let refused = [
            get(&scratch.fleet, who, "record-000").await.map(drop).unwrap_err(),
            scratch.fleet.object_put(who, "patients", "record-000", content("x")).await.map(drop).unwrap_err(),
            scratch.fleet.object_delete(who, "patients", "record-000").await.unwrap_err(),
        ];
        for refused in refused {
            let is_blind = matches!(refused, FleetError::NotFound(_));
            assert_eq!(is_blind, who.name == "bakery", "{refused:?}");
            assert!(is_blind || matches!(refused, FleetError::Denied(_)), "{refused:?}");
        }
    }
    assert_eq!(all(&scratch.fleet, &auditor).await.len(), 1, "auditors see that there are objects");
    assert!(scratch.fleet.object_list(&bakery, "patients", PageRequest::default()).await.is_err());
}

#[tokio::test]
async fn a_rotation_brings_every_object_along_and_the_old_version_goes_only_when_none_is_left() {
    let (scratch, clinic) = with_objects(130).await;
    rotate(&scratch).await;
    assert_eq!(under(&scratch.fleet, &clinic).await, [0, 130]);
    scratch.fleet.object_put(&clinic, "patients", "record-007", content("new")).await.unwrap();
    assert_eq!(under(&scratch.fleet, &clinic).await, [1, 129]);
    // The minimum is for ciphertexts that others keep: objects are opened wherever they lie.
    let minimum = RaiseMinimum { version: 2, why: String::new() };
    scratch.fleet.encryption_key_raise_minimum(&scratch.owner, "patients", minimum).await.unwrap();
    assert_eq!(get(&scratch.fleet, &clinic, "record-129").await.unwrap(), "record-129");
    let early = scratch.fleet.destroy(&scratch.owner, of_version(1)).await.unwrap_err();
    assert!(early.to_string().contains("129 stored objects"), "{early}");
    let dry = RotateRequest { dry_run: true, ..RotateRequest::default() };
    let report = scratch.fleet.rotate(&scratch.owner, dry).await.unwrap();
    let step = report.items.iter().find(|step| step.operation == RotationOperation::Reprotect).unwrap();
    assert_eq!(step.remaining, Some(129));

    scratch.fleet.turn().await;
    assert_eq!(under(&scratch.fleet, &clinic).await, [130, 0]);
    assert_eq!(get(&scratch.fleet, &clinic, "record-129").await.unwrap(), "record-129");
    assert_eq!(get(&scratch.fleet, &clinic, "record-007").await.unwrap(), "new");
    let generations: Vec<_> = all(&scratch.fleet, &clinic).await.iter().map(|object| object.generation).collect();
    assert_eq!(generations.iter().sum::<u64>(), 131, "to be brought along is no change");
    let size = scratch.fleet.status(&scratch.owner).await.unwrap().log_size;
    scratch.fleet.turn().await;
    assert_eq!(scratch.fleet.status(&scratch.owner).await.unwrap().log_size, size, "what is done is not done again");
    let pavel = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    let proposal = scratch.fleet.destroy(&scratch.owner, of_version(1)).await.unwrap().proposal.unwrap();
    approve(&scratch, &pavel, proposal).await.unwrap();
    assert_eq!(receipts(&scratch).await.len(), 1);
    assert_eq!(get(&scratch.fleet, &clinic, "record-129").await.unwrap(), "record-129");
}

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_OBJECT_CHILD";

#[tokio::test]
async fn a_crash_at_any_durable_step_of_bringing_objects_along_leaves_every_one_readable() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (fleet, ..) = Scratch::open_in(Path::new(&directory)).await.unwrap();
        fleet.turn().await;
        return;
    }
    let (scratch, clinic) = with_objects(80).await;
    rotate(&scratch).await;
    let closed = scratch.closed().await;
    let test = "object::a_crash_at_any_durable_step_of_bringing_objects_along_leaves_every_one_readable";
    let mut crashes = 0;
    for when in 1..100 {
        let directory = copied(closed.path());
        let killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        for object in all(&survivor.fleet, &clinic).await {
            assert_eq!(get(&survivor.fleet, &clinic, &object.name).await.unwrap(), object.name, "crash {when}");
        }
        survivor.fleet.turn().await;
        assert_eq!(under(&survivor.fleet, &clinic).await, [80, 0], "crash {when}");
        if !killed {
            break;
        }
        crashes += 1;
    }
    assert!((3..95).contains(&crashes), "too few durable steps were hit, or no end of them: {crashes}");
}
