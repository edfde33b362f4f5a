//! The life of a campaign, and of a device's part in one.

use core::fmt;

/// Where a campaign stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum CampaignState {
    /// Made, and nothing has been asked of any device.
    Draft,
    /// Devices are asked, wave after wave.
    Running,
    /// Somebody paused it: nobody further is asked; answers still count.
    Paused,
    /// It stopped itself, because too many devices failed.
    Stopped,
    /// Given up. Final.
    Aborted,
    /// Every device has answered, or is barred. Final.
    Completed,
}

/// Where a device's part in a campaign stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum MemberState {
    /// Its turn has not come.
    Waiting,
    /// It is asked, and has not answered.
    Offered,
    /// It has done what it was asked, and proved it.
    Done,
    /// It has signed that it could not, or would not.
    Failed,
    /// Nothing is asked of it: it is barred, or has nothing to replace.
    Skipped,
}

/// A step that a campaign cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalCampaignTransition {
    /// Where it stands.
    pub from: CampaignState,
    /// Where it was to go.
    pub to: CampaignState,
}

impl fmt::Display for IllegalCampaignTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a campaign that is {} cannot become {}", self.from.name(), self.to.name())
    }
}

impl core::error::Error for IllegalCampaignTransition {}

impl CampaignState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Draft, Self::Running, Self::Paused, Self::Stopped, Self::Aborted, Self::Completed];

    /// The name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Aborted => "aborted",
            Self::Completed => "completed",
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Aborted | Self::Completed)
    }

    /// The one transition function of campaigns.
    ///
    /// # Errors
    /// [`IllegalCampaignTransition`] for every pair that is no step of a campaign's life.
    pub const fn transition(self, to: Self) -> Result<Self, IllegalCampaignTransition> {
        use CampaignState::{Aborted, Completed, Draft, Paused, Running, Stopped};
        match (self, to) {
            (Draft, Running | Aborted)
            | (Running, Paused | Stopped | Aborted | Completed)
            | (Paused | Stopped, Running | Aborted) => Ok(to),
            (from, to) => Err(IllegalCampaignTransition { from, to }),
        }
    }
}

impl MemberState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Offered, Self::Done, Self::Failed, Self::Skipped];

    /// The name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Offered => "offered",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Whether this may become that. A device that answers twice answers once: what has ended stays so.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        use MemberState::{Done, Failed, Offered, Skipped, Waiting};
        matches!((self, to), (Waiting, Offered | Skipped) | (Offered, Done | Failed | Skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_final_stays_and_a_draft_asks_nobody() {
        for to in CampaignState::ALL {
            assert!(CampaignState::Aborted.transition(to).is_err());
            assert!(CampaignState::Completed.transition(to).is_err());
        }
        assert!(CampaignState::Draft.transition(CampaignState::Completed).is_err());
        assert!(CampaignState::Paused.transition(CampaignState::Completed).is_err());
        assert!(CampaignState::Stopped.transition(CampaignState::Running).is_ok());
    }

    #[test]
    fn a_part_that_has_ended_does_not_begin_again() {
        for ended in [MemberState::Done, MemberState::Failed, MemberState::Skipped] {
            for to in MemberState::ALL {
                assert!(!ended.may_become(to), "{ended:?} {to:?}");
            }
        }
        assert!(!MemberState::Waiting.may_become(MemberState::Done), "nobody answers what was not asked");
    }
}
