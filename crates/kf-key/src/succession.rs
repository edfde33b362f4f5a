//! The life of a succession: one CA takes over from another.

use core::fmt;

/// How far a CA has handed over to its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum SuccessionState {
    /// The successor is there and handed out as a trust anchor; the old CA issues.
    Prepared,
    /// The successor issues; the old CA is still handed out, so that who knows it alone finds the way.
    Switched,
    /// The old CA is handed out no more. It signs the CRLs and OCSP responders of what it issued.
    Retired,
    /// Everything it issued has expired; its key is deactivated. Final.
    Closed,
    /// The successor was withdrawn before it took over; the old CA issues as before. Final.
    Withdrawn,
}

/// A step that a succession cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalSuccessionTransition {
    /// Where it stands.
    pub from: SuccessionState,
    /// Where it was to go.
    pub to: SuccessionState,
}

impl fmt::Display for IllegalSuccessionTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a succession that is {} cannot become {}", self.from.name(), self.to.name())
    }
}

impl core::error::Error for IllegalSuccessionTransition {}

impl SuccessionState {
    /// Every state, in order; the other end of a prepared one last.
    pub const ALL: [Self; 5] = [Self::Prepared, Self::Switched, Self::Retired, Self::Closed, Self::Withdrawn];

    /// The name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Switched => "switched",
            Self::Retired => "retired",
            Self::Closed => "closed",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// The one transition function of successions: one step at a time, never back. What has not been switched may be withdrawn.
    ///
    /// # Errors
    /// [`IllegalSuccessionTransition`] for every other pair.
    pub const fn transition(self, to: Self) -> Result<Self, IllegalSuccessionTransition> {
        use SuccessionState::{Closed, Prepared, Retired, Switched, Withdrawn};
        match (self, to) {
            (Prepared, Switched | Withdrawn) | (Switched, Retired) | (Retired, Closed) => Ok(to),
            (from, to) => Err(IllegalSuccessionTransition { from, to }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_succession_goes_one_step_at_a_time_and_never_back_and_is_withdrawn_before_the_first() {
        use SuccessionState::{Closed, Prepared, Retired, Switched, Withdrawn};
        let legal = [(Prepared, Switched), (Switched, Retired), (Retired, Closed), (Prepared, Withdrawn)];
        for from in SuccessionState::ALL {
            for to in SuccessionState::ALL {
                assert_eq!(from.transition(to).is_ok(), legal.contains(&(from, to)), "{from:?} {to:?}");
            }
        }
    }
}
