//! The Merkle tile log: what happened to keys, devices and certificates, in an order that nobody can change unseen.
//!
//! Leaves, tree hashes and proofs follow RFC 6962 section 2.1; tiles and entry bundles C2SP tlog-tiles; checkpoints
//! C2SP tlog-checkpoint, signed as C2SP signed-note with Ed25519. This crate is pure: it reads and writes nothing.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod entry;
pub mod hash;
pub mod note;
pub mod proof;
pub mod succession;
pub mod tile;
pub mod tree;
pub mod verify;

pub use checkpoint::Checkpoint;
pub use entry::{Actor, AuditEntry, Phase};
pub use note::{NoteError, SignError, VerifierKey};
pub use proof::{HashReader, ProofError, ProofFails};
pub use tile::{TileKind, TilePath};
pub use tree::Tree;
pub use verify::{Finding, Report, TileSource, trusted_keys, verify_log};

#[cfg(test)]
mod tests;
