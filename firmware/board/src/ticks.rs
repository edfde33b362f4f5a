//! The core's SysTick timer. With `-icount shift=0` QEMU lets one nanosecond pass per instruction; at 25 MHz a tick is
//! 40 instructions. (QEMU does not emulate the DWT cycle counter.)

use core::ptr;

const CONTROL: *mut u32 = ptr::without_provenance_mut(0xe000_e010);
const RELOAD: *mut u32 = ptr::without_provenance_mut(0xe000_e014);
const CURRENT: *mut u32 = ptr::without_provenance_mut(0xe000_e018);
const LARGEST: u32 = 0x00ff_ffff;
/// Enabled, driven by the processor's clock, no interrupt.
const RUN: u32 = 0b101;

/// Instructions per tick under `-icount shift=0`.
pub const INSTRUCTIONS_PER_TICK: u32 = 40;

/// Instructions that `act` took, in steps of [`INSTRUCTIONS_PER_TICK`]; at most 671 million.
pub fn instructions_of(act: impl FnOnce()) -> u32 {
    // SAFETY: the addresses are those of the SysTick registers (Armv7-M B3.3), and nobody else uses the timer.
    unsafe {
        CONTROL.write_volatile(0);
        RELOAD.write_volatile(LARGEST);
        CURRENT.write_volatile(0);
        CONTROL.write_volatile(RUN);
    }
    act();
    // SAFETY: as above.
    let left = unsafe { CURRENT.read_volatile() } & LARGEST;
    (LARGEST - left) * INSTRUCTIONS_PER_TICK
}
