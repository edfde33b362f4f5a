//! TPM 2.0: a back end for the fleet root, and what a gateway keeps in its TPM.
//!
//! - [`Tpm`]: one TPM, by the address of the TPM2 software stack; every wait is bounded;
//! - [`Blob`]: an object as it rests on disk, of use to this TPM alone;
//! - [`policy`]: keys that are released only after a measured boot, fixed or approved by an authority. Pure, and there
//!   without the feature `tss` too, because approvals are prepared where no TPM is;
//! - [`Tpm::endorsement_certificate`], [`Tpm::activate_credential`]: the answer to a credential challenge;
//! - [`TpmBackend`]: the key back end of a server.
//!
//! Secrets and authorisation values cross the bus in a session that is encrypted under a key agreed with the TPM's
//! storage key. Whoever can replace the storage key's public half on the bus during the very first use could read
//! along; afterwards every object names the storage key that it was made under.
//!
//! The feature `tss` links the TPM2 software stack of the system (Debian: libtss2-dev).
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "tss")]
mod address;
#[cfg(feature = "tss")]
mod backend;
#[cfg(feature = "tss")]
mod blob;
#[cfg(feature = "tss")]
mod boot;
#[cfg(feature = "tss")]
mod connection;
#[cfg(feature = "tss")]
mod counter;
#[cfg(feature = "tss")]
mod endorsement;
#[cfg(feature = "tss")]
mod error;
#[cfg(feature = "tss")]
mod keys;
#[cfg(feature = "tss")]
mod live;
pub mod policy;
#[cfg(feature = "tss")]
mod template;

#[cfg(feature = "tss")]
pub use {
    address::TpmAddress,
    backend::TpmBackend,
    blob::{Blob, MAX_BLOB_OCTETS},
    connection::{DEFAULT_DEADLINE, Tpm},
    endorsement::{EndorsementCertificate, EndorsementKind},
    error::TpmError,
    keys::{MAX_SEALED_OCTETS, Protection},
};
