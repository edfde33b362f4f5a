//! Steps of the hierarchy.

use core::ffi::c_char;

use kf_derive::{Algorithm, Info, Level, Purpose, SoftwareKey, expand};
use kf_key::SecretArray;

use crate::pointer;
use crate::status::{Status, code};

/// The key in C's memory, copied into one that is wiped.
///
/// # Safety
/// `key` is NULL or valid for reading 32 octets.
pub(crate) unsafe fn key(key: *const u8) -> Result<SoftwareKey, Status> {
    // SAFETY: by the caller's promise.
    let octets = unsafe { pointer::octets(key, 32) }?;
    Ok(SoftwareKey::new(SecretArray::fill(|key| key.copy_from_slice(octets))))
}

/// `kf_derive` of the header.
///
/// # Safety
/// Every pointer is NULL or valid for the length beside it.
#[allow(clippy::too_many_arguments, reason = "C has no slices")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_derive(
    parent: *const u8,
    level: u8,
    algorithm: u8,
    purpose: *const c_char,
    context: *const u8,
    context_length: usize,
    epoch: u32,
    derived: *mut u8,
    length: *mut usize,
) -> i32 {
    // SAFETY: by the caller's promise.
    code(unsafe { key(parent) }.and_then(|parent| {
        let (level, algorithm) = known(level, algorithm).ok_or(Status::Argument)?;
        // SAFETY: by the caller's promise.
        let (purpose, context) = unsafe { (pointer::text(purpose)?, pointer::octets(context, context_length)?) };
        let purpose = Purpose::ALL.into_iter().find(|known| known.name() == purpose).ok_or(Status::Argument)?;
        let info = Info::new(level, algorithm, purpose, context, epoch).map_err(|_too_long| Status::Argument)?;
        // SAFETY: by the caller's promise.
        let (place, length) = unsafe { (pointer::octets_mut(derived, 32)?, pointer::value_mut(length)?) };
        let Ok(made) = expand(&parent, &info);
        let octets = usize::from(info.key_octets());
        place.fill(0);
        // Exposed to the caller, who asked for it.
        let key = made.into_secret();
        place.iter_mut().zip(key.expose().iter().take(octets)).for_each(|(place, octet)| *place = *octet);
        *length = octets;
        Ok(())
    }))
}

#[allow(clippy::as_conversions, reason = "fieldless enums with explicit codes")]
fn known(level: u8, algorithm: u8) -> Option<(Level, Algorithm)> {
    let level = Level::ALL.into_iter().find(|known| *known as u8 == level)?;
    Some((level, Algorithm::ALL.into_iter().find(|known| *known as u8 == algorithm)?))
}
