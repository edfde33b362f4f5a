use std::vec::Vec;

use kf_key::{DeviceId, FacilityId};
use proptest::prelude::*;

use super::*;

fn refusal<S, E: core::fmt::Debug + PartialEq>(refused: &Refused<S, E>) -> Refusal {
    match &refused.error {
        ExchangeError::Refused(refusal) => *refusal,
        ExchangeError::Holder(holder) => panic!("{holder:?}"),
    }
}

/// What the five readers say to a message, in their order of the protocol. The states survive.
fn said_to(message: &[u8], sides: &Sides) -> [Result<(), Refusal>; 5] {
    let (waiting, hello) = Sides::hello(Purpose::Delivery);
    let (served, challenge) = sides.challenge(hello.as_bytes());
    let to_hello = AwaitProof::challenge(message, &sides.server, [0x55; 16], ephemeral(0x66));
    let to_hello = to_hello.map(|_| ()).map_err(|error| match error {
        ExchangeError::Refused(refusal) => refusal,
        ExchangeError::Holder(never) => match never {},
    });
    let proved = waiting.prove(message, &sides.pins(), DEVICE, &sides.device);
    let (to_challenge, waiting) = match proved {
        Ok((waiting, proof)) => (Ok(proof), Ok(waiting)),
        Err(refused) => (Err(refusal(&refused)), Err(refused.state)),
    };
    let waiting = waiting.unwrap_or_else(|state| {
        // Intact: the honest challenge is taken afterwards.
        state.prove(challenge.as_bytes(), &sides.pins(), DEVICE, &sides.device).unwrap().0
    });
    let verified = served.verify(message, DEVICE, &sides.device.public_key());
    let (to_proof, served) = match verified {
        Ok(served) => (Ok(()), served),
        Err(refused) => {
            let said = refusal(&refused);
            let (_, _, [_, _, proof]) = sides.proved(Purpose::Delivery);
            (Err(said), refused.state.verify(proof.as_bytes(), DEVICE, &sides.device.public_key()).unwrap())
        }
    };
    let delivery = served.deliver(PLACE, &device_key(PLACE).into_secret()).unwrap();
    let (to_delivery, delivered) = match waiting.open(message, None) {
        Ok(delivered) => (Ok(()), delivered),
        Err(refused) => {
            let said = refusal(&refused);
            (Err(said), refused.state.open(delivery.as_bytes(), None).unwrap())
        }
    };
    let (_, done, _) = delivered.acknowledge().unwrap();
    let to_done = done.finish(message).map_err(|refused| refusal(&refused));
    [to_hello, to_challenge.map(|_| ()), to_proof, to_delivery, to_done]
}

fn to_acknowledgement(message: &[u8]) -> Result<(), Refusal> {
    Acknowledgement::read(message)?.verify(&device_key(PLACE)).map(|_| ())
}

/// The reader of message `index`.
fn said_by_reader(index: usize, message: &[u8], sides: &Sides) -> Result<(), Refusal> {
    match index {
        4 => to_acknowledgement(message),
        5 => said_to(message, sides)[4],
        _ => said_to(message, sides)[index],
    }
}

#[test]
fn a_device_gets_its_key_and_both_sides_know_it() {
    let messages = whole_exchange(&Sides::honest());
    let longest = messages.iter().map(|message| message.as_bytes().len()).max().unwrap();
    assert!(longest <= 256, "{longest}");
    let kinds = messages.map(|message| peek(message.as_bytes()).unwrap());
    assert_eq!(kinds, [Kind::Hello, Kind::Challenge, Kind::Proof, Kind::Delivery, Kind::Acknowledgement, Kind::Done]);
}

#[test]
fn a_message_cut_anywhere_is_malformed_and_one_octet_more_is_too() {
    let sides = Sides::honest();
    for (index, message) in whole_exchange(&sides).iter().enumerate() {
        let whole = message.as_bytes();
        for length in 0..whole.len() {
            let said = said_by_reader(index, &whole[..length], &sides);
            assert_eq!(said, Err(Refusal::Malformed), "message {index} cut to {length}");
        }
        let longer = [whole, &[0]].concat();
        assert_eq!(said_by_reader(index, &longer, &sides), Err(Refusal::Malformed), "message {index}");
        let oversized = [whole, &[0; MAX_MESSAGE_OCTETS]].concat();
        assert_eq!(said_by_reader(index, &oversized, &sides), Err(Refusal::TooLong), "message {index}");
    }
}

#[test]
fn no_flipped_bit_passes_but_in_the_hello_which_the_signatures_cover() {
    let sides = Sides::honest();
    for (index, message) in whole_exchange(&sides).iter().enumerate().skip(1) {
        // Every octet, one bit of it each time, and every bit of the short ones: signatures are slow to check.
        let every = if message.as_bytes().len() > 120 { 11 } else { 5 };
        for changed in flipped(message.as_bytes()).step_by(every) {
            let said = said_by_reader(index, &changed, &sides);
            assert!(said.is_err(), "message {index}: {}", hex::encode(changed));
        }
    }
}

#[test]
fn a_hello_changed_on_its_way_is_noticed_by_the_device() {
    let sides = Sides::honest();
    let (_, hello) = Sides::hello(Purpose::Delivery);
    for changed in flipped(hello.as_bytes()).step_by(7) {
        let answered = AwaitProof::challenge(&changed, &sides.server, [0x55; 16], ephemeral(0x66));
        let Ok((_, challenge)) = answered else { continue };
        let (waiting, _) = Sides::hello(Purpose::Delivery);
        let refused = waiting.prove(challenge.as_bytes(), &sides.pins(), DEVICE, &sides.device).unwrap_err();
        assert_eq!(refusal(&refused), Refusal::Unauthentic);
    }
}

#[test]
fn the_purpose_is_bound_by_the_signatures() {
    let sides = Sides::honest();
    let (waiting, _) = Sides::hello(Purpose::Delivery);
    let (_, other) = Sides::hello(Purpose::Session);
    let (_, challenge) = sides.challenge(other.as_bytes());
    let refused = waiting.prove(challenge.as_bytes(), &sides.pins(), DEVICE, &sides.device).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::Unauthentic);
}

#[test]
fn every_message_out_of_order_or_reflected_is_refused_as_such() {
    let sides = Sides::honest();
    let messages = whole_exchange(&sides);
    for (index, message) in messages.iter().enumerate() {
        for reader in (0..6).filter(|reader| *reader != index) {
            let said = said_by_reader(reader, message.as_bytes(), &sides);
            assert_eq!(said, Err(Refusal::OutOfOrder), "message {index} to the reader of {reader}");
        }
    }
}

#[test]
fn messages_of_another_run_are_refused_in_this_one() {
    let sides = Sides::honest();
    let recorded = whole_exchange(&sides);
    // The same two sides, with fresh randomness.
    let (waiting, hello) = AwaitChallenge::start(Purpose::Delivery, ephemeral(0x34), [0x45; 16]).unwrap();
    let (served, challenge) =
        AwaitProof::challenge(hello.as_bytes(), &sides.server, [0x56; 16], ephemeral(0x67)).unwrap();
    let refused = waiting.prove(recorded[1].as_bytes(), &sides.pins(), DEVICE, &sides.device).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::Unauthentic, "a recorded challenge");
    let (waiting, proof) = refused.state.prove(challenge.as_bytes(), &sides.pins(), DEVICE, &sides.device).unwrap();
    let refused = served.verify(recorded[2].as_bytes(), DEVICE, &sides.device.public_key()).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::OtherSession, "a recorded proof");
    let served = refused.state.verify(proof.as_bytes(), DEVICE, &sides.device.public_key()).unwrap();
    let refused = waiting.open(recorded[3].as_bytes(), None).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::OtherSession, "a recorded delivery");
    let delivery = served.deliver(PLACE, &device_key(PLACE).into_secret()).unwrap();
    let (_, done, _) = refused.state.open(delivery.as_bytes(), None).unwrap().acknowledge().unwrap();
    assert_eq!(refusal(&done.finish(recorded[5].as_bytes()).unwrap_err()), Refusal::OtherSession);
}

#[test]
fn a_session_identifier_that_comes_again_does_not_make_a_recorded_message_fit() {
    let sides = Sides::honest();
    let recorded = whole_exchange(&sides);
    // A server whose session identifiers repeat, with fresh ephemeral keys.
    let (waiting, hello) = AwaitChallenge::start(Purpose::Delivery, ephemeral(0x34), [0x45; 16]).unwrap();
    let (served, challenge) =
        AwaitProof::challenge(hello.as_bytes(), &sides.server, [0x55; 16], ephemeral(0x67)).unwrap();
    let (waiting, _) = waiting.prove(challenge.as_bytes(), &sides.pins(), DEVICE, &sides.device).unwrap();
    let refused = served.verify(recorded[2].as_bytes(), DEVICE, &sides.device.public_key()).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::Unauthentic);
    assert_eq!(refusal(&waiting.open(recorded[3].as_bytes(), None).unwrap_err()), Refusal::Unauthentic);
}

#[test]
fn a_server_that_is_not_pinned_is_told_nothing() {
    let sides = Sides::honest();
    let (waiting, hello) = Sides::hello(Purpose::Delivery);
    let stranger = Sides { device: identity(0x11), server: identity(0x77) };
    let (_, challenge) = stranger.challenge(hello.as_bytes());
    let refused = waiting.prove(challenge.as_bytes(), &sides.pins(), DEVICE, &sides.device).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::UnpinnedServer);
    // It writes the pinned key's name in front of its own signature.
    let mut claimed = challenge.as_bytes().to_vec();
    let at = claimed.len() - (2 + 64) - (2 + 32) - 16;
    claimed[at..at + 16].copy_from_slice(&sides.server.public_key().spki_sha256()[..16]);
    let refused = refused.state.prove(&claimed, &sides.pins(), DEVICE, &sides.device).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::Unauthentic);
    let no_pins: [PublicKey; 0] = [];
    let (_, honest) = sides.challenge(hello.as_bytes());
    let refused = refused.state.prove(honest.as_bytes(), &no_pins, DEVICE, &sides.device).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::UnpinnedServer);
}

#[test]
fn any_of_the_pinned_keys_will_do() {
    let sides = Sides::honest();
    let (waiting, hello) = Sides::hello(Purpose::Delivery);
    let (_, challenge) = sides.challenge(hello.as_bytes());
    let pins = [identity(0x77).public_key(), sides.server.public_key()];
    assert!(waiting.prove(challenge.as_bytes(), &pins, DEVICE, &sides.device).is_ok());
}

#[test]
fn another_device_or_another_key_is_refused_alike() {
    let sides = Sides::honest();
    let (waiting, hello) = Sides::hello(Purpose::Delivery);
    let (served, challenge) = sides.challenge(hello.as_bytes());
    let thief = identity(0x78);
    let (_, proof) = waiting.prove(challenge.as_bytes(), &sides.pins(), DEVICE, &thief).unwrap();
    // Signed by the thief's key: as the device, and as the thief whom the registry gives another identity.
    let refused = served.verify(proof.as_bytes(), DEVICE, &sides.device.public_key()).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::Unauthentic);
    let other = DeviceId::from_bytes([0xd2; 16]);
    let refused = refused.state.verify(proof.as_bytes(), other, &thief.public_key()).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::Unauthentic);
    // The identifier is swapped in the message as well: signature and MAC cover it.
    let swapped: Vec<u8> = {
        let mut octets = proof.as_bytes().to_vec();
        let at = octets.windows(16).position(|window| window == DEVICE.as_bytes()).unwrap();
        octets[at..at + 16].copy_from_slice(other.as_bytes());
        octets
    };
    let refused = refused.state.verify(&swapped, other, &thief.public_key()).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::Unauthentic);
}

#[test]
fn a_man_in_the_middle_cannot_put_his_ephemeral_key_in() {
    let sides = Sides::honest();
    let (waiting, _) = Sides::hello(Purpose::Delivery);
    // He opens a session of his own with the server and passes its challenge on.
    let (_, his) = AwaitChallenge::start(Purpose::Delivery, ephemeral(0x79), [0x44; 16]).unwrap();
    let (_, challenge) = sides.challenge(his.as_bytes());
    let refused = waiting.prove(challenge.as_bytes(), &sides.pins(), DEVICE, &sides.device).unwrap_err();
    assert_eq!(refusal(&refused), Refusal::Unauthentic);
}

#[test]
fn what_is_no_point_of_the_curve_is_refused() {
    let sides = Sides::honest();
    let (_, hello) = Sides::hello(Purpose::Delivery);
    let point = hello.as_bytes().len() - 65;
    // x and y of the generator's twist, an all-zero point, another encoding.
    for (first, fill) in [(4, 0), (4, 1), (4, 0xff), (0, 0), (2, 1), (6, 1)] {
        let mut changed = hello.as_bytes().to_vec();
        changed[point] = first;
        changed[point + 1..].fill(fill);
        let refused = AwaitProof::challenge(&changed, &sides.server, [0x55; 16], ephemeral(0x66)).unwrap_err();
        assert_eq!(refused, ExchangeError::Refused(Refusal::PublicKey), "{first} {fill}");
    }
}

#[test]
fn another_version_suite_or_purpose_is_refused_by_name() {
    let sides = Sides::honest();
    let (_, hello) = Sides::hello(Purpose::Delivery);
    // Array, version, kind, suite, purpose.
    for (at, value, expected) in [
        (1, 2, Refusal::Version),
        (3, 2, Refusal::Version),
        (4, 3, Refusal::Purpose),
        (4, 0, Refusal::Purpose),
        (2, 7, Refusal::Malformed),
    ] {
        let mut changed = hello.as_bytes().to_vec();
        changed[at] = value;
        let refused = AwaitProof::challenge(&changed, &sides.server, [0x55; 16], ephemeral(0x66)).unwrap_err();
        assert_eq!(refused, ExchangeError::Refused(expected), "octet {at} = {value}");
    }
}

#[test]
fn an_encoding_that_is_not_the_shortest_is_malformed() {
    let sides = Sides::honest();
    let (_, hello) = Sides::hello(Purpose::Delivery);
    let whole = hello.as_bytes();
    // Version 1 in two octets; an array of indefinite length; a byte string of indefinite length.
    let long_version = [&whole[..1], &[0x18, 0x01], &whole[2..]].concat();
    let indefinite = [&[0x9f], &whole[1..], &[0xff]].concat();
    for changed in [long_version, indefinite] {
        let refused = AwaitProof::challenge(&changed, &sides.server, [0x55; 16], ephemeral(0x66)).unwrap_err();
        assert_eq!(refused, ExchangeError::Refused(Refusal::Malformed));
    }
}

#[test]
fn a_key_older_than_the_one_held_is_refused_and_the_same_again_is_taken() {
    let sides = Sides::honest();
    let elsewhere = FacilityId::from_bytes([0xf2; 16]);
    let cases = [
        (PLACE, true),
        (KeyPlace { facility_epoch: 1, ..PLACE }, true),
        (KeyPlace { facility_epoch: 3, ..PLACE }, false),
        (KeyPlace { device_epoch: 4, ..PLACE }, false),
        (KeyPlace { facility: elsewhere, facility_epoch: 9, device_epoch: 2 }, true),
        (KeyPlace { facility: elsewhere, ..PLACE }, false),
        (KeyPlace { facility: elsewhere, facility_epoch: 1, device_epoch: 4 }, false),
    ];
    for (held, taken) in cases {
        let (waiting, served, _) = sides.proved(Purpose::Delivery);
        let delivery = served.deliver(PLACE, &device_key(PLACE).into_secret()).unwrap();
        match waiting.open(delivery.as_bytes(), Some(&held)) {
            Ok(delivered) => assert!(taken, "{held:?} {:?}", delivered.place()),
            Err(refused) => assert_eq!((taken, refusal(&refused)), (false, Refusal::OlderKey), "{held:?}"),
        }
    }
}

#[test]
fn an_acknowledgement_needs_the_new_key_and_may_come_again() {
    let messages = whole_exchange(&Sides::honest());
    let said = Acknowledgement::read(messages[4].as_bytes()).unwrap();
    for _ in 0..2 {
        assert_eq!(said.verify(&device_key(PLACE)).unwrap().as_bytes(), messages[5].as_bytes());
    }
    let old = KeyPlace { facility_epoch: 1, ..PLACE };
    assert_eq!(said.verify(&device_key(old)).unwrap_err(), Refusal::Unauthentic);
    // Under the right key, but for another place.
    let mut octets = messages[4].as_bytes().to_vec();
    let at = octets.windows(16).position(|window| window == FACILITY.as_bytes()).unwrap() + 16;
    octets[at] += 1;
    let said = Acknowledgement::read(&octets).unwrap();
    assert_eq!(said.verify(&device_key(PLACE)).unwrap_err(), Refusal::Unauthentic);
}

#[test]
fn a_server_cannot_deliver_into_a_session_nor_open_a_session_in_a_delivery() {
    let sides = Sides::honest();
    let (_, served, _) = sides.proved(Purpose::Session);
    assert_eq!(served.deliver(PLACE, &device_key(PLACE).into_secret()).unwrap_err(), Refusal::Purpose);
    let (_, served, _) = sides.proved(Purpose::Delivery);
    assert_eq!(served.open_session(PLACE, &device_key(PLACE)).unwrap_err(), Refusal::Purpose);
}

#[test]
fn secrets_do_not_print() {
    let sides = Sides::honest();
    let (waiting, served, [_, challenge, _]) = sides.proved(Purpose::Delivery);
    let shown = std::format!("{waiting:?} {served:?} {challenge:?} {:?} {:?}", sides.device, ephemeral(1));
    let expected = std::format!(
        "AwaitDelivery(Delivery) Authenticated({DEVICE}, Delivery) Message({} octets) P256IdentityKey Ephemeral",
        challenge.as_bytes().len()
    );
    assert_eq!(shown, expected);
}

#[test]
fn thirty_two_octets_that_are_no_scalar_are_drawn_again() {
    for octet in [0, 0xff] {
        assert_eq!(Ephemeral::from_random(secret(octet)).unwrap_err(), Refusal::DrawAgain);
        assert_eq!(P256IdentityKey::from_secret(&secret(octet)).unwrap_err(), Refusal::DrawAgain);
    }
}

#[test]
fn a_public_key_survives_its_encodings() {
    let key = identity(0x11).public_key();
    assert_eq!(PublicKey::from_sec1(&key.to_sec1()), Ok(key));
    assert_eq!(PublicKey::from_spki(&key.to_spki()), Ok(key));
    assert_eq!(PublicKey::from_spki(&key.to_spki()[1..]), Err(Refusal::PublicKey));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_octets_whatever_panic_a_reader(octets in proptest::collection::vec(any::<u8>(), 0..420)) {
        let _ = (peek(&octets), ClaimedIdentity::read(&octets), Acknowledgement::read(&octets));
        let _ = crate::order::OrderReport::claimed(&octets);
    }

    #[test]
    fn what_decodes_is_encoded_in_one_way(at in 0..400_usize, value in any::<u8>(), index in 0..6_usize) {
        use std::sync::OnceLock;
        static MESSAGES: OnceLock<[Message; 6]> = OnceLock::new();
        let message = &MESSAGES.get_or_init(|| whole_exchange(&Sides::honest()))[index];
        let mut octets = message.as_bytes().to_vec();
        let length = octets.len();
        octets[at % length] = value;
        // An acknowledgement or a proof that is read names what its octets say.
        if let Ok(said) = Acknowledgement::read(&octets) {
            prop_assert!(octets.windows(16).any(|window| window == said.device().as_bytes()));
        }
        if let Ok(said) = ClaimedIdentity::read(&octets) {
            prop_assert!(octets.windows(32).any(|window| window == said.spki_sha256));
        }
    }
}
