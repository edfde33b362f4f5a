//! Codes and their texts.

use core::ffi::{CStr, c_char};

/// A code of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Status {
    Ok = 0,
    Argument = -1,
    Buffer = -2,
    Noise = -3,
    NotPhysical = -4,
    Counter = -5,
    Refused = -6,
    Exhausted = -7,
    Handle = -8,
    Stuck = -9,
}

const TEXTS: [(Status, &CStr); 10] = [
    (Status::Ok, c"done"),
    (Status::Argument, c"a pointer is NULL, or a length or code is not allowed"),
    (Status::Buffer, c"the buffer is too small"),
    (Status::Noise, c"the noise source failed or is unhealthy"),
    (Status::NotPhysical, c"the noise source is not declared as physical and on"),
    (Status::Counter, c"the counter gave no number"),
    (Status::Refused, c"it does not open"),
    (Status::Exhausted, c"this boot has sealed all it may: begin another one"),
    (Status::Handle, c"the handle was not made, or was wiped"),
    (Status::Stuck, c"all random octets are the same"),
];

#[allow(clippy::as_conversions, reason = "a fieldless enum with explicit codes")]
pub(crate) fn code(outcome: Result<(), Status>) -> i32 {
    outcome.err().unwrap_or(Status::Ok) as i32
}

/// The text of a code, never NULL.
#[allow(clippy::as_conversions, reason = "a fieldless enum with explicit codes")]
// SAFETY: no other symbol of this name exists: the prefix is ours.
#[unsafe(no_mangle)]
pub extern "C" fn kf_status_text(status: i32) -> *const c_char {
    let known = TEXTS.iter().find(|(code, _)| *code as i32 == status);
    known.map_or(c"unknown", |(_, text)| *text).as_ptr()
}
