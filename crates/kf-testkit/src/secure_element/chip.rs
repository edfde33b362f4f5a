//! What the chip holds, and which command does what.

use sha2::{Digest, Sha256};

use super::digest::ShaState;

/// Status octets.
pub(super) mod status {
    pub(in super::super) const MISMATCH: u8 = 0x01;
    pub(in super::super) const PARSE: u8 = 0x03;
    pub(in super::super) const ECC_FAULT: u8 = 0x05;
    pub(in super::super) const SELF_TEST: u8 = 0x07;
    pub(in super::super) const EXECUTION: u8 = 0x0f;
    pub(in super::super) const AFTER_WAKE: u8 = 0x11;
    pub(in super::super) const CRC: u8 = 0xff;
}

/// Data, or a status.
pub(super) type Outcome = Result<Vec<u8>, u8>;

pub(super) const DONE: [u8; 1] = [0];
const MAX_COUNT: u32 = 2_097_151;

/// CRC-16, polynomial 0x8005, octets from their lowest bit on.
pub(super) fn checksum(octets: &[u8]) -> u16 {
    let mut register = 0_u16;
    for octet in octets {
        for bit in 0..8 {
            let top = register >> 15;
            register <<= 1;
            if u16::from(octet >> bit & 1) != top {
                register ^= 0x8005;
            }
        }
    }
    register
}

/// A command as it came in.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) opcode: u8,
    pub(super) param1: u8,
    pub(super) param2: u16,
    pub(super) data: &'a [u8],
}

impl<'a> Group<'a> {
    /// `None` when length or checksum is wrong.
    pub(super) fn parse(octets: &'a [u8]) -> Option<Self> {
        let (body, crc) = octets.split_last_chunk::<2>()?;
        let [count, opcode, param1, low, high, data @ ..] = body else { return None };
        let is_intact = usize::from(*count) == octets.len() && checksum(body).to_le_bytes() == *crc;
        let param2 = u16::from_le_bytes([*low, *high]);
        (is_intact && octets.len() <= 155).then_some(Self { opcode: *opcode, param1: *param1, param2, data })
    }

    /// Half of the longest time of the fastest clock.
    pub(super) fn execution_ns(&self) -> u64 {
        let longest_ms = match self.opcode {
            0x02 | 0x30 => 5,
            0x16 => 20,
            0x1b => 23,
            0x15 | 0x24 => 25,
            0x51 => 27,
            0x17 => 35,
            0x47 => 36,
            0x12 => 45,
            0x43 => 75,
            0x45 => 105,
            0x40 | 0x41 => 115,
            0x56 => 165,
            _ => 250,
        };
        longest_ms * 500_000
    }

    /// The slot in the lower octet of param2.
    pub(super) fn slot(&self) -> Result<usize, u8> {
        if self.param2 < 16 { Ok(usize::from(self.param2)) } else { Err(status::PARSE) }
    }
}

/// TempKey and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TempKey {
    pub(super) value: [u8; 32],
    pub(super) is_random: bool,
    /// The slot whose key GenDig mixed in.
    pub(super) gendig: Option<usize>,
}

/// What the chip holds.
#[derive(Clone, Debug)]
pub(super) struct Chip {
    pub(super) config: [u8; 128],
    pub(super) otp: [u8; 64],
    pub(super) slots: [Vec<u8>; 16],
    counters: [u32; 2],
    random: [u8; 32],
    pub(super) temp_key: Option<TempKey>,
    pub(super) digest_buffer: Option<[u8; 32]>,
    pub(super) sha: Option<ShaState>,
}

impl Chip {
    pub(super) fn blank(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        let mut config = [0; 128];
        config[..20].copy_from_slice(&[
            0x01, 0x23, high, low, 0x00, 0x00, 0x60, 0x03, 0x5a, 0xa5, 0x12, 0x34, 0xee, 0x01, 0x01, 0x00, 0xc0, 0, 0,
            0,
        ]);
        for slot in 0..16 {
            config[20 + slot * 2..22 + slot * 2].copy_from_slice(&[0x8f, 0x20]);
            config[96 + slot * 2..98 + slot * 2].copy_from_slice(&[0x33, 0x00]);
        }
        config[52..68].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        config[86..90].copy_from_slice(&[0x55, 0x55, 0xff, 0xff]);
        let size = |slot| match slot {
            0..=7 => 36,
            8 => 416,
            _ => 72,
        };
        Self {
            config,
            otp: [0xff; 64],
            slots: std::array::from_fn(|slot| vec![0xff; size(slot)]),
            counters: [0; 2],
            random: Sha256::digest([b"seed".as_slice(), &number.to_be_bytes()].concat()).into(),
            temp_key: None,
            digest_buffer: None,
            sha: None,
        }
    }

    /// What is volatile goes: sleep, watchdog, power.
    pub(super) fn forget(&mut self) {
        self.temp_key = None;
        self.digest_buffer = None;
        self.sha = None;
    }

    pub(super) fn address(&self) -> u8 {
        self.config[16] >> 1
    }

    pub(super) fn slot_config(&self, slot: usize) -> u16 {
        u16::from_le_bytes([self.config[20 + slot * 2], self.config[21 + slot * 2]])
    }

    pub(super) fn key_config(&self, slot: usize) -> u16 {
        u16::from_le_bytes([self.config[96 + slot * 2], self.config[97 + slot * 2]])
    }

    pub(super) fn key_type(&self, slot: usize) -> u16 {
        self.key_config(slot) >> 2 & 7
    }

    pub(super) fn is_private(&self, slot: usize) -> bool {
        self.key_config(slot) & 1 != 0
    }

    pub(super) fn is_config_locked(&self) -> bool {
        self.config[87] != 0x55
    }

    pub(super) fn is_data_locked(&self) -> bool {
        self.config[86] != 0x55
    }

    pub(super) fn is_slot_locked(&self, slot: usize) -> bool {
        u16::from_le_bytes([self.config[88], self.config[89]]) >> slot & 1 == 0
    }

    pub(super) fn serial(&self) -> [u8; 9] {
        let mut serial = [0; 9];
        serial[..4].copy_from_slice(&self.config[..4]);
        serial[4..].copy_from_slice(&self.config[8..13]);
        serial
    }

    pub(super) fn draw(&mut self) -> [u8; 32] {
        self.random = Sha256::digest([b"next".as_slice(), &self.random].concat()).into();
        Sha256::digest([b"out".as_slice(), &self.random].concat()).into()
    }

    pub(super) fn require(holds: bool) -> Result<(), u8> {
        if holds { Ok(()) } else { Err(status::EXECUTION) }
    }

    /// A use of a key: the data zone is locked, no authorisation is missing, and a limited key has uses left.
    pub(super) fn use_key(&mut self, slot: usize) -> Result<(), u8> {
        Self::require(self.is_data_locked() && self.key_config(slot) & 0x80 == 0)?;
        if self.slot_config(slot) & 0x20 != 0 {
            Self::require(self.counters[0] < MAX_COUNT)?;
            self.counters[0] += 1;
        }
        Ok(())
    }

    pub(super) fn execute(&mut self, group: &Group<'_>, wrong_signature: bool) -> Outcome {
        if group.opcode != 0x47 {
            self.sha = None;
        }
        match group.opcode {
            0x02 => self.read(group),
            0x12 => self.write(group),
            0x15 => self.gen_dig(group),
            0x16 => self.nonce(group),
            0x17 => self.lock(group),
            0x1b => self.random(group),
            0x24 => self.counter(group),
            0x30 => self.info(group),
            0x40 => self.gen_key(group),
            0x41 => self.sign(group, wrong_signature),
            0x43 => self.ecdh(group),
            0x45 => self.verify(group),
            0x47 => self.sha(group),
            0x51 => self.aes(group),
            0x56 => self.kdf(group),
            0x77 => {
                if group.data.is_empty() {
                    Ok(DONE.to_vec())
                } else {
                    Err(status::PARSE)
                }
            }
            _ => Err(status::PARSE),
        }
    }

    /// Before the configuration is locked the chip gives a fixed pattern.
    pub(super) fn random_number(&mut self) -> [u8; 32] {
        if self.is_config_locked() {
            self.draw()
        } else {
            std::array::from_fn(|index| if index / 2 % 2 == 0 { 0xff } else { 0 })
        }
    }

    fn random(&mut self, group: &Group<'_>) -> Outcome {
        if group.param1 > 1 || group.param2 != 0 || !group.data.is_empty() {
            return Err(status::PARSE);
        }
        Ok(self.random_number().to_vec())
    }

    fn counter(&mut self, group: &Group<'_>) -> Outcome {
        if group.param1 > 1 || group.param2 > 1 || !group.data.is_empty() {
            return Err(status::PARSE);
        }
        Self::require(self.is_config_locked())?;
        let counter = usize::from(group.param2);
        if group.param1 == 1 {
            Self::require(self.counters[counter] < MAX_COUNT)?;
            self.counters[counter] += 1;
        }
        Ok(self.counters[counter].to_le_bytes().to_vec())
    }

    fn info(&self, group: &Group<'_>) -> Outcome {
        match group.param1 {
            0 => Ok(self.config[4..8].to_vec()),
            1 => Ok(vec![u8::from(self.private_key(group.slot()?).is_ok()), 0, 0, 0]),
            _ => Err(status::PARSE),
        }
    }
}
