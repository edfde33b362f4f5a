//! From raw noise to seeds.
//!
//! ```text
//! Source<N, Unchecked> --start_up--> Source<N, Healthy> --seed--> Seed<Production>, then keys
//!         ^                                  |
//!         └────────── restart ───────────────┘ (also what is left of a failed start-up)
//! ```
//! The firmware *declares* whether its noise is physical and switched on ([`NoiseState`]): no test can find out.
//! What was declared stands in the evidence, and only [`NoiseState::PhysicalOn`] gives a [`Seed`] for production.
//!
//! Conditioning is HMAC-SHA-256 under a constant key, a vetted conditioning component (SP 800-90B section 3.1.5.1.1),
//! which is also HKDF-Extract (RFC 5869 section 2.2). Every 256 bits of output come from fresh samples with at least
//! 256 + 64 bits of assessed min-entropy, which SP 800-90B section 3.1.5.1.2 and SP 800-90C take for full entropy:
//! ceil(320 / H) samples. There is no generator state between two draws that could be stolen or cloned.

use core::fmt;
use core::marker::PhantomData;

use hmac::{Hmac, KeyInit, Mac};
use kf_entropy::{Cutoffs, Evidence, HealthTests, Progress, START_UP_SAMPLES};
use kf_key::SecretArray;
use sha2::Sha256;
use zeroize::Zeroize;

use crate::record;
use crate::storage::{Flash, Integrity, StorageError, Store};

pub use kf_entropy::{Alphabet, Assessment, AssessmentError, Counts, Fault, NoiseState, SourceId};

/// A noise source: raw samples, before any conditioning by hardware or software.
pub trait Noise {
    /// Why the hardware gave none.
    type Error;

    /// The next raw sample; of a binary source, 0 or 1.
    ///
    /// # Errors
    /// Of the hardware, for example a timeout.
    fn sample(&mut self) -> Result<u8, Self::Error>;
}

/// What the firmware knows about its noise source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Which source, for the evidence.
    pub source: SourceId,
    /// Whether it is physical and on. It is the firmware's word, and it is recorded.
    pub state: NoiseState,
    /// Computed from its assessment in a `const`: [`Cutoffs::new`].
    pub cutoffs: Cutoffs,
}

/// Why there is no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntropyError<E> {
    /// The hardware gave no sample.
    Noise(E),
    /// A health test has failed, now or earlier.
    Unhealthy(Fault),
    /// The noise source was not declared as physical and on: no key for production.
    NotPhysical(NoiseState),
}

impl<E> fmt::Display for EntropyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Noise(_) => "the noise source gave no sample",
            Self::Unhealthy(_) => "a health test of the noise source has failed",
            Self::NotPhysical(_) => "the noise source is not declared as physical and on: it makes no production key",
        })
    }
}

impl<E: fmt::Debug> core::error::Error for EntropyError<E> {}

/// Why a source was not found to differ from its last start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartError<F> {
    /// It gave the same samples.
    Repeats,
    /// The store did not say or did not keep.
    Storage(StorageError<F>),
}

impl<F> fmt::Display for RestartError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repeats => "the noise source gave the same samples after the last power-on",
            Self::Storage(_) => "the storage did not keep the digest of the start-up samples",
        })
    }
}

impl<F: fmt::Debug> core::error::Error for RestartError<F> {}

/// Not tested since it was switched on.
#[derive(Debug)]
pub struct Unchecked(());

/// The start-up test has passed.
#[derive(Debug)]
pub struct Healthy(());

/// A noise source with its health tests.
pub struct Source<N, S = Unchecked> {
    noise: N,
    source: SourceId,
    state: NoiseState,
    tests: HealthTests,
    start_up: [u8; 16],
    is_checked: PhantomData<S>,
}

impl<N, S> fmt::Debug for Source<N, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.state).field(&self.tests).finish()
    }
}

/// A start-up test that failed, with the source for another try once its cause has been removed.
pub struct StartUpFailed<N: Noise> {
    /// The source, unchecked.
    pub source: Source<N, Unchecked>,
    /// Why.
    pub error: EntropyError<N::Error>,
}

impl<N: Noise<Error: fmt::Debug>> fmt::Debug for StartUpFailed<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StartUpFailed").field(&self.error).finish()
    }
}

impl<N: Noise> Source<N, Unchecked> {
    /// A source that has just been switched on.
    #[must_use]
    pub const fn new(noise: N, profile: Profile) -> Self {
        let Profile { source, state, cutoffs } = profile;
        Self { noise, source, state, tests: HealthTests::new(cutoffs), start_up: [0; 16], is_checked: PhantomData }
    }

    /// Runs the start-up test over 1,024 samples, which are used for nothing else (SP 800-90B section 4.3).
    ///
    /// # Errors
    /// [`StartUpFailed`], which gives the source back.
    #[allow(clippy::result_large_err, reason = "the source is given back, and there is no heap to put it on")]
    pub fn start_up(mut self) -> Result<Source<N, Healthy>, StartUpFailed<N>> {
        match self.run_start_up() {
            Ok(()) => Ok(self.into_state()),
            Err(error) => {
                self.tests.restart();
                Err(StartUpFailed { source: self, error })
            }
        }
    }
}

impl<N: Noise> Source<N, Healthy> {
    /// A seed for a key that is used in production.
    ///
    /// # Errors
    /// [`EntropyError::NotPhysical`] unless the source was declared as physical and on; else those of
    /// [`random`](Self::random).
    pub fn seed(&mut self) -> Result<Seed<Production>, EntropyError<N::Error>> {
        if self.state != NoiseState::PhysicalOn {
            return Err(EntropyError::NotPhysical(self.state));
        }
        self.random().map(|octets| Seed { octets, evidence: self.evidence(), grade: PhantomData })
    }

    /// A seed for a key that must never leave the laboratory: the noise may be anything.
    ///
    /// # Errors
    /// Those of [`random`](Self::random).
    pub fn trial_seed(&mut self) -> Result<Seed<Trial>, EntropyError<N::Error>> {
        self.random().map(|octets| Seed { octets, evidence: self.evidence(), grade: PhantomData })
    }

    /// `L` random octets, each 32 of them from ceil(320 / H) fresh samples.
    ///
    /// # Errors
    /// [`EntropyError::Unhealthy`] or [`EntropyError::Noise`]; nothing of what was drawn is released, and after the
    /// former nothing is ever released again before a [`restart`](Self::restart).
    pub fn random<const L: usize>(&mut self) -> Result<SecretArray<L>, EntropyError<N::Error>> {
        SecretArray::try_fill(|octets| {
            for chunk in octets.chunks_mut(32) {
                let mut block = self.condition()?;
                chunk.iter_mut().zip(block.iter()).for_each(|(place, octet)| *place = *octet);
                block.zeroize();
            }
            Ok(())
        })
    }

    /// A nonce for one wrapped key.
    ///
    /// # Errors
    /// As [`random`](Self::random).
    pub fn nonce(&mut self) -> Result<Nonce, EntropyError<N::Error>> {
        // Not secret: it stands beside the ciphertext.
        self.random().map(|octets| Nonce(*octets.expose()))
    }

    /// Runs the on-demand test (SP 800-90B section 4.3).
    ///
    /// # Errors
    /// As [`random`](Self::random).
    pub fn test_on_demand(&mut self) -> Result<(), EntropyError<N::Error>> {
        self.tests.test_on_demand();
        self.run_start_up()
    }

    /// Compares the samples of the start-up test with those of the last start, of which the store keeps a digest, and
    /// keeps the new one. A source that gives the same samples after every power-on, as a pseudo-random generator with a
    /// constant seed does, passes every other test.
    ///
    /// # Errors
    /// [`RestartError::Repeats`], and the source is then unusable.
    pub fn compare_with_last_start<F: Flash, I: Integrity>(
        self,
        store: &mut Store<F, I>,
    ) -> Result<Self, RestartError<F::Error>> {
        let last = store.read_array::<16>(record::START_UP_DIGEST).map_err(RestartError::Storage)?;
        if last == Some(self.start_up) {
            return Err(RestartError::Repeats);
        }
        store.put(record::START_UP_DIGEST, &self.start_up).map_err(RestartError::Storage)?;
        Ok(self)
    }

    fn condition(&mut self) -> Result<[u8; 32], EntropyError<N::Error>> {
        let samples = samples_per_block(self.tests.cutoffs().assessment().millibits);
        let mut mac = conditioner(b"keyfleet entropy v1");
        for _ in 0..samples {
            let mut sample = [self.noise.sample().map_err(EntropyError::Noise)?];
            match self.tests.test(sample[0]) {
                Ok(Progress::Usable) => mac.update(&sample),
                // An on-demand test that was cut short: what comes before its end is not usable.
                Ok(Progress::StartUp { .. }) => self.run_start_up()?,
                Err(fault) => return Err(EntropyError::Unhealthy(fault)),
            }
            sample.zeroize();
        }
        Ok(mac.finalize().into_bytes().into())
    }
}

/// ceil((256 + 64) / H). H is at least 19 thousandths of a bit, so at most 16,843.
const fn samples_per_block(millibits: u16) -> u32 {
    #[allow(clippy::as_conversions, reason = "lossless; `u32::from` is not const")]
    let millibits = if millibits == 0 { 1 } else { millibits as u32 };
    (256_u32 + 64).saturating_mul(1_000).div_ceil(millibits)
}

fn conditioner(key: &[u8; 19]) -> Hmac<Sha256> {
    // HMAC takes keys of any length (FIPS 198-1); a key of one block needs no branch that fails.
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(place, octet)| *place = *octet);
    Hmac::<Sha256>::new(&block.into())
}

impl<N: Noise, S> Source<N, S> {
    fn run_start_up(&mut self) -> Result<(), EntropyError<N::Error>> {
        let mut mac = conditioner(b"keyfleet restart v1");
        for _ in 0..START_UP_SAMPLES {
            let sample = self.noise.sample().map_err(EntropyError::Noise)?;
            match self.tests.test(sample) {
                Ok(Progress::StartUp { remaining: 0 }) => {
                    mac.update(&[sample]);
                    let digest: [u8; 32] = mac.finalize().into_bytes().into();
                    self.start_up.iter_mut().zip(digest).for_each(|(place, octet)| *place = octet);
                    return Ok(());
                }
                Ok(_) => mac.update(&[sample]),
                Err(fault) => return Err(EntropyError::Unhealthy(fault)),
            }
        }
        Ok(())
    }

    fn into_state<T>(self) -> Source<N, T> {
        let Self { noise, source, state, tests, start_up, is_checked: _ } = self;
        Source { noise, source, state, tests, start_up, is_checked: PhantomData }
    }

    /// Gives the source back unchecked, after it was switched off and on or repaired. Faults stay in the evidence.
    #[must_use]
    pub fn restart(mut self) -> Source<N, Unchecked> {
        self.tests.restart();
        self.into_state()
    }

    /// Takes note that the state of the noise source has changed, for example because the radio was switched on or off.
    /// It is never better than what holds for the samples already drawn: those are spent.
    pub fn declare(&mut self, state: NoiseState) {
        self.state = state;
    }

    /// What can be shown of this source.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        Evidence { source: self.source, state: self.state, cutoffs: self.tests.cutoffs(), counts: self.tests.counts() }
    }
}

/// 96 fresh random bits, spent by wrapping one key.
#[derive(Debug)]
pub struct Nonce([u8; 12]);

impl Nonce {
    /// The octets, for an implementation of [`WrapKey`](crate::wrap::WrapKey).
    #[must_use]
    pub const fn into_octets(self) -> [u8; 12] {
        self.0
    }

    #[cfg(test)]
    pub(crate) const fn of_test(octets: [u8; 12]) -> Self {
        Self(octets)
    }
}

/// For keys used in production.
#[derive(Debug)]
pub struct Production(());

/// For keys that must never leave the laboratory.
#[derive(Debug)]
pub struct Trial(());

/// 32 octets of full entropy, spent by making one key of them. There is no other way to make a key, and no way to make
/// a seed but a [`Source`] that is [`Healthy`].
pub struct Seed<G = Production> {
    octets: SecretArray<32>,
    evidence: Evidence,
    grade: PhantomData<G>,
}

impl<G> Seed<G> {
    /// Under what circumstances it was drawn.
    #[must_use]
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The octets, for the key they become.
    #[must_use]
    pub(crate) fn into_octets(self) -> SecretArray<32> {
        self.octets
    }
}

impl<G> fmt::Debug for Seed<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

#[cfg(test)]
pub(crate) mod tests;
