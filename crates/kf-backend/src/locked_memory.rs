//! Memory that is not written to swap.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this limit of locked memory, locking everything would make an allocation fail later: Argon2id alone takes
/// 64 MiB, and each thread's stack counts whole.
const LOCKABLE_OCTETS: u64 = 512 * 1024 * 1024;
/// CAP_IPC_LOCK, which lifts the limit (capabilities(7)).
const CAP_IPC_LOCK: u64 = 1 << 14;

/// Locks what this process has and will have, as it is touched (mlockall(2)). `false` where the system's limit does not allow it: then nothing is
/// locked, and whoever runs the program should be told.
#[must_use]
pub fn lock_memory() -> bool {
    let limit = getrlimit(Resource::Memlock);
    // The soft limit may be raised up to the hard one without a privilege; if not, the check below says so.
    let _raised = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let is_enough = getrlimit(Resource::Memlock).current.is_none_or(|octets| octets >= LOCKABLE_OCTETS);
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    (is_enough || has_cap_ipc_lock()) && mlockall(all).is_ok()
}

fn has_cap_ipc_lock() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & CAP_IPC_LOCK != 0)
    })
}
