//! Flash memory in RAM that can lose its power at any moment: for tests on a host, and for firmware in an emulator.
//!
//! It refuses what real flash punishes: programming a word twice, partial words, addresses outside. A cut in the middle
//! of an operation leaves a torn word (some of its bits programmed) or a torn sector (some of its octets erased).

use super::flash::{Flash, Geometry, Medium};

/// What the simulated hardware refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulatedError {
    /// The power is off until [`SimulatedFlash::power_on`].
    NoPower,
    /// Outside of the memory, or not whole words.
    Address,
    /// A word that is not erased.
    ProgrammedTwice,
}

/// `N` octets of flash.
#[derive(Clone, Debug)]
pub struct SimulatedFlash<const N: usize> {
    octets: [u8; N],
    geometry: Geometry,
    medium: Medium,
    has_power: bool,
    /// Operations (words programmed, sectors erased) until the power goes.
    left: Option<u32>,
    /// What decides which bits of the torn word or sector changed.
    seed: u32,
    /// Operations done, for a test that wants to cut at each of them.
    operations: u32,
    /// Sectors erased.
    erasures: u32,
}

impl<const N: usize> SimulatedFlash<N> {
    /// A blank memory. `geometry` must cover `N` octets, or every access is refused.
    #[must_use]
    pub const fn new(geometry: Geometry, medium: Medium) -> Self {
        Self { octets: [0xff; N], geometry, medium, has_power: true, left: None, seed: 0, operations: 0, erasures: 0 }
    }

    /// Cuts the power after so many more operations. The operation after them is torn: `seed` decides how; 0 leaves it
    /// undone, `u32::MAX` completes it without telling.
    pub const fn cut_after(&mut self, operations: u32, seed: u32) {
        self.left = Some(operations);
        self.seed = seed;
    }

    /// Restores the power.
    pub const fn power_on(&mut self) {
        self.has_power = true;
        self.left = None;
    }

    /// Whether the power is on.
    #[must_use]
    pub const fn has_power(&self) -> bool {
        self.has_power
    }

    /// Words programmed and sectors erased so far.
    #[must_use]
    pub const fn operations(&self) -> u32 {
        self.operations
    }

    /// Sectors erased so far.
    #[must_use]
    pub const fn erasures(&self) -> u32 {
        self.erasures
    }

    /// The cells, for a test that looks for remains.
    #[must_use]
    pub const fn cells(&self) -> &[u8; N] {
        &self.octets
    }

    /// The cells, for a test that damages them.
    pub const fn cells_mut(&mut self) -> &mut [u8; N] {
        &mut self.octets
    }

    fn random(&mut self) -> u8 {
        // xorshift32.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 17;
        self.seed ^= self.seed << 5;
        let [octet, ..] = self.seed.to_be_bytes();
        octet
    }

    /// Counts one operation; `false` when the power went away just now.
    const fn step(&mut self) -> bool {
        if let Some(left) = self.left {
            if left == 0 {
                self.has_power = false;
                return false;
            }
            self.left = Some(left - 1);
        }
        self.operations = self.operations.saturating_add(1);
        true
    }

    /// `mix(old, new, random bits)` for each octet of a torn operation.
    fn tear(&mut self, start: usize, new: impl Iterator<Item = u8>, mix: fn(u8, u8, u8) -> u8) {
        let seed = self.seed;
        for (place, new) in (start..).zip(new) {
            let random = match seed {
                0 => 0,
                u32::MAX => u8::MAX,
                _ => self.random(),
            };
            if let Some(octet) = self.octets.get_mut(place) {
                *octet = mix(*octet, new, random);
            }
        }
    }
}

fn size(octets: u32) -> usize {
    usize::try_from(octets).unwrap_or(usize::MAX)
}

impl<const N: usize> Flash for SimulatedFlash<N> {
    type Error = SimulatedError;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), SimulatedError> {
        if !self.has_power {
            return Err(SimulatedError::NoPower);
        }
        let start = size(offset);
        let cells = self.octets.get(start..start.saturating_add(octets.len())).ok_or(SimulatedError::Address)?;
        octets.copy_from_slice(cells);
        Ok(())
    }

    fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), SimulatedError> {
        if !self.has_power {
            return Err(SimulatedError::NoPower);
        }
        let (start, word) = (size(offset), size(self.geometry.word));
        if !start.is_multiple_of(word) || !octets.len().is_multiple_of(word) {
            return Err(SimulatedError::Address);
        }
        for (index, new) in octets.chunks_exact(word).enumerate() {
            let start = start.saturating_add(index.saturating_mul(word));
            let cells = self.octets.get(start..start.saturating_add(word)).ok_or(SimulatedError::Address)?;
            if cells.iter().any(|octet| *octet != 0xff) {
                return Err(SimulatedError::ProgrammedTwice);
            }
            if !self.step() {
                // Some of the bits that were to be cleared are.
                self.tear(start, new.iter().copied(), |old, new, random| old & (new | !random));
                return Err(SimulatedError::NoPower);
            }
            let cells = self.octets.get_mut(start..start.saturating_add(word)).ok_or(SimulatedError::Address)?;
            cells.copy_from_slice(new);
        }
        Ok(())
    }

    fn erase(&mut self, sector: u32) -> Result<(), SimulatedError> {
        if !self.has_power {
            return Err(SimulatedError::NoPower);
        }
        let (octets, start) = (size(self.geometry.sector), size(self.geometry.sector.saturating_mul(sector)));
        if sector >= self.geometry.sectors || start.saturating_add(octets) > N {
            return Err(SimulatedError::Address);
        }
        if !self.step() {
            // Some of the bits that were to be set are.
            self.tear(start, core::iter::repeat_n(0xff, octets), |old, new, random| old | (new & random));
            return Err(SimulatedError::NoPower);
        }
        self.erasures = self.erasures.saturating_add(1);
        if let Some(cells) = self.octets.get_mut(start..start.saturating_add(octets)) {
            cells.fill(0xff);
        }
        Ok(())
    }
}
