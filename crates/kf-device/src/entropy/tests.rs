use super::*;
use crate::storage::simulated::SimulatedFlash;
use crate::storage::{Checksum, Geometry, Medium};

/// A noise source for tests: splitmix64, and its ways to break.
pub(crate) struct TestNoise {
    state: u64,
    stuck_after: Option<u32>,
    drawn: u32,
}

impl TestNoise {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed, stuck_after: None, drawn: 0 }
    }

    const fn stuck_after(samples: u32) -> Self {
        Self { state: 1, stuck_after: Some(samples), drawn: 0 }
    }
}

impl Noise for TestNoise {
    type Error = ();

    fn sample(&mut self) -> Result<u8, ()> {
        self.drawn += 1;
        if self.stuck_after.is_some_and(|after| self.drawn > after) {
            return Ok(0x55);
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok((z ^ (z >> 31)).to_be_bytes()[0])
    }
}

pub(crate) fn profile(state: NoiseState) -> Profile {
    let assessment = Assessment { alphabet: Alphabet::Octet, millibits: 4_000, alpha: 30 };
    Profile { source: SourceId([1; 16]), state, cutoffs: Cutoffs::new(assessment).unwrap() }
}

fn healthy(seed: u64, state: NoiseState) -> Source<TestNoise, Healthy> {
    Source::new(TestNoise::new(seed), profile(state)).start_up().unwrap()
}

#[test]
fn a_production_seed_needs_noise_that_was_declared_physical_and_on() {
    for state in [NoiseState::PseudoRandomOnly, NoiseState::Unknown] {
        let mut source = healthy(1, state);
        assert_eq!(source.seed().map(|_| ()), Err(EntropyError::NotPhysical(state)));
        assert_eq!(source.trial_seed().unwrap().evidence().state, state);
    }
    let mut source = healthy(1, NoiseState::PhysicalOn);
    let evidence = *source.seed().unwrap().evidence();
    assert_eq!(evidence.state, NoiseState::PhysicalOn);
    // The start-up test, and ceil(320 / 4) samples.
    assert_eq!(evidence.counts.samples, 1_024 + 80);
    source.declare(NoiseState::PseudoRandomOnly);
    assert!(source.seed().is_err());
}

#[test]
fn every_thirty_two_octets_cost_the_samples_that_sp_800_90b_asks_for() {
    assert_eq!(samples_per_block(8_000), 40);
    assert_eq!(samples_per_block(7_230), 45);
    assert_eq!(samples_per_block(500), 640);
    assert_eq!(samples_per_block(19), 16_843);
    let mut source = healthy(1, NoiseState::PhysicalOn);
    let before = source.evidence().counts.samples;
    source.random::<33>().unwrap();
    assert_eq!(source.evidence().counts.samples - before, 160);
}

#[test]
fn draws_differ_from_each_other_and_depend_on_every_sample() {
    let mut source = healthy(1, NoiseState::PhysicalOn);
    let (first, second) = (source.random::<64>().unwrap(), source.random::<64>().unwrap());
    assert!(!first.equals(&second));
    assert_ne!(first.expose()[..32], first.expose()[32..]);
    let other = healthy(2, NoiseState::PhysicalOn).random::<64>().unwrap();
    assert!(!first.equals(&other));
}

#[test]
fn a_source_that_is_stuck_never_becomes_healthy_and_is_given_back() {
    let failed = Source::new(TestNoise::stuck_after(0), profile(NoiseState::PhysicalOn)).start_up().unwrap_err();
    assert_eq!(failed.error, EntropyError::Unhealthy(Fault::Repetition));
    assert_eq!(failed.source.evidence().counts.repetition_faults, 1);
    assert!(failed.source.start_up().is_err());
}

#[test]
fn a_source_that_sticks_later_gives_nothing_more_until_it_is_restarted() {
    let noise = TestNoise::stuck_after(1_024 + 100);
    let mut source = Source::new(noise, profile(NoiseState::PhysicalOn)).start_up().unwrap();
    assert!(source.seed().is_ok());
    let unhealthy = Err(EntropyError::Unhealthy(Fault::Repetition));
    assert_eq!(source.seed().map(|_| ()), unhealthy);
    source.noise = TestNoise::new(9);
    assert_eq!(source.seed().map(|_| ()), unhealthy, "good noise does not heal it");
    assert_eq!(source.random::<16>().map(|_| ()), unhealthy);
    assert_eq!(source.test_on_demand(), unhealthy);
    let mut source = source.restart().start_up().unwrap();
    assert!(source.seed().is_ok());
    assert_eq!(source.evidence().counts.repetition_faults, 1, "the fault stays in the evidence");
    assert_eq!(source.test_on_demand(), Ok(()));
}

#[test]
fn a_source_that_repeats_itself_after_every_power_on_is_found_at_the_second() {
    let flash = SimulatedFlash::<2048>::new(Geometry { word: 4, sector: 1024, sectors: 2 }, Medium::Raw);
    let mut store = Store::format(flash, Checksum).unwrap();
    let mut start = |seed| healthy(seed, NoiseState::PhysicalOn).compare_with_last_start(&mut store).map(|_| ());
    assert_eq!(start(1), Ok(()));
    assert_eq!(start(2), Ok(()));
    assert_eq!(start(2), Err(RestartError::Repeats));
    assert_eq!(start(2), Err(RestartError::Repeats), "it stays found");
}
