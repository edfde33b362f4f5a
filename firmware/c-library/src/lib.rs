//! `libkeyfleet.a` for a microcontroller: the functions of `kf-ffi`, and what happens should it ever panic.
#![no_std]

use core::panic::PanicInfo;

pub use kf_ffi::*;

unsafe extern "C" {
    fn abort() -> !;
}

/// A panic is a defect: no input reaches one. The firmware's `abort` stops the processor.
#[panic_handler]
fn panic(_information: &PanicInfo<'_>) -> ! {
    // SAFETY: `abort` of the C library or of the firmware takes nothing and does not return.
    unsafe { abort() }
}
