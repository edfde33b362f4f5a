//! What the process does before it reads a secret.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior, set_parent_process_death_signal,
    setrlimit,
};

/// Below this limit of locked memory, locking everything would make an allocation fail later: Argon2id alone takes
/// 64 MiB.
const LOCKABLE_OCTETS: u64 = 512 * 1024 * 1024;
/// CAP_IPC_LOCK, which lifts the limit (capabilities(7)).
const CAP_IPC_LOCK: u64 = 1 << 14;

/// Why the process is not fit to hold a secret.
#[derive(Debug, thiserror::Error)]
#[error("cannot harden the process: {step}")]
pub(crate) struct HardeningError {
    step: &'static str,
    #[source]
    source: rustix::io::Errno,
}

/// No core dumps, no tracing or reading of the memory by other processes of the user, death with the parent. Memory is
/// locked where the limit allows it; where not, a warning says so.
pub(crate) fn harden() -> Result<(), HardeningError> {
    let failed = |step| move |source| HardeningError { step, source };
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed("RLIMIT_CORE"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("PR_SET_DUMPABLE"))?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("PR_SET_PDEATHSIG"))?;
    if !lock_memory() {
        tracing::warn!("memory is not locked and may be swapped out: raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity)");
    }
    Ok(())
}

/// Locks what this process has and will have, where the limit allows it.
pub(crate) fn lock_memory() -> bool {
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
