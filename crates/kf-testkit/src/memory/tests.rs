use sha2::{Digest as _, Sha256};

use super::*;
use crate::Tool;

/// Eight octets that this program's own text does not hold, however the compiler lays it out.
fn secret(seed: u8) -> Vec<u8> {
    (1..=32_u8).map(|octet| octet.wrapping_mul(29).wrapping_add(seed).rotate_left(3) ^ 0x5c).collect()
}

fn found_in(octets: &[u8], secrets: &[KnownSecret]) -> Vec<(String, u64, usize)> {
    let (fragments, mut report) = (Fragments::of(secrets), MemoryReport::default());
    let mut run = Run::default();
    for (number, page) in octets.chunks(PAGE_OCTETS).enumerate() {
        run.page(page, u64::try_from(number * PAGE_OCTETS).unwrap(), "", &fragments, &mut report);
    }
    report.findings.into_iter().map(|finding| (finding.secret, finding.address, finding.octets)).collect()
}

#[test]
fn eight_octets_are_found_at_every_place_forwards_and_backwards_and_seven_are_not() {
    let known = [KnownSecret::new("key", &secret(1))];
    let mut backwards = secret(1);
    backwards.reverse();
    for at in (0..40).chain(PAGE_OCTETS - 20..PAGE_OCTETS + 20).chain([2 * PAGE_OCTETS - 8]) {
        for octets in [secret(1), backwards.clone()] {
            let mut memory = vec![0; 2 * PAGE_OCTETS];
            memory[at..at + 8].copy_from_slice(&octets[11..19]);
            assert_eq!(found_in(&memory, &known), [("key".to_owned(), u64::try_from(at).unwrap(), 8)], "{at}");
            memory[at] ^= 1;
            assert_eq!(found_in(&memory, &known), [], "{at}");
        }
    }
}

#[test]
fn a_piece_is_one_finding_with_its_length_and_secrets_are_told_apart() {
    let known = [KnownSecret::new("one", &secret(1)), KnownSecret::new("two", &secret(90))];
    let mut memory = vec![0x11; 9_000];
    memory[4_090..4_122].copy_from_slice(&secret(1));
    memory[5_000..5_020].copy_from_slice(&secret(90)[..20]);
    assert_eq!(found_in(&memory, &known), [("one".to_owned(), 4_090, 32), ("two".to_owned(), 5_000, 20)]);
}

#[test]
fn a_secret_in_a_live_process_is_found_and_one_that_is_not_there_is_not() {
    let hex: String = secret(7).iter().map(|octet| format!("{octet:02x}")).collect();
    let home = crate::scratch();
    std::fs::write(home.path().join("secret"), &hex).unwrap();
    let bash = Tool::new("bash").directory(home.path());
    let mut program = bash.start(&["-c", "kept=$(cat secret); echo ready; sleep 60; echo $kept"]);
    program.wait_for_line(|line| line == "ready");
    let known = [KnownSecret::new("kept", hex.as_bytes()), KnownSecret::new("absent", &secret(8))];
    let report = search_memory(program.id(), &known);
    assert!(report.count("kept") > 0 && report.octets > 100_000, "{report:?}");
    assert_eq!(report.count("absent"), 0);
}

#[test]
fn a_key_that_nobody_told_is_found_by_what_it_opens() {
    let key = Box::new(std::array::from_fn::<u8, 32, _>(|octet| secret(9)[octet]));
    let digest = Sha256::digest(key.as_slice());
    let found = find_in_memory(std::process::id(), |block| Sha256::digest(block) == digest);
    assert_eq!(found.as_ref(), Some(key.as_ref()));
    assert_eq!(find_in_memory(std::process::id(), |_| false), None);
}
