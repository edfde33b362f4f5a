//! Command groups and answers: lengths, checksums, execution times.
//!
//! A command group is count, opcode, param1, param2 (little endian), data, CRC-16 (little endian); an answer is count,
//! data or one octet of status, CRC-16. The count includes itself and the CRC.

use core::fmt;

use zeroize::Zeroize;

use crate::error::Error;

/// The most octets of a command group that the chip takes.
pub(crate) const MAX_GROUP_OCTETS: usize = 155;
/// Count, opcode, param1, param2, CRC.
const OVERHEAD_OCTETS: usize = 7;
/// The most octets of data in an answer to a command of ours: a public key or a signature.
pub(crate) const MAX_ANSWER_OCTETS: usize = 64;

/// The word address that marks a command group.
pub(crate) const WORD_COMMAND: u8 = 3;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Opcode {
    Aes,
    Counter,
    Ecdh,
    GenDig,
    GenKey,
    Info,
    Kdf,
    Lock,
    Nonce,
    Random,
    Read,
    SelfTest,
    Sha,
    Sign,
    Verify,
    Write,
}

impl Opcode {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Aes => 0x51,
            Self::Counter => 0x24,
            Self::Ecdh => 0x43,
            Self::GenDig => 0x15,
            Self::GenKey => 0x40,
            Self::Info => 0x30,
            Self::Kdf => 0x56,
            Self::Lock => 0x17,
            Self::Nonce => 0x16,
            Self::Random => 0x1b,
            Self::Read => 0x02,
            Self::SelfTest => 0x77,
            Self::Sha => 0x47,
            Self::Sign => 0x41,
            Self::Verify => 0x45,
            Self::Write => 0x12,
        }
    }

    /// The longest execution time in milliseconds, with the fastest and with the slowest clock divider.
    const fn execution_ms(self) -> (u32, u32) {
        match self {
            Self::Aes => (27, 27),
            Self::Counter => (25, 25),
            Self::Ecdh => (75, 531),
            Self::GenDig => (25, 35),
            Self::GenKey => (115, 653),
            Self::Info | Self::Read => (5, 5),
            Self::Kdf => (165, 165),
            Self::Lock => (35, 35),
            Self::Nonce => (20, 20),
            Self::Random => (23, 23),
            Self::SelfTest => (250, 2324),
            Self::Sha => (36, 75),
            Self::Sign => (115, 665),
            Self::Verify => (105, 1085),
            Self::Write => (45, 45),
        }
    }

    /// The longest execution time in microseconds.
    pub(crate) const fn execution_us(self, is_slow_clock: bool) -> u32 {
        let (fast, slow) = self.execution_ms();
        (if is_slow_clock { slow } else { fast }).saturating_mul(1000)
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// CRC-16 with the polynomial 0x8005 from 0, octets taken from the lowest bit on, the register not reflected.
#[must_use]
pub fn crc16<'a>(octets: impl IntoIterator<Item = &'a u8>) -> u16 {
    octets.into_iter().fold(0, |register, octet| {
        (0..8).fold(register, |register: u16, bit| {
            let is_set = (octet >> bit) & 1 == 1;
            let shifted = register << 1;
            if is_set == (register & 0x8000 != 0) { shifted } else { shifted ^ 0x8005 }
        })
    })
}

/// A command before it is encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command<'a> {
    pub(crate) opcode: Opcode,
    pub(crate) param1: u8,
    pub(crate) param2: u16,
    /// Data in parts, one after the other.
    pub(crate) data: &'a [&'a [u8]],
}

impl<'a> Command<'a> {
    pub(crate) const fn new(opcode: Opcode, param1: u8, param2: u16, data: &'a [&'a [u8]]) -> Self {
        Self { opcode, param1, param2, data }
    }

    /// Word address and command group.
    ///
    /// # Errors
    /// [`Error::Parse`] when it is too long for any chip: a bug of ours, found before anything is sent.
    pub(crate) fn encode(&self) -> Result<Group, Error> {
        let length = self.data.iter().map(|part| part.len()).sum::<usize>().saturating_add(OVERHEAD_OCTETS);
        let too_long = Error::Parse(self.opcode);
        if length > MAX_GROUP_OCTETS {
            return Err(too_long);
        }
        let count = u8::try_from(length).map_err(|_too_long| too_long)?;
        let mut group = Group { octets: [0; MAX_GROUP_OCTETS + 1], length: length.saturating_add(1) };
        let header =
            [WORD_COMMAND, count, self.opcode.code(), self.param1].into_iter().chain(self.param2.to_le_bytes());
        let body = header.chain(self.data.iter().flat_map(|part| part.iter().copied()));
        group.octets.iter_mut().zip(body).for_each(|(place, octet)| *place = octet);
        let end = length.saturating_sub(1);
        let crc = crc16(group.octets.get(1..end).unwrap_or_default()).to_le_bytes();
        group.octets.iter_mut().skip(end).zip(crc).for_each(|(place, octet)| *place = octet);
        Ok(group)
    }
}

/// An encoded command group with its word address; wiped when dropped, for keys may be among the data.
pub(crate) struct Group {
    octets: [u8; MAX_GROUP_OCTETS + 1],
    length: usize,
}

impl Group {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

/// The data of an answer; wiped when dropped, for keys may be among them.
pub(crate) struct Answer {
    octets: [u8; MAX_ANSWER_OCTETS + 3],
    length: usize,
}

impl Answer {
    pub(crate) const fn empty() -> Self {
        Self { octets: [0; MAX_ANSWER_OCTETS + 3], length: 0 }
    }

    /// Where an answer of `count` octets is read to; `None` for a count that no answer of ours has.
    pub(crate) fn place(&mut self, count: u8) -> Option<&mut [u8]> {
        let count = usize::from(count);
        let place = if count < 4 { None } else { self.octets.get_mut(..count) }?;
        self.length = count;
        Some(place)
    }

    /// Whether the checksum is right.
    pub(crate) fn is_intact(&self) -> bool {
        let Some((body, crc)) = self.octets.get(..self.length).and_then(|all| all.split_last_chunk::<2>()) else {
            return false;
        };
        crc16(body).to_le_bytes() == *crc && body.first().map(|count| usize::from(*count)) == Some(self.length)
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.octets.get(1..self.length.saturating_sub(2)).unwrap_or_default()
    }

    /// The one octet of an answer of four; a status for all commands but the self-test.
    pub(crate) fn status(&self) -> Option<u8> {
        match self.data() {
            [status] => Some(*status),
            _ => None,
        }
    }

    /// Data of exactly `N` octets.
    pub(crate) fn array<const N: usize>(&self, opcode: Opcode) -> Result<&[u8; N], Error> {
        self.data().try_into().map_err(|_length| Error::Answer(opcode))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_published_wake_answer() {
        assert_eq!(crc16(&[0x04, 0x11]).to_le_bytes(), [0x33, 0x43]);
    }

    #[test]
    fn a_group_is_laid_out_as_the_data_sheet_says() {
        let group = Command::new(Opcode::Read, 0x80, 0x0102, &[]).encode().ok().map(|group| {
            let mut octets = [0; 8];
            octets.copy_from_slice(group.as_bytes());
            octets
        });
        let crc = crc16(&[7, 2, 0x80, 2, 1]).to_le_bytes();
        assert_eq!(group, Some([3, 7, 2, 0x80, 2, 1, crc[0], crc[1]]));
    }

    #[test]
    fn a_group_is_never_longer_than_a_chip_takes() {
        let fits = [0; 148];
        assert!(Command::new(Opcode::Kdf, 0, 0, &[&fits]).encode().is_ok());
        let too_long = [0; 149];
        assert_eq!(Command::new(Opcode::Kdf, 0, 0, &[&too_long]).encode().err(), Some(Error::Parse(Opcode::Kdf)));
    }

    #[test]
    fn an_answer_of_any_other_length_or_checksum_is_not_taken() {
        let mut answer = Answer::empty();
        for count in [0, 1, 2, 3, 68, 255] {
            assert!(answer.place(count).is_none(), "{count}");
        }
        answer.place(4).into_iter().for_each(|place| place.copy_from_slice(&[4, 0x11, 0x33, 0x43]));
        assert!(answer.is_intact());
        assert_eq!(answer.status(), Some(0x11));
        for bit in 0..32_usize {
            let mut octets = [4, 0x11, 0x33, 0x43];
            octets[bit / 8] ^= 1 << (bit % 8);
            answer.place(4).into_iter().for_each(|place| place.copy_from_slice(&octets));
            assert!(!answer.is_intact(), "bit {bit}");
        }
    }
}
