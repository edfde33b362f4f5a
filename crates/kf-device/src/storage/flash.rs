//! What the firmware implements for its memory.

/// Sizes of a flash memory, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// What is programmed at once: 1, 2, 4, 8, 16 or 32. A word is programmed once between two erasures.
    pub word: u32,
    /// What is erased at once: a multiple of 32.
    pub sector: u32,
    /// Number of sectors given to the store: even, at least 2. Half of them are one bank.
    pub sectors: u32,
}

/// What erasing promises on this medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Erasing reaches the very cells that were programmed: raw NOR, or the flash of a microcontroller.
    Raw,
    /// Something below remaps addresses (wear levelling, eMMC, a file): an erased address says nothing about the cells
    /// that held the old content.
    Remapped,
}

/// Erase-block memory, NOR-like: erased octets read 0xFF, programming clears bits. Offsets count from the start of the
/// area that is given to the store.
pub trait Flash {
    /// Why the hardware refused.
    type Error;

    /// Sizes, which never change.
    fn geometry(&self) -> Geometry;

    /// What erasing promises. Answer [`Medium::Remapped`] when in doubt.
    fn medium(&self) -> Medium;

    /// Fills `octets` from `offset`.
    ///
    /// # Errors
    /// Of the hardware. Double-bit ECC errors belong here.
    fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), Self::Error>;

    /// Programs whole words that are erased, in ascending order; `offset` and the length are multiples of a word. It
    /// returns when the cells are programmed.
    ///
    /// # Errors
    /// Of the hardware.
    fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), Self::Error>;

    /// Erases one sector and returns when it is erased.
    ///
    /// # Errors
    /// Of the hardware.
    fn erase(&mut self, sector: u32) -> Result<(), Self::Error>;
}

impl<F: Flash> Flash for &mut F {
    type Error = F::Error;

    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn medium(&self) -> Medium {
        (**self).medium()
    }

    fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), Self::Error> {
        (**self).read(offset, octets)
    }

    fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), Self::Error> {
        (**self).program(offset, octets)
    }

    fn erase(&mut self, sector: u32) -> Result<(), Self::Error> {
        (**self).erase(sector)
    }
}
