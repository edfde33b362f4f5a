//! The registry on SQLite: facilities, devices, certificates, keys, operators, and the log of every act on them.
//!
//! One writer thread owns the only writing connection. Operations queue up, run one after the other in one transaction,
//! and one commit makes the whole group durable (WAL, `synchronous=FULL`) before any of them is answered: an
//! acknowledged act is on disk together with its log entry, or it did not happen. A failing operation is undone alone.
//!
//! Readers are synchronous functions on a small pool of read-only connections; a point lookup takes some microseconds,
//! so they may be called from an async task. Every read of something that belongs to a facility takes a
//! [`kf_access::Visibility`] and applies it in SQL.
//!
//! What this crate is not: it decides nothing beyond what must be checked inside the transaction, reads no clock, draws
//! no randomness, and cannot unwrap the keys it holds.
#![forbid(unsafe_code)]

mod act;
pub mod authority;
pub mod backup;
pub mod batch;
pub mod blocked_key;
pub mod break_glass;
pub mod campaign;
pub mod certificate;
mod column;
mod connection;
pub mod destruction;
pub mod device;
pub mod device_key;
pub mod drill;
pub mod drill_record;
pub mod encryption_key;
pub mod endorsement;
pub mod enrolment;
pub mod epoch;
mod error;
pub mod escrow;
pub mod facility;
pub mod final_crl;
pub mod incident;
pub mod intent;
pub mod inventory;
pub mod key;
mod key_use;
pub mod label;
mod listing;
pub mod log;
pub mod news;
pub mod object;
pub mod operator;
pub mod order;
pub mod ownership;
pub mod pinned_key;
pub mod product_line;
pub mod proposal;
pub mod remnant;
mod reserve;
pub mod revocation;
mod schema;
pub mod sealed;
pub mod setting;
mod sql;
mod store;
pub mod succession;
pub mod vendor;
pub mod wrapping;
mod writer;

/// The version of the database engine, for evidence.
#[must_use]
pub fn engine_version() -> &'static str {
    rusqlite::version()
}

pub use error::StoreError;
pub use log::{Audit, Logged};
pub use store::{Health, Options, Store};
