//! SHA, HMAC, KDF and AES.

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::chip::{Chip, DONE, Group, Outcome, status};

const AES: u16 = 6;
const SHA: u16 = 7;

/// A digest under way.
#[derive(Clone, Debug)]
pub(super) enum ShaState {
    Plain(Sha256),
    Keyed(Hmac<Sha256>),
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>, u8> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(key).map_err(|_length| status::EXECUTION)
}

impl Chip {
    /// The first 32 octets of a slot that holds a key for SHA or HMAC.
    fn hmac_key(&mut self, slot: usize) -> Result<Hmac<Sha256>, u8> {
        self.use_key(slot)?;
        Self::require(!self.is_private(slot) && self.key_type(slot) == SHA)?;
        keyed(&self.slots[slot][..32])
    }

    pub(super) fn sha(&mut self, group: &Group<'_>) -> Outcome {
        match (group.param1 & 0x3f, group.data.len()) {
            (0, 0) => self.sha = Some(ShaState::Plain(Sha256::new())),
            (4, 0) => self.sha = Some(ShaState::Keyed(self.hmac_key(group.slot()?)?)),
            (1, 64) if group.param2 == 64 => match self.sha.as_mut().ok_or(status::EXECUTION)? {
                ShaState::Plain(state) => Digest::update(state, group.data),
                ShaState::Keyed(state) => Mac::update(state, group.data),
            },
            (2, length) if length < 64 && usize::from(group.param2) == length => return self.sha_end(group),
            _ => return Err(status::PARSE),
        }
        Ok(DONE.to_vec())
    }

    fn sha_end(&mut self, group: &Group<'_>) -> Outcome {
        let digest: [u8; 32] = match self.sha.take().ok_or(status::EXECUTION)? {
            ShaState::Plain(state) => state.chain_update(group.data).finalize().into(),
            ShaState::Keyed(mut state) => {
                Mac::update(&mut state, group.data);
                state.finalize().into_bytes().into()
            }
        };
        match group.param1 & 0xc0 {
            0x00 => {
                self.temp_key = Some(super::chip::TempKey { value: digest, is_random: false, gendig: None });
            }
            0x40 => self.digest_buffer = Some(digest),
            0xc0 => {}
            _ => return Err(status::PARSE),
        }
        Ok(digest.to_vec())
    }

    /// HKDF mode from a slot to the output, the message in the command: one HMAC.
    pub(super) fn kdf(&mut self, group: &Group<'_>) -> Outcome {
        let slot = group.slot()?;
        let ([2, 0, 0, length], message) = group.data.split_first_chunk::<4>().ok_or(status::PARSE)? else {
            return Err(status::PARSE);
        };
        if group.param1 != 0x52 || usize::from(*length) != message.len() || !(1..=127).contains(&message.len()) {
            return Err(status::PARSE);
        }
        let options = u16::from_le_bytes([self.config[90], self.config[91]]);
        Self::require(options >> 10 & 3 == 0)?;
        Ok(self.hmac_key(slot)?.chain_update(message).finalize().into_bytes().to_vec())
    }

    pub(super) fn aes(&mut self, group: &Group<'_>) -> Outcome {
        let slot = group.slot()?;
        let mut block: [u8; 16] = group.data.try_into().map_err(|_length| status::PARSE)?;
        let start = usize::from(group.param1 >> 6) * 16;
        let key = self.slots[slot].get(start..start + 16).ok_or(status::PARSE)?.to_vec();
        self.use_key(slot)?;
        Self::require(self.config[13] & 1 != 0 && !self.is_private(slot) && self.key_type(slot) == AES)?;
        let cipher = Aes128::new_from_slice(&key).map_err(|_length| status::EXECUTION)?;
        match group.param1 & 0x3f {
            0 => cipher.encrypt_block((&mut block).into()),
            1 => cipher.decrypt_block((&mut block).into()),
            _ => return Err(status::PARSE),
        }
        Ok(block.to_vec())
    }
}
