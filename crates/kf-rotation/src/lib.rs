//! When a key has served long enough, and what happens then: decisions, no acts.
//!
//! - [`KeyClass`]: the keys of a fleet, each with its SP 800-57 type and the class above it.
//! - [`Policy`]: cryptoperiods, usage limits and events per class, read from a reviewed file; what contradicts itself is
//!   refused when it is read.
//! - [`sweep`](sweep::sweep): the facts about a key, a policy and a moment in, operations with their reasons out. It
//!   keeps nothing, so that a crash between two operations costs nothing: the next sweep says what is still to be done.
//! - [`verdict`](verdict::verdict): what a policy says of a key, in one word and its reason.
//! - [`campaign`]: what a campaign over many devices does next, from tallies and a moment.
//! - [`usage`]: how often one key may seal before the bound of its AEAD.
//! - [`simulation`]: a year of a mixed fleet on these rules, with invariants checked at every step.
//! - [`exposure`]: what a stolen key exposes, expected and at worst.
//!
//! "Rotate" is a word of ours: make the successor, activate it, re-protect what the predecessor protected, deactivate
//! the predecessor, destroy it. Each is a transition of SP 800-57 Part 1 section 7, and each is an operation of its own.
//!
//! The originator-usage period and the recipient-usage period are two things (SP 800-57 Part 1 section 5.3.4). "Two years
//! for a data-encryption key", as textbooks say, is the first one only: after it the key still decrypts, and gradual
//! re-encryption is what the second one is for.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod campaign;
mod class;
pub mod exposure;
pub mod migration;
mod period;
mod policy;
mod preset;
pub mod simulation;
pub mod succession;
pub mod sweep;
pub mod usage;
pub mod verdict;

pub use class::{KeyClass, UnknownClass};
pub use period::{Period, PeriodError};
pub use policy::{Contradiction, Kind, MAX_OVERRIDES, MAX_POLICY_OCTETS, Override, Policy, PolicyError, Rule, Scope};
pub use preset::Preset;
