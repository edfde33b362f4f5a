//! What can be shown of a source afterwards.

use core::fmt;

use crate::assessment::{Alphabet, Assessment, Cutoffs};

/// Whether the noise is physical, as the firmware declares it. No test can find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseState {
    /// A physical noise source, and it is on.
    PhysicalOn,
    /// The output is pseudo-random only, for example `esp_random` without radio and without its boot-loader source.
    PseudoRandomOnly,
    /// Nobody knows.
    Unknown,
}

impl NoiseState {
    const fn code(self) -> u8 {
        match self {
            Self::PhysicalOn => 1,
            Self::PseudoRandomOnly => 2,
            Self::Unknown => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::PhysicalOn),
            2 => Some(Self::PseudoRandomOnly),
            3 => Some(Self::Unknown),
            _ => None,
        }
    }
}

/// Which source: chosen by the maker of the firmware, 16 octets of text or of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceId(pub [u8; 16]);

/// Counters since the tests were made; each stops at its end instead of wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Samples tested.
    pub samples: u64,
    /// Start-up tests begun.
    pub start_ups: u32,
    /// Repetition count tests failed.
    pub repetition_faults: u32,
    /// Adaptive proportion tests failed.
    pub proportion_faults: u32,
    /// Period tests failed.
    pub period_faults: u32,
}

/// The evidence of one source: who it is, what was declared and assessed, what was tested and found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Which source.
    pub source: SourceId,
    /// As declared by the firmware.
    pub state: NoiseState,
    /// Cut-offs, with the assessment that they follow from.
    pub cutoffs: Cutoffs,
    /// What was tested and found.
    pub counts: Counts,
}

/// Octets that are not evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceError {
    /// Not [`Evidence::OCTETS`] of them.
    Length,
    /// A version that this code does not know.
    Version,
    /// A code without meaning, or an assessment out of range.
    Field,
    /// The cut-offs are not those of the assessment.
    Cutoffs,
}

impl fmt::Display for EvidenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "the evidence has not the right length",
            Self::Version => "the version of the evidence is unknown",
            Self::Field => "a field of the evidence has no meaning",
            Self::Cutoffs => "the cut-offs in the evidence do not follow from its assessment",
        })
    }
}

impl core::error::Error for EvidenceError {}

const VERSION: u8 = 1;

impl Evidence {
    /// Octets of the encoding.
    pub const OCTETS: usize = 54;

    /// The encoding, integers big endian:
    ///
    /// ```text
    /// version 1 | source 16 | state 1 | alphabet 1 | millibits 2 | alpha 1 | repetition 2 | proportion 2 | period 2 |
    /// window 2 | samples 8 | start-ups 4 | repetition faults 4 | proportion faults 4 | period faults 4
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::OCTETS] {
        let Self { source, state, cutoffs, counts } = self;
        let Assessment { alphabet, millibits, alpha } = cutoffs.assessment();
        let Counts { samples, start_ups, repetition_faults, proportion_faults, period_faults } = counts;
        let alphabet = match alphabet {
            Alphabet::Binary => 1,
            Alphabet::Octet => 2,
        };
        let mut octets = [0; Self::OCTETS];
        let parts: [&[u8]; 14] = [
            &[VERSION],
            &source.0,
            &[state.code(), alphabet],
            &millibits.to_be_bytes(),
            &[alpha],
            &cutoffs.repetition().to_be_bytes(),
            &cutoffs.proportion().to_be_bytes(),
            &cutoffs.period().to_be_bytes(),
            &cutoffs.window().to_be_bytes(),
            &samples.to_be_bytes(),
            &start_ups.to_be_bytes(),
            &repetition_faults.to_be_bytes(),
            &proportion_faults.to_be_bytes(),
            &period_faults.to_be_bytes(),
        ];
        let all = parts.into_iter().flatten();
        octets.iter_mut().zip(all).for_each(|(place, octet)| *place = *octet);
        octets
    }

    /// Reads evidence, and computes the cut-offs again.
    ///
    /// # Errors
    /// [`EvidenceError`].
    pub fn from_bytes(octets: &[u8]) -> Result<Self, EvidenceError> {
        let octets: &[u8; Self::OCTETS] = octets.try_into().map_err(|_length| EvidenceError::Length)?;
        let mut rest = octets.as_slice();
        if take::<1>(&mut rest)? != [VERSION] {
            return Err(EvidenceError::Version);
        }
        let source = SourceId(take(&mut rest)?);
        let [state, alphabet] = take(&mut rest)?;
        let state = NoiseState::from_code(state).ok_or(EvidenceError::Field)?;
        let alphabet = match alphabet {
            1 => Alphabet::Binary,
            2 => Alphabet::Octet,
            _ => return Err(EvidenceError::Field),
        };
        let millibits = u16::from_be_bytes(take(&mut rest)?);
        let [alpha] = take(&mut rest)?;
        let cutoffs = Cutoffs::new(Assessment { alphabet, millibits, alpha }).map_err(|_range| EvidenceError::Field)?;
        for expected in [cutoffs.repetition(), cutoffs.proportion(), cutoffs.period(), cutoffs.window()] {
            if u16::from_be_bytes(take(&mut rest)?) != expected {
                return Err(EvidenceError::Cutoffs);
            }
        }
        let counts = Counts {
            samples: u64::from_be_bytes(take(&mut rest)?),
            start_ups: u32::from_be_bytes(take(&mut rest)?),
            repetition_faults: u32::from_be_bytes(take(&mut rest)?),
            proportion_faults: u32::from_be_bytes(take(&mut rest)?),
            period_faults: u32::from_be_bytes(take(&mut rest)?),
        };
        Ok(Self { source, state, cutoffs, counts })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], EvidenceError> {
    let (head, tail) = rest.split_first_chunk().ok_or(EvidenceError::Length)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        let cutoffs = Cutoffs::new(Assessment { alphabet: Alphabet::Octet, millibits: 4_000, alpha: 30 }).unwrap();
        let counts = Counts {
            samples: 0x0102_0304_0506_0708,
            start_ups: 9,
            repetition_faults: 10,
            proportion_faults: 11,
            period_faults: u32::MAX,
        };
        Evidence { source: SourceId(*b"stm32l4-rng-v1.0"), state: NoiseState::PhysicalOn, cutoffs, counts }
    }

    #[test]
    fn evidence_survives_its_encoding_which_is_as_documented() {
        let octets = evidence().to_bytes();
        assert_eq!(Evidence::from_bytes(&octets), Ok(evidence()));
        assert_eq!(&octets[..17], b"\x01stm32l4-rng-v1.0");
        assert_eq!(&octets[17..30], &[1, 2, 15, 160, 30, 0, 9, 0, 71, 0, 10, 2, 0]);
        assert_eq!(&octets[30..38], &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(&octets[38..], &[0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0, 11, 255, 255, 255, 255]);
    }

    #[test]
    fn another_length_version_code_or_cutoff_is_refused() {
        let octets = evidence().to_bytes();
        assert_eq!(Evidence::from_bytes(&octets[1..]), Err(EvidenceError::Length));
        for (place, value, error) in [
            (0, 2, EvidenceError::Version),
            (17, 0, EvidenceError::Field),
            (18, 3, EvidenceError::Field),
            (19, 255, EvidenceError::Field),
            (21, 41, EvidenceError::Field),
            (23, 10, EvidenceError::Cutoffs),
            (25, 70, EvidenceError::Cutoffs),
            (27, 9, EvidenceError::Cutoffs),
            (28, 4, EvidenceError::Cutoffs),
        ] {
            let mut changed = octets;
            changed[place] = value;
            assert_eq!(Evidence::from_bytes(&changed), Err(error), "octet {place}");
        }
    }
}
