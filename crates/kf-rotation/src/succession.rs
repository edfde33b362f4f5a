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

/// What is known of a successor that is to be withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WithdrawalFacts {
    /// How far the succession is.
    pub state: SuccessionState,
    /// Whether it is below a root that has not taken over.
    pub waits_for_root: bool,
    /// Certificates of devices and operators that it has issued.
    pub issued: u64,
    /// Campaigns that ask devices to trust it.
    pub asking: u64,
    /// Devices that have proved that they trust it, or were asked to.
    pub trusting: u64,
    /// Devices that two people have agreed to leave with it.
    pub agreed: u64,
}

/// What is known of a CA whose key is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEndFacts {
    /// Whether the fleet's devices get their certificates from it.
    pub is_default: bool,
    /// How far its succession is, where it has a successor.
    pub succession: Option<SuccessionState>,
    /// Certificates of it that are neither expired nor revoked.
    pub living: u64,
    /// Of those, how many two people have agreed to leave as they are.
    pub agreed: u64,
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
    /// A successor is more than prepared.
    #[error("its successor has issued {certificates} certificates")]
    Issued {
        /// How many.
        certificates: u64,
    },
    /// Devices are being asked to take it up.
    #[error("{campaigns} campaigns ask devices to trust its successor")]
    Asking {
        /// How many.
        campaigns: u64,
    },
    /// Devices hold it.
    #[error("{devices} devices trust its successor, or were asked to")]
    Trusting {
        /// How many.
        devices: u64,
    },
    /// It issues.
    #[error("it is the default of the fleet: devices get their certificates from it")]
    Default,
    /// It is handed out to devices, or still issues: it has a successor and is not retired.
    #[error("its successor is {}, and it is not retired", state.name())]
    NotRetired {
        /// How far the succession is.
        state: SuccessionState,
    },
    /// Certificates that nobody could revoke any more.
    #[error("{certificates} certificates of it are neither expired nor revoked, and nobody could revoke them any more")]
    Living {
        /// How many.
        certificates: u64,
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

/// Whether a successor may be withdrawn now: nothing is below it, nobody is being asked to trust it, and no more devices trust it than
/// was agreed to.
///
/// # Errors
/// The first [`Hindrance`].
pub const fn may_withdraw(facts: &WithdrawalFacts) -> Result<(), Hindrance> {
    let to = SuccessionState::Withdrawn;
    match facts {
        WithdrawalFacts { state, .. } if state.transition(to).is_err() => {
            Err(Hindrance::NotNext { from: facts.state, to })
        }
        WithdrawalFacts { waits_for_root: true, .. } => Err(Hindrance::RootFirst),
        WithdrawalFacts { issued: 1.., .. } => Err(Hindrance::Issued { certificates: facts.issued }),
        WithdrawalFacts { asking: 1.., .. } => Err(Hindrance::Asking { campaigns: facts.asking }),
        _ if facts.trusting > facts.agreed => Err(Hindrance::Trusting { devices: facts.trusting }),
        _ => Ok(()),
    }
}

/// Whether the key of a CA may end now: after it is retired, where somebody succeeds it, and with nothing left that it would have to revoke but
/// what was agreed to.
///
/// # Errors
/// The first [`Hindrance`].
pub const fn may_end_key(facts: &KeyEndFacts) -> Result<(), Hindrance> {
    if facts.is_default {
        return Err(Hindrance::Default);
    }
    match facts.succession {
        Some(state @ (SuccessionState::Prepared | SuccessionState::Switched)) => Err(Hindrance::NotRetired { state }),
        _ if facts.living > facts.agreed => Err(Hindrance::Living { certificates: facts.living }),
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
    fn a_successor_is_withdrawn_when_nothing_hangs_on_it_and_before_it_takes_over() {
        let state = SuccessionState::Prepared;
        let easy = WithdrawalFacts { state, waits_for_root: false, issued: 0, asking: 0, trusting: 0, agreed: 0 };
        assert_eq!(may_withdraw(&easy), Ok(()));
        for from in SuccessionState::ALL.into_iter().filter(|from| *from != state) {
            let refused = Err(Hindrance::NotNext { from, to: SuccessionState::Withdrawn });
            assert_eq!(may_withdraw(&WithdrawalFacts { state: from, ..easy }), refused);
            assert!(may_step(&SuccessionFacts { state: from, ..EASY }, SuccessionState::Withdrawn).is_err());
        }
        assert_eq!(may_withdraw(&WithdrawalFacts { waits_for_root: true, ..easy }), Err(Hindrance::RootFirst));
        let issued = WithdrawalFacts { issued: 1, ..easy };
        assert_eq!(may_withdraw(&issued), Err(Hindrance::Issued { certificates: 1 }));
        let asking = WithdrawalFacts { asking: 2, trusting: 5, agreed: 9, ..easy };
        assert_eq!(may_withdraw(&asking), Err(Hindrance::Asking { campaigns: 2 }));
        let trusting = WithdrawalFacts { trusting: 3, agreed: 3, ..easy };
        assert_eq!(may_withdraw(&trusting), Ok(()));
        let more = WithdrawalFacts { trusting: 4, ..trusting };
        assert_eq!(may_withdraw(&more), Err(Hindrance::Trusting { devices: 4 }));
    }

    #[test]
    fn two_people_agree_to_a_number_and_not_to_one_more() {
        let facts = SuccessionFacts { state: SuccessionState::Switched, unproved: 3, agreed: 3, ..EASY };
        assert_eq!(may_step(&facts, SuccessionState::Retired), Ok(()));
        let more = SuccessionFacts { unproved: 4, ..facts };
        assert_eq!(may_step(&more, SuccessionState::Retired), Err(Hindrance::Stranded { devices: 4 }));
    }

    #[test]
    fn a_key_ends_after_its_ca_is_retired_and_leaves_no_more_than_was_agreed_to() {
        use SuccessionState::{Closed, Prepared, Retired, Switched};
        let easy = KeyEndFacts { is_default: false, succession: None, living: 0, agreed: 0 };
        for succession in [None, Some(Retired), Some(Closed)] {
            assert_eq!(may_end_key(&KeyEndFacts { succession, ..easy }), Ok(()));
        }
        for state in [Prepared, Switched] {
            let facts = KeyEndFacts { succession: Some(state), ..easy };
            assert_eq!(may_end_key(&facts), Err(Hindrance::NotRetired { state }));
        }
        assert_eq!(may_end_key(&KeyEndFacts { is_default: true, ..easy }), Err(Hindrance::Default));
        assert_eq!(may_end_key(&KeyEndFacts { living: 3, agreed: 3, ..easy }), Ok(()));
        let more = KeyEndFacts { living: 4, agreed: 3, ..easy };
        assert_eq!(may_end_key(&more), Err(Hindrance::Living { certificates: 4 }));
    }
}
