//! Time as a value: rules take it as an argument.

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Milliseconds in one second.
    pub const SECOND: u64 = 1_000;
    /// Milliseconds in one hour.
    pub const HOUR: u64 = 3_600 * Self::SECOND;
    /// Milliseconds in one day of 24 hours.
    pub const DAY: u64 = 24 * Self::HOUR;

    /// The moment `milliseconds` later, saturating at the end of the range.
    #[must_use]
    pub const fn plus(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// The moment `milliseconds` earlier, saturating at the epoch.
    #[must_use]
    pub const fn minus(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_sub(milliseconds))
    }

    /// Milliseconds from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / Self::SECOND
    }

    /// A moment given in whole seconds since the epoch.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(Self::SECOND))
    }
}
