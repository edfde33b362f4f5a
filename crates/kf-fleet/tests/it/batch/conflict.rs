use kf_api::batch::{ConflictKind, Outcome};
use kf_batch::record::{Hardware, HardwareKind, Record};
use kf_key::{CertificateStatus, DeviceId, DeviceState, UnixMillis};

use super::station::{Line, Station, import};
use crate::scratch::Scratch;

type Lie = fn(&mut Record);

async fn state(scratch: &Scratch, name: &str) -> DeviceState {
    scratch.fleet.device_show(&scratch.owner, name).await.unwrap().device.state
}

async fn has_good_certificate(scratch: &Scratch, name: &str) -> bool {
    let shown = scratch.fleet.device_show(&scratch.owner, name).await.unwrap();
    shown.certificates.iter().any(|certificate| certificate.status == CertificateStatus::Good)
}

async fn kinds(scratch: &Scratch, batch: &str) -> Vec<ConflictKind> {
    let books = scratch.fleet.batch_reconcile(&scratch.owner, batch).await.unwrap();
    let mut kinds: Vec<_> = books.conflicts.iter().map(|conflict| conflict.kind).collect();
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn each_lie_about_a_device_is_named_and_the_device_marked_while_the_others_pass() {
    let rows: [(ConflictKind, Lie); 5] = [
        (ConflictKind::UnknownRecipe, |record| record.recipe = [0; 32]),
        (ConflictKind::BeforeQuota, |record| record.at = record.at.minus(UnixMillis::DAY)),
        (ConflictKind::AfterExpiry, |record| record.at = record.at.plus(8 * UnixMillis::DAY)),
        (ConflictKind::UnsafeNotAllowed, |record| record.unsafe_marks = vec!["plain flash".into()]),
        (ConflictKind::Certificate, |record| record.key.as_mut().unwrap().spki_sha256 = [1; 32]),
    ];
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    for (number, (kind, lie)) in rows.into_iter().enumerate() {
        let batch = format!("b-{number}");
        let mut line = Line::start(&scratch, &station, &batch, 5).await;
        let bad = line.make_with(0, Outcome::Passed, lie);
        let report = import(&scratch, &station, &batch, [&bad.document]).await;
        assert_eq!((report.merged, report.refused_count), (1, 0), "{kind}");
        assert_eq!(kinds(&scratch, &batch).await, [kind]);
        assert_eq!(state(&scratch, &format!("{batch}-000001")).await, DeviceState::Quarantined, "{kind}");
        assert!(!has_good_certificate(&scratch, &format!("{batch}-000001")).await, "{kind}");
        assert_eq!(state(&scratch, &format!("{batch}-000002")).await, DeviceState::Registered, "{kind}");
    }
}

#[tokio::test]
async fn a_device_outside_the_quota_is_refused_and_whoever_it_names_is_left_alone() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let victim = scratch.device("victim").await;
    let mut line = Line::start(&scratch, &station, "b-1", 5).await;
    let strangers = [victim.id, DeviceId::from_bytes([9; 16])];
    for device in strangers {
        let made = line.make_with(0, Outcome::Scrapped, |record| {
            record.device = device;
            record.salt = None;
        });
        import(&scratch, &station, "b-1", [&made.document]).await;
    }
    assert_eq!(kinds(&scratch, "b-1").await, [ConflictKind::OutsideQuota]);
    assert_eq!(state(&scratch, "victim").await, DeviceState::Registered);
    let books = scratch.fleet.batch_reconcile(&scratch.owner, "b-1").await.unwrap();
    assert_eq!((books.scrapped, books.missing), (0, 5));
}

#[tokio::test]
async fn a_device_made_twice_has_no_good_certificate_left() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::start(&scratch, &station, "b-1", 5).await;
    let (first, second) = (line.make(0, Outcome::Passed), line.make(0, Outcome::Passed));
    import(&scratch, &station, "b-1", [&first.document]).await;
    assert!(has_good_certificate(&scratch, "b-1-000001").await);
    import(&scratch, &station, "b-1", [&second.document]).await;
    assert_eq!(kinds(&scratch, "b-1").await, [ConflictKind::MadeTwice]);
    assert_eq!(state(&scratch, "b-1-000001").await, DeviceState::Quarantined);
    assert!(!has_good_certificate(&scratch, "b-1-000001").await);
}

#[tokio::test]
async fn one_address_serial_or_key_on_two_devices_marks_both_of_a_batch_and_never_one_of_another() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let of = |kind, value: u8| Hardware { kind, value: vec![value; 6] };
    let rows = [(ConflictKind::SameAddress, HardwareKind::Address), (ConflictKind::SameSerial, HardwareKind::Serial)];
    let mut honest = Line::start(&scratch, &station, "honest", 3).await;
    let both = |record: &mut Record| {
        record.hardware = vec![of(HardwareKind::Address, 1), of(HardwareKind::Serial, 2)];
    };
    let made = honest.make_with(0, Outcome::Passed, both);
    import(&scratch, &station, "honest", [&made.document]).await;
    for (kind, hardware) in rows {
        let batch = format!("b-{}", hardware.code());
        let mut line = Line::start(&scratch, &station, &batch, 5).await;
        let twin = |record: &mut Record| record.hardware = vec![of(hardware, 7)];
        let twins = [line.make_with(0, Outcome::Passed, twin), line.make_with(1, Outcome::Passed, twin)];
        // A thief copies what the label of an honest device says.
        let copy = |record: &mut Record| record.hardware = vec![of(hardware, hardware.code())];
        let copied = line.make_with(2, Outcome::Passed, copy);
        import(&scratch, &station, &batch, twins.iter().map(|made| &made.document)).await;
        import(&scratch, &station, &batch, [&copied.document]).await;
        assert_eq!(kinds(&scratch, &batch).await, [kind]);
        for position in 1..=3 {
            assert_eq!(state(&scratch, &format!("{batch}-00000{position}")).await, DeviceState::Quarantined);
        }
        assert_eq!(state(&scratch, "honest-000001").await, DeviceState::Registered);
        assert!(has_good_certificate(&scratch, "honest-000001").await);
    }
    let mut line = Line::start(&scratch, &station, "keys", 5).await;
    let first = line.make(0, Outcome::Passed);
    let again = line.certify(line.device(1), &first.key, line.quota.terms.issued);
    let second = line.make_with(1, Outcome::Passed, |record| {
        record.key = first.record.key;
        record.certificate = Some(again);
    });
    import(&scratch, &station, "keys", [&second.document, &first.document]).await;
    assert!(kinds(&scratch, "keys").await.contains(&ConflictKind::SameKey));
    for name in ["keys-000001", "keys-000002"] {
        assert_eq!(state(&scratch, name).await, DeviceState::Quarantined);
        assert!(!has_good_certificate(&scratch, name).await);
    }
}

#[tokio::test]
async fn a_board_that_failed_as_one_device_may_pass_as_another_in_whichever_order_that_is_learned() {
    for backwards in [false, true] {
        let scratch = Scratch::new().await;
        let station = Station::new(&scratch, "line-1", "plant-a").await;
        let mut line = Line::start(&scratch, &station, "b-1", 3).await;
        let board = |record: &mut Record| {
            record.hardware = vec![Hardware { kind: HardwareKind::Address, value: vec![9; 6] }];
        };
        let mut documents = vec![
            line.make_with(0, Outcome::Rework, board).document,
            line.make_with(0, Outcome::Scrapped, board).document,
            line.make_with(1, Outcome::Passed, board).document,
        ];
        if backwards {
            documents.reverse();
        }
        for document in &documents {
            import(&scratch, &station, "b-1", [document]).await;
        }
        assert!(kinds(&scratch, "b-1").await.is_empty());
        assert_eq!(state(&scratch, "b-1-000002").await, DeviceState::Registered);
        assert!(has_good_certificate(&scratch, "b-1-000002").await);
    }
}

#[tokio::test]
async fn two_stations_with_one_state_are_found_and_every_device_of_a_contested_number_is_held() {
    for swapped in [false, true] {
        let scratch = Scratch::new().await;
        let station = Station::new(&scratch, "line-1", "plant-a").await;
        let mut original = Line::start(&scratch, &station, "b-1", 20).await;
        let common = original.make(0, Outcome::Passed);
        let mut copy = original.copied();
        let left: Vec<_> = (1..4).map(|position| original.make(position, Outcome::Passed)).collect();
        let right: Vec<_> = (10..14).map(|position| copy.make(position, Outcome::Passed)).collect();
        let (first, second) = if swapped { (&right, &left) } else { (&left, &right) };
        import(&scratch, &station, "b-1", [&common.document]).await;
        import(&scratch, &station, "b-1", first.iter().map(|made| &made.document)).await;
        import(&scratch, &station, "b-1", second.iter().map(|made| &made.document)).await;
        assert_eq!(kinds(&scratch, "b-1").await, [ConflictKind::ClonedStation]);
        let held: Vec<u32> = vec![2, 3, 4, 11, 12, 13];
        for number in 1..=20u32 {
            let expected = if held.contains(&number) { DeviceState::Quarantined } else { DeviceState::Registered };
            assert_eq!(state(&scratch, &format!("b-1-{number:06}")).await, expected, "{number}");
        }
    }
}

#[tokio::test]
async fn a_station_that_was_set_back_or_whose_clock_was_is_found() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::start(&scratch, &station, "b-1", 20).await;
    let mut restored = line.copied();
    // The same device once more, after a restore from an older backup.
    let (before, after) = (line.make(0, Outcome::Passed), restored.make(0, Outcome::Passed));
    import(&scratch, &station, "b-1", [&before.document, &after.document]).await;
    let found = kinds(&scratch, "b-1").await;
    assert!(found.contains(&ConflictKind::ClonedStation) && found.contains(&ConflictKind::MadeTwice), "{found:?}");
    let mut line = Line::start(&scratch, &station, "b-2", 20).await;
    let first = line.make(0, Outcome::Passed);
    let second = line.make_with(1, Outcome::Passed, |record| record.at = first.record.at.minus(1));
    import(&scratch, &station, "b-2", [&second.document, &first.document]).await;
    assert_eq!(kinds(&scratch, "b-2").await, [ConflictKind::ClockWentBack]);
    let mut line = Line::start(&scratch, &station, "b-3", 20).await;
    let foreign = line.make_with(0, Outcome::Passed, |record| record.previous = [1; 32]);
    import(&scratch, &station, "b-3", [&foreign.document]).await;
    assert_eq!(kinds(&scratch, "b-3").await, [ConflictKind::OtherQuota]);
}

#[tokio::test]
async fn a_scrapped_device_ends_with_its_keys_and_nothing_brings_it_back() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::start(&scratch, &station, "b-1", 5).await;
    let passed = line.make(0, Outcome::Passed);
    let scrapped = line.make(0, Outcome::Scrapped);
    let later = line.make(0, Outcome::Passed);
    import(&scratch, &station, "b-1", [&passed.document, &scrapped.document]).await;
    assert_eq!(state(&scratch, "b-1-000001").await, DeviceState::Decommissioned);
    assert!(!has_good_certificate(&scratch, "b-1-000001").await);
    import(&scratch, &station, "b-1", [&later.document]).await;
    assert!(kinds(&scratch, "b-1").await.contains(&ConflictKind::AfterScrap));
    assert!(!has_good_certificate(&scratch, "b-1-000001").await);
    // None of its keys is certified again, for anybody.
    scratch.device("another").await;
    for key in [&passed.key, &scrapped.key] {
        let code = scratch.code("another").await;
        let refused = scratch.enrol_with("another", &code, &crate::scratch::csr(key)).await;
        assert!(refused.is_err(), "{refused:?}");
    }
}

#[tokio::test]
async fn an_unsafe_mark_stays_for_ever() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let mut line = Line::with(&scratch, &station, "b-1", 5, |new| new.allow_unsafe = true).await;
    let made = line.make_with(0, Outcome::Passed, |record| record.unsafe_marks = vec!["plain flash".into()]);
    import(&scratch, &station, "b-1", [&made.document]).await;
    assert!(kinds(&scratch, "b-1").await.is_empty());
    let scratch = scratch.reopen().await;
    let shown = scratch.fleet.device_show(&scratch.owner, "b-1-000001").await.unwrap();
    assert_eq!(shown.unsafe_marks, ["plain flash"]);
}
