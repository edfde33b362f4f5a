//! The thief who gets the root afterwards, and has recorded every message.

use std::vec::Vec;

use kf_derive::{SessionKey, SoftwareKey, extract};
use kf_key::SecretArray;

use super::*;
use crate::transcript::{Label, Schedule, Transcript};

struct Mixed {
    messages: Vec<Message>,
    of_device: SessionKey,
    of_server: SessionKey,
}

fn mixed_session(sides: &Sides) -> Mixed {
    let (waiting, served, sent) = sides.proved(Purpose::Session);
    let (of_server, delivery) = served.open_session(PLACE, &device_key(PLACE)).unwrap();
    let opened = waiting.open_session(delivery.as_bytes(), &PLACE, &device_key(PLACE)).unwrap();
    let (of_device, done, acknowledgement) = opened;
    let answer = Acknowledgement::read(acknowledgement.as_bytes()).unwrap().verify_session(&of_server).unwrap();
    done.finish(answer.as_bytes()).unwrap();
    let messages = sent.into_iter().chain([delivery, acknowledgement, answer]).collect();
    Mixed { messages, of_device, of_server }
}

fn leaf(session: &SessionKey) -> Vec<u8> {
    session.application(b"telemetry", 0).unwrap().into_secret().expose().to_vec()
}

#[test]
fn both_sides_of_a_mixed_session_have_the_same_key() {
    let mixed = mixed_session(&Sides::honest());
    assert_eq!(leaf(&mixed.of_device), leaf(&mixed.of_server));
}

/// Everything that the thief can make a key of: the root and with it every key below, all long-lived private keys, and
/// each recorded octet string, in every place of the derivation where a secret belongs.
#[test]
fn the_root_and_the_recorded_messages_do_not_give_the_session_key() {
    let sides = Sides::honest();
    let mixed = mixed_session(&sides);
    let wanted = leaf(&mixed.of_device);
    let transcripts = transcripts(&mixed.messages);
    let mut guesses: Vec<SecretArray<32>> = Vec::new();
    // Secrets of the tree and of the two identities, and the public x-coordinates.
    guesses.push(secret(0x99));
    guesses.push(device_key(PLACE).into_secret());
    guesses.extend([0x11, 0x22].map(secret));
    for message in &mixed.messages {
        for window in message.as_bytes().windows(32) {
            guesses.push(SecretArray::fill(|guess| guess.copy_from_slice(window)));
        }
    }
    // Products of the long-lived keys with the recorded ephemeral ones: all that static keys can compute.
    for private in [0x11, 0x22] {
        for public in [sides.device.public_key(), sides.server.public_key()].into_iter().chain(ephemerals(&mixed)) {
            guesses.push(Ephemeral::from_random(secret(private)).unwrap().agree(&public).unwrap());
        }
    }
    let last = transcripts[2];
    for guess in guesses {
        // As the shared secret of the exchange.
        let schedule = Schedule::new(transcripts[1], &guess);
        let found = device::mixed_session(&schedule, last, &device_key(PLACE)).unwrap();
        assert_ne!(leaf(&found), wanted);
        // As the mixed-in secret itself.
        let found = device_key(PLACE).mixed_session(guess, last.as_bytes(), 0).unwrap();
        assert_ne!(leaf(&found), wanted);
    }
    // The session of the same name in the static tree.
    let found = device_key(PLACE).session(last.as_bytes(), 0).unwrap();
    assert_ne!(leaf(&found), wanted);
    // And that the thief's computation is the right one, had he an ephemeral secret: the test can fail.
    let shared = ephemeral(0x66).agree(&ephemeral(0x33).public_key()).unwrap();
    let schedule = Schedule::new(transcripts[1], &shared);
    let found = device::mixed_session(&schedule, last, &device_key(PLACE)).unwrap();
    assert_eq!(leaf(&found), wanted);
}

/// The transcript after the hello, at the challenge's signature, and after the proof, from the recorded messages alone.
fn transcripts(messages: &[Message]) -> [Transcript; 3] {
    let hello = Transcript::begin().then(messages[0].as_bytes());
    let challenge = messages[1].as_bytes();
    let signed = &challenge[..challenge.len() - (2 + 64) - (2 + 32)];
    let proof = messages[2].as_bytes();
    let proved = hello.then(challenge).then(&proof[..proof.len() - (2 + 64) - (2 + 32)]).then(proof);
    [hello, hello.then(signed), proved]
}

fn ephemerals(mixed: &Mixed) -> Vec<PublicKey> {
    let hello = mixed.messages[0].as_bytes();
    let challenge = mixed.messages[1].as_bytes();
    let theirs = &challenge[3 + 17 + 2..];
    [hello.last_chunk().unwrap(), theirs.first_chunk().unwrap()]
        .map(|point| PublicKey::from_sec1(point).unwrap())
        .to_vec()
}

#[test]
fn without_the_device_key_the_ephemeral_secrets_do_not_suffice() {
    let sides = Sides::honest();
    let mixed = mixed_session(&sides);
    let [_, agreed, last] = transcripts(&mixed.messages);
    let shared = ephemeral(0x66).agree(&ephemeral(0x33).public_key()).unwrap();
    let schedule = Schedule::new(agreed, &shared);
    let another = KeyPlace { device_epoch: PLACE.device_epoch + 1, ..PLACE };
    let found = device::mixed_session(&schedule, last, &device_key(another)).unwrap();
    assert_ne!(leaf(&found), leaf(&mixed.of_device));
    let without = extract(&[], schedule.expand(Label::MIX, last).into_secret().expose());
    let found = SessionKey::from_keyed_hmac(SoftwareKey::new(without.into_secret()));
    assert_ne!(leaf(&found), leaf(&mixed.of_device));
}

#[test]
fn a_session_under_another_key_than_the_one_held_is_refused() {
    let sides = Sides::honest();
    let (waiting, served, _) = sides.proved(Purpose::Session);
    let (_, delivery) = served.open_session(PLACE, &device_key(PLACE)).unwrap();
    let held = KeyPlace { facility_epoch: 1, ..PLACE };
    let refused = waiting.open_session(delivery.as_bytes(), &held, &device_key(held)).unwrap_err();
    assert_eq!(refused.error, ExchangeError::Refused(Refusal::OlderKey));
    // Nor does a delivery come out of a session.
    let refused = refused.state.open(delivery.as_bytes(), None).unwrap_err();
    assert_eq!(refused.error, ExchangeError::Refused(Refusal::Purpose));
}

#[test]
fn two_sessions_never_have_the_same_key() {
    let sides = Sides::honest();
    let one = mixed_session(&sides);
    let (waiting, hello) = AwaitChallenge::start(Purpose::Session, ephemeral(0x33), [0x44; 16]).unwrap();
    let (served, challenge) =
        AwaitProof::challenge(hello.as_bytes(), &sides.server, [0x55; 16], ephemeral(0x67)).unwrap();
    let (_, proof) = waiting.prove(challenge.as_bytes(), &sides.pins(), DEVICE, &sides.device).unwrap();
    let served = served.verify(proof.as_bytes(), DEVICE, &sides.device.public_key()).unwrap();
    let (two, _) = served.open_session(PLACE, &device_key(PLACE)).unwrap();
    assert_ne!(leaf(&one.of_device), leaf(&two));
}
