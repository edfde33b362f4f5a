//! `keyfleet init`: a fleet from nothing.

use kf_api::ShownOnce;
use kf_key::KeyAlgorithm;

use crate::{DataDir, FleetConfig, FleetError};

/// What to create.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The configuration to be written.
    pub config: FleetConfig,
    /// Name of the first owner.
    pub owner: String,
    /// Algorithm of root and issuing CA.
    pub algorithm: KeyAlgorithm,
    /// Lifetime of the root in hours; the issuing CA gets half. Demo: at most 24.
    pub root_lifetime_hours: u32,
}

/// What was created.
#[derive(Debug)]
pub struct Initialised {
    /// Root certificate, DER.
    pub root: Vec<u8>,
    /// SHA-256 of it, hexadecimal: what clients pin.
    pub root_fingerprint: String,
    /// The first owner's API token.
    pub owner_token: ShownOnce,
    /// The log's verifier key.
    pub verifier_key: String,
}

/// Creates a fleet in an empty directory: configuration, registry, root, default issuing CA, log key, first owner. The
/// signer must have been initialised (`kf_signer::initialise`) and is given running. Refuses a directory that holds a
/// fleet; an init that was cut short is recognised and can be run again.
///
/// # Errors
/// [`FleetError::Conflict`] when there is a fleet, [`FleetError::Local`], [`FleetError::Signer`], [`FleetError::Store`].
pub async fn init(
    dir: &DataDir,
    signer: kf_signer::SignerClient,
    clock: std::sync::Arc<dyn crate::Clock>,
    options: InitOptions,
) -> Result<Initialised, FleetError> {
    let _ = (dir, signer, clock, options);
    todo!()
}
