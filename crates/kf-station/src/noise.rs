//! The token's random generator behind continuous health tests (SP 800-90B section 4.4): a stuck generator stops the line.

use std::sync::{Arc, Mutex, PoisonError};

use kf_entropy::{Alphabet, Assessment, Cutoffs, HealthTests, START_UP_SAMPLES};
use kf_key::{SecretArray, SecretBytes};

use crate::line::FailReason;
use crate::token::StationToken;

/// What is claimed of a generator whose output is conditioned already: far less than it has, so that only a broken one fails.
/// One false alarm in 2^30.
const ASSESSMENT: Assessment = Assessment { alphabet: Alphabet::Octet, millibits: 4_000, alpha: 30 };

/// A generator whose every octet is tested.
pub(crate) struct Noise {
    token: Arc<dyn StationToken>,
    tests: Mutex<HealthTests>,
}

impl Noise {
    /// Runs the start-up test.
    ///
    /// # Errors
    /// [`FailReason::Noise`], [`FailReason::Token`].
    pub(crate) fn start(token: Arc<dyn StationToken>) -> Result<Self, FailReason> {
        let cutoffs = Cutoffs::new(ASSESSMENT).map_err(|_assessment| FailReason::Bug)?;
        let noise = Self { token, tests: Mutex::new(HealthTests::new(cutoffs)) };
        let mut left = usize::from(START_UP_SAMPLES);
        while left > 0 {
            let now = left.min(256);
            let _tested: SecretBytes = noise.octets(now)?;
            left -= now;
        }
        Ok(noise)
    }

    fn octets(&self, count: usize) -> Result<SecretBytes, FailReason> {
        let mut drawn = Ok(());
        let octets = SecretBytes::fill(count, |out| drawn = self.token.fill_random(out));
        drawn.map_err(|_token_error| FailReason::Token)?;
        let mut tests = self.tests.lock().unwrap_or_else(PoisonError::into_inner);
        // Exposed to the health tests.
        for octet in octets.expose() {
            let _progress = tests.test(*octet).map_err(|_fault| FailReason::Noise)?;
        }
        Ok(octets)
    }

    /// Tested secret octets.
    ///
    /// # Errors
    /// [`FailReason::Noise`], for ever after a fault; [`FailReason::Token`].
    pub(crate) fn secret<const N: usize>(&self) -> Result<SecretArray<N>, FailReason> {
        let octets = self.octets(N)?;
        // Exposed to be moved into its type.
        let octets = octets.expose();
        Ok(SecretArray::fill(|out: &mut [u8; N]| out.copy_from_slice(octets)))
    }

    /// Tested octets that are not secret.
    ///
    /// # Errors
    /// As [`Noise::secret`].
    pub(crate) fn public<const N: usize>(&self) -> Result<[u8; N], FailReason> {
        // Exposed: a nonce or a serial number.
        self.secret().map(|octets| *octets.expose())
    }

    /// The same tests over what another source gave: how many of them failed. It stops at the first.
    ///
    /// # Errors
    /// [`FailReason::Bug`].
    pub(crate) fn test(octets: &[u8]) -> Result<u32, FailReason> {
        let cutoffs = Cutoffs::new(ASSESSMENT).map_err(|_assessment| FailReason::Bug)?;
        let mut tests = HealthTests::new(cutoffs);
        Ok(u32::from(octets.iter().any(|octet| tests.test(*octet).is_err())))
    }

    /// Where it comes from.
    pub(crate) fn source(&self) -> &str {
        self.token.source()
    }
}
