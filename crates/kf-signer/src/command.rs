//! How the signer is started.
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kf_key::SecretBytes;

use crate::{SignerConfig, SignerError};

/// How to start the signer's process.
#[derive(Debug)]
pub struct SignerCommand {
    /// Program, normally `/proc/self/exe`.
    pub program: PathBuf,
    /// Arguments that make it call [`run_signer`]; never a secret.
    pub arguments: Vec<String>,
    /// Configuration with absolute paths ([`SignerConfig::below`]).
    pub config: SignerConfig,
    /// For a throw-away demonstration only: a passphrase made up by the caller, handed over through a pipe.
    pub throwaway_passphrase: Option<SecretBytes>,
    /// Create the root first; refuses when there is one.
    pub create_root: bool,
}

impl SignerConfig {
    /// The same configuration with relative paths below `data`.
    #[must_use]
    pub fn below(mut self, data: &Path) -> Self {
        self.sealed_file.path = data.join(&self.sealed_file.path);
        self
    }
}

/// The signer's main function. Its requests arrive on standard input, which is a socket; ends when that is closed.
#[must_use]
pub fn run_signer() -> ExitCode {
    todo!()
}

/// Creates the root (sealed file, or a key in the token) in this process; refuses when there is one. `keyfleet init`
/// rather starts the signer with [`SignerCommand::create_root`], so that it never sees the passphrase.
///
/// # Errors
/// [`SignerError::Start`].
pub fn initialise(config: &SignerConfig) -> Result<(), SignerError> {
    let _ = config;
    todo!()
}
