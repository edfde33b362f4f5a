use kf_key::UnixMillis;
use proptest::prelude::*;

use super::*;

fn hardware(number: u32) -> HardwareId {
    HardwareId::new(&format!("24:0a:c4:00:00:{number:02x}"), &format!("B{number}")).unwrap()
}

fn opened(count: u32) -> Book {
    let mut book = Book::new();
    book.apply(&Entry::Opened { plan: "p".into(), count, at: UnixMillis(1) }).unwrap();
    book
}

/// The entries of one unit that goes well.
fn good(unit: u32, device: u32) -> [Entry; 4] {
    let at = UnixMillis(2);
    [
        Entry::Begun { unit, hardware: hardware(device), at },
        Entry::Certifying { unit, key: u64::from(unit) << 32 | u64::from(device), at },
        Entry::Writing { unit, image: String::new(), burns: false, at },
        Entry::Finished { unit, at },
    ]
}

#[test]
fn a_device_that_goes_well_passes_every_stage_in_order() {
    let (mut line, act) = Line::start();
    assert_eq!((line.stage(), act), (Stage::Reading, Act::Read));
    let id = hardware(1);
    assert_eq!(line.next(Outcome::Identified(id.clone())), Act::Begin(id));
    assert_eq!(line.next(Outcome::Numbered { unit: 7, standing: Standing::Fresh }), Act::Count(7));
    let made = [Act::MakeKey, Act::Certify, Act::Write, Act::ReadBack, Act::Burn];
    let proven = [Act::Challenge, Act::Close, Act::Finish, Act::ShowPass];
    for act in made.into_iter().chain(proven) {
        assert_eq!(line.next(Outcome::Done), act);
    }
    assert_eq!(line.stage(), Stage::Pass);
    assert_eq!(line.next(Outcome::Failed(FailReason::Hang)), Act::ShowPass);
}

#[test]
fn a_failure_at_any_act_ends_in_a_reason_and_is_accounted_for_when_a_number_was_given() {
    for failing in 0..10 {
        let (mut line, _) = Line::start();
        let outcomes = [
            Outcome::Identified(hardware(1)),
            Outcome::Numbered { unit: 0, standing: Standing::Fresh },
            Outcome::Done,
            Outcome::Done,
            Outcome::Done,
            Outcome::Done,
            Outcome::Done,
            Outcome::Done,
            Outcome::Done,
            Outcome::Done,
        ];
        for outcome in outcomes.into_iter().take(failing) {
            line.next(outcome);
        }
        let act = line.next(Outcome::Failed(FailReason::Hang));
        if failing < 2 {
            assert_eq!(act, Act::ShowFail(FailReason::Hang));
        } else {
            assert_eq!(act, Act::Scrap(FailReason::Hang));
            assert_eq!(line.next(Outcome::Done), Act::ShowFail(FailReason::Hang));
        }
        assert_eq!(line.stage(), Stage::Fail);
    }
}

#[test]
fn a_failure_that_cannot_be_recorded_stops_the_fixture_whatever_it_was() {
    let (mut line, _) = Line::start();
    line.next(Outcome::Identified(hardware(1)));
    line.next(Outcome::Numbered { unit: 0, standing: Standing::Fresh });
    assert_eq!(line.next(Outcome::Failed(FailReason::DiskFull)), Act::Scrap(FailReason::DiskFull));
    let shown = line.next(Outcome::Failed(FailReason::JournalFull));
    assert_eq!(shown, Act::ShowFail(FailReason::JournalFull));
    assert_eq!(FailReason::JournalFull.next(false), Next::Stop);
}

#[test]
fn device_ten_thousand_and_one_of_ten_thousand_is_not_made() {
    let mut book = opened(2);
    for unit in 0..2 {
        assert_eq!(book.admit(&hardware(unit)), Ok((unit, Unit::Rework)));
        good(unit, unit).iter().for_each(|entry| book.apply(entry).unwrap());
        book.release(unit);
    }
    assert_eq!(book.admit(&hardware(2)), Err(FailReason::Exhausted));
    assert!(book.apply(&good(2, 2)[0]).is_err());
    assert!(book.counts().balance());
}

#[test]
fn one_device_is_not_made_twice_and_not_in_two_fixtures() {
    let mut book = opened(4);
    book.admit(&hardware(1)).unwrap();
    assert_eq!(book.admit(&hardware(2)), Err(FailReason::InWork));
    good(0, 1).iter().for_each(|entry| book.apply(entry).unwrap());
    book.release(0);
    assert_eq!(book.admit(&hardware(1)), Err(FailReason::AlreadyMade));
    let same_board = HardwareId::new("24:0a:c4:00:00:99", "B1").unwrap();
    assert_eq!(book.admit(&same_board), Err(FailReason::DuplicateBoard));
    assert!(book.apply(&Entry::Begun { unit: 1, hardware: hardware(1), at: UnixMillis(3) }).is_err());
}

#[test]
fn a_key_that_was_seen_is_refused_for_ever() {
    let mut book = opened(4);
    let at = UnixMillis(2);
    book.apply(&Entry::Begun { unit: 0, hardware: hardware(1), at }).unwrap();
    book.apply(&Entry::Certifying { unit: 0, key: 5, at }).unwrap();
    book.apply(&Entry::Spoiled { unit: 0, reason: FailReason::PowerCut, is_scrap: false, at }).unwrap();
    book.apply(&Entry::Begun { unit: 0, hardware: hardware(1), at }).unwrap();
    assert!(book.knows_key(5));
    assert!(book.apply(&Entry::Certifying { unit: 0, key: 5, at }).is_err());
}

#[test]
fn a_board_whose_fuses_were_burnt_for_a_scrapped_unit_is_spent_and_another_may_come_again() {
    for burns in [false, true] {
        let mut book = opened(4);
        let at = UnixMillis(2);
        let [begun, certifying, ..] = good(0, 1);
        book.apply(&begun).unwrap();
        book.apply(&certifying).unwrap();
        book.apply(&Entry::Writing { unit: 0, image: String::new(), burns, at }).unwrap();
        assert_eq!(book.would_be_scrap(0), burns);
        book.apply(&Entry::Spoiled { unit: 0, reason: FailReason::Proof, is_scrap: true, at }).unwrap();
        let again = if burns { Err(FailReason::Spent) } else { Ok((1, Unit::Rework)) };
        assert_eq!(book.admit(&hardware(1)), again);
        assert!(book.counts().balance());
    }
}

#[test]
fn a_unit_whose_fuses_were_about_to_be_burnt_goes_on_or_takes_its_board_with_it() {
    let at = UnixMillis(2);
    let entries = [Entry::Burning { unit: 0, at }, Entry::Closing { unit: 0, at }];
    for burnt in 0..=2 {
        let mut book = opened(4);
        good(0, 1)[..3].iter().chain(&entries[..burnt]).for_each(|entry| book.apply(entry).unwrap());
        assert_eq!(book.interrupted(), [(0, Interrupted::ToReadBack)]);
        assert_eq!(book.would_be_scrap(0), burnt > 0);
        let mut made = opened(4);
        good(0, 1)[..3].iter().chain(&entries[..burnt]).for_each(|entry| made.apply(entry).unwrap());
        made.apply(&good(0, 1)[3]).unwrap();
        assert_eq!(made.admit(&hardware(1)), Err(FailReason::AlreadyMade));
        book.apply(&Entry::Spoiled { unit: 0, reason: FailReason::Proof, is_scrap: true, at }).unwrap();
        let again = if burnt > 0 { Err(FailReason::Spent) } else { Ok((1, Unit::Rework)) };
        assert_eq!(book.admit(&hardware(1)), again);
    }
    let mut book = opened(4);
    good(0, 1)[..2].iter().for_each(|entry| book.apply(entry).unwrap());
    assert!(book.apply(&entries[0]).is_err() && book.apply(&entries[1]).is_err(), "nothing was written yet");
}

#[test]
fn a_unit_that_fails_five_times_is_used_up_and_a_power_cut_is_no_failure() {
    let mut book = opened(2);
    let at = UnixMillis(2);
    for round in 0..20 {
        book.apply(&Entry::Begun { unit: 0, hardware: hardware(1), at }).unwrap();
        let reason = if round < 16 { FailReason::PowerCut } else { FailReason::Proof };
        assert!(!book.would_be_scrap(0), "round {round}");
        book.apply(&Entry::Spoiled { unit: 0, reason, is_scrap: false, at }).unwrap();
    }
    book.apply(&Entry::Begun { unit: 0, hardware: hardware(1), at }).unwrap();
    assert!(book.would_be_scrap(0));
}

#[test]
fn after_every_entry_a_power_cut_leaves_each_unit_finished_resumable_or_scrap() {
    let expected = [Some(Interrupted::Untouched), Some(Interrupted::KeyLost), Some(Interrupted::ToReadBack), None];
    for (cut, expected) in expected.into_iter().enumerate() {
        let mut book = opened(1);
        good(0, 1).iter().take(cut + 1).for_each(|entry| book.apply(entry).unwrap());
        assert_eq!(book.interrupted(), expected.map(|what| (0, what)).into_iter().collect::<Vec<_>>());
        assert!(book.counts().balance());
    }
}

#[test]
fn a_journal_or_a_token_that_was_set_back_is_named() {
    let mut book = opened(9);
    good(0, 1).iter().for_each(|entry| book.apply(entry).unwrap());
    book.apply(&good(1, 2)[0]).unwrap();
    assert_eq!(book.check_counter(1), Ok(2));
    assert_eq!(book.check_counter(2), Ok(2));
    assert_eq!(book.check_counter(3), Err(BookError::JournalRolledBack { token: 3, journal: 2 }));
    assert_eq!(book.check_counter(0), Err(BookError::TokenRolledBack { token: 0, journal: 1 }));
}

#[test]
fn a_clock_that_went_back_stops_the_line_and_a_small_step_does_not() {
    let mut book = opened(1);
    let day = UnixMillis(UnixMillis::DAY);
    book.apply(&Entry::Begun { unit: 0, hardware: hardware(1), at: day }).unwrap();
    assert_eq!(book.time(day.minus(MAX_CLOCK_BACK + 1)), Err(FailReason::ClockBack));
    assert_eq!(book.time(day.minus(MAX_CLOCK_BACK)), Ok(day));
    assert_eq!(book.time(day.plus(5)), Ok(day.plus(5)));
}

#[test]
fn a_closed_batch_takes_nothing_more_and_an_open_unit_keeps_it_open() {
    let mut book = opened(2);
    let closed = Entry::Closed { is_final: true, at: UnixMillis(9) };
    book.apply(&good(0, 1)[0]).unwrap();
    assert!(book.apply(&closed).is_err());
    good(0, 1)[1..].iter().for_each(|entry| book.apply(entry).unwrap());
    book.apply(&closed).unwrap();
    assert_eq!(book.admit(&hardware(2)), Err(FailReason::Exhausted));
    assert!(book.apply(&good(1, 2)[0]).is_err());
}

#[test]
fn every_reason_has_a_text_of_its_own_and_a_next_action() {
    let texts: std::collections::BTreeSet<_> = FailReason::ALL.iter().map(|reason| reason.words()).collect();
    assert_eq!(texts.len(), FailReason::ALL.len());
    assert!(
        FailReason::ALL.iter().all(|reason| reason.next(true) == Next::Scrap && !reason.next(false).words().is_empty())
    );
}

proptest! {
    /// Whatever entries arrive, legal ones keep the books balanced, and no device or key is there twice.
    #[test]
    fn the_books_balance_whatever_happens(steps in prop::collection::vec((0u32..4, 0u32..4, 0u8..8), 0..120)) {
        let mut book = opened(3);
        let mut made = std::collections::BTreeSet::new();
        let at = UnixMillis(2);
        for (number, (unit, device, kind)) in steps.into_iter().enumerate() {
            let entry = match kind {
                0 => Entry::Begun { unit, hardware: hardware(device), at },
                1 => Entry::Certifying { unit, key: u64::try_from(number).unwrap(), at },
                2 => Entry::Writing { unit, image: String::new(), burns: device == 0, at },
                3 => Entry::Finished { unit, at },
                4 => Entry::Spoiled { unit, reason: FailReason::Proof, is_scrap: false, at },
                5 => Entry::Burning { unit, at },
                6 => Entry::Closing { unit, at },
                _ => Entry::Spoiled { unit, reason: FailReason::Proof, is_scrap: true, at },
            };
            let device = book.hardware(unit).cloned();
            if book.apply(&entry).is_ok() && kind == 3 {
                prop_assert!(made.insert(device.unwrap()), "made twice");
            }
            prop_assert!(book.counts().balance());
        }
    }
}
