//! A device and a server in one process: the device is the SDK on simulated flash, the server is made of the crates that
//! the real one is made of.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../../../kf-flash/tests/it/chip_flash.rs"]
mod chip_flash;
mod device;
mod life;
mod nvs;
mod payloads;
mod pin;
mod power;
mod protected;
mod refusals;
mod reset;
mod server;
mod translated;
mod trust;
