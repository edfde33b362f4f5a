//! A TPM that vanishes, answers late or is locked out: each a refusal of its own, nothing released, and service again
//! when the cause is gone.

use std::time::{Duration, Instant};

use kf_key::SecretBytes;
use kf_testkit::SoftwareTpm;
use kf_tpm::{Protection, Tpm, TpmError};

use crate::{open, open_within};

fn sealed(tpm: &Tpm) -> kf_tpm::Blob {
    tpm.seal(&SecretBytes::from_vec(b"secret".to_vec()), &Protection::default()).unwrap()
}

#[test]
fn a_tpm_that_vanished_is_told_and_comes_back() {
    let mut emulator = SoftwareTpm::new();
    let tpm = open(&emulator);
    let sealed = sealed(&tpm);
    emulator.kill();
    let gone = tpm.unseal(&sealed, &Protection::default()).unwrap_err();
    assert!(matches!(gone, TpmError::Vanished { .. }), "{gone:?}");
    let still = tpm.unseal(&sealed, &Protection::default()).unwrap_err();
    assert!(matches!(still, TpmError::Unreachable { .. }), "{still:?}");
    emulator.restart();
    assert!(tpm.unseal(&sealed, &Protection::default()).unwrap().equals(b"secret"));
}

#[test]
fn a_tpm_that_is_killed_in_mid_call_is_told() {
    let mut emulator = SoftwareTpm::new();
    let tpm = open(&emulator);
    let sealed = sealed(&tpm);
    emulator.freeze();
    let outcome = std::thread::scope(|scope| {
        let call = scope.spawn(|| tpm.unseal(&sealed, &Protection::default()));
        emulator.wait_for_unread_command();
        emulator.kill();
        call.join().unwrap()
    });
    assert!(matches!(outcome, Err(TpmError::Vanished { .. })), "{outcome:?}");
    emulator.restart();
    assert!(tpm.unseal(&sealed, &Protection::default()).is_ok());
}

#[test]
fn no_tpm_at_all_is_told() {
    let mut emulator = SoftwareTpm::new();
    emulator.kill();
    let refused = Tpm::open(emulator.address().parse().unwrap(), Duration::from_secs(60)).unwrap_err();
    assert!(matches!(refused, TpmError::Unreachable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("enabled"), "{refused}");
}

#[test]
fn a_late_answer_is_not_waited_for_and_not_given_to_anybody() {
    let emulator = SoftwareTpm::new();
    let deadline = Duration::from_secs(6);
    let tpm = open_within(&emulator, deadline);
    let sealed = sealed(&tpm);
    emulator.freeze();
    let started = Instant::now();
    let late = tpm.unseal(&sealed, &Protection::default()).unwrap_err();
    assert_eq!(late, TpmError::Late { millis: 6_000 });
    assert!(started.elapsed() < deadline * 3, "{:?}", started.elapsed());
    // The TPM is still at it: no second caller waits.
    let started = Instant::now();
    assert_eq!(tpm.unseal(&sealed, &Protection::default()).err(), Some(TpmError::Busy));
    assert!(started.elapsed() < deadline, "{:?}", started.elapsed());
    emulator.thaw();
    let started = Instant::now();
    let opened = loop {
        match tpm.unseal(&sealed, &Protection::default()) {
            Err(TpmError::Busy | TpmError::Late { .. }) if started.elapsed() < Duration::from_secs(30) => {
                std::thread::yield_now();
            }
            outcome => break outcome,
        }
    };
    assert!(opened.unwrap().equals(b"secret"));
}

#[test]
fn wrong_authorisations_lock_the_tpm_out_until_the_lockout_is_reset() {
    let emulator = SoftwareTpm::new();
    // Three failures, and a long time to forget one.
    let setup = emulator.tool("tpm2_dictionarylockout").run(&["-s", "-n", "3", "-t", "3600", "-l", "3600"]);
    assert!(setup.success(), "{}", setup.text());
    let auth = |text: &str| Protection { auth: Some(SecretBytes::from_vec(text.as_bytes().to_vec())), policy: None };
    let (key, free) = {
        let tpm = open(&emulator);
        let key = tpm.generate_signature_key(&auth("right")).unwrap();
        let free = tpm.generate_signature_key(&Protection::default()).unwrap();
        for _ in 0..3 {
            assert_eq!(tpm.sign(&key, &auth("wrong"), b"message"), Err(TpmError::Authorization));
        }
        // Even the right value is refused now; a key without one is not concerned.
        assert_eq!(tpm.sign(&key, &auth("right"), b"message"), Err(TpmError::LockedOut));
        assert!(tpm.sign(&free, &Protection::default(), b"message").is_ok());
        (key, free)
    };
    let reset = emulator.tool("tpm2_dictionarylockout").run(&["-c"]);
    assert!(reset.success(), "{}", reset.text());
    let tpm = open(&emulator);
    assert!(tpm.sign(&key, &auth("right"), b"message").is_ok());
    assert!(tpm.sign(&free, &Protection::default(), b"message").is_ok());
}
