//! The station as a whole, with simulated fixtures and boards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)]

mod esp32;
mod espefuse;
mod espressif;
mod faults;
#[cfg(feature = "tpm")]
mod gateway;
#[cfg(feature = "tpm")]
mod held;
mod labels;
mod pkcs12;
mod power_cuts;
mod stage;
