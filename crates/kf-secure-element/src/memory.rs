//! Reading and writing slots, in the clear and encrypted.
//!
//! Encryption is the chip's own construction: a session value SHA-256(key, command, serial number, nonce) that both sides
//! compute from the shared key and a random number of the chip, xored over one block of 32 octets, and in writing a
//! SHA-256 over session value, command and plaintext as authentication.

use core::fmt;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;
use kf_key::SecretArray;
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::config::{ConfigZone, SerialNumber, Slot, ZONE_OCTETS};
use crate::element::Element;
use crate::error::Error;
use crate::layout::Layout;
use crate::link::Link;
use crate::policy::{Refusal, Use};
use crate::wire::{Command, Opcode};

/// The most octets of data of any slot.
pub const MAX_DATA_OCTETS: usize = 416;

const BLOCK: usize = 32;
const WORD: usize = 4;
const ZONE_CONFIG: u8 = 0;
const ZONE_DATA: u8 = 2;
/// 32 octets at a time.
const BLOCKWISE: u8 = 0x80;
const NUMBER_OCTETS: usize = 20;

/// The key under which keys are written to, or data read from, a chip: known to the station, and in [`slot`](Self::slot) of
/// the chip.
pub struct TransportKey {
    slot: Slot,
    key: SecretArray<32>,
}

impl fmt::Debug for TransportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TransportKey").field(&self.slot).finish()
    }
}

impl TransportKey {
    /// The key in `slot`.
    #[must_use]
    pub const fn new(slot: Slot, key: SecretArray<32>) -> Self {
        Self { slot, key }
    }

    /// Where it is in the chip.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        self.slot
    }

    pub(crate) const fn key(&self) -> &SecretArray<32> {
        &self.key
    }
}

impl<I: I2c, D: DelayNs> Element<I, D> {
    /// Reads data from a slot in the clear, from `offset` (a multiple of four) on.
    ///
    /// # Errors
    /// [`Refusal`], [`Error`].
    pub fn read(&mut self, slot: Slot, offset: usize, data: &mut [u8]) -> Result<(), Error> {
        self.permits(slot, Use::Read)?;
        check_extent(slot, offset, data.len())?;
        self.session(|link| read_data(link, slot, offset, data))
    }

    /// Writes data to a slot in the clear, from `offset` (a multiple of four) on. Each block of 32 octets, or at the end of a
    /// slot word of four, is written whole or not at all; what a power cut leaves is a beginning.
    ///
    /// Before the data zone is locked the chip takes whole blocks only: `offset` and length are multiples of 32, or reach
    /// over the end of the slot.
    ///
    /// # Errors
    /// [`Refusal`], [`Error`].
    pub fn write(&mut self, slot: Slot, offset: usize, data: &[u8]) -> Result<(), Error> {
        self.permits(slot, Use::Write)?;
        check_extent(slot, offset, data.len())?;
        self.session(|link| write_data(link, slot, offset, data))
    }

    /// Writes a secret of 32 octets to the beginning of a slot before the data zone is locked: in the clear, which is for the
    /// line only.
    ///
    /// # Errors
    /// [`Refusal::ZoneLocked`] afterwards: then it is [`write_encrypted`](Self::write_encrypted).
    pub fn inject(&mut self, slot: Slot, secret: &SecretArray<32>) -> Result<(), Error> {
        if self.config().is_data_locked() {
            return Err(Refusal::ZoneLocked.into());
        }
        self.permits(slot, Use::Write)?;
        // Exposed to the chip.
        self.session(|link| write_unit(link, ZONE_DATA, address(slot, 0), secret.expose()))
    }

    /// Writes a secret of 32 octets to the beginning of a slot, encrypted under the transport key and authenticated by it.
    /// `number` is 20 octets of the caller's randomness.
    ///
    /// # Errors
    /// [`Refusal`]; [`Error::Execution`] when the chip's transport key is another one.
    pub fn write_encrypted(
        &mut self,
        slot: Slot,
        secret: &SecretArray<32>,
        under: &TransportKey,
        number: &[u8; NUMBER_OCTETS],
    ) -> Result<(), Error> {
        self.permits(slot, Use::WriteEncrypted(under.slot))?;
        let serial = self.config().serial_number();
        self.session(|link| {
            let session = Session::open(link, under, number, serial)?;
            let place = address(slot, 0);
            let mode = ZONE_DATA | BLOCKWISE;
            // Exposed to be encrypted.
            let (sealed, mac) = session.seal(Opcode::Write, (mode, place), secret.expose());
            link.execute(&Command::new(Opcode::Write, mode, place, &[&sealed, &mac])).map(drop)
        })
    }

    /// Reads one block of 32 octets of a slot, encrypted under the transport key. Reading is not authenticated by the chip.
    ///
    /// # Errors
    /// [`Refusal`], [`Error`].
    pub fn read_encrypted(
        &mut self,
        slot: Slot,
        block: u8,
        under: &TransportKey,
        number: &[u8; NUMBER_OCTETS],
    ) -> Result<SecretArray<32>, Error> {
        self.permits(slot, Use::ReadEncrypted(under.slot))?;
        check_extent(slot, usize::from(block) * BLOCK, BLOCK)?;
        let serial = self.config().serial_number();
        self.session(|link| {
            let session = Session::open(link, under, number, serial)?;
            let place = address(slot, usize::from(block) * BLOCK);
            let answer = link.execute(&Command::new(Opcode::Read, ZONE_DATA | BLOCKWISE, place, &[]))?;
            let sealed: &[u8; BLOCK] = answer.array(Opcode::Read)?;
            Ok(SecretArray::fill(|data| *data = session.xor(sealed)))
        })
    }

    /// Writes what differs from a layout to the configuration zone, word by word, and reads it back. Can be repeated until the
    /// zone is locked. A layout with another I2C address holds from the next waking: this element goes on there, and after a
    /// power cut the chip is at one of the two.
    ///
    /// # Errors
    /// [`Refusal::ZoneLocked`]; [`Error::ReadBack`].
    pub fn write_config(&mut self, layout: &Layout) -> Result<(), Error> {
        if self.refresh()?.is_config_locked() {
            return Err(Refusal::ZoneLocked.into());
        }
        let words = layout.words(self.config());
        self.session(|link| {
            for (word, octets) in words {
                write_unit(link, ZONE_CONFIG, u16::from(word), &octets)?;
            }
            Ok(())
        })?;
        let mut read = self.refresh().map(drop);
        if read == Err(Error::Asleep) {
            self.link.set_address(layout.address());
            read = self.refresh().map(drop);
        }
        read.and(if layout.is_of(self.config()) { Ok(()) } else { Err(Error::ReadBack) })
    }
}

const fn check_extent(slot: Slot, offset: usize, length: usize) -> Result<(), Refusal> {
    let is_within = offset.saturating_add(length) <= slot.octets();
    if is_within && offset.is_multiple_of(WORD) && length.is_multiple_of(WORD) {
        Ok(())
    } else {
        Err(Refusal::Extent(slot))
    }
}

/// Of an octet of a slot: slot in bits 3 to 6, word in bits 0 to 2, block in the upper octet.
fn address(slot: Slot, offset: usize) -> u16 {
    let block = u8::try_from(offset / BLOCK).unwrap_or(u8::MAX);
    let word = u8::try_from(offset % BLOCK / WORD).unwrap_or(0);
    u16::from_le_bytes([(slot.number() << 3) | word, block])
}

pub(crate) fn read_config<I: I2c, D: DelayNs>(link: &mut Link<I, D>) -> Result<ConfigZone, Error> {
    let mut zone = [0; ZONE_OCTETS];
    for (block, place) in (0_u16..).zip(zone.chunks_mut(BLOCK)) {
        read_unit(link, ZONE_CONFIG, block << 3, place)?;
    }
    Ok(ConfigZone::from_bytes(zone))
}

fn read_data<I: I2c, D: DelayNs>(
    link: &mut Link<I, D>,
    slot: Slot,
    mut offset: usize,
    mut data: &mut [u8],
) -> Result<(), Error> {
    while !data.is_empty() {
        let (place, rest) = data.split_at_mut(unit(offset, data.len()));
        read_unit(link, ZONE_DATA, address(slot, offset), place)?;
        offset = offset.saturating_add(place.len());
        data = rest;
    }
    Ok(())
}

fn write_data<I: I2c, D: DelayNs>(
    link: &mut Link<I, D>,
    slot: Slot,
    mut offset: usize,
    mut data: &[u8],
) -> Result<(), Error> {
    while !data.is_empty() {
        let (unit, rest) = data.split_at(unit(offset, data.len()));
        write_unit(link, ZONE_DATA, address(slot, offset), unit)?;
        offset = offset.saturating_add(unit.len());
        data = rest;
    }
    Ok(())
}

/// A whole block where one begins here, or else a word. Lengths are multiples of four.
const fn unit(offset: usize, length: usize) -> usize {
    if offset.is_multiple_of(BLOCK) && length >= BLOCK { BLOCK } else { WORD }
}

fn read_unit<I: I2c, D: DelayNs>(link: &mut Link<I, D>, zone: u8, address: u16, place: &mut [u8]) -> Result<(), Error> {
    let mode = if place.len() == BLOCK { zone | BLOCKWISE } else { zone };
    let answer = link.execute(&Command::new(Opcode::Read, mode, address, &[]))?;
    if answer.data().len() != place.len() {
        return Err(Error::Answer(Opcode::Read));
    }
    place.copy_from_slice(answer.data());
    Ok(())
}

fn write_unit<I: I2c, D: DelayNs>(link: &mut Link<I, D>, zone: u8, address: u16, data: &[u8]) -> Result<(), Error> {
    let mode = if data.len() == BLOCK { zone | BLOCKWISE } else { zone };
    link.execute(&Command::new(Opcode::Write, mode, address, &[data])).map(drop)
}

/// A session value, the chip's TempKey as we compute it. Spent by the one block it is for.
struct Session {
    value: [u8; 32],
    serial: SerialNumber,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl Session {
    /// Nonce, then GenDig over the transport key.
    fn open<I: I2c, D: DelayNs>(
        link: &mut Link<I, D>,
        under: &TransportKey,
        number: &[u8; NUMBER_OCTETS],
        serial: SerialNumber,
    ) -> Result<Self, Error> {
        let answer = link.execute(&Command::new(Opcode::Nonce, 0, 0, &[number]))?;
        let random: &[u8; 32] = answer.array(Opcode::Nonce)?;
        let nonce = Sha256::new().chain_update(random).chain_update(number).chain_update([Opcode::Nonce.code(), 0, 0]);
        let mut nonce: [u8; 32] = nonce.finalize().into();
        let slot = u16::from(under.slot.number());
        link.execute(&Command::new(Opcode::GenDig, ZONE_DATA, slot, &[]))?;
        let message = Sha256::new()
            // Exposed to the digest that the chip computes too.
            .chain_update(under.key.expose())
            .chain_update(header(Opcode::GenDig, (ZONE_DATA, slot), serial))
            .chain_update(nonce);
        let value = message.finalize().into();
        nonce.zeroize();
        Ok(Self { value, serial })
    }

    fn xor(&self, block: &[u8; BLOCK]) -> [u8; BLOCK] {
        let mut out = *block;
        out.iter_mut().zip(self.value).for_each(|(octet, mask)| *octet ^= mask);
        out
    }

    /// Ciphertext and authentication of one block.
    fn seal(self, opcode: Opcode, place: (u8, u16), block: &[u8; BLOCK]) -> ([u8; BLOCK], [u8; 32]) {
        let message =
            Sha256::new().chain_update(self.value).chain_update(header(opcode, place, self.serial)).chain_update(block);
        (self.xor(block), message.finalize().into())
    }
}

/// Opcode, param1, param2, SN[8], SN[0:1] and 25 zeroes.
fn header(opcode: Opcode, (param1, param2): (u8, u16), serial: SerialNumber) -> [u8; 32] {
    let [first, second, _, _, _, _, _, _, last] = *serial.as_bytes();
    let [low, high] = param2.to_le_bytes();
    let mut header = [0; 32];
    let parts = [opcode.code(), param1, low, high, last, first, second];
    header.iter_mut().zip(parts).for_each(|(place, octet)| *place = octet);
    header
}
