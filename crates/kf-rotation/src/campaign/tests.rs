use proptest::prelude::*;

use super::*;

const START: UnixMillis = UnixMillis(1_800_000_000_000);
const SECOND: u64 = UnixMillis::SECOND;

fn numbers() -> PlanNumbers {
    PlanNumbers {
        canary: 2,
        wave: 10,
        per_minute: 60,
        jitter_seconds: 0,
        soak_seconds: 30,
        patience_seconds: 100,
        max_failed_percent: 10,
        min_done_percent: 80,
    }
}

fn plan() -> Plan {
    Plan::checked(numbers()).unwrap()
}

fn facts() -> CampaignFacts {
    CampaignFacts {
        wave: 1,
        begins: START,
        tally: Tally::default(),
        forgiven: 0,
        gate_open: false,
        waiting: 100,
        open: 0,
        last_release: None,
        oldest_open: None,
    }
}

fn wave(number: u32, tally: Tally) -> CampaignFacts {
    CampaignFacts { wave: number, tally, open: tally.offered, last_release: Some(START), ..facts() }
}

fn at(seconds: u64) -> UnixMillis {
    START.plus(seconds * SECOND)
}

fn waits(decision: Decision) -> Pause {
    match decision {
        Decision::Wait { pause, .. } => pause,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_canary_is_asked_first_and_alone_at_the_rate_of_the_plan() {
    assert_eq!(decide(&plan(), &facts(), START), Decision::Release { count: 1 });
    let one = wave(1, Tally { offered: 1, ..Tally::default() });
    assert_eq!(waits(decide(&plan(), &one, START)), Pause::Rate);
    assert_eq!(decide(&plan(), &one, at(1)), Decision::Release { count: 1 });
    let both = CampaignFacts { oldest_open: Some(START), ..wave(1, Tally { offered: 2, ..Tally::default() }) };
    assert_eq!(decide(&plan(), &both, at(5)), Decision::Wait { pause: Pause::Answers, until: at(100) });
}

#[test]
fn a_wave_that_did_well_is_followed_by_the_next_after_the_soak() {
    let done = wave(1, Tally { done: 2, ..Tally::default() });
    assert_eq!(decide(&plan(), &done, at(29)), Decision::Wait { pause: Pause::Soak, until: at(30) });
    assert_eq!(decide(&plan(), &done, at(30)), Decision::NextWave);
}

#[test]
fn one_failure_more_than_the_plan_allows_stops_it_before_the_wave_is_over() {
    let one = wave(2, Tally { offered: 3, done: 1, failed: 1, ..Tally::default() });
    assert_eq!(decide(&plan(), &one, at(60)), Decision::Release { count: 2 });
    let two = wave(2, Tally { failed: 2, ..one.tally });
    assert_eq!(decide(&plan(), &two, at(60)), Decision::Stop { failed: 2, of: 10 });
    let forgiven = CampaignFacts { forgiven: 2, ..two };
    assert!(matches!(decide(&plan(), &forgiven, at(60)), Decision::Release { .. }), "somebody decided to go on");
}

#[test]
fn devices_that_are_silent_open_no_gate_and_fail_nothing() {
    let silent = wave(2, Tally { offered: 5, silent: 5, done: 5, ..Tally::default() });
    assert_eq!(waits(decide(&plan(), &silent, at(500))), Pause::Gate);
    assert_eq!(decide(&plan(), &CampaignFacts { gate_open: true, ..silent }, at(500)), Decision::NextWave);
    let last = CampaignFacts { waiting: 0, ..silent };
    assert_eq!(waits(decide(&plan(), &last, at(500))), Pause::CatchingUp);
    let over = CampaignFacts { waiting: 0, ..wave(2, Tally { done: 9, skipped: 1, ..Tally::default() }) };
    assert_eq!(decide(&plan(), &over, at(500)), Decision::Complete);
}

#[test]
fn a_wave_that_is_larger_than_its_changed_plan_is_judged_by_its_own_size_and_takes_nobody_further() {
    let smaller = Plan::checked(PlanNumbers { wave: 4, ..numbers() }).unwrap();
    let taken = wave(2, Tally { offered: 2, done: 6, ..Tally::default() });
    let facts = CampaignFacts { oldest_open: Some(START), ..taken };
    assert_eq!(waits(decide(&smaller, &facts, at(1))), Pause::Answers);
    let thirty = Plan::checked(PlanNumbers { wave: 2, max_failed_percent: 30, ..numbers() }).unwrap();
    let failed = wave(2, Tally { done: 9, failed: 1, ..Tally::default() });
    assert_eq!(waits(decide(&thirty, &failed, at(1))), Pause::Soak, "one of ten, not one of two");
}

#[test]
fn a_last_wave_is_as_large_as_what_is_left() {
    let last = CampaignFacts { waiting: 1, ..wave(3, Tally { offered: 2, ..Tally::default() }) };
    assert_eq!(decide(&plan(), &last, at(60)), Decision::Release { count: 1 });
    let failed = CampaignFacts { waiting: 0, ..wave(3, Tally { failed: 1, done: 2, ..Tally::default() }) };
    assert_eq!(decide(&plan(), &failed, at(60)), Decision::Stop { failed: 1, of: 3 }, "a tenth of three is none");
}

#[test]
fn a_clock_that_jumps_brings_two_seconds_worth_at_most_and_one_that_goes_back_a_single_release() {
    let large = Plan::checked(PlanNumbers { wave: 100_000, ..numbers() }).unwrap();
    let begun = CampaignFacts { waiting: 90_000, ..wave(2, Tally { offered: 10, ..Tally::default() }) };
    assert_eq!(decide(&large, &begun, at(86_400 * 365)), Decision::Release { count: 2 });
    assert_eq!(decide(&large, &begun, START.minus(86_400 * SECOND)), Decision::Release { count: 1 });
    let soaked = wave(1, Tally { done: 2, ..Tally::default() });
    assert_eq!(
        decide(&plan(), &soaked, START.minus(86_400 * SECOND)),
        Decision::NextWave,
        "no campaign hangs for a day"
    );
}

#[test]
fn a_wave_begins_late_by_its_jitter_and_never_later() {
    let plan = Plan::checked(PlanNumbers { jitter_seconds: 60, ..numbers() }).unwrap();
    assert!((0..10_000_u64).all(|random| plan.delay(random * 7_919) <= 60 * SECOND));
    let begins = CampaignFacts { begins: at(40), ..facts() };
    assert_eq!(decide(&plan, &begins, START), Decision::Wait { pause: Pause::Jitter, until: at(40) });
    let far = CampaignFacts { begins: at(86_400), ..facts() };
    assert!(matches!(decide(&plan, &far, START), Decision::Release { .. }), "the clock went back since it was drawn");
}

#[test]
fn a_number_out_of_range_is_named() {
    for (field, wrong) in [
        ("canary", PlanNumbers { canary: 0, ..numbers() }),
        ("wave", PlanNumbers { wave: 1_000_001, ..numbers() }),
        ("per_minute", PlanNumbers { per_minute: 0, ..numbers() }),
        ("patience_seconds", PlanNumbers { patience_seconds: 0, ..numbers() }),
        ("max_failed_percent", PlanNumbers { max_failed_percent: 101, ..numbers() }),
    ] {
        assert_eq!(Plan::checked(wrong).unwrap_err().field, field);
    }
}

#[test]
fn an_estimate_adds_up() {
    let found = estimate(&plan(), 102, 10);
    // 102 releases at one a second, ten pauses of 30 s, eleven answers of 10 s.
    let expected = Estimate {
        waves: 11,
        peak_per_minute: 10,
        expected_seconds: 102 + 300 + 110,
        longest_seconds: 102 + 300 + 1_100,
    };
    assert_eq!(found, expected);
    assert_eq!(estimate(&plan(), 0, 10).waves, 0);
}

/// A device that is asked answers after a while, fails, or sleeps for ever.
#[derive(Clone, Copy, Debug)]
enum Nature {
    Answers(u64),
    Fails(u64),
    Sleeps,
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        8 => (0_u64..150).prop_map(Nature::Answers),
        1 => (0_u64..150).prop_map(Nature::Fails),
        1 => Just(Nature::Sleeps),
    ]
}

/// One device that was asked: when, in which wave, and what it is like.
type Asked = (UnixMillis, u32, Nature);

fn counted(count: usize) -> u64 {
    u64::try_from(count).unwrap()
}

fn ended(asked: &Asked, now: UnixMillis) -> Option<bool> {
    match asked.2 {
        Nature::Answers(after) if now >= asked.0.plus(after * SECOND) => Some(true),
        Nature::Fails(after) if now >= asked.0.plus(after * SECOND) => Some(false),
        _ => None,
    }
}

fn tally(plan: &Plan, asked: &[Asked], wave: u32, now: UnixMillis) -> Tally {
    let mut tally = Tally::default();
    for one in asked.iter().filter(|one| one.1 == wave) {
        match ended(one, now) {
            Some(true) => tally.done += 1,
            Some(false) => tally.failed += 1,
            None => {
                tally.offered += 1;
                tally.silent += u64::from(one.0 <= plan.silent_since(now));
            }
        }
    }
    tally
}

proptest! {
    /// A campaign acted out second by second: it asks nobody twice, keeps to wave and rate, and always comes to an end.
    #[test]
    fn a_campaign_keeps_to_its_plan_and_comes_to_an_end(
        devices in prop::collection::vec(nature(), 1..120),
        canary in 1_u32..5,
        wave_size in 1_u32..40,
        per_minute in 1_u32..400,
    ) {
        let plan = Plan::checked(PlanNumbers { canary, wave: wave_size, per_minute, ..numbers() }).unwrap();
        let (mut asked, mut wave, mut forgiven, mut last): (Vec<Asked>, _, _, _) = (Vec::new(), 1, 0, None);
        let mut gate_open = false;
        for second in 0..200_000 {
            let now = at(second);
            let tallied = tally(&plan, &asked, wave, now);
            let open = asked.iter().filter(|one| ended(one, now).is_none());
            let facts = CampaignFacts {
                wave,
                begins: START,
                tally: tallied,
                forgiven,
                gate_open,
                waiting: counted(devices.len() - asked.len()),
                open: counted(open.clone().count()),
                last_release: last,
                oldest_open: open.clone().map(|one| one.0).filter(|at| *at > plan.silent_since(now)).min(),
            };
            match decide(&plan, &facts, now) {
                Decision::Release { count } => {
                    prop_assert!(counted(asked.len()) + u64::from(count) <= counted(devices.len()));
                    prop_assert!(tallied.taken() + u64::from(count) <= u64::from(plan.size(wave)));
                    for _ in 0..count {
                        asked.push((now, wave, devices[asked.len()]));
                    }
                    last = Some(now);
                    let lately = asked.iter().filter(|one| one.0.plus(60 * SECOND) > now).count();
                    prop_assert!(counted(lately) <= u64::from(per_minute) + u64::from(per_minute).div_ceil(30) + 1);
                }
                Decision::NextWave => { wave += 1; forgiven = 0; gate_open = false; }
                // Somebody looks and goes on.
                Decision::Stop { .. } => forgiven = tallied.failed,
                Decision::Wait { pause: Pause::Gate, .. } => gate_open = true,
                Decision::Wait { pause: Pause::CatchingUp, .. } => {
                    let sleeps = |one: &&Asked| matches!(one.2, Nature::Sleeps);
                    if open.clone().all(|one| sleeps(&one)) {
                        prop_assert_eq!(asked.len(), devices.len());
                        return Ok(());
                    }
                }
                Decision::Complete => {
                    prop_assert_eq!(asked.len(), devices.len());
                    prop_assert_eq!(open.count(), 0);
                    return Ok(());
                }
                Decision::Wait { .. } => {}
            }
        }
        prop_assert!(false, "it does not end");
    }
}
