//! The Merkle tile log: what happened to keys, devices and certificates, in an order that nobody can change unseen.
//!
//! Leaves, tree hashes and proofs follow RFC 6962 section 2.1; tiles and entry bundles C2SP tlog-tiles; checkpoints
//! C2SP tlog-checkpoint, signed as C2SP signed-note with Ed25519. This crate is pure: it reads and writes nothing.
#![forbid(unsafe_code)]

pub mod entry;

pub use entry::{Actor, AuditEntry, Phase};
