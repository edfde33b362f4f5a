//! Arm semihosting, as far as it is needed: stopping the emulator with an exit status.

use core::arch::asm;
use core::ffi::CStr;

const SYS_WRITE0: usize = 0x04;
const SYS_EXIT_EXTENDED: usize = 0x20;
const APPLICATION_EXIT: usize = 0x2_0026;

fn call(operation: usize, argument: *const u8) {
    // SAFETY: BKPT 0xAB with an operation in r0 and a pointer in r1 is how Arm's semihosting specification asks the
    // debugger; the operations used read memory behind `argument` and write none.
    unsafe {
        asm!("bkpt 0xAB", inout("r0") operation => _, in("r1") argument, options(nostack, preserves_flags));
    }
}

/// Writes to the emulator's standard error.
pub fn write(text: &CStr) {
    call(SYS_WRITE0, text.as_ptr().cast());
}

/// Writes a number and a line break to the emulator's standard error.
pub fn write_number(number: usize) {
    let mut text = *b"0000000000\n\0";
    let mut rest = number;
    for digit in text.iter_mut().take(10).rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    call(SYS_WRITE0, text.as_ptr());
}

/// Ends the emulator with this status.
pub fn exit(status: u8) -> ! {
    let block = [APPLICATION_EXIT, usize::from(status)];
    loop {
        call(SYS_EXIT_EXTENDED, block.as_ptr().cast());
    }
}
