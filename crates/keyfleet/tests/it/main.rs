//! The binary as its users run it: what it prints, where, and with which exit code.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in what it calls as well"
)]

mod agent;
mod backup;
mod batch;
mod break_glass;
mod broker;
mod campaign;
mod console;
mod derive;
mod destroy;
mod device_files;
mod epoch;
mod escrow;
mod escrow_crash;
mod evidence;
mod fleet;
mod host;
mod image;
mod incident;
mod inventory;
mod line;
mod memory;
mod migration;
mod ownership;
mod refusals;
mod rewrap;
mod rewrap_postgres;
mod rollover;
mod rotation;
mod sealed;
mod shapes;
mod station;
mod station_batches;
mod vendor;
mod verbs;
mod voucher;
