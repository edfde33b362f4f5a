//! The signer: a process of its own that alone holds the unsealed root or the token session, and its client.
//!
//! Requests are typed: generate a key, sign this checked certificate, this checked CRL, this checkpoint, wrap this
//! secret. Never raw octets to sign. The child checks again what it is asked to sign, counts per key, and refuses what
//! a key's purpose does not allow. Purposes are fixed when a key is made and authenticated under the root; an issuer's
//! name is fixed when the key is first loaded in the life of the process.
//!
//! What it is not: a defence against root on the host, nor against a server that asks for certificates that its rules
//! should have refused. It keeps keys from being copied, counts their use, and alarms.
#![forbid(unsafe_code)]

pub mod ceremony;
mod child;
mod client;
mod command;
mod config;
mod content;
mod derivation;
mod engine;
mod error;
mod frame;
mod handle;
mod hardening;
mod protocol;
mod purpose;
mod rate;
mod secret_source;
mod serve;
mod start;
mod wrapping;

pub use child::run_signer;
pub use client::{BatchPlace, DeviceProof};
pub use client::{SetAside, SetAsideSignatures, SignatureUse, SignerClient, SignerHealth};
pub use command::{SignerCommand, initialise};
pub use config::{Pkcs11Config, RateCeilings, SealedFileConfig, SecretSource, SignerConfig, TpmConfig};
pub use derivation::{DeviceKeyPlace, SESSION_LIFETIME, SealingKey};
pub use error::{SignerError, SignerRefusal};
pub use handle::{HandleError, KeyHandle};
pub use kf_backend::{BackendKind, SoftwareBackend};
pub use purpose::{GeneratedKey, KeyFacts, KeyPurpose, SignerCapabilities};
pub use wrapping::{FIRST_VERSION, MAX_REWRAPPED, RewrapItem, wrapped_version};
