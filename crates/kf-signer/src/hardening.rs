//! What the process does before it reads a secret.

use kf_backend::lock_memory;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};

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
