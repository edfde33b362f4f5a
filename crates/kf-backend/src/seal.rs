//! The fleet root in a file sealed under a passphrase: Argon2id (RFC 9106), then AES-256-GCM.
//!
//! Whoever copies the file can guess passphrases offline, at the cost of one Argon2id each; a token is the recommended
//! place for a root. The file is JSON, version 1; everything but the ciphertext is authenticated with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kf_crypto::{Argon2Cost, derive_from_passphrase, random_array, random_secret};
use kf_key::{SecretArray, SecretBytes};
use serde::{Deserialize, Serialize};

/// The most octets of a sealed file.
const MAX_FILE_OCTETS: u64 = 4096;
const FORMAT: &str = "keyfleet-root-seal";
const VERSION: u32 = 1;

/// The fewest octets of a new passphrase. Offline guessing is possible, so this is a floor, not advice.
pub const MIN_PASSPHRASE_OCTETS: usize = 12;

/// Why a sealed root is not created or not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// There is one already.
    #[error("{} exists and is never overwritten; move it away or choose another data directory", .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error("{} does not exist; create a root with `keyfleet init`", .0.display())]
    Missing(PathBuf),
    /// Others can read or write it.
    #[error("{} has mode {mode:04o}; others may not touch it: chmod 600", path.display())]
    Permissions {
        /// File.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a sealed root of a version we know.
    #[error("{} is not a sealed root of a known version", .0.display())]
    Format(PathBuf),
    /// Wrong passphrase or an altered file; which of them is not said.
    #[error("the root does not open: wrong passphrase or altered file")]
    Unseal,
    /// The new passphrase is too short.
    #[error("a passphrase has at least {MIN_PASSPHRASE_OCTETS} octets")]
    PassphraseTooShort,
    /// The provider or its random source failed.
    #[error("cryptographic operation failed")]
    Crypto,
    /// The file system.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// File or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedFile {
    format: String,
    version: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    sealed: String,
}

/// Draws a root, seals it and writes the file (mode 0600, durable, never over an existing one).
///
/// # Errors
/// [`SealError`]; on any of them there is no file.
pub fn create_sealed_root(
    path: &Path,
    passphrase: &SecretBytes,
    cost: Argon2Cost,
) -> Result<SecretArray<32>, SealError> {
    let root = random_secret::<32>().map_err(|_opaque| SealError::Crypto)?;
    seal_root(path, passphrase, cost, &root)?;
    Ok(root)
}

/// As [`create_sealed_root`] for a root that exists, for example one recovered from its shares.
///
/// # Errors
/// [`SealError`].
pub fn seal_root(
    path: &Path,
    passphrase: &SecretBytes,
    cost: Argon2Cost,
    root: &SecretArray<32>,
) -> Result<(), SealError> {
    if passphrase.len() < MIN_PASSPHRASE_OCTETS {
        return Err(SealError::PassphraseTooShort);
    }
    // Checked first to spare the user a second of Argon2id; the link below is what holds under a race.
    if path.symlink_metadata().is_ok() {
        return Err(SealError::Exists(path.to_owned()));
    }
    let salt: [u8; 16] = random_array().map_err(|_opaque| SealError::Crypto)?;
    let key = derive_from_passphrase(passphrase, &salt, cost).map_err(|_opaque| SealError::Crypto)?;
    // Exposed to be sealed.
    let sealed = kf_crypto::seal(&key, &context(cost, &salt), root.expose()).map_err(|_opaque| SealError::Crypto)?;
    let file = SealedFile {
        format: FORMAT.to_owned(),
        version: VERSION,
        kdf: "argon2id".to_owned(),
        memory_kib: cost.memory_kib,
        passes: cost.passes,
        lanes: cost.lanes,
        salt: STANDARD.encode(salt),
        sealed: STANDARD.encode(sealed),
    };
    let mut text = serde_json::to_vec_pretty(&file).map_err(|_cannot_fail| SealError::Crypto)?;
    text.push(b'\n');
    write_new(path, &text)
}

/// Opens a sealed root.
///
/// # Errors
/// [`SealError::Unseal`] for a wrong passphrase as for an altered file.
pub fn open_sealed_root(path: &Path, passphrase: &SecretBytes) -> Result<SecretArray<32>, SealError> {
    let text = read_private(path)?;
    let format = || SealError::Format(path.to_owned());
    let file: SealedFile = serde_json::from_slice(&text).map_err(|_syntax| format())?;
    if file.format != FORMAT || file.version != VERSION || file.kdf != "argon2id" {
        return Err(format());
    }
    let salt: [u8; 16] = STANDARD.decode(&file.salt).ok().and_then(|salt| salt.try_into().ok()).ok_or_else(format)?;
    let sealed = STANDARD.decode(&file.sealed).map_err(|_not_base64| format())?;
    let cost = Argon2Cost { memory_kib: file.memory_kib, passes: file.passes, lanes: file.lanes };
    // A cost outside floor and ceiling is an altered file like any other.
    let key = derive_from_passphrase(passphrase, &salt, cost).map_err(|_opaque| SealError::Unseal)?;
    let root = kf_crypto::open(&key, &context(cost, &salt), &sealed).map_err(|_opaque| SealError::Unseal)?;
    SecretArray::try_fill(|octets| {
        // Exposed to be moved into its type.
        let root: &[u8; 32] = root.expose().try_into().map_err(|_other_length| SealError::Unseal)?;
        octets.copy_from_slice(root);
        Ok(())
    })
}

/// Everything in the file but the ciphertext.
fn context(cost: Argon2Cost, salt: &[u8; 16]) -> Vec<u8> {
    let mut context = FORMAT.as_bytes().to_vec();
    for number in [VERSION, cost.memory_kib, cost.passes, cost.lanes] {
        context.extend_from_slice(&number.to_be_bytes());
    }
    context.extend_from_slice(salt);
    context
}

/// Writes beside the target, syncs, links it into place (which refuses an existing name), syncs the directory.
fn write_new(path: &Path, text: &[u8]) -> Result<(), SealError> {
    let io = |verb: &'static str| move |source| SealError::Io { verb, path: path.to_owned(), source };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let scratch = directory.join(name);
    let outcome = (|| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&scratch).map_err(io("create"))?;
        file.write_all(text).and_then(|()| file.sync_all()).map_err(io("write"))?;
        fs::hard_link(&scratch, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => SealError::Exists(path.to_owned()),
            _ => io("create")(source),
        })
    })();
    let removed = fs::remove_file(&scratch);
    outcome?;
    removed.and_then(|()| File::open(directory)?.sync_all()).map_err(io("create"))
}

fn read_private(path: &Path) -> Result<Vec<u8>, SealError> {
    let io = |source| SealError::Io { verb: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SealError::Missing(path.to_owned()),
        _ => io(source),
    })?;
    let metadata = file.metadata().map_err(io)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_file() || metadata.size() > MAX_FILE_OCTETS {
        return Err(SealError::Format(path.to_owned()));
    }
    if mode & 0o077 != 0 {
        return Err(SealError::Permissions { path: path.to_owned(), mode });
    }
    let mut text = Vec::new();
    file.take(MAX_FILE_OCTETS).read_to_end(&mut text).map_err(io)?;
    Ok(text)
}
