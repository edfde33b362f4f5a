//! Batches of factory stations: what is authorised, what comes home, and what a liar or a thief can do.

mod authorise;
mod conflict;
mod enrol;
mod merge;
pub(crate) mod station;
mod stolen;
