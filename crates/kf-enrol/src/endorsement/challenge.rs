//! Challenges that wait for their answer: each good for one try, for a short time, and only so many.

use std::collections::BTreeMap;

use kf_api::endorsement::ANSWER_LABEL;
use kf_key::{DeviceId, SecretArray, UnixMillis};

/// How long a challenge waits: two slow commands of a slow TPM, and the way there and back.
pub const LIFETIME: u64 = 120_000;
/// The most challenges that wait at the same time; the oldest goes when one more comes.
pub const MAX_CHALLENGES: usize = 16_384;

/// A challenge that waits.
#[derive(Debug)]
pub struct Challenge {
    /// Whom it was made for.
    pub device: DeviceId,
    /// SHA-256 of the SubjectPublicKeyInfo of the key that it proves.
    pub spki_sha256: [u8; 32],
    /// SHA-256 of the SubjectPublicKeyInfo of the EK.
    pub endorsement_sha256: [u8; 32],
    secret: SecretArray<32>,
    expires: UnixMillis,
}

impl Challenge {
    /// A challenge made now.
    #[must_use]
    pub const fn new(
        device: DeviceId,
        spki_sha256: [u8; 32],
        endorsement_sha256: [u8; 32],
        secret: SecretArray<32>,
        now: UnixMillis,
    ) -> Self {
        Self { device, spki_sha256, endorsement_sha256, secret, expires: now.plus(LIFETIME) }
    }

    /// The last moment at which an answer counts.
    #[must_use]
    pub const fn expires(&self) -> UnixMillis {
        self.expires
    }
}

/// The challenges that wait. A device has one at a time: a new one replaces the old.
#[derive(Debug, Default)]
pub struct Challenges {
    /// By the random number that names a challenge.
    waiting: BTreeMap<[u8; 16], Challenge>,
}

impl Challenges {
    /// Lets a challenge wait under `id`, which is random.
    pub fn insert(&mut self, id: [u8; 16], challenge: Challenge, now: UnixMillis) {
        self.waiting.retain(|_, waiting| waiting.expires >= now && waiting.device != challenge.device);
        while self.waiting.len() >= MAX_CHALLENGES {
            let oldest = self.waiting.iter().min_by_key(|(_, waiting)| waiting.expires).map(|(id, _)| *id);
            match oldest {
                Some(id) => drop(self.waiting.remove(&id)),
                None => break,
            }
        }
        self.waiting.insert(id, challenge);
    }

    /// Takes an answer ([`kf_api::endorsement::EndorsementAnswer`]). The challenge is gone whether it is right or wrong;
    /// `None` also when it is unknown or expired, which of them is not said.
    pub fn answer(&mut self, id: &[u8; 16], answer: [u8; 32], now: UnixMillis) -> Option<Challenge> {
        let challenge = self.waiting.remove(id)?;
        // Exposed to make the MAC; compared in constant time, as secrets are.
        let expected = kf_crypto::hmac_sha256(challenge.secret.expose(), &[ANSWER_LABEL, id].concat());
        let [expected, answer] = [expected, answer].map(|octets| SecretArray::fill(|out| *out = octets));
        (expected.equals(&answer) && now <= challenge.expires).then_some(challenge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn device(number: u8) -> DeviceId {
        DeviceId::from_parts(NOW, [number; 10])
    }

    fn secret(octet: u8) -> SecretArray<32> {
        SecretArray::fill(|secret| secret.fill(octet))
    }

    fn answer(id: u8, octet: u8) -> [u8; 32] {
        kf_crypto::hmac_sha256(&[octet; 32], &[ANSWER_LABEL, &[id; 16]].concat())
    }

    fn waiting() -> Challenges {
        let mut challenges = Challenges::default();
        challenges.insert([1; 16], Challenge::new(device(1), [2; 32], [3; 32], secret(4), NOW), NOW);
        challenges
    }

    #[test]
    fn a_right_answer_counts_once() {
        let mut challenges = waiting();
        let answered = challenges.answer(&[1; 16], answer(1, 4), NOW.plus(LIFETIME)).unwrap();
        assert_eq!((answered.spki_sha256, answered.endorsement_sha256), ([2; 32], [3; 32]));
        assert!(challenges.answer(&[1; 16], answer(1, 4), NOW).is_none());
    }

    #[test]
    fn a_wrong_answer_ends_the_challenge() {
        let mut challenges = waiting();
        assert!(challenges.answer(&[1; 16], answer(1, 5), NOW).is_none());
        assert!(challenges.answer(&[1; 16], answer(1, 4), NOW).is_none());
    }

    #[test]
    fn an_unknown_a_late_and_another_challenges_answer_are_refused() {
        assert!(waiting().answer(&[2; 16], answer(2, 4), NOW).is_none());
        assert!(waiting().answer(&[1; 16], answer(1, 4), NOW.plus(LIFETIME + 1)).is_none());
        assert!(waiting().answer(&[1; 16], answer(2, 4), NOW).is_none());
    }

    #[test]
    fn a_device_has_one_challenge_and_all_devices_a_limited_number() {
        let mut challenges = waiting();
        challenges.insert([9; 16], Challenge::new(device(1), [2; 32], [3; 32], secret(6), NOW), NOW);
        assert!(challenges.answer(&[1; 16], answer(1, 4), NOW).is_none());
        for number in 0..u16::try_from(MAX_CHALLENGES).unwrap() {
            let mut random = [0; 10];
            random[..2].copy_from_slice(&number.to_be_bytes());
            let mut id = [0xff; 16];
            id[..2].copy_from_slice(&number.to_be_bytes());
            let device = DeviceId::from_parts(NOW.plus(1), random);
            challenges.waiting.insert(id, Challenge::new(device, [2; 32], [3; 32], secret(7), NOW.plus(1)));
        }
        challenges.insert([8; 16], Challenge::new(device(2), [2; 32], [3; 32], secret(7), NOW), NOW);
        assert_eq!(challenges.waiting.len(), MAX_CHALLENGES);
        assert!(challenges.answer(&[9; 16], answer(9, 6), NOW).is_none(), "the oldest had to go");
    }
}
