//! Images against those who read and write them elsewhere: Espressif's tools, and crates that others keep.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in what it calls as well"
)]

mod chip_flash;
mod destruction;
mod flash_encryption;
mod fuse;
mod nvs;
mod partition_table;
mod scan;
mod secure_cert;
