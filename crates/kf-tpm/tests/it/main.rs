//! The TPM back end against swtpm: one emulator per test.
#![cfg(feature = "tss")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod backend;
mod boot_policy;
mod counter;
mod endorsement;
mod fault;
mod keys;

use std::time::Duration;

use kf_testkit::SoftwareTpm;
use kf_tpm::Tpm;

/// Opens the emulator with a deadline that a busy machine keeps.
fn open(tpm: &SoftwareTpm) -> Tpm {
    Tpm::open(tpm.address().parse().unwrap(), Duration::from_secs(60)).unwrap()
}
