//! Merging under power cuts and on a full disk.

use kf_access::Visibility;
use kf_api::batch::{Batch, BatchState, Outcome};
use kf_api::certificate::Certificate;
use kf_batch::frame::document_hash;
use kf_batch::merge::Link;
use kf_key::{BatchId, CertificateProfile, KeyProtection, OperatorId, RevocationReason, UnixMillis};
use kf_store::batch::{BatchRecord, Cancellation, MergeRow, MergedOne, StoredBatch};
use kf_store::{Options, Store, StoreError};

use crate::fixture::{
    NOW, authority_id, certificate, device, device_id, done, entry, facility_id, line_id, open, populate, random,
    serial, small_reserve,
};

const QUOTA: [u8; 32] = [9; 32];
const DEVICES: u64 = 12;

fn batch_id() -> BatchId {
    BatchId::from_parts(NOW, random(1))
}

async fn authorise(store: &Store) {
    let batch = Batch {
        id: batch_id(),
        name: "b-1".into(),
        facility: facility_id(1),
        product_line: line_id(),
        station: OperatorId::from_parts(NOW, random(1)),
        sequence: 1,
        recipe_sha256: "00".repeat(32),
        devices: 500,
        first_name: "made-1".into(),
        last_name: "made-500".into(),
        allows_unsafe: false,
        allows_early_enrolment: false,
        authority_serial: serial(5_000),
        issued: NOW,
        expires: NOW.plus(UnixMillis::DAY),
        state: BatchState::Open,
        ended: None,
    };
    let certificate = Certificate { profile: CertificateProfile::IssuingCa, ..certificate(5_000, None) };
    let record = BatchRecord {
        stored: StoredBatch { batch, authority: authority_id(77), quota: vec![1; 100] },
        request_sha256: [1; 32],
        key_identifier: [2; 20],
        certificate,
        der: vec![0x30; 400],
        devices: (1..=500).map(|number| (device_id(number), format!("made-{number}"))).collect(),
    };
    store.insert_batch(record, done()).await.unwrap();
}

fn row(number: u64, previous: [u8; 32]) -> MergeRow {
    let document = [&number.to_be_bytes()[..], &previous, &[0; 1_000]].concat();
    let made = kf_api::device::Device { facility: facility_id(1), ..device(number) };
    let certificate = Certificate {
        profile: CertificateProfile::IDevId,
        authority: authority_id(77),
        ..certificate(number, Some(&made))
    };
    MergeRow {
        link: Link {
            sequence: number,
            hash: document_hash(&document),
            previous,
            at: NOW.plus(number),
            device: device_id(number),
        },
        outcome: Outcome::Passed,
        document,
        key: Some(random(number)),
        certificate: Some((certificate, vec![0x30; 700])),
        protection: KeyProtection::Wrapped,
        salt: Some((vec![3; 60], 1)),
        label: None,
        hardware: vec![(1, number.to_be_bytes().to_vec())],
        unsafe_marks: Vec::new(),
        conflicts: Vec::new(),
        entry: entry("device.made", Some(1), &[device_id(number).to_string(), format!("cert:{}", serial(number))]),
    }
}

fn chain(count: u64) -> Vec<MergeRow> {
    let mut previous = QUOTA;
    (1..=count)
        .map(|number| {
            let row = row(number, previous);
            previous = row.link.hash;
            row
        })
        .collect()
}

/// Every record has its certificate, its key, its salt, its state and its log entry, or none of them; how many there are.
fn check_consistent(store: &Store, count: u64) -> u64 {
    let stored = store.batch(batch_id(), &Visibility::Fleet).unwrap().unwrap();
    let books = store.reconcile_batch(stored.batch).unwrap();
    assert!(books.balances, "{books:?}");
    let mut found = 0;
    for number in 1..=count {
        let there = store.certificate(serial(number), &Visibility::Fleet).unwrap().is_some();
        let subject = format!("cert:{}", serial(number));
        let entries = store.log_list(Some(&subject), &Visibility::Fleet, &Default::default()).unwrap().items;
        assert_eq!(entries.len(), usize::from(there), "device {number}");
        assert_eq!(store.key_standing(&random(number)).unwrap().holder.is_some(), there, "device {number}");
        let key = store.device_key(device_id(number), 1, 0, &Visibility::Fleet).unwrap();
        assert_eq!(key.is_some(), there, "device {number}");
        found += u64::from(there);
    }
    assert_eq!((books.records, books.passed), (found, found));
    found
}

#[tokio::test]
async fn a_merge_cut_anywhere_is_there_record_by_record_and_goes_on_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, small_reserve());
    populate(&store).await;
    authorise(&store).await;
    let wal = |directory: &tempfile::TempDir| directory.path().join("registry.db-wal");
    let before = std::fs::metadata(wal(&directory)).unwrap().len();
    for row in chain(DEVICES) {
        store.merge_records(batch_id(), QUOTA, vec![row], NOW).await.unwrap();
    }
    let whole = std::fs::metadata(wal(&directory)).unwrap().len();
    let mut seen = std::collections::BTreeSet::new();
    // Every page that the merge wrote, and in the middle of each: a frame is a page of 4,096 octets behind 24 of header.
    for cut_at in (before..=whole).step_by((4_096 + 24) / 2) {
        let cut = tempfile::tempdir().unwrap();
        for name in ["registry.db", "registry.db-wal"] {
            std::fs::copy(directory.path().join(name), cut.path().join(name)).unwrap();
        }
        std::fs::OpenOptions::new().write(true).open(wal(&cut)).unwrap().set_len(cut_at).unwrap();
        let survivor = open(&cut, small_reserve());
        let found = check_consistent(&survivor, DEVICES);
        if seen.insert(found) {
            let merged = survivor.merge_records(batch_id(), QUOTA, chain(DEVICES), NOW).await.unwrap();
            let fresh = merged.rows.iter().filter(|one| **one == MergedOne::Now).count();
            assert_eq!(u64::try_from(fresh).unwrap(), DEVICES - found);
            assert!(merged.conflicts.is_empty(), "{:?}", merged.conflicts);
            assert_eq!(check_consistent(&survivor, DEVICES), DEVICES);
        }
    }
    assert_eq!(seen, (0..=DEVICES).collect());
}

#[tokio::test]
async fn on_a_full_disk_a_merge_stops_whole_and_a_stolen_batch_can_still_be_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { max_pages: Some(320), reserve_octets: 80 * 4_096, ..Options::default() };
    let store = open(&directory, options);
    populate(&store).await;
    authorise(&store).await;
    let mut merged = 0;
    for row in chain(500) {
        match store.merge_records(batch_id(), QUOTA, vec![row], NOW).await {
            Ok(_) => merged += 1,
            Err(StoreError::Full) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(merged > 20 && merged < 500, "{merged}");
    assert_eq!(check_consistent(&store, merged + 2), merged);
    let cancellation = Cancellation {
        batch: batch_id(),
        to: BatchState::Compromised,
        keep_made: false,
        reason: RevocationReason::KeyCompromise,
        at: NOW,
    };
    let counted = store.count_batch_cancellation(&cancellation).unwrap();
    let logged = store.cancel_batch(cancellation, done()).await.unwrap();
    assert_eq!((logged.value.certificates, logged.value.devices), (merged + 1, 500));
    assert_eq!(counted, (merged + 1, 500));
}
