//! Pointers of C, checked before they become references.

use core::ffi::{CStr, c_char};

use kf_device::exchange::kf_exchange::PublicKey;
use kf_key::SecretArray;

use crate::status::Status;

/// Octets to read. NULL is allowed for none.
///
/// # Safety
/// `pointer` is NULL or valid for reading `length` octets, which nobody changes meanwhile.
pub(crate) unsafe fn octets<'a>(pointer: *const u8, length: usize) -> Result<&'a [u8], Status> {
    match (pointer.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Status::Null),
        (false, length) if isize::try_from(length).is_err() => Err(Status::Length),
        // SAFETY: not NULL, not too long, and valid by the caller's promise.
        (false, length) => Ok(unsafe { core::slice::from_raw_parts(pointer, length) }),
    }
}

/// Octets to write. NULL is allowed for none.
///
/// # Safety
/// `pointer` is NULL or valid for writing `length` octets that nobody else uses meanwhile.
pub(crate) unsafe fn octets_mut<'a>(pointer: *mut u8, length: usize) -> Result<&'a mut [u8], Status> {
    match (pointer.is_null(), length) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Status::Null),
        (false, length) if isize::try_from(length).is_err() => Err(Status::Length),
        // SAFETY: not NULL, not too long, and valid by the caller's promise.
        (false, length) => Ok(unsafe { core::slice::from_raw_parts_mut(pointer, length) }),
    }
}

/// One value to read, or an array of fixed length.
///
/// # Safety
/// `pointer` is NULL or valid for reading a `T`.
pub(crate) unsafe fn value<'a, T>(pointer: *const T) -> Result<&'a T, Status> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Status::Null);
    }
    // SAFETY: not NULL, aligned, and valid by the caller's promise.
    Ok(unsafe { &*pointer })
}

/// One value to write, or an array of fixed length.
///
/// # Safety
/// `pointer` is NULL or valid for writing a `T` that nobody else uses meanwhile.
pub(crate) unsafe fn value_mut<'a, T>(pointer: *mut T) -> Result<&'a mut T, Status> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Status::Null);
    }
    // SAFETY: not NULL, aligned, and valid by the caller's promise.
    Ok(unsafe { &mut *pointer })
}

/// A text.
///
/// # Safety
/// `pointer` is NULL or points to a text that ends with NUL.
pub(crate) unsafe fn text<'a>(pointer: *const c_char) -> Result<&'a str, Status> {
    if pointer.is_null() {
        return Err(Status::Null);
    }
    // SAFETY: not NULL, and a text by the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_str().map_err(|_not_utf8| Status::Argument)
}

/// A key in C's memory, copied into one that is wiped.
///
/// # Safety
/// `pointer` is NULL or valid for reading 32 octets.
pub(crate) unsafe fn secret(pointer: *const [u8; 32]) -> Result<SecretArray<32>, Status> {
    // SAFETY: by the caller's promise.
    let octets = unsafe { value(pointer) }?;
    Ok(SecretArray::fill(|key| key.copy_from_slice(octets)))
}

/// A pinned public key, SubjectPublicKeyInfo.
///
/// # Safety
/// `pointer` is NULL or valid for reading 91 octets.
pub(crate) unsafe fn public_key(pointer: *const [u8; 91]) -> Result<PublicKey, Status> {
    // SAFETY: by the caller's promise.
    PublicKey::from_spki(unsafe { value(pointer) }?).map_err(Status::from)
}

/// Copies a result into the caller's buffer and says how long it is; a buffer that is too small gets nothing.
pub(crate) fn give(result: &[u8], place: &mut [u8], length: &mut usize) -> Result<(), Status> {
    *length = result.len();
    place.get_mut(..result.len()).ok_or(Status::Buffer)?.copy_from_slice(result);
    Ok(())
}
