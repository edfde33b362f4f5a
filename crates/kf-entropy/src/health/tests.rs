use super::*;
use crate::assessment::{Alphabet, Assessment};

fn cutoffs(alphabet: Alphabet, millibits: u16) -> Cutoffs {
    Cutoffs::new(Assessment { alphabet, millibits, alpha: 30 }).unwrap()
}

/// Good noise for tests: splitmix64.
struct Noise(u64);

impl Noise {
    fn octet(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_be_bytes()[0]
    }
}

fn healthy(cutoffs: Cutoffs, noise: &mut Noise, mask: u8) -> HealthTests {
    let mut tests = HealthTests::new(cutoffs);
    for remaining in (0..START_UP_SAMPLES).rev() {
        assert!(!tests.is_healthy());
        assert_eq!(tests.test(noise.octet() & mask), Ok(Progress::StartUp { remaining }));
    }
    assert!(tests.is_healthy());
    tests
}

/// Feeds samples until a fault; how many it took, and which it was.
fn samples_to_fault(tests: &mut HealthTests, limit: usize, mut sample: impl FnMut(usize) -> u8) -> (usize, Fault) {
    for count in 0..limit {
        if let Err(fault) = tests.test(sample(count)) {
            return (count + 1, fault);
        }
    }
    panic!("no fault within {limit} samples");
}

#[test]
fn good_noise_passes_a_million_samples_and_none_is_usable_before_start_up_is_over() {
    let mut noise = Noise(7);
    let mut tests = healthy(cutoffs(Alphabet::Octet, 7_000), &mut noise, 0xff);
    for _ in 0..1_000_000 {
        assert_eq!(tests.test(noise.octet()), Ok(Progress::Usable));
    }
    assert_eq!(tests.counts().samples, 1_000_000 + u64::from(START_UP_SAMPLES));
    let mut tests = healthy(cutoffs(Alphabet::Binary, 900), &mut noise, 1);
    for _ in 0..1_000_000 {
        assert_eq!(tests.test(noise.octet() & 1), Ok(Progress::Usable));
    }
}

#[test]
fn a_stuck_source_is_caught_within_the_repetition_cutoff() {
    for (alphabet, millibits, mask) in [(Alphabet::Octet, 4_000, 0xff), (Alphabet::Binary, 500, 1)] {
        let cutoffs = cutoffs(alphabet, millibits);
        let mut stuck = HealthTests::new(cutoffs);
        let expected = (usize::from(cutoffs.repetition()), Fault::Repetition);
        assert_eq!(samples_to_fault(&mut stuck, 10_000, |_| 0), expected);

        let mut noise = Noise(11);
        let mut later = healthy(cutoffs, &mut noise, mask);
        let (samples, fault) = samples_to_fault(&mut later, 10_000, |_| 1);
        assert_eq!(fault, Fault::Repetition);
        assert!(samples <= expected.0);
    }
}

#[test]
fn a_biased_source_is_caught_within_two_windows() {
    let cutoffs = cutoffs(Alphabet::Octet, 4_000);
    let mut noise = Noise(13);
    let mut tests = healthy(cutoffs, &mut noise, 0xff);
    // Every second sample is one value: one bit of min-entropy instead of four. A window may begin with another value.
    let (samples, fault) = samples_to_fault(&mut tests, 16 * 512, |count| match count % 2 {
        0 => 0x55,
        _ => noise.octet() | 0x80,
    });
    assert_eq!(fault, Fault::Proportion);
    assert!(samples <= 2 * 512, "{samples}");
}

#[test]
fn a_source_that_repeats_itself_is_caught_within_a_period_and_the_cutoff() {
    for (alphabet, millibits, mask) in [(Alphabet::Octet, 7_000, 0xff), (Alphabet::Binary, 900, 1)] {
        let cutoffs = cutoffs(alphabet, millibits);
        for period in 2..=MAX_PERIOD {
            let mut noise = Noise(17);
            let mut tests = healthy(cutoffs, &mut noise, mask);
            let mut circle: std::vec::Vec<u8> = (0..period).map(|_| noise.octet() & mask).collect();
            circle[0] ^= u8::from(circle[0] == circle[1]);
            let (samples, _) = samples_to_fault(&mut tests, 10_000, |count| circle[count % period]);
            assert!(samples <= period + usize::from(cutoffs.period()), "{period}: {samples}");
        }
    }
    let mut alternating = HealthTests::new(cutoffs(Alphabet::Binary, 900));
    let (_, fault) = samples_to_fault(&mut alternating, 10_000, |count| u8::from(count % 2 == 0));
    assert_eq!(fault, Fault::Period);
}

#[test]
fn a_failed_source_stays_failed_until_it_is_restarted_and_then_starts_up_again() {
    let mut noise = Noise(19);
    let mut tests = HealthTests::new(cutoffs(Alphabet::Octet, 4_000));
    samples_to_fault(&mut tests, 10_000, |_| 0);
    for _ in 0..5_000 {
        assert_eq!(tests.test(noise.octet()), Err(Fault::Repetition));
    }
    tests.test_on_demand();
    assert_eq!(tests.test(noise.octet()), Err(Fault::Repetition), "an on-demand test lifts no fault");
    assert_eq!(tests.fault(), Some(Fault::Repetition));
    let samples = tests.counts().samples;
    tests.restart();
    assert!(!tests.is_healthy());
    for _ in 0..START_UP_SAMPLES {
        let _ = tests.test(noise.octet()).unwrap();
    }
    assert!(tests.is_healthy());
    let counts = tests.counts();
    assert_eq!((counts.start_ups, counts.repetition_faults), (2, 1));
    assert_eq!(counts.samples, samples + u64::from(START_UP_SAMPLES));
}

#[test]
fn an_on_demand_test_holds_samples_back_until_it_has_passed() {
    let mut noise = Noise(23);
    let mut tests = healthy(cutoffs(Alphabet::Octet, 4_000), &mut noise, 0xff);
    assert_eq!(tests.test(noise.octet()), Ok(Progress::Usable));
    tests.test_on_demand();
    assert_eq!(tests.test(noise.octet()), Ok(Progress::StartUp { remaining: START_UP_SAMPLES - 1 }));
    assert!(!tests.is_healthy());
}

#[test]
fn the_first_sample_of_a_window_counts_and_the_next_window_begins_afresh() {
    let cutoffs = cutoffs(Alphabet::Octet, 4_000);
    let mut tests = HealthTests::new(cutoffs);
    let one_below = usize::from(cutoffs.proportion()) - 1;
    // One occurrence below the cut-off in each of three windows, spread out: never a fault.
    let mut noise = Noise(29);
    for _ in 0..3 {
        for place in 0..512 {
            let is_marked = place % 2 == 0 && place / 2 < one_below;
            let sample = if is_marked { 0 } else { noise.octet() | 1 };
            assert!(tests.test(sample).is_ok());
        }
    }
    // One more is a fault, at that very sample.
    let (samples, fault) = samples_to_fault(&mut tests, 512, |count| match count % 2 {
        0 => 0,
        _ => noise.octet() | 1,
    });
    assert_eq!((samples, fault), (2 * one_below + 1, Fault::Proportion));
}
