//! Keys that are released only after a measured boot.

use kf_crypto::PrivateKey;
use kf_key::{KeyAlgorithm, SecretBytes};
use kf_testkit::SoftwareTpm;
use kf_tpm::policy::{Approval, BootPolicy, PcrSelection, PcrState, PolicyAuthority};
use kf_tpm::{Protection, Tpm, TpmError};

use crate::open;

fn selection() -> PcrSelection {
    PcrSelection::new(&[0, 7, 16]).unwrap()
}

/// Another boot: register 16 is measured into.
fn measure(emulator: &SoftwareTpm, what: &str) {
    let argument = format!("16:sha256={}", what.repeat(32));
    let output = emulator.tool("tpm2_pcrextend").run(&[argument.as_str()]);
    assert!(output.success(), "{}", output.text());
}

fn approve(key: &PrivateKey, state: PcrState) -> Approval {
    let signature = key.sign(&state.approval_message()).unwrap();
    Approval { state, signature }
}

fn authorised(key: &PrivateKey, approvals: Vec<Approval>) -> BootPolicy {
    let authority = PolicyAuthority::from_spki(&key.spki()).unwrap();
    BootPolicy::Authorised { authority, selection: selection(), approvals }
}

fn unseal(tpm: &Tpm, sealed: &kf_tpm::Blob, policy: &BootPolicy) -> Result<SecretBytes, TpmError> {
    tpm.unseal(sealed, &Protection { auth: None, policy: Some(policy.clone()) })
}

#[test]
fn a_fixed_policy_releases_in_its_boot_state_only() {
    let mut emulator = SoftwareTpm::new();
    let secret = SecretBytes::from_vec(b"storage key".to_vec());
    let (sealed, policy) = {
        let tpm = open(&emulator);
        let policy = BootPolicy::Fixed(tpm.boot_state(selection()).unwrap());
        let sealed = tpm.seal(&secret, &Protection { auth: None, policy: Some(policy.clone()) }).unwrap();
        assert!(unseal(&tpm, &sealed, &policy).unwrap().equals(b"storage key"));
        // Neither without the policy nor under another one.
        assert!(tpm.unseal(&sealed, &Protection::default()).is_err());
        let fewer = BootPolicy::Fixed(tpm.boot_state(PcrSelection::new(&[0]).unwrap()).unwrap());
        assert_eq!(unseal(&tpm, &sealed, &fewer).err(), Some(TpmError::BootState));
        (sealed, policy)
    };
    measure(&emulator, "aa");
    {
        let tpm = open(&emulator);
        assert_eq!(unseal(&tpm, &sealed, &policy).err(), Some(TpmError::BootState));
        // A liar who takes the present state for the right one gets no further.
        let lie = BootPolicy::Fixed(tpm.boot_state(selection()).unwrap());
        assert_eq!(unseal(&tpm, &sealed, &lie).err(), Some(TpmError::BootState));
    }
    emulator.restart();
    assert!(unseal(&open(&emulator), &sealed, &policy).unwrap().equals(b"storage key"));
}

#[test]
fn an_update_is_accepted_once_its_boot_state_is_approved() {
    let emulator = SoftwareTpm::new();
    let authority = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let secret = SecretBytes::from_vec(b"storage key".to_vec());
    let (sealed, before) = {
        let tpm = open(&emulator);
        let state = tpm.boot_state(selection()).unwrap();
        let policy = authorised(&authority, vec![approve(&authority, state.clone())]);
        let sealed = tpm.seal(&secret, &Protection { auth: None, policy: Some(policy.clone()) }).unwrap();
        assert!(unseal(&tpm, &sealed, &policy).unwrap().equals(b"storage key"));
        (sealed, state)
    };
    measure(&emulator, "bb");
    let tpm = open(&emulator);
    let now = tpm.boot_state(selection()).unwrap();
    let old = authorised(&authority, vec![approve(&authority, before)]);
    assert_eq!(unseal(&tpm, &sealed, &old).err(), Some(TpmError::BootState));
    let updated = authorised(&authority, vec![approve(&authority, now.clone())]);
    assert!(unseal(&tpm, &sealed, &updated).unwrap().equals(b"storage key"));
    // An approval by somebody else, and one whose signature is damaged.
    let stranger = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let forged = authorised(&authority, vec![approve(&stranger, now.clone())]);
    assert_eq!(unseal(&tpm, &sealed, &forged).err(), Some(TpmError::Approval));
    let mut damaged = approve(&authority, now.clone());
    damaged.signature.truncate(10);
    assert_eq!(unseal(&tpm, &sealed, &authorised(&authority, vec![damaged])).err(), Some(TpmError::Approval));
    // The stranger's own policy is another one.
    let own = authorised(&stranger, vec![approve(&stranger, now)]);
    assert_eq!(unseal(&tpm, &sealed, &own).err(), Some(TpmError::BootState));
    assert!(unseal(&tpm, &sealed, &updated).is_ok());
}

#[test]
fn a_policy_and_an_authorisation_value_are_needed_together() {
    let emulator = SoftwareTpm::new();
    let tpm = open(&emulator);
    let policy = BootPolicy::Fixed(tpm.boot_state(selection()).unwrap());
    let both = |auth: &str| Protection {
        auth: Some(SecretBytes::from_vec(auth.as_bytes().to_vec())),
        policy: Some(policy.clone()),
    };
    let sealed = tpm.seal(&SecretBytes::from_vec(b"secret".to_vec()), &both("right")).unwrap();
    assert!(tpm.unseal(&sealed, &both("right")).unwrap().equals(b"secret"));
    assert_eq!(tpm.unseal(&sealed, &both("wrong")).err(), Some(TpmError::Authorization));
    assert_eq!(unseal(&tpm, &sealed, &policy).err(), Some(TpmError::BootState));
    let only_auth = Protection { auth: Some(SecretBytes::from_vec(b"right".to_vec())), policy: None };
    assert!(tpm.unseal(&sealed, &only_auth).is_err());
}
