//! Steps of the hierarchy, and the device key.

use core::ffi::c_char;

use kf_derive::{
    Algorithm, CounterMode, Info, KeyDerivationKey, KeyedHmac, Level, MAX_INFO_OCTETS, Purpose, SoftwareKey,
};
use kf_device::derivation::{HeldKey, Injected};
use kf_device::exchange::kf_exchange::KeyPlace;
use kf_key::FacilityId;

use crate::device::Device;
use crate::handle::{self, Held};
use crate::pointer::{self, give};
use crate::status::Status;

/// `kf_key_place` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header documents them")]
pub struct KeyPlaceOfC {
    pub facility: [u8; 16],
    pub facility_epoch: u32,
    pub device_epoch: u32,
}

impl From<KeyPlaceOfC> for KeyPlace {
    fn from(place: KeyPlaceOfC) -> Self {
        let KeyPlaceOfC { facility, facility_epoch, device_epoch } = place;
        Self { facility: FacilityId::from_bytes(facility), facility_epoch, device_epoch }
    }
}

impl From<KeyPlace> for KeyPlaceOfC {
    fn from(place: KeyPlace) -> Self {
        let KeyPlace { facility, facility_epoch, device_epoch } = place;
        Self { facility: *facility.as_bytes(), facility_epoch, device_epoch }
    }
}

#[allow(clippy::as_conversions, reason = "fieldless enums with explicit codes")]
fn info_of(level: u8, algorithm: u8, purpose: &str, context: &[u8], epoch: u32) -> Result<Info, Status> {
    let level = Level::ALL.into_iter().find(|known| *known as u8 == level).ok_or(Status::Argument)?;
    let algorithm = Algorithm::ALL.into_iter().find(|known| *known as u8 == algorithm).ok_or(Status::Argument)?;
    let purpose = Purpose::ALL.into_iter().find(|known| known.name() == purpose).ok_or(Status::Argument)?;
    Info::new(level, algorithm, purpose, context, epoch).map_err(|_too_long| Status::Length)
}

/// Derives, and hands out as many octets as the algorithm's keys have; the rest of `place` is zero.
fn derive<K: KeyDerivationKey<Error = core::convert::Infallible>>(
    parent: &K,
    info: &Info,
    place: &mut [u8; 32],
    length: &mut usize,
) {
    let Ok(key) = parent.derive(info);
    *length = usize::from(info.key_octets());
    place.fill(0);
    // Exposed to the caller, who asked for it.
    place.iter_mut().zip(key.expose()).take(*length).for_each(|(place, octet)| *place = *octet);
}

border! {
    /// `kf_derive` of the header.
    kf_derive(
        parent: *const [u8; 32],
        level: u8,
        algorithm: u8,
        purpose: *const c_char,
        context: *const u8,
        context_length: usize,
        epoch: u32,
        derived: *mut [u8; 32],
        length: *mut usize,
    ) takes {
        parent = pointer::secret(parent),
        purpose = pointer::text(purpose),
        context = pointer::octets(context, context_length),
        place = pointer::value_mut(derived),
        length = pointer::value_mut(length),
    } {
        let info = info_of(level, algorithm, purpose, context, epoch)?;
        derive(&SoftwareKey::new(parent), &info, place, length);
        Ok(())
    }
}

border! {
    /// `kf_derive_counter_mode` of the header.
    kf_derive_counter_mode(
        parent: *const [u8; 32],
        level: u8,
        algorithm: u8,
        purpose: *const c_char,
        context: *const u8,
        context_length: usize,
        epoch: u32,
        derived: *mut [u8; 32],
        length: *mut usize,
    ) takes {
        parent = pointer::secret(parent),
        purpose = pointer::text(purpose),
        context = pointer::octets(context, context_length),
        place = pointer::value_mut(derived),
        length = pointer::value_mut(length),
    } {
        let info = info_of(level, algorithm, purpose, context, epoch)?;
        derive(&CounterMode::new(SoftwareKey::new(parent)), &info, place, length);
        Ok(())
    }
}

border! {
    /// `kf_info` of the header.
    kf_info(
        level: u8,
        algorithm: u8,
        purpose: *const c_char,
        context: *const u8,
        context_length: usize,
        epoch: u32,
        info: *mut [u8; MAX_INFO_OCTETS],
        length: *mut usize,
    ) takes {
        purpose = pointer::text(purpose),
        context = pointer::octets(context, context_length),
        place = pointer::value_mut(info),
        length = pointer::value_mut(length),
    } {
        let info = info_of(level, algorithm, purpose, context, epoch)?;
        give(info.as_bytes(), place, length)
    }
}

border! {
    /// `kf_extract` of the header.
    kf_extract(
        salt: *const u8,
        salt_length: usize,
        input: *const u8,
        input_length: usize,
        key: *mut [u8; 32],
    ) takes {
        salt = pointer::octets(salt, salt_length),
        input = pointer::octets(input, input_length),
        place = pointer::value_mut(key),
    } {
        // Exposed to the caller, who asked for it.
        place.copy_from_slice(kf_derive::extract(salt, input).into_secret().expose());
        Ok(())
    }
}

border! {
    /// `kf_hmac_sha256` of the header.
    kf_hmac_sha256(key: *const [u8; 32], message: *const u8, length: usize, tag: *mut [u8; 32])
    takes {
        key = pointer::secret(key),
        message = pointer::octets(message, length),
        tag = pointer::value_mut(tag),
    } {
        let Ok(()) = SoftwareKey::new(key).hmac_sha256(message, tag);
        Ok(())
    }
}

impl Device {
    /// The device key in use.
    pub(crate) fn held(&mut self) -> Result<HeldKey, Status> {
        HeldKey::load(&mut self.store, &self.chip, self.id)?.ok_or(Status::Missing)
    }
}

border! {
    /// `kf_device_key_inject` of the header.
    kf_device_key_inject(device: *mut Held<Device>, place: *const KeyPlaceOfC, key: *const [u8; 32])
    takes { device = handle::get(device), place = pointer::value(place), key = pointer::secret(key) } {
        let device = &mut *device;
        let nonce = device.source.nonce()?;
        let injected = Injected { device: device.id, place: (*place).into(), key: &key };
        HeldKey::inject(&mut device.store, &device.chip, injected, nonce)?;
        Ok(())
    }
}

border! {
    /// `kf_device_key_place` of the header.
    kf_device_key_place(device: *mut Held<Device>, place: *mut KeyPlaceOfC)
    takes { device = handle::get(device), place = pointer::value_mut(place) } {
        *place = device.held()?.place().into();
        Ok(())
    }
}

border! {
    /// `kf_storage_key` of the header.
    kf_storage_key(device: *mut Held<Device>, label: *const u8, length: usize, epoch: u32, key: *mut [u8; 32])
    takes {
        device = handle::get(device),
        label = pointer::octets(label, length),
        place = pointer::value_mut(key),
    } {
        let key = device.held()?.key().storage(label, epoch).map_err(|_too_long| Status::Length)?;
        // Exposed to the caller, who asked for it.
        place.copy_from_slice(key.into_secret().expose());
        Ok(())
    }
}
