//! Why the agent cannot start. What fails later is told as an event and tried again.

use std::io;
use std::path::PathBuf;

use crate::ConfigError;

/// A start that failed, by who must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state directory.
    #[error("the state directory {path} cannot be used: is it writable for this user?")]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two agents must not share an identity.
    #[error("another agent uses the state directory {path}: stop it first")]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// A file or credential that the configuration refers to.
    #[error("`{field}` cannot be read")]
    Source {
        /// Which setting refers to it.
        field: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Its content is not what it should be.
    #[error("`{field}` does not hold {expected}")]
    Content {
        /// Which setting refers to it.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The TPM or token that holds the key.
    #[error("the key cannot be used")]
    Key(#[from] crate::key_source::KeyError),
    /// The file of the device key.
    #[error(transparent)]
    Vault(Box<dyn std::error::Error + Send + Sync>),
    /// A program that was to get a secret.
    #[error("{program} cannot be run")]
    Program {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// This program cannot do what the configuration asks for.
    #[error("`{field}` = \"{value}\" needs a program built with --features {feature}")]
    NotBuilt {
        /// Which setting.
        field: &'static str,
        /// Its value.
        value: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// The operating system gave no randomness.
    #[error("no random numbers: the operating system's source failed")]
    Random,
}

impl From<crate::vault::VaultError> for Failure {
    fn from(error: crate::vault::VaultError) -> Self {
        Self::Vault(Box::new(error))
    }
}

/// An error and its sources in one line.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    const MAX_DEPTH: usize = 8;
    let mut text = error.to_string();
    let mut source = error.source();
    for _ in 0..MAX_DEPTH {
        let Some(cause) = source else { break };
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own text.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}
