use super::*;
use crate::tests::{application, key_id, sealed_once};

#[test]
fn an_opener_stops_answering_after_its_failures_even_for_what_is_authentic() {
    let envelope = sealed_once(b"21.5 C", SealAlgorithm::Aes128Ccm);
    let sealed = Sealed::parse(&envelope).unwrap();
    let mut opener = Opener::new(&application("telemetry"), &key_id(), &sealed).unwrap();
    opener.failures = FAILURES_PER_OPENER - 1;
    assert!(opener.open(&sealed, b"topic", &mut [0; 64]).is_ok());
    assert_eq!(opener.open(&sealed, b"forged", &mut [0; 64]).err(), Some(OpenError::Refused));
    assert_eq!(opener.open(&sealed, b"topic", &mut [0; 64]).err(), Some(OpenError::TooManyFailures));
}
