//! What every run does first: tokens, shares, keys and passphrases pass through most verbs.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::failure::Failure;

/// No core dump, no ptrace and no look into the memory by others of this user.
///
/// # Errors
/// When the system refuses.
pub(crate) fn forbid() -> Result<(), Failure> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|errno| Failure::local(format!("the process cannot be kept out of dumps: {errno}"), "see prctl(2)"))
}
