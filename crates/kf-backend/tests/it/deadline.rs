use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kf_backend::{BackendError, Deadline, FusedBackend, KeyBackend, SoftwareBackend, TokenFault, conformance};
use kf_derive::{Algorithm, Info, KeyedHmac, Level, Purpose, SoftwareKey};
use kf_key::{KeyAlgorithm, KeyId, SecretArray};

/// Waits within a call until the test lets it go on.
struct Stuck {
    key: SoftwareKey,
    gate: Mutex<Receiver<()>>,
}

impl KeyedHmac for Stuck {
    type Error = BackendError;

    fn hmac_sha256(&self, message: &[u8], tag: &mut [u8; 32]) -> Result<(), BackendError> {
        // The test drops the other end when it is over.
        let _gone = self.gate.lock().unwrap().recv();
        let Ok(()) = self.key.hmac_sha256(message, tag);
        Ok(())
    }
}

fn stuck() -> (Deadline, Sender<()>) {
    let (open, gate) = channel();
    let key = SoftwareKey::new(SecretArray::fill(|key| key.fill(1)));
    open.send(()).unwrap();
    let inner = FusedBackend::new(Stuck { key, gate: Mutex::new(gate) }, "stuck".to_owned()).unwrap();
    (Deadline::new(Arc::new(inner), Duration::from_millis(500)).unwrap(), open)
}

fn late() -> BackendError {
    BackendError::Token(TokenFault::Late { seconds: 0 })
}

fn place(epoch: u32) -> Info {
    Info::new(Level::Wrapping, Algorithm::Aes256Gcm, Purpose::WrapRegistry, &[], epoch).unwrap()
}

fn key(octet: u8) -> KeyId {
    KeyId::from_bytes([octet; 16])
}

fn software(limit: Duration) -> Deadline {
    let root = SecretArray::fill(|root| root.fill(1));
    Deadline::new(Arc::new(SoftwareBackend::new(root, "test".to_owned()).unwrap()), limit).unwrap()
}

#[test]
fn a_back_end_with_a_limit_conforms() {
    conformance::check(&software(Deadline::LIMIT), [key(1), key(2)]).unwrap();
}

#[test]
fn hardware_that_hangs_is_late_and_so_is_whoever_comes_behind() {
    let (limited, open) = stuck();
    assert_eq!(limited.expand_root(&place(1)).err(), Some(late()));
    assert_eq!(limited.health().err(), Some(late()));
    assert_eq!(limited.generate_key_pair(key(1), KeyAlgorithm::P256).err(), Some(late()));
    drop(open);
}

#[test]
fn hardware_that_comes_back_answers_the_next_caller_and_not_the_last_one() {
    let (limited, open) = stuck();
    assert_eq!(limited.expand_root(&place(1)).err(), Some(late()));
    assert_eq!(limited.expand_root(&place(2)).err(), Some(late()), "waited behind the first one, then gave up");
    // The call that hangs ends, the one that gave up is never started, so one more opening serves the next.
    open.send(()).unwrap();
    open.send(()).unwrap();
    let third = limited.expand_root(&place(3)).unwrap();
    let direct = software(Deadline::LIMIT).expand_root(&place(3)).unwrap();
    assert!(third.equals(&direct), "the answer is to the third question");
}

#[test]
fn refusals_pass_through_as_they_are() {
    let (limited, _open) = stuck();
    let info = Info::new(Level::Facility, Algorithm::HkdfSha256, Purpose::Derive, b"", 1).unwrap();
    assert_eq!(limited.expand_root(&info).err(), Some(BackendError::OnlyWraps));
}

#[test]
fn debug_names_the_limit_only() {
    let shown = format!("{:?}", software(Duration::from_secs(7)));
    assert_eq!(shown, "Deadline { limit: 7s, .. }");
}
