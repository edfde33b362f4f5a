use kf_api::batch::Outcome;
use kf_key::{CertificateProfile, CertificateStatus, DeviceState};

use super::station::{Line, Made, Station, import};
use crate::scratch::Scratch;

/// A shift: forty devices, of which some were reworked and some scrapped.
fn shift(line: &mut Line) -> Vec<Made> {
    let mut made = Vec::new();
    for position in 0..40 {
        if position % 7 == 3 {
            made.push(line.make(position, Outcome::Rework));
        }
        let outcome = if position % 10 == 9 { Outcome::Scrapped } else { Outcome::Passed };
        made.push(line.make(position, outcome));
    }
    made
}

#[tokio::test]
async fn a_shift_is_merged_and_its_books_balance_to_the_device() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::start(&scratch, &station, "b-1", 50).await;
    let made = shift(&mut line);
    let manifest = line.manifest(false);
    let report = import(&scratch, &station, "b-1", made.iter().map(|made| &made.document).chain([&manifest])).await;
    assert_eq!((report.conflict_count, report.refused_count, report.manifests), (0, 0, 1), "{report:?}");
    let books = scratch.fleet.batch_reconcile(&scratch.owner, "b-1").await.unwrap();
    assert!(books.balances, "{books:?}");
    let counts = (books.planned, books.passed, books.scrapped, books.rework, books.missing);
    assert_eq!(counts, (50, 36, 4, 0, 10));
    let passed = &made[0];
    let shown = scratch.fleet.device_show(&scratch.owner, "b-1-000001").await.unwrap();
    let idevid = &shown.certificates[0];
    assert_eq!((idevid.profile, idevid.status), (CertificateProfile::IDevId, CertificateStatus::Good));
    assert_eq!(idevid.spki_sha256, hex::encode(kf_crypto::sha256(&passed.key.spki())));
    let event =
        shown.events.iter().find(|event| event.entry["act"] == "device.made").expect("its record is in the log");
    let record = hex::encode(kf_batch::frame::document_hash(&passed.document));
    assert_eq!(event.entry["detail"]["record_sha256"], record);
}

#[tokio::test]
async fn the_same_records_merge_once_however_often_and_in_whatever_order_they_are_sent() {
    let (whole, pieces) = (Scratch::new().await, Scratch::new().await);
    let mut outcomes = Vec::new();
    for (scratch, reversed) in [(&whole, false), (&pieces, true)] {
        let station = Station::new(scratch, "line-1", "plant-a").await;
        let mut line = Line::start(scratch, &station, "b-1", 50).await;
        let made = shift(&mut line);
        let mut documents: Vec<Vec<u8>> = made.into_iter().map(|made| made.document).collect();
        documents.push(line.manifest(true));
        if reversed {
            documents.reverse();
            for piece in documents.chunks(3) {
                import(scratch, &station, "b-1", piece).await;
                import(scratch, &station, "b-1", piece).await;
            }
        } else {
            import(scratch, &station, "b-1", &documents).await;
        }
        let size = log_size(scratch).await;
        let again = import(scratch, &station, "b-1", &documents).await;
        assert_eq!((again.merged, again.manifests, again.conflict_count), (0, 0, 0));
        assert_eq!(again.already_there, again.items);
        assert_eq!(size, log_size(scratch).await, "what is there already is not logged again");
        let books = scratch.fleet.batch_reconcile(&scratch.owner, "b-1").await.unwrap();
        assert!(books.balances, "{books:?}");
        outcomes.push((books.passed, books.scrapped, books.rework, books.missing, books.records));
        assert_states(scratch).await;
    }
    assert_eq!(outcomes[0], outcomes[1]);
}

async fn log_size(scratch: &Scratch) -> usize {
    let filter = kf_api::audit::AuditFilter { limit: Some(1_000), ..Default::default() };
    scratch.fleet.audit_list(&scratch.owner, filter).await.unwrap().items.len()
}

async fn assert_states(scratch: &Scratch) {
    for position in 0..40u32 {
        let name = format!("b-1-{:06}", position + 1);
        let shown = scratch.fleet.device_show(&scratch.owner, &name).await.unwrap();
        let idevids = shown.certificates.iter().filter(|one| one.status == CertificateStatus::Good).count();
        let expected = match position % 10 {
            9 => (DeviceState::Decommissioned, 0),
            _ => (DeviceState::Registered, 1),
        };
        assert_eq!((shown.device.state, idevids), expected, "{name}");
    }
}

#[tokio::test]
async fn a_gap_is_named_until_it_is_filled_and_a_restart_forgets_nothing() {
    let mut scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::start(&scratch, &station, "b-1", 50).await;
    let made = shift(&mut line);
    let manifest = line.manifest(true);
    let (missing, sent): (Vec<_>, Vec<_>) = made.iter().partition(|made| (11..=13).contains(&made.record.sequence));
    import(&scratch, &station, "b-1", sent.iter().map(|made| &made.document).chain([&manifest])).await;
    scratch = scratch.reopen().await;
    let books = scratch.fleet.batch_reconcile(&scratch.owner, "b-1").await.unwrap();
    assert!(!books.balances && !books.manifests[0].agrees);
    assert_eq!(books.gaps, [kf_api::batch::Gap { first: 11, last: 13 }]);
    import(&scratch, &station, "b-1", missing.iter().map(|made| &made.document)).await;
    let books = scratch.fleet.batch_reconcile(&scratch.owner, "b-1").await.unwrap();
    assert!(books.balances, "{books:?}");
}

#[tokio::test]
async fn items_that_are_forged_foreign_or_damaged_are_refused_one_by_one_and_the_others_count() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::start(&scratch, &station, "b-1", 5).await;
    let mut other = Line::start(&scratch, &station, "b-2", 5).await;
    let (first, second) = (line.make(0, Outcome::Passed), line.make(1, Outcome::Passed));
    let foreign = other.make(0, Outcome::Passed);
    let mut forged = second.document.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let report = import(&scratch, &station, "b-1", [&first.document, &foreign.document, &forged]).await;
    assert_eq!((report.items, report.merged, report.refused_count), (3, 1, 2), "{report:?}");
    assert_eq!(report.refused.iter().map(|refused| refused.item).collect::<Vec<_>>(), [2, 3]);
    for broken in [vec![0xd2, 0x84], b"{}".to_vec(), [&first.document[..], &[0xff]].concat()] {
        let refused = super::station::try_import(&scratch, &station, "b-1", broken).await.unwrap_err();
        assert_eq!(crate::scratch::field_of(&refused), "body");
    }
    let books = scratch.fleet.batch_reconcile(&scratch.owner, "b-1").await.unwrap();
    assert_eq!((books.records, books.passed), (1, 1));
}

#[tokio::test]
async fn the_stations_word_that_its_keys_are_gone_counts_once_of_the_quotas_keys_and_from_nobody_else() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let line = Line::start(&scratch, &station, "b-1", 5).await;
    let other = Line::start(&scratch, &station, "b-2", 5).await;
    let said = line.keys_destroyed(&station.identity, |_| {});
    let by_thief = line.keys_destroyed(&line.keys.record, |_| {});
    let of_others = line.keys_destroyed(&station.identity, |destroyed| destroyed.keys[1] = [7; 32]);
    let foreign = other.keys_destroyed(&station.identity, |_| {});
    let report = import(&scratch, &station, "b-1", [&by_thief, &of_others, &foreign]).await;
    assert_eq!((report.receipts, report.refused_count), (0, 3), "{report:?}");
    let books = scratch.fleet.batch_reconcile(&scratch.owner, "b-1").await.unwrap();
    assert_eq!(books.key_destroyed, None);
    let rehearsed = scratch.fleet.batch_import(&station.principal, "b-1", said.clone(), true).await.unwrap();
    assert_eq!(rehearsed.receipts, 1);
    assert_eq!(scratch.fleet.batch_reconcile(&scratch.owner, "b-1").await.unwrap().key_destroyed, None);
    let before = log_size(&scratch).await;
    for (receipts, already_there) in [(1, 0), (0, 1)] {
        let report = import(&scratch, &station, "b-1", [&said]).await;
        assert_eq!((report.receipts, report.already_there), (receipts, already_there), "{report:?}");
    }
    assert_eq!(log_size(&scratch).await, before + 1);
    let books = scratch.fleet.batch_reconcile(&scratch.owner, "b-1").await.unwrap();
    assert!(books.key_destroyed.is_some() && books.balances, "{books:?}");
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::start(&scratch, &station, "b-1", 5).await;
    let made = line.make(0, Outcome::Passed);
    let bad = line.make_with(1, Outcome::Passed, |record| record.recipe = [0; 32]);
    let sequence = [made.document, bad.document].concat();
    let report = scratch.fleet.batch_import(&station.principal, "b-1", sequence, true).await.unwrap();
    assert_eq!((report.merged, report.conflict_count), (2, 1));
    let books = scratch.fleet.batch_reconcile(&scratch.owner, "b-1").await.unwrap();
    assert_eq!(books.records, 0);
}
