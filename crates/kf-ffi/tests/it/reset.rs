//! Counters of orders across a factory reset, asked by a C program.

use kf_exchange::order::{Order, OrderAct, OrderOutcome, OrderReport};
use kf_exchange::succession::Succession;
use kf_exchange::{IdentityKey as _, P256IdentityKey, PublicKey};
use kf_key::{KeyRole, SecretArray, UnixMillis};

use crate::est_server::DEVICE;
use crate::{c_file, compile};

fn order_key(octet: u8) -> P256IdentityKey {
    P256IdentityKey::from_secret(&SecretArray::fill(|secret| secret.fill(octet))).unwrap()
}

fn order_of(key: &P256IdentityKey, act: OrderAct, counter: u64) -> String {
    let order = Order { act, device: DEVICE, counter, expires: UnixMillis(1_000) };
    hex::encode(order.sign(key).unwrap().as_bytes())
}

fn link(from: &P256IdentityKey, to: &P256IdentityKey) -> String {
    let link = Succession { role: KeyRole::Order, version: 2, key: to.public_key(), made: UnixMillis(1) };
    hex::encode(link.sign(from).unwrap().as_bytes())
}

/// The line of the program that begins with `name`.
fn line<'a>(printed: &'a str, name: &str) -> &'a str {
    printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{printed}"))
}

#[test]
fn in_c_an_order_of_any_key_of_the_former_owner_is_as_old_after_a_reset_as_before() {
    let [first, second, third, next] = [0x51, 0x52, 0x53, 0x54].map(order_key);
    let spki = |key: &P256IdentityKey| hex::encode(key.public_key().to_spki());
    let texts = [
        ("FIRST", spki(&first)),
        ("NEXT", spki(&next)),
        ("FINGERPRINT_OF_FIRST", hex::encode(first.public_key().spki_sha256())),
        ("FIRST_TO_SECOND", link(&first, &second)),
        ("FIRST_TO_THIRD", link(&first, &third)),
        ("ROTATE_4_BY_FIRST", order_of(&first, OrderAct::Rotate, 4)),
        ("WITHHELD_5_BY_FIRST", order_of(&first, OrderAct::Rotate, 5)),
        ("ROTATE_6_BY_SECOND", order_of(&second, OrderAct::Rotate, 6)),
        ("RESET_7_BY_SECOND", order_of(&second, OrderAct::FactoryReset, 7)),
        ("WIPE_5_BY_THIRD", order_of(&third, OrderAct::Wipe, 5)),
        ("ROTATE_8_BY_FIRST", order_of(&first, OrderAct::Rotate, 8)),
        ("ROTATE_1_BY_NEXT", order_of(&next, OrderAct::Rotate, 1)),
    ];
    let scratch = kf_testkit::scratch();
    let lines: String = texts.iter().map(|(name, text)| format!("#define {name} \"{text}\"\n")).collect();
    std::fs::write(scratch.path().join("orders.h"), lines).unwrap();
    let program = compile("gcc", "-std=c11", scratch.path(), &[c_file("reset.c")]);

    let asked = program.run::<&str>(&[]).expect_success().stdout_text();
    let key = PublicKey::from_spki(&hex::decode(line(&asked, "key")).unwrap()).unwrap();
    let authority = kf_testkit::ForeignAuthority::new();
    let certificate = authority.certify_client("pump-7", &key.to_sec1(), (2026, 11, 1), (2027, 11, 1));
    let printed = program.run(&[hex::encode(certificate)]).expect_success().stdout_text();
    assert!(printed.contains("as old as before"), "{printed}");
    let report = OrderReport::verify(&hex::decode(line(&printed, "report")).unwrap(), &key).unwrap();
    let expected = (OrderAct::FactoryReset, 7, OrderOutcome::Done);
    assert_eq!((report.act, report.counter, report.outcome), expected);
}
