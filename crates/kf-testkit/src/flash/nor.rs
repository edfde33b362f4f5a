//! Raw NOR flash.

use std::fmt;

/// NOR flash: a program operation clears bits, an erase operation sets all bits of a block.
///
/// Operations are counted. [`NorFlash::cut_power_after`] tears one of them: of a program the first half is done, of an erase
/// the first half of the block. Nothing works after that until [`NorFlash::power_on`].
#[derive(Clone)]
pub struct NorFlash {
    octets: Vec<u8>,
    block_octets: usize,
    /// Erases of each block.
    wear: Vec<u32>,
    /// Erases that each block survives.
    endurance: Vec<u32>,
    operations: u64,
    cut_after: Option<u64>,
    is_off: bool,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlashFault {
    /// Power was cut in the middle of it, or before.
    #[error("the power is off")]
    PowerCut,
    /// The block can no longer be erased. What it holds stays for ever.
    #[error("block {block} is worn out")]
    WornOut {
        /// Which one.
        block: usize,
    },
    /// A bit would have to go from 0 to 1, or the place is outside.
    #[error("offset {offset} cannot be programmed so")]
    NotProgrammable {
        /// Where.
        offset: usize,
    },
}

impl NorFlash {
    /// Blank flash whose blocks survive `endurance` erases.
    #[must_use]
    pub fn new(blocks: usize, block_octets: usize, endurance: u32) -> Self {
        Self::with_endurance(block_octets, vec![endurance; blocks])
    }

    /// Blank flash with a block for each number of erases that it survives.
    #[must_use]
    pub fn with_endurance(block_octets: usize, endurance: Vec<u32>) -> Self {
        Self {
            octets: vec![0xff; endurance.len() * block_octets],
            block_octets,
            wear: vec![0; endurance.len()],
            endurance,
            operations: 0,
            cut_after: None,
            is_off: false,
        }
    }

    /// How many blocks there are.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.wear.len()
    }

    /// How often a block was erased.
    #[must_use]
    pub fn wear(&self, block: usize) -> u32 {
        self.wear.get(block).copied().unwrap_or(u32::MAX)
    }

    /// Operations so far.
    #[must_use]
    pub const fn operations(&self) -> u64 {
        self.operations
    }

    /// All octets as they lie there: what somebody reads who takes the chip off the board.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.octets
    }

    /// Tears the operation after the next `operations`.
    pub const fn cut_power_after(&mut self, operations: u64) {
        self.cut_after = Some(self.operations + operations);
    }

    /// Power comes back.
    pub const fn power_on(&mut self) {
        self.is_off = false;
        self.cut_after = None;
    }

    /// Clears the bits that are 0 in `octets`.
    ///
    /// # Errors
    /// [`FlashFault::NotProgrammable`], with nothing done, when a bit would have to be set; [`FlashFault::PowerCut`].
    pub fn program(&mut self, offset: usize, octets: &[u8]) -> Result<(), FlashFault> {
        let is_torn = self.begin()?;
        let fault = FlashFault::NotProgrammable { offset };
        let target = self.octets.get_mut(offset..offset + octets.len()).ok_or(fault)?;
        if target.iter().zip(octets).any(|(old, new)| !old & new != 0) {
            return Err(fault);
        }
        let done = if is_torn { octets.len() / 2 } else { octets.len() };
        target.iter_mut().zip(octets).take(done).for_each(|(old, new)| *old &= new);
        self.end(is_torn)
    }

    /// Sets every bit of a block.
    ///
    /// # Errors
    /// [`FlashFault::WornOut`], with nothing done; [`FlashFault::PowerCut`].
    pub fn erase(&mut self, block: usize) -> Result<(), FlashFault> {
        let is_torn = self.begin()?;
        let worn_out = FlashFault::WornOut { block };
        let endurance = self.endurance.get(block).copied().unwrap_or_default();
        let wear = self.wear.get_mut(block).filter(|wear| **wear < endurance).ok_or(worn_out)?;
        *wear += 1;
        let octets = self.octets.chunks_mut(self.block_octets).nth(block).ok_or(worn_out)?;
        let done = if is_torn { octets.len() / 2 } else { octets.len() };
        octets.iter_mut().take(done).for_each(|octet| *octet = 0xff);
        self.end(is_torn)
    }

    /// Whether the operation that begins here is the one to be torn.
    const fn begin(&mut self) -> Result<bool, FlashFault> {
        if self.is_off {
            return Err(FlashFault::PowerCut);
        }
        let is_torn = matches!(self.cut_after, Some(last) if last == self.operations);
        self.operations += 1;
        Ok(is_torn)
    }

    const fn end(&mut self, is_torn: bool) -> Result<(), FlashFault> {
        self.is_off = is_torn;
        if is_torn { Err(FlashFault::PowerCut) } else { Ok(()) }
    }
}

impl fmt::Debug for NorFlash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NorFlash({} blocks of {} octets)", self.blocks(), self.block_octets)
    }
}

#[cfg(test)]
mod tests;
