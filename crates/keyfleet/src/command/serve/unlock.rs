//! Where the signer's passphrase or PIN comes from: a prompt, a descriptor, a file or a systemd credential. Never an
//! argument, never the environment; and only the signer's process reads it.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use kf_fleet::DataDir;
use kf_signer::{SecretSource, SignerCommand, SignerConfig};

use crate::failure::Failure;

/// Where the secret comes from.
#[derive(Clone, Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct Unlock {
    /// Read the passphrase or PIN from this open file descriptor: `--passphrase-fd 3 3<FILE`
    #[arg(long, value_name = "N")]
    passphrase_fd: Option<u32>,
    /// Read it from this systemd credential (`LoadCredential=`)
    #[arg(long, value_name = "NAME")]
    passphrase_credential: Option<String>,
    /// Read it from this file, mode 0600
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Unlock {
    /// The source that was given.
    pub(crate) fn given(&self) -> Result<Option<SecretSource>, Failure> {
        let Self { passphrase_fd, passphrase_credential, passphrase_file } = self;
        Ok(match (passphrase_fd, passphrase_credential, passphrase_file) {
            (Some(number), _, _) => Some(SecretSource::Descriptor(*number)),
            (_, Some(name), _) => Some(SecretSource::Credential(name.clone())),
            (_, _, Some(path)) => Some(SecretSource::File(
                std::fs::canonicalize(path).map_err(|error| Failure::file("read", path, error))?,
            )),
            (None, None, None) => None,
        })
    }

    /// Puts the given source in the configuration, and makes sure that somebody can be asked when it is a prompt.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the flags.
    pub(crate) fn apply_to(&self, config: &mut SignerConfig) -> Result<(), Failure> {
        if let Some(source) = self.given()? {
            config.unlock = source;
        }
        if config.unlock == SecretSource::Prompt && !can_prompt() {
            return Err(Failure::usage(
                "the passphrase must be typed and there is no terminal",
                "give --passphrase-fd N, --passphrase-credential NAME or --passphrase-file FILE",
            ));
        }
        Ok(())
    }
}

/// The signer asks at the controlling terminal.
fn can_prompt() -> bool {
    std::io::stdin().is_terminal() && std::fs::File::open("/dev/tty").is_ok()
}

/// The signer as a child of this program.
pub(crate) fn signer_command(dir: &DataDir, config: SignerConfig, create_root: bool) -> SignerCommand {
    SignerCommand { create_root, ..SignerCommand::of_this_program("signer", config.below(dir.path())) }
}
