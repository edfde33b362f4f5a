//! Read, Write, Lock, and the session values for encrypted ones.

use sha2::{Digest, Sha256};

use super::chip::{Chip, DONE, Group, Outcome, TempKey, checksum, status};

const BLOCK: usize = 32;

/// Where a read or write of the data zone goes: slot and octet.
fn place(param2: u16, length: usize) -> Result<(usize, usize), u8> {
    let (slot, word, block) = (param2 >> 3 & 15, param2 & 7, param2 >> 8);
    if param2 & 0x80 != 0 || (length == BLOCK && word != 0) {
        return Err(status::PARSE);
    }
    Ok((usize::from(slot), usize::from(block) * BLOCK + usize::from(word) * 4))
}

fn config_place(param2: u16, length: usize) -> Result<usize, u8> {
    if param2 > 31 || (length == BLOCK && param2 & 7 != 0) {
        return Err(status::PARSE);
    }
    Ok(usize::from(param2) * 4)
}

impl Chip {
    pub(super) fn read(&mut self, group: &Group<'_>) -> Outcome {
        let length = if group.param1 & 0x80 != 0 { BLOCK } else { 4 };
        if group.param1 & 0x7c != 0 || !group.data.is_empty() {
            return Err(status::PARSE);
        }
        match group.param1 & 3 {
            0 => {
                let start = config_place(group.param2, length)?;
                Ok(self.config[start..start + length].to_vec())
            }
            1 => {
                Self::require(self.is_data_locked())?;
                let start = config_place(group.param2, length)?;
                self.otp.get(start..start + length).map(<[u8]>::to_vec).ok_or(status::PARSE)
            }
            2 => self.read_slot(group, length),
            _ => Err(status::PARSE),
        }
    }

    fn read_slot(&mut self, group: &Group<'_>, length: usize) -> Outcome {
        let (slot, start) = place(group.param2, length)?;
        let content = self.slots[slot].get(start..start + length).map(<[u8]>::to_vec).ok_or(status::PARSE)?;
        Self::require(self.is_config_locked() && self.is_data_locked() && !self.is_private(slot))?;
        let policy = self.slot_config(slot);
        match (policy & 0x80 != 0, policy & 0x40 != 0) {
            (false, false) => Ok(content),
            (true, true) if length == BLOCK => {
                let key = self.session(usize::from(policy & 15))?;
                Ok(content.iter().zip(key).map(|(octet, mask)| octet ^ mask).collect())
            }
            _ => Err(status::EXECUTION),
        }
    }

    /// TempKey, if it came from a random nonce and GenDig over this slot. Spent by this use.
    fn session(&mut self, slot: usize) -> Result<[u8; 32], u8> {
        let key = self.temp_key.take().ok_or(status::EXECUTION)?;
        Self::require(key.is_random && key.gendig == Some(slot))?;
        Ok(key.value)
    }

    pub(super) fn write(&mut self, group: &Group<'_>) -> Outcome {
        let length = if group.param1 & 0x80 != 0 { BLOCK } else { 4 };
        if group.param1 & 0x7c != 0 || group.data.len() < length {
            return Err(status::PARSE);
        }
        match group.param1 & 3 {
            0 => self.write_config(group, length)?,
            1 => self.write_otp(group, length)?,
            2 => self.write_slot(group, length)?,
            _ => return Err(status::PARSE),
        }
        Ok(DONE.to_vec())
    }

    fn write_config(&mut self, group: &Group<'_>, length: usize) -> Result<(), u8> {
        let start = config_place(group.param2, length)?;
        if group.data.len() != length {
            return Err(status::PARSE);
        }
        Self::require(!self.is_config_locked())?;
        // Serial number and revision are the maker's; the locks are Lock's, the user extra octets UpdateExtra's.
        let is_writable = |octet: usize| octet >= 16 && !(84..88).contains(&octet);
        Self::require((start..start + length).all(is_writable))?;
        self.config[start..start + length].copy_from_slice(group.data);
        Ok(())
    }

    fn write_otp(&mut self, group: &Group<'_>, length: usize) -> Result<(), u8> {
        let start = config_place(group.param2, length)?;
        if group.data.len() != length || start + length > self.otp.len() {
            return Err(status::PARSE);
        }
        Self::require(self.is_config_locked() && !self.is_data_locked() && length == BLOCK)?;
        self.otp[start..start + length].copy_from_slice(group.data);
        Ok(())
    }

    fn write_slot(&mut self, group: &Group<'_>, length: usize) -> Result<(), u8> {
        let (slot, start) = place(group.param2, length)?;
        if start >= self.slots[slot].len() {
            return Err(status::PARSE);
        }
        Self::require(self.is_config_locked() && !self.is_slot_locked(slot) && !self.is_private(slot))?;
        let data = if !self.is_data_locked() {
            // Everything in the clear, by whole blocks.
            Self::require(length == BLOCK && group.data.len() == BLOCK)?;
            group.data.to_vec()
        } else {
            self.write_data(group, slot, length)?
        };
        // What reaches over the end of the slot is not kept.
        let end = (start + length).min(self.slots[slot].len());
        self.slots[slot][start..end].copy_from_slice(&data[..end - start]);
        Ok(())
    }

    /// What is to be written by the slot's policy.
    fn write_data(&mut self, group: &Group<'_>, slot: usize, length: usize) -> Outcome {
        let policy = self.slot_config(slot);
        match policy >> 12 {
            0 if group.data.len() == length => Ok(group.data.to_vec()),
            bits if bits & 4 != 0 => {
                let (sealed, mac) = group.data.split_at(length);
                Self::require(length == BLOCK && mac.len() == 32)?;
                let key = self.session(usize::from(policy >> 8 & 15))?;
                let plain: Vec<u8> = sealed.iter().zip(key).map(|(octet, mask)| octet ^ mask).collect();
                let expected = Sha256::new().chain_update(key).chain_update(self.header(group)).chain_update(&plain);
                Self::require(expected.finalize().as_slice() == mac)?;
                Ok(plain)
            }
            _ => Err(status::EXECUTION),
        }
    }

    /// Opcode, parameters, SN[8], SN[0:1], 25 zeroes.
    fn header(&self, group: &Group<'_>) -> [u8; 32] {
        let serial = self.serial();
        let [low, high] = group.param2.to_le_bytes();
        let mut header = [0; 32];
        header[..7].copy_from_slice(&[group.opcode, group.param1, low, high, serial[8], serial[0], serial[1]]);
        header
    }

    pub(super) fn nonce(&mut self, group: &Group<'_>) -> Outcome {
        match (group.param1, group.data.len()) {
            (0 | 1, 20) if group.param2 == 0 => {
                let random = self.random_number();
                let message = [&random, group.data, &[group.opcode, group.param1, 0]].concat();
                self.temp_key = Some(TempKey { value: Sha256::digest(message).into(), is_random: true, gendig: None });
                Ok(random.to_vec())
            }
            (0x03, 32) => {
                let value = group.data.try_into().map_err(|_length| status::PARSE)?;
                self.temp_key = Some(TempKey { value, is_random: false, gendig: None });
                Ok(DONE.to_vec())
            }
            (0x43, 32) => {
                self.digest_buffer = group.data.try_into().ok();
                Ok(DONE.to_vec())
            }
            _ => Err(status::PARSE),
        }
    }

    /// Over a slot; the other zones are not emulated.
    pub(super) fn gen_dig(&mut self, group: &Group<'_>) -> Outcome {
        let slot = group.slot()?;
        if group.param1 != 2 || !group.data.is_empty() {
            return Err(status::PARSE);
        }
        let before = self.temp_key.take().ok_or(status::EXECUTION)?;
        self.use_key(slot)?;
        Self::require(!self.is_private(slot))?;
        let message = [&self.slots[slot][..32], &self.header(group), &before.value].concat();
        self.temp_key = Some(TempKey { value: Sha256::digest(message).into(), gendig: Some(slot), ..before });
        Ok(DONE.to_vec())
    }

    pub(super) fn lock(&mut self, group: &Group<'_>) -> Outcome {
        let is_checked = group.param1 & 0x80 == 0;
        if group.param1 & 0x40 != 0 || !group.data.is_empty() {
            return Err(status::PARSE);
        }
        match group.param1 & 3 {
            0 => {
                Self::require(!self.is_config_locked())?;
                Self::require(!is_checked || checksum(&self.config) == group.param2)?;
                self.config[87] = 0;
            }
            1 => {
                Self::require(self.is_config_locked() && !self.is_data_locked())?;
                let content = [self.slots.concat().as_slice(), &self.otp].concat();
                Self::require(!is_checked || checksum(&content) == group.param2)?;
                self.config[86] = 0;
            }
            2 => {
                let slot = usize::from(group.param1 >> 2 & 15);
                let is_lockable = self.key_config(slot) & 0x20 != 0;
                Self::require(self.is_config_locked() && is_lockable && !self.is_slot_locked(slot))?;
                self.config[88 + slot / 8] &= !(1 << (slot % 8));
            }
            _ => return Err(status::PARSE),
        }
        Ok(DONE.to_vec())
    }
}
