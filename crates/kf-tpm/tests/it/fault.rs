//! A TPM that vanishes, answers late or is locked out: each a refusal of its own, nothing released, and service again
//! when the cause is gone.

use std::sync::mpsc;
use std::time::Duration;

use kf_key::SecretBytes;
use kf_testkit::SoftwareTpm;
use kf_tpm::{Protection, Tpm, TpmError};

use crate::open;

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
    let patient = open(&emulator);
    let sealed = sealed(&patient);
    // Only calls to a frozen TPM are made with a short deadline: what a busy machine takes for others is not measured here.
    let impatient = patient.with_deadline(Duration::from_millis(500));
    emulator.freeze();
    let late = impatient.unseal(&sealed, &Protection::default()).unwrap_err();
    assert_eq!(late, TpmError::Late { millis: 500 });
    // The TPM is still at it: no second caller waits, however patient.
    assert_eq!(patient.unseal(&sealed, &Protection::default()).err(), Some(TpmError::Busy));
    emulator.thaw();
    // Refused until the late answer has come, which nobody gets; then served.
    let (_sender, pace) = mpsc::channel::<()>();
    let served = (0..3_000).find_map(|_| match patient.unseal(&sealed, &Protection::default()) {
        Err(TpmError::Busy) => {
            let _paced = pace.recv_timeout(Duration::from_millis(20));
            None
        }
        outcome => Some(outcome),
    });
    assert!(served.unwrap().unwrap().equals(b"secret"));
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
