//! Tests of the registry through its public operations.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests stop where something is wrong"
)]

mod batch;
mod crash;
mod destruction;
mod device;
mod device_key;
mod endorsement;
mod enrolment;
mod fixture;
mod full_disk;
mod group_commit;
mod issuance;
mod key;
mod listing;
mod log;
mod model;
mod operator;
mod revocation;
mod schema;
mod sealed;
mod speed;
mod wrapping;
