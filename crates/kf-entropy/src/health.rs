//! The tests, one sample at a time.

use core::fmt;

use crate::assessment::Cutoffs;
use crate::evidence::Counts;

/// Samples that must pass before the first may be used, and again on demand (SP 800-90B section 4.3).
pub const START_UP_SAMPLES: u16 = 1_024;

/// The longest period that the period test sees.
pub const MAX_PERIOD: usize = 32;

/// What broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One sample over and over (section 4.4.1).
    Repetition,
    /// One sample far too often within a window (section 4.4.2).
    Proportion,
    /// The samples go round in a circle of at most [`MAX_PERIOD`].
    Period,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repetition => "the noise source repeats one sample",
            Self::Proportion => "the noise source has lost entropy",
            Self::Period => "the noise source repeats itself",
        })
    }
}

impl core::error::Error for Fault {}

/// What a sample that passed may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// For nothing: so many more must pass first.
    StartUp {
        /// Samples still to come.
        remaining: u16,
    },
    /// For conditioning.
    Usable,
}

/// The continuous tests of one source. They begin with the start-up test, and stay failed once they have failed, until
/// [`HealthTests::restart`]. They hold raw noise, which Debug does not show.
pub struct HealthTests {
    cutoffs: Cutoffs,
    fault: Option<Fault>,
    /// Samples of the start-up or on-demand test still to come.
    remaining: u16,
    /// The newest sample and how often it came in a row; 0 before the first.
    last: u8,
    run: u16,
    /// The first sample of the window, how often it came, samples still to come.
    first: u8,
    occurrences: u16,
    window_left: u16,
    /// The newest samples, a ring, and per distance the samples in a row that equal the one at that distance.
    ring: [u8; MAX_PERIOD],
    newest: usize,
    filled: usize,
    matches: [u16; MAX_PERIOD],
    counts: Counts,
}

impl fmt::Debug for HealthTests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HealthTests").field(&self.fault).field(&self.counts).finish()
    }
}

impl HealthTests {
    /// The tests of a source that has just been switched on.
    #[must_use]
    pub const fn new(cutoffs: Cutoffs) -> Self {
        let counts = Counts { samples: 0, start_ups: 1, repetition_faults: 0, proportion_faults: 0, period_faults: 0 };
        Self {
            cutoffs,
            fault: None,
            remaining: START_UP_SAMPLES,
            last: 0,
            run: 0,
            first: 0,
            occurrences: 0,
            window_left: 0,
            ring: [0; MAX_PERIOD],
            newest: 0,
            filled: 0,
            matches: [0; MAX_PERIOD],
            counts,
        }
    }

    /// Tests one raw sample; of a binary source, 0 or 1.
    ///
    /// # Errors
    /// The [`Fault`] that was found, now or earlier: the sample and its like must not be used.
    pub fn test(&mut self, sample: u8) -> Result<Progress, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.counts.samples = self.counts.samples.saturating_add(1);
        // Each test sees every sample, whatever the others say.
        let (repeats, is_frequent, circles) = (self.repeats(sample), self.is_frequent(sample), self.circles(sample));
        let count = |counter: &mut u32, has_failed: bool| {
            *counter = counter.saturating_add(u32::from(has_failed));
        };
        count(&mut self.counts.repetition_faults, repeats);
        count(&mut self.counts.proportion_faults, is_frequent);
        count(&mut self.counts.period_faults, circles);
        self.fault = if repeats {
            Some(Fault::Repetition)
        } else if is_frequent {
            Some(Fault::Proportion)
        } else if circles {
            Some(Fault::Period)
        } else {
            None
        };
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.remaining == 0 {
            return Ok(Progress::Usable);
        }
        self.remaining -= 1;
        Ok(Progress::StartUp { remaining: self.remaining })
    }

    /// Section 4.4.1.
    const fn repeats(&mut self, sample: u8) -> bool {
        if self.run > 0 && sample == self.last {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = sample;
            self.run = 1;
        }
        self.run >= self.cutoffs.repetition()
    }

    /// Section 4.4.2.
    const fn is_frequent(&mut self, sample: u8) -> bool {
        if self.window_left == 0 {
            self.first = sample;
            self.occurrences = 1;
            self.window_left = self.cutoffs.window() - 1;
            return false;
        }
        self.window_left -= 1;
        if sample == self.first {
            self.occurrences += 1;
        }
        self.occurrences >= self.cutoffs.proportion()
    }

    /// For every distance d the repetition count test of "equals the sample d before": whatever the past, a sample
    /// equals a given one with probability at most 2^-H.
    fn circles(&mut self, sample: u8) -> bool {
        let mut has_failed = false;
        let (newer, older) = (self.ring.iter().take(self.newest).rev(), self.ring.iter().skip(self.newest).rev());
        for (before, matches) in newer.chain(older).take(self.filled).zip(self.matches.iter_mut()) {
            *matches = if *before == sample { matches.saturating_add(1) } else { 0 };
            has_failed |= *matches >= self.cutoffs.period() - 1;
        }
        if let Some(place) = self.ring.get_mut(self.newest) {
            *place = sample;
        }
        self.newest = (self.newest + 1) % MAX_PERIOD;
        self.filled = (self.filled + 1).min(MAX_PERIOD);
        has_failed
    }

    /// Whether [`START_UP_SAMPLES`] have passed and nothing has failed since.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        self.fault.is_none() && self.remaining == 0
    }

    /// What was found, if anything was.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Begins the on-demand test (section 4.3): no sample is usable until [`START_UP_SAMPLES`] more have passed. It does
    /// not lift a fault.
    pub const fn test_on_demand(&mut self) {
        self.remaining = START_UP_SAMPLES;
    }

    /// Begins anew after the source has been switched off and on or repaired. The counts go on: faults stay in the
    /// evidence.
    pub fn restart(&mut self) {
        let mut counts = self.counts;
        counts.start_ups = counts.start_ups.saturating_add(1);
        *self = Self { counts, ..Self::new(self.cutoffs) };
    }

    /// The cut-offs in force.
    #[must_use]
    pub const fn cutoffs(&self) -> Cutoffs {
        self.cutoffs
    }

    /// What has been counted since the tests were made.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests;
