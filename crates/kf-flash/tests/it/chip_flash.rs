//! NVS as a device runs it: the crate esp-nvs, which others keep, on our simulated NOR flash.

use embedded_storage::nor_flash::{
    ErrorType, NorFlash as EmbeddedNorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use esp_nvs::platform::{Crc, software_crc32};
use esp_nvs::{Key, Nvs};
use kf_flash::nvs::PAGE_OCTETS;
use kf_testkit::{FlashFault, NorFlash};

/// Our NOR flash, for esp-nvs.
#[derive(Clone)]
pub(crate) struct ChipFlash(pub(crate) NorFlash);

/// A fault of the flash.
#[derive(Debug)]
pub(crate) struct Fault;

impl ChipFlash {
    pub(crate) fn blank(pages: usize) -> Self {
        Self(NorFlash::new(pages, PAGE_OCTETS, 100_000))
    }

    /// Flash that holds `image`.
    pub(crate) fn holding(image: &[u8]) -> Self {
        let mut flash = Self::blank(image.len() / PAGE_OCTETS);
        flash.0.program(0, image).unwrap();
        flash
    }
}

/// Starts NVS on the flash, which takes the recovery of the last power cut with it.
pub(crate) fn start(flash: &mut ChipFlash) -> Nvs<&mut ChipFlash> {
    flash.0.power_on();
    let octets = flash.0.raw().len();
    Nvs::new(0, octets, flash).expect("NVS starts after any power cut")
}

pub(crate) fn key(name: &str) -> Key {
    Key::from_slice(name.as_bytes())
}

impl NorFlashError for Fault {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl From<FlashFault> for Fault {
    fn from(_fault: FlashFault) -> Self {
        Self
    }
}

impl ErrorType for ChipFlash {
    type Error = Fault;
}

impl ReadNorFlash for ChipFlash {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), Fault> {
        let offset = usize::try_from(offset).unwrap();
        octets.copy_from_slice(&self.0.raw()[offset..offset + octets.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.raw().len()
    }
}

impl EmbeddedNorFlash for ChipFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE_OCTETS;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Fault> {
        let page = |offset| usize::try_from(offset).unwrap() / PAGE_OCTETS;
        (page(from)..page(to)).try_for_each(|page| self.0.erase(page)).map_err(Fault::from)
    }

    fn write(&mut self, offset: u32, octets: &[u8]) -> Result<(), Fault> {
        let offset = usize::try_from(offset).unwrap();
        // Flash leaves a bit at 0 that it is told to set.
        let old = &self.0.raw()[offset..offset + octets.len()];
        let cleared: Vec<u8> = old.iter().zip(octets).map(|(old, new)| old & new).collect();
        Ok(self.0.program(offset, &cleared)?)
    }
}

impl Crc for ChipFlash {
    fn crc32(init: u32, octets: &[u8]) -> u32 {
        software_crc32(init, octets)
    }
}
