//! The driver against the emulated chip, and the emulated chip against a driver that we did not write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod backend;
mod bench;
mod device;
mod faults;
mod independent;
mod keys;
mod personalize;
mod refusals;
