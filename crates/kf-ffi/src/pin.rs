//! Keys of the server that the firmware pins, and those that succeeded them.

use kf_device::pin::Pin;
use kf_key::KeyRole;

use crate::device::Device;
use crate::handle::{self, Held};
use crate::pointer;
use crate::status::Status;

border! {
    /// `kf_pin_take_up` of the header.
    kf_pin_take_up(
        device: *mut Held<Device>,
        role: u8,
        pin: *const [u8; 91],
        links: *const u8,
        length: usize,
        taken: *mut u8,
        fingerprint: *mut [u8; 32],
    ) takes {
        device = handle::get(device),
        pin = pointer::public_key(pin),
        links = pointer::octets(links, length),
        taken = pointer::value_mut(taken),
        fingerprint = pointer::value_mut(fingerprint),
    } {
        let role = match role {
            1 => KeyRole::Delivery,
            2 => KeyRole::Order,
            _ => return Err(Status::Argument),
        };
        let mut held = Pin::load(&mut device.store, role, pin)?;
        *taken = u8::from(held.take_up(&mut device.store, links)?);
        *fingerprint = held.key().spki_sha256();
        Ok(())
    }
}
