//! Hardware that vanishes, is locked or fails in the middle of a call, made by a wrapper around a key that works.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use kf_backend::{BackendError, FusedBackend, KeyBackend, TokenFault, unwrap_replaceable, wrap_replaceable};
use kf_derive::{DeriveError, FacilityKey, FleetRoot, KeyedHmac, SoftwareKey};
use kf_key::{DeviceId, FacilityId, SecretArray};

/// Fails as told, call by call; works when nothing is told. It writes to the tag before it fails, as hardware does whose
/// answer breaks off.
#[derive(Clone)]
struct Faulty(Arc<(SoftwareKey, Mutex<VecDeque<Option<TokenFault>>>)>);

impl Faulty {
    fn new() -> Self {
        let key = SoftwareKey::new(SecretArray::fill(|key| key.fill(3)));
        Self(Arc::new((key, Mutex::default())))
    }

    fn then(&self, faults: impl IntoIterator<Item = Option<TokenFault>>) {
        self.0.1.lock().unwrap().extend(faults);
    }
}

impl KeyedHmac for Faulty {
    type Error = BackendError;

    fn hmac_sha256(&self, message: &[u8], tag: &mut [u8; 32]) -> Result<(), BackendError> {
        let Ok(()) = self.0.0.hmac_sha256(message, tag);
        let fault = self.0.1.lock().unwrap().pop_front().flatten();
        fault.map_or(Ok(()), |fault| Err(BackendError::Token(fault)))
    }
}

fn faults() -> [TokenFault; 5] {
    [
        TokenFault::Gone { during: "C_Sign: DeviceRemoved".to_owned() },
        TokenFault::Locked,
        TokenFault::Login,
        TokenFault::Late { seconds: 30 },
        TokenFault::Call { function: "C_Sign".to_owned(), code: "DeviceError".to_owned() },
    ]
}

fn batch(facility: FacilityKey) -> SecretArray<32> {
    facility.batch(b"batch", 1).unwrap().into_secret()
}

#[test]
fn each_fault_is_its_own_refusal_yields_no_key_and_leaves_the_tree_as_it_was() {
    let hardware = Faulty::new();
    let root = FleetRoot::from_keyed_hmac(hardware.clone());
    let id = FacilityId::from_bytes([1; 16]);
    let before = batch(root.facility(id, 1).unwrap());
    for fault in faults() {
        hardware.then([Some(fault.clone())]);
        let refused = root.facility(id, 1).err();
        assert_eq!(refused, Some(DeriveError::Holder(BackendError::Token(fault))));
        assert!(batch(root.facility(id, 1).unwrap()).equals(&before));
    }
}

#[test]
fn each_fault_has_its_own_text_with_a_remedy_or_a_reason() {
    let mut texts: Vec<String> = faults().map(|fault| BackendError::Token(fault).to_string()).to_vec();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), faults().len());
}

#[test]
fn a_device_key_in_hardware_that_vanishes_between_two_steps_yields_no_session() {
    let hardware = Faulty::new();
    let facility = FacilityKey::from_keyed_hmac(hardware.clone());
    let device = DeviceId::from_bytes([2; 16]);
    hardware.then([None, Some(TokenFault::Gone { during: "TPM2_HMAC".to_owned() })]);
    assert!(facility.device(device, &[0; 16], 1).is_ok());
    assert!(facility.device(device, &[0; 16], 1).is_err());
    assert!(facility.device(device, &[0; 16], 1).is_ok());
}

#[test]
fn wrapping_under_a_chip_that_fails_neither_wraps_nor_opens() {
    let hardware = Faulty::new();
    let backend = FusedBackend::new(hardware.clone(), "faulty".to_owned()).unwrap();
    let key = SecretArray::fill(|key| key.fill(9));
    let wrapped = wrap_replaceable(&backend, 1, &key).unwrap();
    for fault in faults() {
        hardware.then([Some(fault.clone()), Some(fault.clone()), Some(fault.clone())]);
        let expected = Some(BackendError::Token(fault));
        assert_eq!(wrap_replaceable(&backend, 1, &key).err(), expected);
        assert_eq!(unwrap_replaceable(&backend, 1, &wrapped).err(), expected);
        assert_eq!(backend.health().err(), expected);
        assert!(unwrap_replaceable(&backend, 1, &wrapped).unwrap().equals(&key));
    }
}

#[test]
fn a_chip_that_answers_with_another_key_is_noticed() {
    struct Swapped(Mutex<u8>);
    impl KeyedHmac for Swapped {
        type Error = BackendError;
        fn hmac_sha256(&self, message: &[u8], tag: &mut [u8; 32]) -> Result<(), BackendError> {
            let mut octet = self.0.lock().unwrap();
            *octet += 1;
            let Ok(()) = SoftwareKey::new(SecretArray::fill(|key| key.fill(*octet))).hmac_sha256(message, tag);
            Ok(())
        }
    }
    let backend = FusedBackend::new(Swapped(Mutex::new(0)), "swapped".to_owned()).unwrap();
    assert_eq!(backend.health(), Err(BackendError::OtherRoot));
}
