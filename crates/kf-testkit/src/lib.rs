//! Test support: programs that we did not write, run with a deadline; scratch directories; scratch PKCS#11 tokens and
//! TPMs; an emulated secure element; simulated flash.
//!
//! For tests only. What is missing or goes wrong panics with a message that names the remedy, because a test that
//! skips itself proves nothing.
#![forbid(unsafe_code)]
// A test fails by panicking; these helpers exist to do so with a useful message.
#![allow(clippy::panic, clippy::expect_used)]

mod crash;
mod flash;
mod foreign_authority;
mod https_server;
mod memory;
mod postgres;
mod process;
mod python;
mod scenario;
mod secure_element;
mod soft_hsm;
mod software_tpm;
mod stopped;
mod tool;

pub use crash::{CRASH_AT, crash_library};
pub use flash::{CardShape, FlashFault, NorFlash, SECTOR_OCTETS, TranslatedFlash};
pub use foreign_authority::{Day, ForeignAuthority, IssuedIdentity};
pub use https_server::{Answer, ClientCheck, HttpsServer, Received};
pub use memory::{KnownSecret, MemoryFinding, MemoryReport, find_in_memory, search_memory};
pub use postgres::Postgres;
pub use process::Running;
pub use python::Python;
pub use scenario::{Scenario, run_scenarios};
pub use secure_element::{
    BusError, ElementBus, ElementDelay, Fault, HeldByElement, Moment, SecureElement, ServedElement,
};
pub use soft_hsm::SoftHsm;
pub use software_tpm::SoftwareTpm;
pub use tempfile::TempDir;
pub use tool::{Output, Tool};

use std::net::{Ipv4Addr, TcpListener};

/// A directory that is removed with everything in it when the value is dropped.
#[must_use]
pub fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix("keyfleet-")
        .tempdir()
        .unwrap_or_else(|error| panic!("no scratch directory: {error}"))
}

/// A loopback port that was free a moment ago, for programs that cannot report the port they were given. Ours bind
/// port 0 instead.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_or_else(|error| panic!("no free loopback port: {error}"), |address| address.port())
}
