use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::boot::BootId;

fn boot(number: u32, id: u8) -> BootId {
    let mut random = RANDOM;
    random[0] = id;
    Boot::new(number, random).unwrap().id()
}

fn accept<const BOOTS: usize>(replay: &mut Replay<BOOTS>, boot: BootId, counter: u32) -> Result<(), ReplayError> {
    replay.accept(&Mark::new(boot, counter)).map(drop)
}

#[test]
fn a_replayed_payload_is_refused() {
    let envelope = sealed_once(b"21.5 C", SealAlgorithm::Aes128Ccm);
    let mut receiver = Receiver::new();
    assert!(matches!(receiver.open(&envelope, b"topic"), Verdict::Plaintext(_)));
    assert_eq!(receiver.open(&envelope, b"topic"), Verdict::Replay(ReplayError::Replayed));
}

#[test]
fn reordered_payloads_open_once_each() {
    let mut sealer = sealer(1, RANDOM, SealAlgorithm::ChaCha20Poly1305);
    let mut envelopes: Vec<_> = (0..u8::MAX).map(|counter| seal(&mut sealer, &[counter], b"")).collect();
    envelopes.reverse();
    let mut receiver = Receiver::new();
    for envelope in &envelopes {
        assert!(matches!(receiver.open(envelope, b""), Verdict::Plaintext(_)));
    }
    for envelope in &envelopes {
        assert_eq!(receiver.open(envelope, b""), Verdict::Replay(ReplayError::Replayed));
    }
}

#[test]
fn a_refused_payload_leaves_the_window_as_it_was() {
    let mut receiver = Receiver::new();
    let mut envelope = sealed_once(b"21.5 C", SealAlgorithm::Aes128Ccm);
    *envelope.last_mut().unwrap() ^= 1;
    assert_eq!(receiver.open(&envelope, b"topic"), Verdict::Open(OpenError::Refused));
    assert_eq!(receiver.0, Replay::new());
}

#[test]
fn a_message_behind_the_window_is_too_old_and_one_at_its_edge_is_not() {
    let mut replay = Replay::<1>::new();
    accept(&mut replay, boot(1, 1), 1_000).unwrap();
    assert_eq!(accept(&mut replay, boot(1, 1), 1_000 - WINDOW_COUNTERS), Err(ReplayError::TooOld));
    assert_eq!(accept(&mut replay, boot(1, 1), 1_001 - WINDOW_COUNTERS), Ok(()));
    assert_eq!(accept(&mut replay, boot(1, 1), u32::MAX), Ok(()));
    assert_eq!(accept(&mut replay, boot(1, 1), 1_001), Err(ReplayError::TooOld));
}

#[test]
fn a_forgotten_boot_is_refused_and_a_remembered_one_is_not() {
    let mut replay = Replay::<2>::new();
    for number in [5, 6, 7] {
        accept(&mut replay, boot(number, 1), 0).unwrap();
    }
    assert_eq!(accept(&mut replay, boot(5, 1), 1), Err(ReplayError::BootTooOld { number: 5, floor: 7 }));
    assert_eq!(accept(&mut replay, boot(6, 1), 1), Ok(()));
    assert_eq!(replay.floor(), 6);
}

#[test]
fn a_boot_counter_that_went_backwards_is_refused_by_name() {
    let mut replay = Replay::<2>::new();
    for number in [8, 9, 10] {
        accept(&mut replay, boot(number, 1), 0).unwrap();
    }
    // The same device after its counter was lost: fresh random octets, an old number.
    assert_eq!(accept(&mut replay, boot(1, 9), 0), Err(ReplayError::BootTooOld { number: 1, floor: 10 }));
}

#[test]
fn clones_that_share_a_boot_number_are_told_apart_and_never_forgotten_into_acceptance() {
    let mut replay = Replay::<2>::new();
    accept(&mut replay, boot(3, 1), 0).unwrap();
    accept(&mut replay, boot(3, 2), 0).unwrap();
    assert_eq!(accept(&mut replay, boot(3, 1), 0), Err(ReplayError::Replayed));
    assert_eq!(accept(&mut replay, boot(3, 3), 0), Err(ReplayError::BootTooOld { number: 3, floor: 4 }));
    accept(&mut replay, boot(4, 4), 0).unwrap();
    assert_eq!(accept(&mut replay, boot(3, 1), 1), Err(ReplayError::BootTooOld { number: 3, floor: 4 }));
    assert_eq!(accept(&mut replay, boot(3, 2), 1), Ok(()), "remembered");
}

#[test]
fn the_highest_boot_number_does_not_open_the_floor() {
    let mut replay = Replay::<1>::new();
    accept(&mut replay, boot(u32::MAX, 1), 0).unwrap();
    let refusal = Err(ReplayError::BootTooOld { number: u32::MAX, floor: u32::MAX });
    assert_eq!(accept(&mut replay, boot(u32::MAX, 2), 0), refusal);
    assert_eq!(accept(&mut replay, boot(u32::MAX, 1), 0), Err(ReplayError::Replayed));
}

#[test]
fn a_stored_window_that_is_cut_or_padded_is_corrupt_and_never_empty() {
    let mut replay = Replay::<2>::new();
    for number in [1, 2, 3] {
        accept(&mut replay, boot(number, 1), number).unwrap();
    }
    let mut stored = [0; Replay::<2>::MAX_OCTETS + 1];
    let length = replay.encode(&mut stored).unwrap();
    assert_eq!(Replay::<2>::decode(&stored[..length]), Ok(replay.clone()));
    for wrong in (0..length).chain([length + 1]) {
        assert_eq!(Replay::<2>::decode(&stored[..wrong]), Err(CorruptReplay), "{wrong}");
    }
    assert_eq!(Replay::<1>::decode(&stored[..length]), Err(CorruptReplay), "more boots than there is room for");
    assert_eq!(replay.encode(&mut [0; 8]), None);
    stored[0] = 2;
    assert_eq!(Replay::<2>::decode(&stored[..length]), Err(CorruptReplay), "version");
}

proptest! {
    /// Against a model that remembers everything for ever: nothing is accepted twice, whatever the order, and what the
    /// window refuses as a replay was one.
    #[test]
    fn nothing_is_accepted_twice(
        messages in proptest::collection::vec((0..6_u32, 0..3_u8, prop_oneof![0..8_u32, 0..600_u32]), 1..300),
    ) {
        let mut replay = Replay::<3>::new();
        let mut accepted = BTreeSet::new();
        for (number, id, counter) in messages {
            let mut stored = [0; Replay::<3>::MAX_OCTETS];
            let length = replay.encode(&mut stored).unwrap();
            replay = Replay::decode(&stored[..length]).unwrap();
            match accept(&mut replay, boot(number, id), counter) {
                Ok(()) => prop_assert!(accepted.insert((number, id, counter))),
                Err(ReplayError::Replayed) => prop_assert!(accepted.contains(&(number, id, counter))),
                Err(ReplayError::TooOld) => {
                    let highest = accepted.iter().filter(|seen| (seen.0, seen.1) == (number, id)).map(|seen| seen.2).max();
                    prop_assert!(highest.unwrap() >= counter + WINDOW_COUNTERS);
                }
                Err(ReplayError::BootTooOld { floor, .. }) => prop_assert!(number < floor),
            }
        }
    }

    /// One boot, counters near each other: the window agrees with the model exactly.
    #[test]
    fn within_the_window_exactly_the_new_is_accepted(
        counters in proptest::collection::vec(0..WINDOW_COUNTERS, 1..200),
    ) {
        let mut replay = Replay::<1>::new();
        let mut seen = BTreeSet::new();
        for counter in counters {
            prop_assert_eq!(accept(&mut replay, boot(1, 1), counter).is_ok(), seen.insert(counter));
        }
    }
}
