//! What became of a device, from all of its records: a function of the set of them, so that it does not matter in which order
//! or how often they arrive.
//!
//! ```text
//!            rework        passed
//!   missing ────────> rework ────────> passed          a device passes once; whoever takes it back for rework after that
//!      │                 │  │             │  │         gives the repaired board a new device of the quota
//!      │ passed          │  └── scrapped ─┤  │ rework
//!      └─────────────────┘                v  v
//!                                      scrapped  <── (rework)
//! ```

use kf_api::batch::{ConflictKind, MadeState, Outcome};

/// One record of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Made {
    /// Its place in the batch.
    pub sequence: u64,
    /// Its hash, by which two records with one sequence are told apart.
    pub hash: [u8; 32],
    /// What came of it.
    pub outcome: Outcome,
}

/// What became of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Where it stands.
    pub state: MadeState,
    /// The record in which it passed, first of all if there are several: its sequence and hash.
    pub passed: Option<(u64, [u8; 32])>,
    /// What contradicts itself: the sequence of the later record, and how.
    pub conflicts: Vec<(u64, ConflictKind)>,
}

/// Follows a device through its records.
#[must_use]
pub fn follow(records: &[Made]) -> Life {
    let mut ordered = records.to_vec();
    ordered.sort_unstable();
    ordered.dedup_by_key(|made| made.hash);
    let mut life = Life { state: MadeState::Missing, passed: None, conflicts: Vec::new() };
    for made in ordered {
        if life.state == MadeState::Scrapped {
            life.conflicts.push((made.sequence, ConflictKind::AfterScrap));
            continue;
        }
        match made.outcome {
            Outcome::Scrapped => life.state = MadeState::Scrapped,
            Outcome::Rework => life.state = MadeState::Rework,
            Outcome::Passed if life.passed.is_some() => {
                life.conflicts.push((made.sequence, ConflictKind::MadeTwice));
            }
            Outcome::Passed => {
                life.passed = Some((made.sequence, made.hash));
                life.state = MadeState::Passed;
            }
        }
    }
    life
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(sequence: u64, outcome: Outcome) -> Made {
        Made { sequence, hash: [u8::try_from(sequence).unwrap(); 32], outcome }
    }

    fn state(outcomes: &[Outcome]) -> (MadeState, Vec<ConflictKind>) {
        let records: Vec<_> = (1..).zip(outcomes).map(|(sequence, outcome)| made(sequence, *outcome)).collect();
        let life = follow(&records);
        (life.state, life.conflicts.into_iter().map(|(_, kind)| kind).collect())
    }

    #[test]
    fn every_pair_of_records_leads_where_it_should() {
        use MadeState as State;
        use Outcome::{Passed, Rework, Scrapped};
        assert_eq!(state(&[]), (State::Missing, vec![]));
        let rows = [
            ([Passed, Passed], State::Passed, vec![ConflictKind::MadeTwice]),
            ([Passed, Rework], State::Rework, vec![]),
            ([Passed, Scrapped], State::Scrapped, vec![]),
            ([Rework, Passed], State::Passed, vec![]),
            ([Rework, Rework], State::Rework, vec![]),
            ([Rework, Scrapped], State::Scrapped, vec![]),
            ([Scrapped, Passed], State::Scrapped, vec![ConflictKind::AfterScrap]),
            ([Scrapped, Rework], State::Scrapped, vec![ConflictKind::AfterScrap]),
            ([Scrapped, Scrapped], State::Scrapped, vec![ConflictKind::AfterScrap]),
        ];
        for (outcomes, expected, conflicts) in rows {
            assert_eq!(state(&outcomes), (expected, conflicts), "{outcomes:?}");
        }
    }

    #[test]
    fn a_device_that_passed_does_not_pass_again_after_rework() {
        use Outcome::{Passed, Rework};
        assert_eq!(state(&[Passed, Rework, Passed]), (MadeState::Rework, vec![ConflictKind::MadeTwice]));
    }

    proptest! {
        #[test]
        fn order_and_repetition_change_nothing(
            outcomes in prop::collection::vec(0usize..3, 0..6),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let records: Vec<_> = (1..).zip(&outcomes).map(|(n, which)| made(n, Outcome::ALL[*which])).collect();
            let mut shuffled = records.clone();
            for index in &order {
                if !records.is_empty() {
                    shuffled.insert(index.index(shuffled.len()), records[index.index(records.len())]);
                }
            }
            shuffled.reverse();
            prop_assert_eq!(follow(&shuffled), follow(&records));
        }
    }
}
