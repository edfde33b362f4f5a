//! Opaque handles in the caller's memory: a mark that says what is in them, and the value.

use core::mem::{MaybeUninit, align_of, size_of};

use crate::pointer;
use crate::status::Status;

/// What lies in the memory of a handle.
#[derive(Debug)]
#[repr(C)]
pub struct Held<T> {
    mark: u64,
    value: MaybeUninit<T>,
}

/// A value that C holds in so many words of 8 octets.
pub(crate) trait InHandle: Sized {
    const MARK: u64;
    const WORDS: usize;
    /// The header aligns a handle as `long double`: 16 octets on 64-bit processors, 8 on Cortex-M.
    const FITS: () = assert!(
        size_of::<Held<Self>>() <= Self::WORDS * 8
            && align_of::<Held<Self>>() <= if cfg!(target_pointer_width = "64") { 16 } else { 8 }
    );
}

/// Puts a value into a handle. What was there before is forgotten, not read: the memory may never have been set.
///
/// # Safety
/// `handle` is NULL or valid for writing the words of the handle.
pub(crate) unsafe fn put<T: InHandle>(handle: *mut Held<T>, value: T) -> Result<(), Status> {
    const { T::FITS };
    if handle.is_null() || !handle.is_aligned() {
        return Err(Status::Argument);
    }
    // SAFETY: not NULL, aligned, large enough by FITS, and valid by the caller's promise.
    unsafe { handle.write(Held { mark: T::MARK, value: MaybeUninit::new(value) }) };
    Ok(())
}

/// The value of a handle.
///
/// # Safety
/// `handle` is NULL or valid for reading and writing the words of the handle, which nobody else uses meanwhile.
pub(crate) unsafe fn get<'a, T: InHandle>(handle: *mut Held<T>) -> Result<&'a mut T, Status> {
    // SAFETY: by the caller's promise.
    let held = unsafe { pointer::value_mut(handle) }?;
    if held.mark != T::MARK {
        return Err(Status::Handle);
    }
    // SAFETY: the mark is only there after `put`.
    Ok(unsafe { held.value.assume_init_mut() })
}

/// Wipes the value of a handle and forgets it.
///
/// # Safety
/// As [`get`].
pub(crate) unsafe fn wipe<T: InHandle>(handle: *mut Held<T>) {
    // SAFETY: by the caller's promise.
    if let Ok(held) = unsafe { pointer::value_mut(handle) }
        && held.mark == T::MARK
    {
        held.mark = 0;
        // SAFETY: the mark was there, and is gone now, so that it is dropped once.
        unsafe { held.value.assume_init_drop() };
    }
}
