//! Power losses, restored snapshots and clones: whatever storage does, no nonce repeats under a key.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What a device keeps across a power loss. Copying it is what a snapshot or a clone does.
#[derive(Clone, Copy)]
struct Storage {
    boot_number: u32,
}

/// The noise source of the laboratory: every draw is another one, on every copy.
struct Noise(u64);

impl Noise {
    fn draw(&mut self) -> [u8; 16] {
        self.0 += 1;
        let mut random = RANDOM;
        random[..8].copy_from_slice(&self.0.to_be_bytes());
        random
    }
}

/// Starts the device: steps the counter, which may get lost with the power, and draws.
fn start(storage: &mut Storage, noise: &mut Noise, is_counter_written: bool) -> Sealer {
    let boot_number = storage.boot_number + 1;
    if is_counter_written {
        storage.boot_number = boot_number;
    }
    sealer(boot_number, noise.draw(), SealAlgorithm::Aes128Ccm)
}

/// Collects the pairs that must never repeat: the key, which the boot's random octets stand for, and the nonce.
#[derive(Default)]
struct Wire {
    pairs: BTreeSet<(Vec<u8>, Vec<u8>)>,
    ciphertexts: BTreeMap<Vec<u8>, u32>,
}

impl Wire {
    fn send(&mut self, sealer: &mut Sealer) {
        // Always the same plaintext: a repeated key and nonce would show as a repeated ciphertext.
        let envelope = seal(sealer, b"the same sixteen", b"");
        let sealed = Sealed::parse(&envelope).unwrap();
        let nonce = sealed.boot().nonce(sealed.algorithm(), sealed.counter());
        assert!(self.pairs.insert((sealed.boot().random().to_vec(), nonce.as_bytes().to_vec())), "a nonce repeated");
        *self.ciphertexts.entry(sealed.ciphertext().0.to_vec()).or_default() += 1;
    }
}

#[derive(Clone, Debug)]
enum Event {
    Send,
    PowerLoss { is_counter_written: bool },
    Snapshot,
    Restore,
    Clone,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Send),
        2 => any::<bool>().prop_map(|is_counter_written| Event::PowerLoss { is_counter_written }),
        1 => Just(Event::Snapshot),
        1 => Just(Event::Restore),
        1 => Just(Event::Clone),
    ]
}

proptest! {
    #[test]
    fn no_nonce_repeats_across_power_losses_snapshots_and_clones(
        events in proptest::collection::vec((any::<prop::sample::Index>(), event()), 1..120),
    ) {
        let (mut noise, mut wire) = (Noise(0), Wire::default());
        let mut snapshot = Storage { boot_number: 0 };
        let mut storage = snapshot;
        let first = start(&mut storage, &mut noise, true);
        let mut devices = std::vec![(storage, first)];
        for (index, event) in events {
            let index = index.index(devices.len());
            let (storage, sealer) = &mut devices[index];
            match event {
                Event::Send => wire.send(sealer),
                Event::PowerLoss { is_counter_written } => *sealer = start(storage, &mut noise, is_counter_written),
                Event::Snapshot => snapshot = *storage,
                Event::Restore => {
                    *storage = snapshot;
                    *sealer = start(storage, &mut noise, true);
                }
                Event::Clone => {
                    let mut storage = *storage;
                    let sealer = start(&mut storage, &mut noise, true);
                    devices.push((storage, sealer));
                }
            }
        }
        prop_assert!(wire.ciphertexts.values().all(|count| *count == 1));
    }
}

#[test]
fn a_laboratory_that_reuses_a_draw_is_noticed() {
    // The check above can fail: a boot made twice of one draw, as after a live fork, repeats its nonces.
    let mut wire = Wire::default();
    wire.send(&mut sealer(1, RANDOM, SealAlgorithm::Aes128Ccm));
    let again = std::panic::catch_unwind(move || wire.send(&mut sealer(1, RANDOM, SealAlgorithm::Aes128Ccm)));
    assert!(again.is_err());
}

#[test]
fn a_stuck_source_makes_no_boot() {
    for octet in [0x00, 0xff, 0x5a] {
        assert_eq!(Boot::new(1, [octet; 16]).err(), Some(StuckRandom));
    }
}

#[test]
fn the_nonces_of_one_boot_differ_in_their_counter_alone() {
    let id = Boot::new(1, RANDOM).unwrap().id();
    for algorithm in SealAlgorithm::ALL {
        let (first, last) = (id.nonce(algorithm, 0), id.nonce(algorithm, MESSAGES_PER_BOOT - 1));
        assert_eq!(first.as_bytes().len(), algorithm.nonce_octets());
        let (front, counter) = first.as_bytes().split_last_chunk::<4>().unwrap();
        assert_eq!(front, &RANDOM[..front.len()]);
        assert_eq!(counter, &[0; 4]);
        assert_eq!(last.as_bytes(), [front, &[0x00, 0x0f, 0xff, 0xff]].concat());
    }
}
