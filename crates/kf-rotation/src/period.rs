//! Lengths of time as policies write them.

use core::fmt;
use core::str::FromStr;

use kf_key::UnixMillis;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time, at least one second and at most 100 years; written as `90d`, `12h`, `2y`. A year is 365 days, so
/// that a period is the same length wherever it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

/// Why a text is no period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number with a unit s, m, h, d, w or y, at least 1s and at most 100y: for example 90d")]
pub struct PeriodError;

/// Units from the longest, each with its milliseconds.
const UNITS: [(char, u64); 6] = [
    ('y', 365 * UnixMillis::DAY),
    ('w', 7 * UnixMillis::DAY),
    ('d', UnixMillis::DAY),
    ('h', UnixMillis::HOUR),
    ('m', 60 * UnixMillis::SECOND),
    ('s', UnixMillis::SECOND),
];

impl Period {
    /// The longest period.
    pub const MAX: Self = Self::years(100);

    /// `days` days of 24 hours; a second for none.
    #[must_use]
    pub const fn days(days: u16) -> Self {
        Self::times(days, UnixMillis::DAY)
    }

    /// `years` years of 365 days; a second for none, and at most 100.
    #[must_use]
    pub const fn years(years: u8) -> Self {
        Self::times(if years > 100 { 100 } else { widened(years) }, 365 * UnixMillis::DAY)
    }

    #[expect(clippy::as_conversions, reason = "u64::from is not const; nothing is lost")]
    const fn times(number: u16, unit: u64) -> Self {
        if number == 0 { Self(UnixMillis::SECOND) } else { Self(number as u64 * unit) }
    }

    /// Its length in milliseconds.
    #[must_use]
    pub const fn milliseconds(self) -> u64 {
        self.0
    }

    /// The sum, at most [`Period::MAX`].
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0)).min(Self::MAX)
    }
}

#[expect(clippy::as_conversions, reason = "u16::from is not const; nothing is lost")]
const fn widened(number: u8) -> u16 {
    number as u16
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, length)| self.0.is_multiple_of(*length));
        let (unit, length) = whole.copied().unwrap_or(('s', UnixMillis::SECOND));
        write!(f, "{}{unit}", self.0 / length)
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let unit = text.chars().next_back().ok_or(PeriodError)?;
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(PeriodError)?;
        let digits = text.strip_suffix(unit).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let number: u64 = digits.ok_or(PeriodError)?.parse().map_err(|_not_a_number| PeriodError)?;
        let milliseconds = number.checked_mul(*length).ok_or(PeriodError)?;
        if !(UnixMillis::SECOND..=Self::MAX.0).contains(&milliseconds) {
            return Err(PeriodError);
        }
        Ok(Self(milliseconds))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_period_is_a_number_and_a_unit_and_nothing_else() {
        for (text, days) in [("90d", 90), ("2y", 730), ("1w", 7), ("24h", 1), ("1440m", 1), ("86400s", 1)] {
            assert_eq!(text.parse(), Ok(Period::days(days)), "{text}");
        }
        for text in
            ["", "d", "0d", "-1d", "+1d", "1 d", "1.5d", "1D", "90", "101y", "99999999999999999999d", "1dd", "1é"]
        {
            assert_eq!(text.parse::<Period>(), Err(PeriodError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 1_u64..=3_153_600_000) {
            let period = Period(seconds * UnixMillis::SECOND);
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }
    }
}
