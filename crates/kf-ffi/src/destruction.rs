//! Destroying keys, and what that is worth.

use kf_device::destruction::{RevokeError, Target, crypto_erase, destroy};
use kf_device::identity::Slot;

use crate::device::Device;
use crate::handle::{self, Held};
use crate::hooks::Chip;
use crate::identity::erasure_code;
use crate::pointer;
use crate::status::Status;

border! {
    /// `kf_destroy` of the header.
    kf_destroy(device: *mut Held<Device>, target: u8, erasure: *mut u8)
    takes { device = handle::get(device), erasure = pointer::value_mut(erasure) } {
        let target = match target {
            1 => Target::DeviceKeys,
            2 => Target::Ratchet,
            3 => Target::Identity(Slot::A),
            4 => Target::Identity(Slot::B),
            5 => Target::StorageKey,
            _ => return Err(Status::Argument),
        };
        *erasure = erasure_code(destroy(&mut device.store, target)?);
        Ok(())
    }
}

border! {
    /// `kf_crypto_erase` of the header.
    kf_crypto_erase(device: *mut Held<Device>, erasure: *mut u8)
    takes { device = handle::get(device), erasure = pointer::value_mut(erasure) } {
        if !device.chip.is_revocable() {
            return Err(Status::Board);
        }
        let nonce = device.source.nonce()?;
        let done = crypto_erase(Chip::new(device.hooks), nonce).map_err(|error| match error {
            RevokeError::Wrap(error) => Status::from(error),
            RevokeError::StillUnwraps => Status::StillUnwraps,
        })?;
        *erasure = erasure_code(done);
        Ok(())
    }
}
