//! The steps from one CA to its successor, and what stands in the way of each. The server asks before it takes a step, and so
//! does the simulated year.

use kf_key::SuccessionState;

/// What is known of a succession.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessionFacts {
    /// How far it is.
    pub state: SuccessionState,
    /// Issuing CAs below the old one that have no successor.
    pub heirless: u64,
    /// Whether the successor is below a root that has not taken over.
    pub waits_for_root: bool,
    /// Issuing CAs below the old one that are still handed out.
    pub handed_out_below: u64,
    /// Devices that have not proved that they verify the server by the new root; 0 for an issuing CA.
    pub unproved: u64,
    /// Devices that two people have agreed to leave behind.
    pub agreed: u64,
    /// Certificates of the old CA that have not expired.
    pub unexpired: u64,
}

/// What stands in the way of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Hindrance {
    /// It is not the next step.
    #[error("a succession that is {} cannot become {}", from.name(), to.name())]
    NotNext {
        /// Where it stands.
        from: SuccessionState,
        /// Where it was to go.
        to: SuccessionState,
    },
    /// CAs below have no successor.
    #[error("{count} CAs below it have no successor")]
    Heirless {
        /// How many.
        count: u64,
    },
    /// The root above the successor has not taken over.
    #[error("the root above its successor has not taken over")]
    RootFirst,
    /// CAs below are handed out.
    #[error("{count} CAs below it are still handed out")]
    BelowFirst {
        /// How many.
        count: u64,
    },
    /// Devices would not find the server any more.
    #[error("{devices} devices have not proved that they trust its successor")]
    Stranded {
        /// How many.
        devices: u64,
    },
    /// Somebody may still ask for the status of what it issued.
    #[error("{certificates} certificates of it have not expired")]
    Unexpired {
        /// How many.
        certificates: u64,
    },
}

/// Whether a succession may take this step now.
///
/// # Errors
/// The first [`Hindrance`].
pub const fn may_step(facts: &SuccessionFacts, to: SuccessionState) -> Result<(), Hindrance> {
    if facts.state.transition(to).is_err() {
        return Err(Hindrance::NotNext { from: facts.state, to });
    }
    match to {
        SuccessionState::Switched if facts.waits_for_root => Err(Hindrance::RootFirst),
        SuccessionState::Switched if facts.heirless > 0 => Err(Hindrance::Heirless { count: facts.heirless }),
        SuccessionState::Retired if facts.handed_out_below > 0 => {
            Err(Hindrance::BelowFirst { count: facts.handed_out_below })
        }
        SuccessionState::Retired if facts.unproved > facts.agreed => {
            Err(Hindrance::Stranded { devices: facts.unproved })
        }
        SuccessionState::Closed if facts.unexpired > 0 => Err(Hindrance::Unexpired { certificates: facts.unexpired }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EASY: SuccessionFacts = SuccessionFacts {
        state: SuccessionState::Prepared,
        heirless: 0,
        waits_for_root: false,
        handed_out_below: 0,
        unproved: 0,
        agreed: 0,
        unexpired: 0,
    };

    #[test]
    fn each_step_has_its_own_hindrance_and_the_others_do_not_stop_it() {
        use SuccessionState::{Closed, Prepared, Retired, Switched};
        for (from, to) in [(Prepared, Switched), (Switched, Retired), (Retired, Closed)] {
            let facts = SuccessionFacts { state: from, ..EASY };
            assert_eq!(may_step(&facts, to), Ok(()));
            assert_eq!(may_step(&facts, from), Err(Hindrance::NotNext { from, to: from }));
            let hindered = |facts: SuccessionFacts| may_step(&SuccessionFacts { state: from, ..facts }, to).err();
            assert_eq!(hindered(SuccessionFacts { waits_for_root: true, ..EASY }).is_some(), to == Switched);
            assert_eq!(hindered(SuccessionFacts { heirless: 1, ..EASY }).is_some(), to == Switched);
            assert_eq!(hindered(SuccessionFacts { handed_out_below: 1, ..EASY }).is_some(), to == Retired);
            assert_eq!(hindered(SuccessionFacts { unproved: 1, ..EASY }).is_some(), to == Retired);
            assert_eq!(hindered(SuccessionFacts { unexpired: 1, ..EASY }).is_some(), to == Closed);
        }
    }

    #[test]
    fn two_people_agree_to_a_number_and_not_to_one_more() {
        let facts = SuccessionFacts { state: SuccessionState::Switched, unproved: 3, agreed: 3, ..EASY };
        assert_eq!(may_step(&facts, SuccessionState::Retired), Ok(()));
        let more = SuccessionFacts { unproved: 4, ..facts };
        assert_eq!(may_step(&more, SuccessionState::Retired), Err(Hindrance::Stranded { devices: 4 }));
    }
}
