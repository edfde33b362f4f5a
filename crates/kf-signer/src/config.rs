//! Configuration: which back end, and where its secret is read from. References to secrets, never secrets.

use std::path::PathBuf;

use kf_backend::BackendKind;
use serde::{Deserialize, Serialize};

/// The `[signer]` table. The back ends may be described side by side; changing `backend` is the whole switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignerConfig {
    /// Which back end holds the root.
    pub backend: BackendKind,
    /// Where passphrase or PIN come from.
    pub unlock: SecretSource,
    /// The sealed file.
    pub sealed_file: SealedFileConfig,
    /// The token; required when `backend = "pkcs11"`.
    pub pkcs11: Option<Pkcs11Config>,
    /// The TPM; required when `backend = "tpm"`.
    pub tpm: Option<TpmConfig>,
    /// Ceilings of signatures per key.
    pub ceilings: RateCeilings,
}

impl Default for SignerConfig {
    fn default() -> Self {
        Self {
            backend: BackendKind::SealedFile,
            unlock: SecretSource::Prompt,
            sealed_file: SealedFileConfig::default(),
            pkcs11: None,
            tpm: None,
            ceilings: RateCeilings::default(),
        }
    }
}

/// Where a passphrase or PIN is read from; always by the signer itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// The terminal.
    Prompt,
    /// An inherited file descriptor, read to its end, one trailing line end removed.
    Descriptor(u32),
    /// A file that only its owner can read (mode 0600 or 0400).
    File(PathBuf),
    /// A systemd credential: a file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

impl SecretSource {
    /// Whether the secret can be read again without a person, so that the signer can be restarted.
    #[must_use]
    pub const fn is_rereadable(&self) -> bool {
        matches!(self, Self::File(_) | Self::Credential(_))
    }
}

/// A root in a sealed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SealedFileConfig {
    /// The file; a relative path is below the data directory.
    pub path: PathBuf,
}

impl Default for SealedFileConfig {
    fn default() -> Self {
        Self { path: PathBuf::from("root.seal") }
    }
}

/// A root in a PKCS#11 token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Config {
    /// The token's PKCS#11 module, an absolute path.
    pub module: PathBuf,
    /// CKA_LABEL of the token.
    pub token: String,
    /// CKA_LABEL of the root key in it.
    #[serde(default = "default_root_label")]
    pub root_label: String,
}

fn default_root_label() -> String {
    "keyfleet root".to_owned()
}

/// A root in a TPM 2.0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmConfig {
    /// `device:/dev/tpmrm0`, or `swtpm:host=127.0.0.1,port=PORT` for an emulator.
    pub address: String,
    /// Where the stored forms of the keys are; a relative path is below the data directory.
    #[serde(default = "default_tpm_directory")]
    pub directory: PathBuf,
}

fn default_tpm_directory() -> PathBuf {
    PathBuf::from("tpm")
}

/// The most signatures of one key within one minute. Beyond it the signer refuses and warns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateCeilings {
    /// A root CA.
    pub root_ca_per_minute: u32,
    /// An issuing CA.
    pub issuing_ca_per_minute: u32,
    /// The log.
    pub log_per_minute: u32,
    /// Challenges to devices that ask for a key. Anybody can ask for one, and the signer has certificates to sign as well.
    pub delivery_per_minute: u32,
    /// Orders to devices.
    pub order_per_minute: u32,
    /// Quotas for factory stations.
    pub batch_per_minute: u32,
}

impl Default for RateCeilings {
    fn default() -> Self {
        Self {
            root_ca_per_minute: 120,
            issuing_ca_per_minute: 3_000_000,
            log_per_minute: 60_000,
            delivery_per_minute: 12_000,
            order_per_minute: 600,
            batch_per_minute: 60,
        }
    }
}
