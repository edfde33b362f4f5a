//! The station as a whole, with simulated fixtures and boards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)]

mod destruction;
mod element;
mod esp32;
mod espefuse;
mod espressif;
mod faults;
mod full_disk;
mod generation;
mod labels;
mod linux;
mod pkcs12;
mod power_cuts;
mod stage;
#[cfg(feature = "tpm")]
mod tpm_token;
