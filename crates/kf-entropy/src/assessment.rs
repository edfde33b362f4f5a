//! From an assessed min-entropy to the cut-offs of the tests.

use core::fmt;

/// What one sample can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// 0 or 1: a window of 1,024 samples (SP 800-90B section 4.4.2).
    Binary,
    /// Up to eight bits: a window of 512 samples.
    Octet,
}

impl Alphabet {
    const fn window(self) -> u16 {
        match self {
            Self::Binary => 1_024,
            Self::Octet => 512,
        }
    }

    const fn max_millibits(self) -> u16 {
        match self {
            Self::Binary => 1_000,
            Self::Octet => 8_000,
        }
    }
}

/// What is known about a noise source from its assessment (SP 800-90B section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// What a sample can be.
    pub alphabet: Alphabet,
    /// The assessed min-entropy of one raw sample, in thousandths of a bit. Round down.
    pub millibits: u16,
    /// The probability of a false alarm is 2 to the power of minus this: 20 to 40 (section 4.4.2).
    pub alpha: u8,
}

/// Why an assessment yields no cut-offs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssessmentError {
    /// No entropy at all.
    NoEntropy,
    /// More entropy than a sample has bits.
    MoreThanTheSampleHolds,
    /// `alpha` is not from 20 to 40.
    Alpha,
    /// So little entropy that the adaptive proportion test could never fail: combine samples before testing.
    TooLittleToTest,
}

impl fmt::Display for AssessmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEntropy => "millibits is 0: a source without entropy makes no keys",
            Self::MoreThanTheSampleHolds => "millibits is above what a sample of this alphabet can hold",
            Self::Alpha => "alpha must be from 20 to 40",
            Self::TooLittleToTest => "the min-entropy is too low for the adaptive proportion test: combine samples",
        })
    }
}

impl core::error::Error for AssessmentError {}

/// The cut-offs that follow from an [`Assessment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoffs {
    assessment: Assessment,
    repetition: u16,
    proportion: u16,
    period: u16,
}

/// The period test looks at this many distances at once, so each has a false-alarm probability that much smaller.
const PERIOD_EXTRA_ALPHA: u32 = 5;

impl Cutoffs {
    /// Computes them. It works in floating point and is meant for a `const`, where it costs a device nothing.
    ///
    /// # Errors
    /// [`AssessmentError`].
    pub const fn new(assessment: Assessment) -> Result<Self, AssessmentError> {
        let Assessment { alphabet, millibits, alpha } = assessment;
        if millibits == 0 {
            return Err(AssessmentError::NoEntropy);
        }
        if millibits > alphabet.max_millibits() {
            return Err(AssessmentError::MoreThanTheSampleHolds);
        }
        if alpha < 20 || alpha > 40 {
            return Err(AssessmentError::Alpha);
        }
        let proportion = proportion_cutoff(alphabet.window(), millibits, alpha);
        if proportion > alphabet.window() {
            return Err(AssessmentError::TooLittleToTest);
        }
        // What the line above lets through has at least 19 millibits, so neither count leaves 16 bits.
        #[allow(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            reason = "bounded above; `from` is not const"
        )]
        let (repetition, period) = (
            run_cutoff(alpha as u32, millibits as u32) as u16,
            run_cutoff(alpha as u32 + PERIOD_EXTRA_ALPHA, millibits as u32) as u16,
        );
        Ok(Self { assessment, repetition, proportion, period })
    }

    /// What they follow from.
    #[must_use]
    pub const fn assessment(&self) -> Assessment {
        self.assessment
    }

    /// The repetition count test fails at this many equal samples in a row (section 4.4.1).
    #[must_use]
    pub const fn repetition(&self) -> u16 {
        self.repetition
    }

    /// The adaptive proportion test fails when the first sample of a window occurs this often in it (section 4.4.2).
    #[must_use]
    pub const fn proportion(&self) -> u16 {
        self.proportion
    }

    /// Samples of one window of the adaptive proportion test.
    #[must_use]
    pub const fn window(&self) -> u16 {
        self.assessment.alphabet.window()
    }

    /// The period test fails when, for one distance, this many samples in a row (less one) equal the sample at that
    /// distance before them.
    #[must_use]
    pub const fn period(&self) -> u16 {
        self.period
    }
}

/// C = 1 + ceil(a / H).
const fn run_cutoff(alpha: u32, millibits: u32) -> u32 {
    1 + (alpha * 1_000).div_ceil(millibits)
}

/// `C = 1 + CRITBINOM(W, 2^-H, 1 - 2^-a)`: the smallest C with P(X >= C) <= 2^-a for X binomial over W samples. Found
/// by bisection; `W + 1` when there is none.
const fn proportion_cutoff(window: u16, millibits: u16, alpha: u8) -> u16 {
    #[allow(clippy::as_conversions, reason = "lossless; `f64::from` is not const")]
    let (trials, h, mut alpha_left) = (window as f64, millibits as f64 / 1_000.0, alpha);
    let mut limit = 1.0;
    while alpha_left > 0 {
        limit /= 2.0;
        alpha_left -= 1;
    }
    let p = power_of_half(h);
    let odds = p / (1.0 - p);
    // The most likely count: all terms are relative to its probability, so that none of the large ones underflows.
    let mut mode = 0.0;
    while mode + 1.0 <= (trials + 1.0) * p {
        mode += 1.0;
    }
    let below = sum_below(trials, odds, mode);
    let total = below + tail(trials, odds, mode, mode);
    let (mut low, mut high) = (mode, trials + 1.0);
    while high - low > 1.0 {
        let half = (high - low) / 2.0;
        let middle = low + (half - half % 1.0);
        if tail(trials, odds, mode, middle) <= limit * total {
            high = middle;
        } else {
            low = middle;
        }
    }
    #[allow(clippy::as_conversions, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 1,025")]
    {
        high as u16
    }
}

/// The sum of P(X = k) / P(X = mode) for k >= `from` >= mode.
const fn tail(trials: f64, odds: f64, mode: f64, from: f64) -> f64 {
    let (mut term, mut k, mut sum) = (1.0, mode, 0.0);
    while k <= trials {
        if k >= from {
            sum += term;
        }
        term *= (trials - k) / (k + 1.0) * odds;
        k += 1.0;
    }
    sum
}

/// The sum of P(X = k) / P(X = mode) for k < mode.
const fn sum_below(trials: f64, odds: f64, mode: f64) -> f64 {
    let (mut term, mut k, mut sum) = (1.0, mode, 0.0);
    while k > 0.0 {
        term *= k / ((trials - k + 1.0) * odds);
        sum += term;
        k -= 1.0;
    }
    sum
}

/// `2^-h` for h from 0 to 8: halvings for the whole bits, the exponential series for the rest.
const fn power_of_half(h: f64) -> f64 {
    let (mut rest, mut result) = (h, 1.0);
    while rest >= 1.0 {
        rest -= 1.0;
        result /= 2.0;
    }
    let x = -rest * core::f64::consts::LN_2;
    let (mut term, mut sum, mut n) = (1.0, 1.0, 1.0);
    // |x| < 0.7: the thirtieth term is far below the precision.
    while n < 30.0 {
        term *= x / n;
        sum += term;
        n += 1.0;
    }
    result * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (alphabet, millibits, then per alpha of 20, 30, 40: repetition, then proportion), computed with other software.
    const TABLE: [(Alphabet, u16, [u16; 3], [u16; 3]); 11] = [
        (Alphabet::Binary, 100, [201, 301, 401], [991, 999, 1_005]),
        (Alphabet::Binary, 200, [101, 151, 201], [941, 952, 961]),
        (Alphabet::Binary, 500, [41, 61, 81], [793, 810, 824]),
        (Alphabet::Binary, 800, [26, 39, 51], [664, 683, 699]),
        (Alphabet::Binary, 1_000, [21, 31, 41], [589, 609, 625]),
        (Alphabet::Octet, 500, [41, 61, 81], [410, 422, 432]),
        (Alphabet::Octet, 1_000, [21, 31, 41], [311, 325, 336]),
        (Alphabet::Octet, 2_000, [11, 16, 21], [177, 190, 201]),
        (Alphabet::Octet, 4_000, [6, 9, 11], [62, 71, 78]),
        (Alphabet::Octet, 6_000, [5, 6, 8], [25, 31, 35]),
        (Alphabet::Octet, 8_000, [4, 5, 6], [13, 16, 19]),
    ];

    #[test]
    fn the_cutoffs_are_those_of_the_table() {
        for (alphabet, millibits, repetition, proportion) in TABLE {
            for (index, alpha) in [20, 30, 40].into_iter().enumerate() {
                let cutoffs = Cutoffs::new(Assessment { alphabet, millibits, alpha }).unwrap();
                assert_eq!(cutoffs.repetition(), repetition[index], "{alphabet:?} {millibits} {alpha}");
                assert_eq!(cutoffs.proportion(), proportion[index], "{alphabet:?} {millibits} {alpha}");
                assert!(cutoffs.period() >= cutoffs.repetition());
            }
        }
    }

    #[test]
    fn more_entropy_and_more_false_alarms_give_lower_cutoffs_over_the_whole_range() {
        for alphabet in [Alphabet::Binary, Alphabet::Octet] {
            let mut last = [u16::MAX; 3];
            for millibits in (1..=alphabet.max_millibits()).step_by(13) {
                for (index, alpha) in [20, 30, 40].into_iter().enumerate() {
                    let Ok(cutoffs) = Cutoffs::new(Assessment { alphabet, millibits, alpha }) else { continue };
                    assert!(cutoffs.proportion() <= last[index], "{alphabet:?} {millibits} {alpha}");
                    assert!((2..=alphabet.window()).contains(&cutoffs.proportion()));
                    last[index] = cutoffs.proportion();
                }
                assert!(last[0] <= last[1] && last[1] <= last[2]);
            }
            assert!(last[2] < alphabet.window());
        }
    }

    #[test]
    fn what_cannot_be_assessed_is_refused() {
        let of = |alphabet, millibits, alpha| Cutoffs::new(Assessment { alphabet, millibits, alpha });
        assert_eq!(of(Alphabet::Octet, 0, 30), Err(AssessmentError::NoEntropy));
        assert_eq!(of(Alphabet::Octet, 8_001, 30), Err(AssessmentError::MoreThanTheSampleHolds));
        assert_eq!(of(Alphabet::Binary, 1_001, 30), Err(AssessmentError::MoreThanTheSampleHolds));
        assert_eq!(of(Alphabet::Octet, 1_000, 19), Err(AssessmentError::Alpha));
        assert_eq!(of(Alphabet::Octet, 1_000, 41), Err(AssessmentError::Alpha));
        assert_eq!(of(Alphabet::Binary, 1, 30), Err(AssessmentError::TooLittleToTest));
    }
}
