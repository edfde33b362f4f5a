//! GenKey, Sign, Verify, ECDH on P-256.

use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{PublicKey, SecretKey};

use super::chip::{Chip, Group, Outcome, status};

const P256: u16 = 4;

fn point(key: &PublicKey) -> Vec<u8> {
    key.to_sec1_point(false).as_bytes()[1..].to_vec()
}

fn public_key(octets: &[u8]) -> Result<PublicKey, u8> {
    PublicKey::from_sec1_bytes(&[&[4], octets].concat()).map_err(|_no_point| status::ECC_FAULT)
}

impl Chip {
    /// The private key in a slot: four zeroes and the scalar.
    pub(super) fn private_key(&self, slot: usize) -> Result<SecretKey, u8> {
        Self::require(self.is_private(slot) && self.key_type(slot) == P256)?;
        let (zeroes, scalar) = self.slots[slot].split_at(4);
        Self::require(zeroes == [0; 4])?;
        SecretKey::from_slice(scalar).map_err(|_no_scalar| status::EXECUTION)
    }

    pub(super) fn gen_key(&mut self, group: &Group<'_>) -> Outcome {
        let slot = group.slot()?;
        if !group.data.is_empty() {
            return Err(status::PARSE);
        }
        Self::require(self.is_config_locked() && self.is_private(slot) && self.key_type(slot) == P256)?;
        Self::require(self.key_config(slot) & 0x80 == 0)?;
        match group.param1 {
            4 => {
                Self::require(self.slot_config(slot) & 0x2000 != 0 && !self.is_slot_locked(slot))?;
                let key = loop {
                    if let Ok(key) = SecretKey::from_slice(&self.draw()) {
                        break key;
                    }
                };
                self.slots[slot] = [&[0; 4], key.to_bytes().as_slice()].concat();
                Ok(point(&key.public_key()))
            }
            0 => {
                Self::require(self.key_config(slot) & 2 != 0)?;
                self.private_key(slot).map(|key| point(&key.public_key()))
            }
            _ => Err(status::PARSE),
        }
    }

    /// Of what was handed over, from TempKey (0x80) or the message digest buffer (0xa0).
    pub(super) fn sign(&mut self, group: &Group<'_>, wrong: bool) -> Outcome {
        let slot = group.slot()?;
        let digest = match group.param1 {
            0x80 => self.temp_key.take().map(|key| key.value),
            0xa0 => self.digest_buffer.take(),
            _ => return Err(status::PARSE),
        };
        let digest = digest.ok_or(status::EXECUTION)?;
        Self::require(self.slot_config(slot) & 1 != 0 && self.key_config(slot) & 0x40 == 0)?;
        self.use_key(slot)?;
        let mut key = SigningKey::from(self.private_key(slot)?);
        if wrong {
            key = SigningKey::from_slice(&[1; 32]).map_err(|_no_scalar| status::EXECUTION)?;
        }
        let signature: Signature = key.sign_prehash(&digest).map_err(|_fault| status::ECC_FAULT)?;
        Ok(signature.to_bytes().to_vec())
    }

    /// With a key that was handed over, from TempKey (0x02) or the message digest buffer (0x22).
    pub(super) fn verify(&mut self, group: &Group<'_>) -> Outcome {
        let digest = match (group.param1, group.param2, group.data.len()) {
            (0x02, 4, 128) => self.temp_key.take().map(|key| key.value),
            (0x22, 4, 128) => self.digest_buffer.take(),
            _ => return Err(status::PARSE),
        };
        let digest = digest.ok_or(status::EXECUTION)?;
        let (signature, key) = group.data.split_at(64);
        let key = VerifyingKey::from(public_key(key)?);
        let is_valid =
            Signature::from_slice(signature).is_ok_and(|signature| key.verify_prehash(&digest, &signature).is_ok());
        if is_valid { Ok(vec![0]) } else { Err(status::MISMATCH) }
    }

    /// The shared secret to the output (0x0c).
    pub(super) fn ecdh(&mut self, group: &Group<'_>) -> Outcome {
        let slot = group.slot()?;
        if group.param1 != 0x0c || group.data.len() != 64 {
            return Err(status::PARSE);
        }
        let options = u16::from_le_bytes([self.config[90], self.config[91]]);
        Self::require(self.slot_config(slot) & 0x0c == 0x04 && options >> 8 & 3 == 0)?;
        self.use_key(slot)?;
        let (key, other) = (self.private_key(slot)?, public_key(group.data)?);
        let shared = p256::ecdh::diffie_hellman(key.to_nonzero_scalar(), other.as_affine());
        Ok(shared.raw_secret_bytes().to_vec())
    }
}
