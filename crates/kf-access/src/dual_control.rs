//! Stopping is easy, undoing is hard: what one person may do at once, and what needs two.

use kf_key::UnixMillis;

/// The fleet's settings for dual control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DualControl {
    /// A permanent act on more devices than this needs two people.
    pub devices_above: u64,
    /// One person runs this fleet: the second approval becomes a delay, and all evidence says so.
    pub single_control: bool,
    /// The delay of single-control mode, milliseconds.
    pub delay: u64,
    /// How long a proposal waits before it lapses, milliseconds.
    pub proposal_lifetime: u64,
}

impl Default for DualControl {
    fn default() -> Self {
        Self {
            devices_above: 10,
            single_control: false,
            delay: UnixMillis::DAY,
            proposal_lifetime: 7 * UnixMillis::DAY,
        }
    }
}

/// What is at stake in an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stake {
    /// Whether it cannot be undone.
    pub permanent: bool,
    /// How many devices it touches.
    pub devices: u64,
    /// Whether it writes across facilities (moves a device, touches devices of more than one).
    pub crosses_facilities: bool,
    /// Whether it kills a CA.
    pub kills_authority: bool,
}

/// Who must agree before an act is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Nobody else: at once.
    Single,
    /// A second person, before `expires`.
    Second {
        /// When the proposal lapses.
        expires: UnixMillis,
    },
    /// Nobody, but not before `effective`, and anybody in scope may cancel.
    Delayed {
        /// When it is carried out.
        effective: UnixMillis,
    },
}

impl DualControl {
    /// Who must agree to an act that is never one person's.
    #[must_use]
    pub const fn always(&self, now: UnixMillis) -> Control {
        if self.single_control {
            Control::Delayed { effective: now.plus(self.delay) }
        } else {
            Control::Second { expires: now.plus(self.proposal_lifetime) }
        }
    }

    /// Who must agree to an act with this stake.
    #[must_use]
    pub const fn control(&self, stake: Stake, now: UnixMillis) -> Control {
        let at_scale = stake.devices > self.devices_above;
        let needs_two = stake.kills_authority || stake.crosses_facilities || (stake.permanent && at_scale);
        let reversible = !stake.permanent && !stake.crosses_facilities;
        if reversible || !needs_two { Control::Single } else { self.always(now) }
    }
}
