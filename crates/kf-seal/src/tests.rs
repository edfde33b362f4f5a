use std::vec::Vec;

use kf_derive::{ApplicationKey, DeviceKey, Sender, SoftwareKey};
use kf_key::{DeviceId, SecretArray};

use super::*;

mod envelope;
mod nonces;
mod refusals;
mod replay;

pub(crate) const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);
pub(crate) const RANDOM: [u8; 16] = *b"0123456789abcdef";

pub(crate) fn application(service: &str) -> ApplicationKey {
    let device = DeviceKey::from_keyed_hmac(SoftwareKey::new(SecretArray::fill(|key| key.fill(7))));
    device.session(SESSION, 0).unwrap().application(service.as_bytes(), 0).unwrap()
}

pub(crate) fn key_id() -> KeyId {
    let service = Service::new("telemetry").unwrap();
    KeyId { device: DEVICE, facility_epoch: 3, device_epoch: 2, session: None, sender: Sender::Device, service }
}

pub(crate) fn sealer(number: u32, random: [u8; 16], algorithm: SealAlgorithm) -> Sealer {
    Sealer::new(&application("telemetry"), key_id(), Boot::new(number, random).unwrap(), algorithm).unwrap()
}

pub(crate) fn seal(sealer: &mut Sealer, plaintext: &[u8], aad: &[u8]) -> Vec<u8> {
    let mut out = std::vec![0; MAX_ENVELOPE_OCTETS];
    sealer.seal(plaintext, aad, &mut out).unwrap().to_vec()
}

pub(crate) fn sealed_once(plaintext: &[u8], algorithm: SealAlgorithm) -> Vec<u8> {
    seal(&mut sealer(1, RANDOM, algorithm), plaintext, b"topic")
}

/// What a receiver says to an envelope.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Plaintext(Vec<u8>),
    Parse(ParseError),
    Open(OpenError),
    Replay(ReplayError),
}

/// A receiver that knows the key of [`key_id`] and remembers two boots.
pub(crate) struct Receiver(pub(crate) Replay<2>);

impl Receiver {
    pub(crate) fn new() -> Self {
        Self(Replay::new())
    }

    pub(crate) fn open(&mut self, envelope: &[u8], aad: &[u8]) -> Verdict {
        let sealed = match Sealed::parse(envelope) {
            Ok(sealed) => sealed,
            Err(error) => return Verdict::Parse(error),
        };
        let mut out = std::vec![0xee; sealed.plaintext_octets()];
        let authentic = Opener::new(&application("telemetry"), &key_id(), &sealed)
            .and_then(|mut opener| opener.open(&sealed, aad, &mut out).map(|authentic| (*authentic.mark(), authentic)));
        let (mark, authentic) = match authentic {
            Ok(found) => found,
            Err(error) => {
                assert!(
                    error != OpenError::Refused || out.iter().all(|octet| *octet == 0),
                    "plaintext was left behind"
                );
                return Verdict::Open(error);
            }
        };
        match self.0.accept(&mark) {
            Ok(accepted) => Verdict::Plaintext(authentic.release(&accepted).unwrap().to_vec()),
            Err(error) => Verdict::Replay(error),
        }
    }
}
