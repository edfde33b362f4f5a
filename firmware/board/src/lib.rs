//! The Arm MPS2 board with the AN386 image: a Cortex-M4 with FPU at 25 MHz, as QEMU emulates it (`-machine
//! mps2-an386`). One serial port to the host, a cycle counter, the high-water mark of the stack, and a way to stop the
//! emulator.
#![no_std]
#![warn(missing_docs)]

pub mod line;
pub mod semihosting;
pub mod serial;
pub mod stack;
pub mod ticks;

use core::panic::PanicInfo;

pub use cortex_m_rt::entry;

/// A panic is a defect: the firmware has no input that reaches one. It says so and stops the emulator.
#[panic_handler]
fn panic(_information: &PanicInfo<'_>) -> ! {
    semihosting::write(c"panic\n");
    semihosting::exit(101)
}
