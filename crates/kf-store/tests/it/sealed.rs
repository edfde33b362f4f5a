//! Replay windows of sealed payloads: durable, checked against the registry inside the transaction, closed when damaged.

use kf_access::Visibility;
use kf_derive::{ApplicationKey, Sender, SoftwareKey};
use kf_key::SecretArray;
use kf_seal::{Boot, KeyId, Mark, Opener, ReplayError, SealAlgorithm, Sealed, Sealer, Service};
use kf_store::device_key::KeyPlace;
use kf_store::sealed::{MAX_MARKS, SealedRefusal};
use kf_store::{Options, Store, StoreError};

use crate::fixture::{NOW, device_id, done, facility_id, fleet, only, open, populate, register};

fn key_id(device: u64) -> KeyId {
    let service = Service::new("telemetry").unwrap();
    KeyId {
        device: device_id(device),
        facility_epoch: 1,
        device_epoch: 1,
        session: None,
        sender: Sender::Device,
        service,
    }
}

/// Marks as only opening makes them.
fn marks(device: u64, boot: u32, count: usize) -> Vec<(KeyId, Mark)> {
    let key: ApplicationKey = ApplicationKey::from_keyed_hmac(SoftwareKey::new(SecretArray::fill(|key| key.fill(7))));
    let mut random = *b"0123456789abcdef";
    random[0] = boot.to_be_bytes()[3];
    let boot = Boot::new(boot, random).unwrap();
    let mut sealer = Sealer::new(&key, key_id(device), boot, SealAlgorithm::Aes128Ccm).unwrap();
    let (mut out, mut plaintext) = ([0; 256], [0; 8]);
    let mut mark = || {
        let sealed = Sealed::parse(sealer.seal(b"x", b"", &mut out).unwrap()).unwrap();
        let mut opener = Opener::new(&key, &key_id(device), &sealed).unwrap();
        (key_id(device), *opener.open(&sealed, b"", &mut plaintext).unwrap().mark())
    };
    (0..count).map(|_| mark()).collect()
}

async fn deliver(store: &Store, device: u64) {
    let place = KeyPlace { facility: facility_id(1), facility_epoch: 1, device_epoch: 1 };
    store.offer_device_key(device_id(device), place, vec![7; 50], NOW, done()).await.unwrap();
}

async fn accept(store: &Store, marks: Vec<(KeyId, Mark)>) -> Vec<Result<(), SealedRefusal>> {
    let verdicts = store.accept_sealed(marks, Visibility::Fleet, NOW).await.unwrap();
    verdicts.into_iter().map(|verdict| verdict.map(drop)).collect()
}

const REPLAYED: Result<(), SealedRefusal> = Err(SealedRefusal::Replay(ReplayError::Replayed));

#[tokio::test]
async fn a_mark_is_accepted_once_across_calls_and_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Options::default());
    populate(&store).await;
    register(&store, 1).await;
    deliver(&store, 1).await;
    let marks = marks(1, 1, 2);
    assert_eq!(accept(&store, vec![marks[0], marks[0]]).await, [Ok(()), REPLAYED]);
    store.close().await;
    drop(store);
    let store = open(&directory, Options::default());
    assert_eq!(accept(&store, marks).await, [REPLAYED, Ok(())]);
}

#[tokio::test]
async fn a_damaged_window_accepts_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Options::default());
    populate(&store).await;
    register(&store, 1).await;
    deliver(&store, 1).await;
    let marks = marks(1, 1, 2);
    assert_eq!(accept(&store, vec![marks[0]]).await, [Ok(())]);
    store.close().await;
    drop(store);
    let raw = rusqlite::Connection::open(directory.path().join("registry.db")).unwrap();
    for damage in ["CAST(x'02' || substr(seen, 2) AS BLOB)", "substr(seen, 1, length(seen) - 1)", "x''"] {
        raw.execute(&format!("UPDATE replay_window SET seen = {damage}"), []).unwrap();
        let store = open(&directory, Options::default());
        assert_eq!(accept(&store, vec![marks[1]]).await, [Err(SealedRefusal::DamagedWindow)], "{damage}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_key_that_was_never_sent_or_lies_out_of_scope_is_unknown() {
    let store = fleet().await;
    register(&store, 1).await;
    let mark = marks(1, 1, 1);
    assert_eq!(accept(&store, mark.clone()).await, [Err(SealedRefusal::Unknown)]);
    deliver(&store, 1).await;
    let elsewhere = store.accept_sealed(mark.clone(), only(2), NOW).await.unwrap();
    assert_eq!(elsewhere, [Err(SealedRefusal::Unknown)]);
    assert!(store.sealed_key(&key_id(1), &only(1)).unwrap().is_ok());
    assert_eq!(accept(&store, mark).await, [Ok(())]);
}

#[tokio::test]
async fn a_store_that_takes_no_writes_accepts_nothing() {
    let store = fleet().await;
    register(&store, 1).await;
    deliver(&store, 1).await;
    let mark = marks(1, 1, 1);
    store.fence("older than its witness".into());
    let refused = store.accept_sealed(mark, Visibility::Fleet, NOW).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
}

#[tokio::test]
async fn more_marks_than_a_call_may_bring_are_refused() {
    let store = fleet().await;
    let refused = store.accept_sealed(marks(1, 1, MAX_MARKS + 1), Visibility::Fleet, NOW).await;
    assert!(matches!(refused, Err(StoreError::Invalid { field: "payloads", .. })));
}

#[tokio::test]
async fn a_use_that_comes_in_while_the_log_is_written_is_counted_the_next_time() {
    let store = fleet().await;
    register(&store, 1).await;
    deliver(&store, 1).await;
    let marks = marks(1, 1, 3);
    accept(&store, marks[..2].to_vec()).await;
    let uses = store.unlogged_sealed_uses(NOW, 10).unwrap();
    assert_eq!((uses.len(), uses[0].uses, uses[0].facility), (1, 2, facility_id(1)));
    assert_eq!(store.unlogged_sealed_uses(NOW.minus(1), 10).unwrap(), []);
    accept(&store, marks[2..].to_vec()).await;
    store.log_sealed_uses(uses, NOW, done()).await.unwrap();
    let uses = store.unlogged_sealed_uses(NOW, 10).unwrap();
    assert_eq!(uses.iter().map(|used| used.uses).collect::<Vec<_>>(), [1]);
    store.log_sealed_uses(uses, NOW, done()).await.unwrap();
    assert_eq!(store.unlogged_sealed_uses(NOW, 10).unwrap(), []);
}

#[tokio::test]
async fn the_servers_boots_only_go_up_and_never_start_below_the_clock() {
    let store = fleet().await;
    let mut found = Vec::new();
    for floor in [100, 100, 50, 200] {
        found.push(store.next_seal_boot(floor, done()).await.unwrap().value);
    }
    assert_eq!(found, [100, 101, 102, 200]);
    assert_eq!(store.next_seal_boot(u32::MAX, done()).await.unwrap().value, u32::MAX);
    assert!(store.next_seal_boot(0, done()).await.is_err(), "there is no further number");
}
