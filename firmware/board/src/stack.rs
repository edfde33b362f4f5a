//! How deep the stack went: it is painted, and the paint that is left is counted.

use core::arch::asm;
use core::ptr;

unsafe extern "C" {
    static mut __sheap: u8;
    static _stack_start: u8;
}

const PAINT: u32 = 0xa5c3_5a3c;
/// The most that is painted.
const DEPTH: usize = 256 * 1024;

fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

fn lowest() -> *mut u32 {
    let data_end = ptr::addr_of!(__sheap).addr();
    let top = ptr::addr_of!(_stack_start).addr();
    ptr::without_provenance_mut((top - DEPTH).max(data_end).next_multiple_of(4))
}

/// Octets below the painter's stack pointer that it leaves alone: the compiler may read the pointer before it makes the
/// frame. They are counted as used.
const MARGIN: usize = 64;

/// Paints what lies below its own frame.
#[inline(never)]
fn paint() {
    let limit = stack_pointer() - MARGIN;
    let mut word = lowest();
    while word.addr() < limit {
        // SAFETY: between the end of the data and the frame of a function that calls nothing there is nothing, and
        // interrupts are masked.
        unsafe { word.write_volatile(PAINT) };
        word = word.wrapping_add(1);
    }
}

/// The act in a frame of its own, below the frame of [`used_by`].
#[inline(never)]
fn run(act: impl FnOnce()) {
    act();
}

/// Octets of stack that `act` used, rounded up to words. Interrupts are masked.
#[inline(never)]
pub fn used_by(act: impl FnOnce()) -> usize {
    let base = stack_pointer();
    paint();
    run(act);
    let mut word = lowest();
    // SAFETY: the words from the end of the data to this frame are memory; `paint` wrote them.
    while word.addr() < base && unsafe { word.read_volatile() } == PAINT {
        word = word.wrapping_add(1);
    }
    base - word.addr()
}
