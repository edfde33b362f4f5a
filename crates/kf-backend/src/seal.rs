//! The fleet root in a file sealed under a passphrase.
#![allow(clippy::todo, missing_docs)]
use kf_crypto::Argon2Cost;
use kf_key::{SecretArray, SecretBytes};
use std::path::Path;

#[derive(Debug, thiserror::Error)]
#[error("todo")]
pub struct SealError;
pub fn create_sealed_root(
    path: &Path,
    passphrase: &SecretBytes,
    cost: Argon2Cost,
) -> Result<SecretArray<32>, SealError> {
    let _ = (path, passphrase, cost);
    todo!()
}
pub fn open_sealed_root(path: &Path, passphrase: &SecretBytes) -> Result<SecretArray<32>, SealError> {
    let _ = (path, passphrase);
    todo!()
}
