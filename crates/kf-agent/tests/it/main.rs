//! The agent against a server whose answers the tests write, and against real brokers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bench;
mod command;
mod enrolment;
mod footprint;
mod personalized;
mod secure_element;
mod telemetry;
mod token;
#[cfg(feature = "tpm")]
mod tpm;
mod unit;
mod wrapping;
