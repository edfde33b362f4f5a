use std::vec::Vec;

use kf_key::UnixMillis;

use super::*;
use crate::succession::{KeyRole, Links, MAX_LINKS, Succession, follow};

fn link(before: u8, after: u8, version: u32, role: KeyRole) -> Message {
    let key = identity(after).public_key();
    Succession { role, version, key, made: UnixMillis(1_800_000_000_000) }.sign(&identity(before)).unwrap()
}

fn sequence(links: &[Message]) -> Vec<u8> {
    links.iter().flat_map(|link| link.as_bytes().to_vec()).collect()
}

fn newest(octets: &[u8], held: u8) -> Option<PublicKey> {
    follow(octets, KeyRole::Order, &identity(held).public_key()).map(|found| found.key)
}

#[test]
fn whoever_holds_an_earlier_key_follows_to_the_newest_one_whatever_the_order_of_the_links() {
    let links = [link(3, 4, 3, KeyRole::Order), link(2, 3, 2, KeyRole::Order), link(2, 9, 2, KeyRole::Delivery)];
    let octets = sequence(&links);
    assert_eq!(Links::new(&octets).count(), 3);
    for held in [2, 3] {
        assert_eq!(newest(&octets, held), Some(identity(4).public_key()), "from {held}");
    }
    assert_eq!(newest(&octets, 4), None, "it is the newest");
    assert_eq!(newest(&octets, 5), None, "a stranger's key leads nowhere");
}

#[test]
fn a_link_of_another_role_another_signer_or_in_a_circle_counts_for_nothing() {
    assert_eq!(newest(&sequence(&[link(2, 3, 2, KeyRole::Delivery)]), 2), None);
    let stolen = link(7, 3, 2, KeyRole::Order);
    let mut renamed = stolen.as_bytes().to_vec();
    let name = identity(7).public_key().spki_sha256();
    let at = renamed.windows(16).position(|window| window == &name[..16]).unwrap();
    renamed[at..at + 16].copy_from_slice(&identity(2).public_key().spki_sha256()[..16]);
    assert_eq!(newest(&renamed, 2), None, "signed by another key than it says");
    let circle = sequence(&[link(2, 3, 2, KeyRole::Order), link(3, 2, 2, KeyRole::Order)]);
    assert_eq!(newest(&circle, 2), Some(identity(3).public_key()));
    assert_eq!(newest(&sequence(&[link(2, 3, 1, KeyRole::Order)]), 2), None, "the first key has no link");
}

#[test]
fn no_cut_or_flipped_link_is_followed() {
    let message = link(2, 3, 2, KeyRole::Order);
    for length in 0..message.as_bytes().len() {
        assert_eq!(newest(&message.as_bytes()[..length], 2), None, "cut to {length}");
    }
    for changed in flipped(message.as_bytes()) {
        assert_eq!(newest(&changed, 2), None);
    }
}

#[test]
fn a_chain_is_followed_as_far_as_its_bound_and_from_there_again() {
    let length = u8::try_from(MAX_LINKS).unwrap() + 3;
    let links: Vec<Message> = (1..=length).map(|at| link(at, at + 1, u32::from(at) + 1, KeyRole::Order)).collect();
    let octets = sequence(&links);
    let reached = newest(&octets, 1).unwrap();
    assert_eq!(reached, identity(u8::try_from(MAX_LINKS).unwrap() + 1).public_key());
    let rest = follow(&octets, KeyRole::Order, &reached).unwrap();
    assert_eq!(rest.key, identity(length + 1).public_key());
}

#[test]
fn a_device_that_names_a_key_is_answered_by_it_and_nobody_can_change_the_name_on_the_way() {
    let sides = Sides::honest();
    let known = sides.server.public_key();
    let start = || AwaitChallenge::start_by(Purpose::Delivery, ephemeral(0x33), [0x44; 16], Some(&known)).unwrap();
    let (waiting, hello) = start();
    assert_eq!(peek(hello.as_bytes()), Ok(Kind::Hello));
    assert_eq!(named_key(hello.as_bytes()).unwrap().unwrap(), known.spki_sha256()[..16]);
    let (_, plain) = Sides::hello(Purpose::Delivery);
    assert_eq!(named_key(plain.as_bytes()), Ok(None));
    let (served, challenge) = sides.challenge(hello.as_bytes());
    let (_, proof) = waiting.prove(challenge.as_bytes(), &sides.pins(), DEVICE, &sides.device).unwrap();
    served.verify(proof.as_bytes(), DEVICE, &sides.device.public_key()).unwrap();

    // Somebody takes the name away: what the device checks is not what it sent.
    let (waiting, _) = start();
    let (_, challenge) = sides.challenge(plain.as_bytes());
    let refused = waiting.prove(challenge.as_bytes(), &sides.pins(), DEVICE, &sides.device).unwrap_err();
    assert_eq!(refused.error, ExchangeError::Refused(Refusal::Unauthentic));
}
