//! The key inventory: everything that the server knows of, each key once, and what the policy says of it.

use std::collections::{BTreeMap, BTreeSet};

use kf_api::inventory::{InventoryFilter, InventoryKey, KeyPlace};
use kf_api::operator::Role;
use kf_fleet::{DataDir, FleetConfig, Principal};
use kf_key::{KeyProtection, KeyState, UnixMillis};

use crate::exchange::Firmware;
use crate::scratch::{Scratch, field_of};

/// Every page, one after the other.
pub(crate) async fn all(scratch: &Scratch, who: &Principal, filter: InventoryFilter) -> Vec<InventoryKey> {
    let mut found = Vec::new();
    let mut filter = filter;
    for _ in 0..1_000 {
        let page = scratch.fleet.inventory(who, filter.clone()).await.unwrap();
        found.extend(page.items);
        match page.next {
            Some(next) => filter.after = Some(next),
            None => return found,
        }
    }
    panic!("the listing does not end");
}

async fn of_class(scratch: &Scratch, class: &str) -> Vec<InventoryKey> {
    let filter = InventoryFilter { class: Some(class.into()), ended: true, ..InventoryFilter::default() };
    all(scratch, &scratch.owner, filter).await
}

fn by_class(keys: &[InventoryKey]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key.class.as_str()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn every_key_is_listed_once_whatever_the_length_of_a_page() {
    let scratch = Scratch::new().await;
    for number in 0..5 {
        Firmware::enrolled(&scratch, &format!("thermo-{number}")).await.exchange(&scratch).await.unwrap();
    }
    scratch.fleet.server_identity().await.unwrap();
    let whole = all(&scratch, &scratch.owner, InventoryFilter::default()).await;
    let expected = [
        ("delivery-key", 1),
        ("device-key", 5),
        ("facility-key", 2),
        ("fleet-root-key", 1),
        ("issuing-authority-key", 1),
        ("ldevid-key", 5),
        ("log-key", 1),
        ("ocsp-responder-key", 1),
        ("order-key", 1),
        ("root-authority-key", 1),
        ("tls-server-key", 1),
        ("wrapping-key", 1),
    ];
    assert_eq!(by_class(&whole), BTreeMap::from(expected));
    assert!(whole.iter().all(|key| key.verdict == "good"), "{whole:?}");
    let names: BTreeSet<_> = whole.iter().map(|key| &key.key).collect();
    assert_eq!(names.len(), whole.len(), "a key is listed twice");
    for limit in [1, 2, 7] {
        let filter = InventoryFilter { limit: Some(limit), ..InventoryFilter::default() };
        assert_eq!(all(&scratch, &scratch.owner, filter).await, whole, "in pages of {limit}");
    }
}

#[tokio::test]
async fn a_key_grows_due_and_overdue_and_a_successor_ends_the_matter() {
    let scratch = Scratch::new().await;
    let verdicts = async |scratch: &Scratch| {
        let keys = of_class(scratch, "facility-key").await;
        keys.into_iter().map(|key| (key.name, key.verdict)).collect::<Vec<_>>()
    };
    let two = |name: &str, verdict: &str| vec![(name.to_owned(), verdict.to_owned()); 2];
    assert_eq!(verdicts(&scratch).await, two("epoch 1", "good"));
    scratch.pass(292 * UnixMillis::DAY);
    assert_eq!(verdicts(&scratch).await, two("epoch 1", "due"));
    scratch.pass(80 * UnixMillis::DAY);
    assert_eq!(verdicts(&scratch).await, two("epoch 1", "overdue"));
    scratch.fleet.epoch_advance_facility(&scratch.owner, "plant-a", "yearly".into()).await.unwrap();
    let found = verdicts(&scratch).await;
    let named = |verdict: &str| found.iter().filter(|(_, found)| found == verdict).count();
    assert_eq!((named("succeeded"), named("good"), named("overdue")), (1, 1, 1), "{found:?}");
    // What calls for something, and what will within a month.
    let filter = InventoryFilter { due_before: Some(scratch.clock_now()), ..InventoryFilter::default() };
    let calling = all(&scratch, &scratch.owner, filter).await;
    assert!(calling.iter().all(|key| matches!(key.verdict.as_str(), "due" | "overdue")), "{calling:?}");
    assert!(calling.iter().any(|key| key.class == "facility-key"));
}

#[tokio::test]
async fn an_operator_of_one_facility_sees_its_keys_and_none_of_the_fleets() {
    let scratch = Scratch::new().await;
    Firmware::enrolled(&scratch, "thermo-1").await.exchange(&scratch).await.unwrap();
    let bert = scratch.operator("bert", Role::FacilityOperator, &["plant-b"]).await;
    let seen = all(&scratch, &bert, InventoryFilter { ended: true, ..InventoryFilter::default() }).await;
    assert_eq!(by_class(&seen), BTreeMap::from([("facility-key", 1)]));
    let other = InventoryFilter { facility: Some("plant-a".into()), ..InventoryFilter::default() };
    assert!(scratch.fleet.inventory(&bert, other.clone()).await.is_err());
    let of_a = all(&scratch, &scratch.owner, other).await;
    assert_eq!(by_class(&of_a), BTreeMap::from([("device-key", 1), ("facility-key", 1), ("ldevid-key", 1)]));
    let line = InventoryFilter { product_line: Some("thermo".into()), ..InventoryFilter::default() };
    assert_eq!(
        by_class(&all(&scratch, &scratch.owner, line).await),
        BTreeMap::from([("device-key", 1), ("ldevid-key", 1)])
    );
}

#[tokio::test]
async fn keys_in_memory_are_destroyed_with_the_process_that_had_them() {
    let scratch = Scratch::new().await;
    scratch.fleet.server_identity().await.unwrap();
    let before = of_class(&scratch, "tls-server-key").await;
    assert_eq!(before[0].state, KeyState::Active);
    assert_eq!((before[0].place, before[0].protection), (KeyPlace::ServerMemory, KeyProtection::Plain));
    scratch.pass(UnixMillis::HOUR);
    let scratch = scratch.reopen().await;
    scratch.fleet.server_identity().await.unwrap();
    let states: Vec<_> = of_class(&scratch, "tls-server-key").await.into_iter().map(|key| key.state).collect();
    assert_eq!(states, [KeyState::Destroyed, KeyState::Active]);
}

#[tokio::test]
async fn a_filter_that_names_nothing_is_refused_by_its_field() {
    let scratch = Scratch::new().await;
    let refused =
        async |filter| field_of(&scratch.fleet.inventory(&scratch.owner, filter).await.unwrap_err()).to_owned();
    let none = InventoryFilter::default;
    assert_eq!(refused(InventoryFilter { class: Some("keys".into()), ..none() }).await, "class");
    assert_eq!(refused(InventoryFilter { verdict: Some("bad".into()), ..none() }).await, "verdict");
    for cursor in ["", "root", "nothing:", "keys:x", "facilities:x", "facilities:fac_1/2", "devices:x"] {
        assert_eq!(refused(InventoryFilter { after: Some(cursor.into()), ..none() }).await, "after", "{cursor}");
    }
}

#[tokio::test]
async fn the_servers_policy_is_a_file_and_one_that_contradicts_itself_is_refused_with_every_contradiction() {
    let directory = tempfile::tempdir().unwrap();
    let data = DataDir::new(directory.path());
    let mut config = FleetConfig::named("Scratch");
    config.rotation_policy_file = Some("policy.toml".into());
    assert!(data.rotation_policy(&config).is_err(), "a file that is named and missing is no built-in policy");
    let wrong = "version = 1\n[class.ldevid-key]\noriginator = \"3y\"\nuses = 5\n";
    std::fs::write(directory.path().join("policy.toml"), wrong).unwrap();
    let error = data.rotation_policy(&config).unwrap_err();
    assert_eq!(field_of(&error), "rotation_policy_file");
    let text = error.to_string();
    assert!(text.contains("longer than the 2y") && text.contains("are not counted"), "{text}");

    // A key cannot outlive the one above it, so that a short period is one for the whole branch.
    let branch = ["facility-key", "batch-key", "device-key", "storage-key", "application-key"];
    let rules = branch.map(|class| format!("[override.class.{class}]\noriginator = \"10d\"\n")).concat();
    let strict = format!("version = 1\npreset = \"cnsa-2.0\"\n[[override]]\nfacility = \"plant-a\"\n{rules}");
    let scratch = Scratch::with(|config| config.rotation_policy_file = Some(directory.path().join("strict.toml")));
    std::fs::write(directory.path().join("strict.toml"), strict).unwrap();
    let scratch = scratch.await;
    scratch.pass(11 * UnixMillis::DAY);
    let keys = of_class(&scratch, "facility-key").await;
    let verdicts: BTreeSet<_> = keys.iter().map(|key| key.verdict.as_str()).collect();
    assert_eq!(verdicts, BTreeSet::from(["overdue", "algorithm"]), "an override for one facility holds for it alone");
    let wrapping = of_class(&scratch, "wrapping-key").await;
    assert!(wrapping.iter().all(|key| key.verdict == "good"), "AES-256 is of CNSA 2.0");
}
