//! Two honest sides, and everybody in between.

mod exchange;
mod order;
mod succession;
mod thief;
mod vectors;

use std::vec::Vec;

use kf_derive::{DeviceKey, FleetRoot, SoftwareKey};
use kf_key::{DeviceId, FacilityId, SecretArray};

use crate::*;

pub(super) fn secret(octet: u8) -> SecretArray<32> {
    SecretArray::fill(|secret| secret.fill(octet))
}

pub(super) fn identity(octet: u8) -> P256IdentityKey {
    P256IdentityKey::from_secret(&secret(octet)).unwrap()
}

pub(super) fn ephemeral(octet: u8) -> Ephemeral {
    Ephemeral::from_random(secret(octet)).unwrap()
}

pub(super) const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);
pub(super) const FACILITY: FacilityId = FacilityId::from_bytes([0xf1; 16]);
pub(super) const SALT: [u8; 16] = [0x5a; 16];
pub(super) const PLACE: KeyPlace = KeyPlace { facility: FACILITY, facility_epoch: 2, device_epoch: 3 };

/// The root, and the key of the device below it.
pub(super) fn device_key(place: KeyPlace) -> DeviceKey {
    let root = FleetRoot::from_keyed_hmac(SoftwareKey::new(secret(0x99)));
    let facility = root.facility(place.facility, place.facility_epoch).unwrap();
    facility.device(DEVICE, &SALT, place.device_epoch).unwrap()
}

pub(super) struct Sides {
    pub(super) device: P256IdentityKey,
    pub(super) server: P256IdentityKey,
}

impl Sides {
    pub(super) fn honest() -> Self {
        Self { device: identity(0x11), server: identity(0x22) }
    }

    pub(super) fn pins(&self) -> [PublicKey; 1] {
        [self.server.public_key()]
    }

    pub(super) fn hello(purpose: Purpose) -> (AwaitChallenge<Ephemeral>, Message) {
        AwaitChallenge::start(purpose, ephemeral(0x33), [0x44; 16]).unwrap()
    }

    pub(super) fn challenge(&self, hello: &[u8]) -> (AwaitProof, Message) {
        AwaitProof::challenge(hello, &self.server, [0x55; 16], ephemeral(0x66)).unwrap()
    }

    /// As far as both sides wait for the fourth message.
    pub(super) fn proved(&self, purpose: Purpose) -> (AwaitDelivery, Authenticated, [Message; 3]) {
        let (waiting, hello) = Self::hello(purpose);
        let (served, challenge) = self.challenge(hello.as_bytes());
        let (waiting, proof) = waiting.prove(challenge.as_bytes(), &self.pins(), DEVICE, &self.device).unwrap();
        let claimed = ClaimedIdentity::read(proof.as_bytes()).unwrap();
        assert_eq!((claimed.session, claimed.device), (served.session(), DEVICE));
        assert_eq!(claimed.spki_sha256, self.device.public_key().spki_sha256());
        let served = served.verify(proof.as_bytes(), DEVICE, &self.device.public_key()).unwrap();
        (waiting, served, [hello, challenge, proof])
    }
}

/// A whole delivery; all six messages.
pub(super) fn whole_exchange(sides: &Sides) -> [Message; 6] {
    let (waiting, served, [hello, challenge, proof]) = sides.proved(Purpose::Delivery);
    let key = device_key(PLACE).into_secret();
    let delivery = served.deliver(PLACE, &key).unwrap();
    let delivered = waiting.open(delivery.as_bytes(), None).unwrap();
    assert_eq!(delivered.place(), PLACE);
    assert!(delivered.key().equals(&key));
    let (_, done, acknowledgement) = delivered.acknowledge().unwrap();
    let said = Acknowledgement::read(acknowledgement.as_bytes()).unwrap();
    assert_eq!((said.device(), said.place()), (DEVICE, PLACE));
    let answer = said.verify(&device_key(PLACE)).unwrap();
    done.finish(answer.as_bytes()).unwrap();
    [hello, challenge, proof, delivery, acknowledgement, answer]
}

/// Each message with one bit flipped, at every place.
pub(super) fn flipped(message: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..message.len() * 8).map(|bit| {
        let mut changed = message.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    })
}
