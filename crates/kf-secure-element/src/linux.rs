//! The bus of a Linux host.

use std::path::Path;

use linux_embedded_hal::{Delay, I2cdev};

use crate::element::Element;
use crate::error::Error;

/// A chip on `/dev/i2c-N`.
pub type LinuxElement = Element<I2cdev, Delay>;

/// Opens the chip at a seven-bit address on a bus of the kernel's, which runs at 100 kHz (see [`Element::open`]).
///
/// # Errors
/// [`Error::Asleep`] when the bus cannot be opened or nothing wakes; [`Error`].
pub fn open_linux(bus: &Path, address: u8) -> Result<LinuxElement, Error> {
    let bus = I2cdev::new(bus).map_err(|_unopened| Error::Asleep)?;
    Element::open(bus, Delay, address)
}
