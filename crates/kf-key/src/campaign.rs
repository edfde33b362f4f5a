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
    /// Given up: nobody further is asked. Nothing follows but that what it asked is taken back.
    Aborted,
    /// Every device has answered, or is barred. Final.
    Completed,
    /// Given up, and what it had asked of devices that had not come for it was taken back. Final.
    RolledBack,
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
    /// It was asked, and before it came to know of it that was taken back.
    TakenBack,
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
    pub const ALL: [Self; 7] =
        [Self::Draft, Self::Running, Self::Paused, Self::Stopped, Self::Aborted, Self::Completed, Self::RolledBack];

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
            Self::RolledBack => "rolled-back",
        }
    }

    /// Whether nobody is asked any more, for good.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Aborted | Self::Completed | Self::RolledBack)
    }

    /// Whether its plan may be changed: nobody is being asked by it.
    #[must_use]
    pub const fn is_editable(self) -> bool {
        matches!(self, Self::Draft | Self::Paused | Self::Stopped)
    }

    /// The one transition function of campaigns.
    ///
    /// # Errors
    /// [`IllegalCampaignTransition`] for every pair that is no step of a campaign's life.
    pub const fn transition(self, to: Self) -> Result<Self, IllegalCampaignTransition> {
        use CampaignState::{Aborted, Completed, Draft, Paused, RolledBack, Running, Stopped};
        match (self, to) {
            (Draft, Running | Aborted)
            | (Running, Paused | Stopped | Aborted | Completed | RolledBack)
            | (Paused | Stopped, Running | Aborted | RolledBack)
            | (Aborted, RolledBack) => Ok(to),
            (from, to) => Err(IllegalCampaignTransition { from, to }),
        }
    }
}

impl MemberState {
    /// Every state.
    pub const ALL: [Self; 6] = [Self::Waiting, Self::Offered, Self::Done, Self::Failed, Self::Skipped, Self::TakenBack];

    /// The name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Offered => "offered",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::TakenBack => "taken-back",
        }
    }

    /// Whether this may become that. A device that answers twice answers once: what has ended stays so.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        use MemberState::{Done, Failed, Offered, Skipped, TakenBack, Waiting};
        matches!((self, to), (Waiting, Offered | Skipped) | (Offered, Done | Failed | Skipped | TakenBack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_final_stays_and_a_draft_asks_nobody() {
        for to in CampaignState::ALL {
            assert_eq!(CampaignState::Aborted.transition(to).is_ok(), to == CampaignState::RolledBack, "{to:?}");
            assert!(CampaignState::Completed.transition(to).is_err());
            assert!(CampaignState::RolledBack.transition(to).is_err());
        }
        assert!(CampaignState::Draft.transition(CampaignState::RolledBack).is_err(), "it has asked nothing");
        assert!(CampaignState::Draft.transition(CampaignState::Completed).is_err());
        assert!(CampaignState::Paused.transition(CampaignState::Completed).is_err());
        assert!(CampaignState::Stopped.transition(CampaignState::Running).is_ok());
    }

    #[test]
    fn a_plan_is_changed_only_while_nobody_is_asked_by_it() {
        for state in CampaignState::ALL {
            assert_eq!(state.is_editable(), !state.is_final() && state != CampaignState::Running, "{state:?}");
        }
    }

    #[test]
    fn a_part_that_has_ended_does_not_begin_again() {
        for ended in [MemberState::Done, MemberState::Failed, MemberState::Skipped, MemberState::TakenBack] {
            for to in MemberState::ALL {
                assert!(!ended.may_become(to), "{ended:?} {to:?}");
            }
        }
        assert!(!MemberState::Waiting.may_become(MemberState::Done), "nobody answers what was not asked");
    }
}
