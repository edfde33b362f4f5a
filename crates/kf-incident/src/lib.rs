//! Compromise recovery: decisions, no acts.
//!
//! - [`Facts`]: what registry and log say about the subjects of an incident.
//! - [`blast_radius`]: facts in; what is hit out, from when to when, and what stays safe and why.
//! - [`plan`]: facts in; ordered steps out, each with its reason, who it takes and an estimate. The plan of one facility
//!   names nothing of another.
//! - [`plan_sha256`]: what two people agree to. A plan that changed in anything but its estimates is another plan.
//! - [`next`]: a plan and how far it is in; the step to be done now, or what it waits for, out. It keeps nothing, so a run
//!   that was cut short goes on where it was.
//! - [`markdown`]: a report for people.
//!
//! Preconditions: facts are complete for their subjects, as of one moment. What is not in registry and log (who had a device in
//! their hands, what an operator read) is named as unknown and never guessed.
#![forbid(unsafe_code)]

mod duty;
mod facts;
mod plan;
mod progress;
mod radius;
mod report;

pub use duty::duties;
pub use facts::{
    Act, AuthorityFacts, BatchFacts, CredentialFacts, DeviceFacts, DeviceSet, FacilityFacts, Facts, HitFacts, KeyFacts,
    Rates, StationFacts,
};
pub use plan::{plan, plan_sha256};
pub use progress::{Next, Permission, next, permission};
pub use radius::blast_radius;
pub use report::markdown;

#[cfg(test)]
mod tests;
