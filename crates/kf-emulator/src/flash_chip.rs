//! A NOR flash chip in a file: erased octets read 0xFF, programming clears bits, and the power can go in the middle.

use std::io;
use std::path::{Path, PathBuf};

pub(crate) const SECTOR_OCTETS: usize = 1_024;
pub(crate) const SECTORS: usize = 16;
pub(crate) const WORD_OCTETS: usize = 8;

/// What the chip answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// What real flash punishes: a word programmed twice, or an address outside.
    Refused,
    /// The power went in the middle of the operation.
    PowerCut,
}

/// When the power goes.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Operations (words programmed, sectors erased) until then.
    left: u32,
    random: Random,
}

/// splitmix64: enough to choose cuts and torn bits, repeatable from its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.next() % u64::from(end.max(1))).unwrap_or(0)
    }

    fn octet(&mut self) -> u8 {
        let [octet, ..] = self.next().to_le_bytes();
        octet
    }
}

/// The chip.
#[derive(Debug)]
pub(crate) struct FlashChip {
    path: PathBuf,
    octets: Vec<u8>,
    cut: Option<Cut>,
    operations: u64,
}

impl FlashChip {
    /// The chip whose content is in `path`; a blank one when there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read or has another size.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let octets = match std::fs::read(path) {
            Ok(octets) if octets.len() == SECTORS * SECTOR_OCTETS => octets,
            Ok(_) => return Err(io::Error::other("the file is no flash content: it has another size")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec![0xff; SECTORS * SECTOR_OCTETS],
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), octets, cut: None, operations: 0 })
    }

    /// The power goes after so many more operations, in the middle of the next one.
    pub(crate) const fn cut_after(&mut self, operations: u32, random: Random) {
        self.cut = Some(Cut { left: operations, random });
    }

    /// The power is back, and stays.
    pub(crate) const fn power_on(&mut self) {
        self.cut = None;
    }

    /// Words programmed and sectors erased so far.
    pub(crate) const fn operations(&self) -> u64 {
        self.operations
    }

    /// Every cell.
    pub(crate) fn cells(&self) -> &[u8] {
        &self.octets
    }

    /// What is read; `None` outside of the chip.
    pub(crate) fn read(&self, offset: u32, octets: u32) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.octets.get(start..start.checked_add(usize::try_from(octets).ok()?)?)
    }

    /// Programs whole words.
    ///
    /// # Errors
    /// Of the file.
    pub(crate) fn program(&mut self, offset: u32, octets: &[u8]) -> io::Result<Answer> {
        let answer = self.program_words(offset, octets);
        std::fs::write(&self.path, &self.octets)?;
        Ok(answer)
    }

    fn program_words(&mut self, offset: u32, octets: &[u8]) -> Answer {
        let Ok(start) = usize::try_from(offset) else { return Answer::Refused };
        if !start.is_multiple_of(WORD_OCTETS) || !octets.len().is_multiple_of(WORD_OCTETS) {
            return Answer::Refused;
        }
        for (index, word) in octets.chunks(WORD_OCTETS).enumerate() {
            let mut torn = self.step();
            let place = start + index * WORD_OCTETS;
            let Some(cells) = self.octets.get_mut(place..place + WORD_OCTETS) else { return Answer::Refused };
            if cells.iter().any(|cell| *cell != 0xff) {
                return Answer::Refused;
            }
            for (cell, octet) in cells.iter_mut().zip(word) {
                // Of a torn word any of the bits to be cleared may still be set.
                *cell &= *octet | torn.as_mut().map_or(0, Random::octet);
            }
            if torn.is_some() {
                return Answer::PowerCut;
            }
        }
        Answer::Done
    }

    /// Erases one sector.
    ///
    /// # Errors
    /// Of the file.
    pub(crate) fn erase(&mut self, sector: u32) -> io::Result<Answer> {
        let mut torn = self.step();
        let start = usize::try_from(sector).ok().and_then(|sector| sector.checked_mul(SECTOR_OCTETS));
        let cells = start.and_then(|start| self.octets.get_mut(start..start.checked_add(SECTOR_OCTETS)?));
        let Some(cells) = cells else { return Ok(Answer::Refused) };
        for cell in cells {
            // Of a torn sector any bit may be erased already.
            *cell |= torn.as_mut().map_or(0xff, Random::octet);
        }
        std::fs::write(&self.path, &self.octets)?;
        Ok(if torn.is_some() { Answer::PowerCut } else { Answer::Done })
    }

    /// Counts an operation; gives what tears it when the power goes in it.
    fn step(&mut self) -> Option<Random> {
        self.operations += 1;
        let cut = self.cut.as_mut()?;
        if cut.left == 0 {
            return Some(cut.random);
        }
        cut.left -= 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chip() -> (tempfile::TempDir, FlashChip) {
        let folder = tempfile::tempdir().expect("a folder");
        let chip = FlashChip::open(&folder.path().join("flash.bin")).expect("a chip");
        (folder, chip)
    }

    #[test]
    fn a_word_is_programmed_once_between_two_erasures() {
        let (_folder, mut chip) = chip();
        assert_eq!(chip.program(8, &[1; 16]).expect("written"), Answer::Done);
        assert_eq!(chip.program(16, &[0; 8]).expect("written"), Answer::Refused);
        assert_eq!(chip.erase(0).expect("written"), Answer::Done);
        assert_eq!(chip.program(16, &[0; 8]).expect("written"), Answer::Done);
        assert_eq!(chip.read(8, 16).expect("inside"), [[0xff; 8], [0; 8]].concat());
    }

    #[test]
    fn parts_of_words_and_addresses_outside_are_refused() {
        let (_folder, mut chip) = chip();
        for (offset, length) in [(4, 8), (0, 7), (16 * 1024, 8), (u32::MAX - 7, 8)] {
            assert_eq!(chip.program(offset, &vec![0; length]).expect("written"), Answer::Refused, "{offset}");
        }
        assert_eq!(chip.erase(16).expect("written"), Answer::Refused);
        assert_eq!(chip.read(16 * 1024 - 1, 2), None);
    }

    #[test]
    fn a_cut_leaves_what_came_before_and_tears_the_operation_in_hand() {
        let (folder, mut chip) = chip();
        chip.cut_after(1, Random(7));
        assert_eq!(chip.program(0, &[0; 24]).expect("written"), Answer::PowerCut);
        assert_eq!(chip.read(0, 8).expect("inside"), [0; 8]);
        assert_eq!(chip.read(16, 8).expect("inside"), [0xff; 8]);
        assert_ne!(chip.read(8, 8).expect("inside"), [0; 8]);
        let again = FlashChip::open(&folder.path().join("flash.bin")).expect("the same chip");
        assert_eq!(again.cells(), chip.cells());
    }
}
