//! Counters that only rise, and ECDH.

use kf_key::SecretBytes;
use kf_testkit::SoftwareTpm;
use kf_tpm::{Protection, TpmError};

use crate::open;

const INDEX: u32 = 0x0180_4b46;

fn secret(text: &str) -> SecretBytes {
    SecretBytes::from_vec(text.as_bytes().to_vec())
}

#[test]
fn a_counter_rises_survives_a_reboot_and_never_falls_even_when_the_owner_takes_it_away() {
    let mut emulator = SoftwareTpm::new();
    let auth = secret("counter");
    let first = {
        let tpm = open(&emulator);
        let first = tpm.make_counter(INDEX, &auth).unwrap();
        assert_eq!(tpm.make_counter(INDEX, &auth).unwrap(), first, "made once");
        assert_eq!(tpm.raise_counter(INDEX, &auth, first + 5).unwrap(), first + 5);
        assert_eq!(tpm.raise_counter(INDEX, &auth, first + 2).unwrap(), first + 5, "it falls for nobody");
        assert!(tpm.raise_counter(INDEX, &auth, first + 5_000).is_err(), "no call takes for ever");
        first
    };
    emulator.restart();
    {
        let tpm = open(&emulator);
        assert_eq!(tpm.counter(INDEX, &auth).unwrap(), first + 5);
        assert!(tpm.counter(INDEX, &secret("other")).is_err());
        assert!(matches!(
            tpm.make_counter(INDEX, &secret("other")),
            Err(TpmError::Authorization | TpmError::Call { .. })
        ));
        assert!(tpm.counter(INDEX + 1, &auth).is_err());
    }
    let gone = emulator.tool("tpm2_nvundefine").run(&["-C", "o", "0x01804b46"]);
    drop(gone.expect_success());
    let tpm = open(&emulator);
    assert!(tpm.make_counter(INDEX, &auth).unwrap() > first + 4, "an old copy would be believed again");
}

#[test]
fn both_sides_of_ecdh_agree_and_a_point_off_the_curve_is_refused() {
    let emulator = SoftwareTpm::new();
    let tpm = open(&emulator);
    let protection = Protection { auth: Some(secret("pass")), policy: None };
    let key = tpm.generate_agreement_key(&protection).unwrap();
    let other = kf_crypto::HpkePrivateKey::derive(&kf_crypto::random_secret().unwrap()).unwrap();
    let spki = key.spki().unwrap();
    let (_, point) = kf_crypto::public_key_of_spki(&spki).unwrap();
    let ours = tpm.agree(&key, &protection, other.public_key()).unwrap();
    assert!(other.agree(point.try_into().unwrap()).unwrap().equals(&ours));
    let mut off = *other.public_key();
    off[64] ^= 1;
    assert!(tpm.agree(&key, &protection, &off).is_err());
    let wrong = Protection { auth: Some(secret("guess")), policy: None };
    assert!(matches!(tpm.agree(&key, &wrong, other.public_key()), Err(TpmError::Authorization)));
}
