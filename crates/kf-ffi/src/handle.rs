//! Opaque handles in the caller's memory: a mark that says what is in them, and the value.

use core::mem::{MaybeUninit, align_of, size_of};
use core::ops::{Deref, DerefMut};
use core::ptr;

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
    /// The header aligns handles to 16 octets.
    const FITS: () = assert!(size_of::<Held<Self>>() <= Self::WORDS * 8 && align_of::<Held<Self>>() <= 16);
}

/// The mark while a call uses the handle: every bit is the other one.
const fn in_use(mark: u64) -> u64 {
    !mark
}

/// Puts a value into a handle. What was there before is forgotten, not read: the memory may never have been set.
///
/// # Safety
/// `handle` is NULL or valid for writing the words of the handle.
pub(crate) unsafe fn put<T: InHandle>(handle: *mut Held<T>, value: T) -> Result<(), Status> {
    const { T::FITS };
    if handle.is_null() || !handle.is_aligned() {
        return Err(Status::Null);
    }
    // SAFETY: not NULL, aligned, large enough by FITS, and valid by the caller's promise.
    unsafe { handle.write(Held { mark: T::MARK, value: MaybeUninit::new(value) }) };
    Ok(())
}

/// The place for a new handle, checked before anything is made for it.
///
/// # Safety
/// As [`put`].
pub(crate) unsafe fn place<T: InHandle>(handle: *mut Held<T>) -> Result<Place<T>, Status> {
    if handle.is_null() || !handle.is_aligned() { Err(Status::Null) } else { Ok(Place(handle)) }
}

/// Where a new handle goes.
pub(crate) struct Place<T>(*mut Held<T>);

impl<T: InHandle> Place<T> {
    /// Puts it there.
    pub(crate) fn put(self, value: T) -> Result<(), Status> {
        // SAFETY: `place` was promised that it is valid.
        unsafe { put(self.0, value) }
    }
}

/// The value of a handle for the length of one call. Meanwhile nobody else gets it, a hook that calls back included.
pub(crate) struct Used<T: InHandle>(*mut Held<T>);

/// Takes a handle into use.
///
/// # Safety
/// `handle` is NULL or valid for reading and writing the words of the handle, which no other thread uses meanwhile.
pub(crate) unsafe fn get<T: InHandle>(handle: *mut Held<T>) -> Result<Used<T>, Status> {
    if handle.is_null() || !handle.is_aligned() {
        return Err(Status::Null);
    }
    // SAFETY: not NULL, aligned, and valid by the caller's promise; no reference is made before the mark was read.
    let mark = unsafe { &raw mut (*handle).mark };
    // SAFETY: as above.
    match unsafe { ptr::read(mark) } {
        found if found == T::MARK => {
            // SAFETY: as above.
            unsafe { ptr::write(mark, in_use(T::MARK)) };
            Ok(Used(handle))
        }
        found if found == in_use(T::MARK) => Err(Status::Busy),
        _ => Err(Status::State),
    }
}

impl<T: InHandle> Deref for Used<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mark was there, which only `put` writes; it is another one now, so nobody else has a reference.
        unsafe { (*self.0).value.assume_init_ref() }
    }
}

impl<T: InHandle> DerefMut for Used<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`.
        unsafe { (*self.0).value.assume_init_mut() }
    }
}

impl<T: InHandle> Drop for Used<T> {
    fn drop(&mut self) {
        // SAFETY: the handle is valid for the length of the call.
        unsafe { ptr::write(&raw mut (*self.0).mark, T::MARK) };
    }
}

/// Drops the value of a handle and wipes its memory: what a state left that was moved out of it is there still. A handle that was not made,
/// or is in use, is left alone.
///
/// # Safety
/// As [`get`].
pub(crate) unsafe fn wipe<T: InHandle>(handle: *mut Held<T>) {
    // SAFETY: by the caller's promise.
    if let Ok(mut used) = unsafe { get(handle) } {
        let value: *mut T = &raw mut *used;
        // The mark is not restored.
        core::mem::forget(used);
        // SAFETY: the value is there, and with its mark gone it is dropped once.
        unsafe { ptr::drop_in_place(value) };
        let octets: *mut u8 = handle.cast();
        for at in 0..size_of::<Held<T>>() {
            // SAFETY: within the memory of the handle.
            unsafe { ptr::write_volatile(octets.add(at), 0) };
        }
    }
}
