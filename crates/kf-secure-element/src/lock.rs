//! Locks: what cannot be undone is an order, made for one chip against what is read from it, confirmed by its serial number,
//! and spent by being executed.
//!
//! ```compile_fail,E0382
//! # use kf_secure_element::{Element, Error, lock::DataLock};
//! # fn f<I: embedded_hal::i2c::I2c, D: embedded_hal::delay::DelayNs>(e: &mut Element<I, D>) -> Result<(), Error> {
//! let order = DataLock::order(e, "0123000000000000ee")?;
//! order.execute(e)?;
//! order.execute(e)
//! # }
//! ```

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;

use crate::config::{ConfigZone, SerialNumber, Slot};
use crate::element::Element;
use crate::error::Error;
use crate::layout::Layout;
use crate::policy::{Refusal, Use};
use crate::wire::{Command, Opcode, crc16};

const CONFIG: u8 = 0x00;
/// Data and OTP, without a checksum over what nobody outside can know.
const DATA: u8 = 0x81;
const SLOT: u8 = 0x82;

/// The order to lock the configuration zone.
#[derive(Debug)]
pub struct ConfigLock {
    serial: SerialNumber,
    summary: u16,
}

/// The order to lock the data and OTP zones.
#[derive(Debug)]
pub struct DataLock {
    serial: SerialNumber,
}

/// The order to lock one slot.
#[derive(Debug)]
pub struct SlotLock {
    serial: SerialNumber,
    slot: Slot,
}

/// `typed` is what a person, or an approved recipe for this chip, has given as the chip's serial number.
fn confirm(zone: &ConfigZone, typed: &str) -> Result<SerialNumber, Error> {
    let serial = zone.serial_number();
    if SerialNumber::parse(typed) == Some(serial) { Ok(serial) } else { Err(Error::Confirmation) }
}

fn execute<I: I2c, D: DelayNs>(
    element: &mut Element<I, D>,
    serial: SerialNumber,
    (mode, summary): (u8, u16),
    is_locked: impl Fn(&ConfigZone) -> bool,
) -> Result<(), Error> {
    if element.config().serial_number() != serial {
        return Err(Error::Confirmation);
    }
    let sent = element.session(|link| link.execute(&Command::new(Opcode::Lock, mode, summary, &[])).map(drop));
    // Whatever became of the answer, the chip says what holds.
    if is_locked(element.refresh()?) { Ok(()) } else { sent.and(Err(Error::ReadBack)) }
}

impl ConfigLock {
    /// Reads the zone and compares it with the layout.
    ///
    /// # Errors
    /// [`Error::Confirmation`], [`Error::Locked`], [`Error::ReadBack`] when the zone is not that of the layout.
    pub fn order<I: I2c, D: DelayNs>(element: &mut Element<I, D>, layout: &Layout, typed: &str) -> Result<Self, Error> {
        let zone = element.refresh()?;
        let serial = confirm(zone, typed)?;
        if zone.is_config_locked() {
            return Err(Error::Locked(None));
        }
        if !layout.is_of(zone) {
            return Err(Error::ReadBack);
        }
        Ok(Self { serial, summary: crc16(zone.as_bytes()) })
    }

    /// Locks. The chip compares the checksum of its zone with the one that was read for the order.
    ///
    /// # Errors
    /// [`Error::Execution`] when the zone changed meanwhile; nothing is locked then.
    pub fn execute<I: I2c, D: DelayNs>(self, element: &mut Element<I, D>) -> Result<(), Error> {
        execute(element, self.serial, (CONFIG, self.summary), ConfigZone::is_config_locked)
    }
}

impl DataLock {
    /// For a chip of which the configuration is locked and the data zone is not.
    ///
    /// # Errors
    /// [`Error::Confirmation`], [`Error::Locked`], [`Refusal::ConfigUnlocked`].
    pub fn order<I: I2c, D: DelayNs>(element: &mut Element<I, D>, typed: &str) -> Result<Self, Error> {
        let zone = element.refresh()?;
        let serial = confirm(zone, typed)?;
        match (zone.is_config_locked(), zone.is_data_locked()) {
            (false, _) => Err(Refusal::ConfigUnlocked.into()),
            (true, true) => Err(Error::Locked(None)),
            (true, false) => Ok(Self { serial }),
        }
    }

    /// Locks.
    ///
    /// # Errors
    /// [`Error`].
    pub fn execute<I: I2c, D: DelayNs>(self, element: &mut Element<I, D>) -> Result<(), Error> {
        execute(element, self.serial, (DATA, 0), ConfigZone::is_data_locked)
    }
}

impl SlotLock {
    /// For a slot that is lockable and not locked.
    ///
    /// # Errors
    /// [`Error::Confirmation`], [`Error::Locked`], [`Refusal`].
    pub fn order<I: I2c, D: DelayNs>(element: &mut Element<I, D>, slot: Slot, typed: &str) -> Result<Self, Error> {
        let zone = element.refresh()?;
        let serial = confirm(zone, typed)?;
        if zone.is_slot_locked(slot) {
            return Err(Error::Locked(Some(slot)));
        }
        element.permits(slot, Use::Lock)?;
        Ok(Self { serial, slot })
    }

    /// Locks.
    ///
    /// # Errors
    /// [`Error`].
    pub fn execute<I: I2c, D: DelayNs>(self, element: &mut Element<I, D>) -> Result<(), Error> {
        let slot = self.slot;
        execute(element, self.serial, (SLOT | (slot.number() << 2), 0), |zone| zone.is_slot_locked(slot))
    }
}
