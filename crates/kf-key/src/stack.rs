//! Stacks keep what frames held that are gone: copies that moves leave, key schedules, round states. No destructor reaches
//! them, and a cryptographic library in pure Rust leaves some. What can be done is to write over the place.

use core::hint::black_box;

/// Overwrites `OCTETS` octets of the stack below the caller's frame, where the frames lay of whatever it has called. There must be
/// as much stack left. It takes some microseconds for 64 KiB.
#[inline(never)]
pub fn wipe_stack<const OCTETS: usize>() {
    let mut area = [0_u8; OCTETS];
    // Nothing may be assumed about what becomes of the area, so it has to be there and to be zero.
    black_box(&mut area);
}

/// Runs `work` and then overwrites `OCTETS` octets of the stack that it has used.
pub fn with_wiped_stack<const OCTETS: usize, T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    wipe_stack::<OCTETS>();
    done
}

/// In a frame of its own, which is gone when this returns.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_work_gives_back_is_kept() {
        let mut seen = 0;
        let given = with_wiped_stack::<4096, _>(|| {
            seen = 7;
            [3_u8; 64]
        });
        assert_eq!((seen, given), (7, [3; 64]));
    }
}
