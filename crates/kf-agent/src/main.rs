//! `keyfleet-agent`.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Wipes every block of memory that is given back. Secrets lie in types that wipe themselves; what libraries make of them on the way,
/// does not.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    kf_agent::main_with(std::env::args_os().skip(1).collect())
}
