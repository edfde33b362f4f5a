//! How the signer is started.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kf_key::SecretBytes;

use crate::start::{open_backend, start};
use crate::{SecretSource, SignerConfig, SignerError};

/// Where the child finds what was passed to it: standard output, which it has no other use for.
const PASSED_DESCRIPTOR: u32 = 1;
/// What fits into a pipe without a reader (pipe(7)).
const MAX_THROWAWAY_OCTETS: usize = 1024;

/// How to start the signer's process.
#[derive(Debug)]
pub struct SignerCommand {
    /// Program, normally `/proc/self/exe`.
    pub program: PathBuf,
    /// Arguments that make it call [`crate::run_signer`]; never a secret.
    pub arguments: Vec<String>,
    /// Environment variables to set for the child, for example `SOFTHSM2_CONF`; never a secret.
    pub environment: Vec<(String, String)>,
    /// Configuration with absolute paths ([`SignerConfig::below`]).
    pub config: SignerConfig,
    /// For a throw-away demonstration only: a passphrase made up by the caller, handed over through a pipe.
    pub throwaway_passphrase: Option<SecretBytes>,
    /// Create the root first; refuses when there is one. Not repeated when the process is restarted.
    pub create_root: bool,
}

impl SignerConfig {
    /// The same configuration with relative paths below `data`.
    #[must_use]
    pub fn below(mut self, data: &Path) -> Self {
        self.sealed_file.path = data.join(&self.sealed_file.path);
        if let Some(tpm) = &mut self.tpm {
            tpm.directory = data.join(&tpm.directory);
        }
        self
    }
}

/// Creates the root (sealed file, or a key in the token) in this process; refuses when there is one. `keyfleet init`
/// rather starts the signer with [`SignerCommand::create_root`], so that it never sees the passphrase.
///
/// # Errors
/// [`SignerError::Start`].
pub fn initialise(config: &SignerConfig) -> Result<(), SignerError> {
    open_backend(config, true).map(drop)
}

impl SignerCommand {
    /// The signer as the hidden subcommand of the running program.
    #[must_use]
    pub fn of_this_program(subcommand: &str, config: SignerConfig) -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec![subcommand.to_owned()],
            environment: Vec::new(),
            config,
            throwaway_passphrase: None,
            create_root: false,
        }
    }

    /// Whether the process can be started again without a person.
    pub(crate) const fn is_repeatable(&self) -> bool {
        self.throwaway_passphrase.is_some() || self.config.unlock.is_rereadable()
    }

    /// Whether somebody types while it starts.
    pub(crate) const fn waits_for_a_person(&self) -> bool {
        self.throwaway_passphrase.is_none() && matches!(self.config.unlock, SecretSource::Prompt)
    }

    /// The configuration as the child is told it.
    pub(crate) fn child_config(&self) -> SignerConfig {
        let mut config = self.config.clone();
        if self.throwaway_passphrase.is_some() || matches!(config.unlock, SecretSource::Descriptor(_)) {
            config.unlock = SecretSource::Descriptor(PASSED_DESCRIPTOR);
        }
        config
    }

    /// The process to be, with `socket` as its standard input.
    pub(crate) fn to_command(&self, socket: UnixStream) -> Result<Command, SignerError> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stdout(self.passed()?)
            .stderr(Stdio::inherit());
        Ok(command)
    }

    fn passed(&self) -> Result<Stdio, SignerError> {
        if let Some(passphrase) = &self.throwaway_passphrase {
            if passphrase.len() > MAX_THROWAWAY_OCTETS {
                return Err(SignerError::Start("the throw-away passphrase is too long".to_owned()));
            }
            let (reader, mut writer) = std::io::pipe().map_err(|error| start(&error))?;
            // Exposed to the pipe, whose other end only the child has.
            writer.write_all(passphrase.expose()).map_err(|error| start(&error))?;
            return Ok(Stdio::from(OwnedFd::from(reader)));
        }
        if let SecretSource::Descriptor(number) = self.config.unlock {
            let path = format!("/proc/self/fd/{number}");
            let file =
                File::open(&path).map_err(|source| SignerError::Start(format!("cannot read {path}: {source}")))?;
            return Ok(Stdio::from(file));
        }
        Ok(Stdio::null())
    }
}
