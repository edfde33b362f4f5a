//! The signer through its client: in threads of this process, and as a process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::indexing_slicing)]

mod authority;
mod batch;
mod config;
mod derivation;
mod exchange;
mod process;
mod prompt;
mod requests;
mod token;
#[cfg(feature = "tpm")]
mod tpm;
mod wire;
mod wrapping;
