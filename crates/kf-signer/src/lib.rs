//! The signer: a process of its own that alone holds the unsealed root or the token session, and its client.
//!
//! Requests are typed: generate a key, sign this checked certificate, this checked CRL, this checkpoint, wrap this
//! secret. Never raw octets to sign. The child checks again what it is asked to sign, counts per key, and refuses what
//! a key's purpose does not allow.
#![allow(clippy::todo)]

mod client;
mod command;
mod config;
mod error;
mod purpose;

pub use client::{SignerClient, SignerHealth};
pub use command::{SignerCommand, initialise, run_signer};
pub use config::{Pkcs11Config, RateCeilings, SealedFileConfig, SecretSource, SignerConfig};
pub use error::{SignerError, SignerRefusal};
pub use kf_backend::{BackendKind, HandleError, KeyHandle};
pub use purpose::{GeneratedKey, KeyFacts, KeyPurpose, SignerCapabilities};
