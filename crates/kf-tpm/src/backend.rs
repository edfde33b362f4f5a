//! The key back end of a server: root and CA keys in the TPM, their stored forms in a directory.
//!
//! A TPM has room for a few objects only, so that they rest outside, encrypted by the TPM under its storage key. The
//! stored form of a signature key is sealed once more under a key derived from the root and bound to its identifier.
//! Destroying a key destroys its file: whoever kept a copy of it, has this TPM and knows the authorisation value can
//! still use the key. Clear the TPM's owner hierarchy to end that too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kf_backend::{
    BackendError, BackendKind, Capabilities, GeneratedKeyPair, KeyBackend, KeyHandle, RootUse, SignatureKey,
    TokenFault, key_check_info, open_wrapped,
};
use kf_derive::{FleetRoot, Info, Purpose, SoftwareKey};
use kf_key::{KeyAlgorithm, KeyId, SecretArray};

use crate::{Blob, MAX_BLOB_OCTETS, Protection, Tpm};

/// The file of the root.
const ROOT: &str = "root.tpm";
const WRAP_EPOCH: u32 = 1;
const KEY_CONTEXT: &[u8] = b"keyfleet TPM signature key v1";

/// A back end whose root and CA keys are of use to one TPM alone.
pub struct TpmBackend {
    tpm: Tpm,
    directory: PathBuf,
    root: Blob,
    protection: Arc<Protection>,
    key_check: SecretArray<32>,
    capabilities: Capabilities,
}

impl std::fmt::Debug for TpmBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TpmBackend").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

impl TpmBackend {
    /// Finds the root in `directory`. `protection` is that under which it was made; the authorisation value stays in
    /// memory.
    ///
    /// # Errors
    /// [`BackendError::MissingKey`] without a root, [`BackendError::OtherRoot`] when it belongs to another TPM,
    /// [`BackendError::Token`].
    pub fn open(tpm: Tpm, directory: &Path, protection: Protection) -> Result<Self, BackendError> {
        let stored = read(&directory.join(ROOT), ROOT)?;
        let root = Blob::from_bytes(&stored)?;
        let key_check = tpm.hmac(&root, &protection, key_check_info()?.hmac_message())?;
        let capabilities = Capabilities {
            kind: BackendKind::Tpm,
            key_algorithms: vec![KeyAlgorithm::P256],
            is_hardware: true,
            root_use: RootUse::Derives,
            description: format!("TPM 2.0 at {}", tpm.address()),
        };
        let protection = Arc::new(protection);
        Ok(Self { tpm, directory: directory.to_owned(), root, protection, key_check, capabilities })
    }

    /// Has the TPM draw the root.
    ///
    /// # Errors
    /// [`BackendError::KeyExists`] when there is one already; [`BackendError::Token`].
    pub fn create_root(tpm: &Tpm, directory: &Path, protection: &Protection) -> Result<(), BackendError> {
        refuse_existing(&directory.join(ROOT), ROOT)?;
        let root = tpm.generate_hmac_key(protection)?;
        write_new(&directory.join(ROOT), ROOT, &root.to_bytes())
    }

    /// Puts an existing root into the TPM, for example one recovered from its shares.
    ///
    /// # Errors
    /// As [`TpmBackend::create_root`].
    pub fn import_root(
        tpm: &Tpm,
        directory: &Path,
        protection: &Protection,
        root: &SecretArray<32>,
    ) -> Result<(), BackendError> {
        refuse_existing(&directory.join(ROOT), ROOT)?;
        let root = tpm.import_hmac_key(root, protection)?;
        write_new(&directory.join(ROOT), ROOT, &root.to_bytes())
    }

    fn key_file(&self, key: KeyId) -> PathBuf {
        self.directory.join(format!("{key}.tpm"))
    }

    fn wrapping_key(&self) -> Result<SecretArray<32>, BackendError> {
        let info = FleetRoot::<SoftwareKey>::wrapping_info(Purpose::WrapSignatureKey, WRAP_EPOCH)
            .map_err(|_too_long| BackendError::Bug("wrapping info"))?;
        self.expand_root(&info)
    }

    fn load(&self, key: KeyId) -> Result<Blob, BackendError> {
        let sealed = read(&self.key_file(key), &key.to_string())?;
        let stored =
            kf_crypto::open(&self.wrapping_key()?, &context(key), &sealed).map_err(|_opaque| BackendError::Handle)?;
        // Exposed to be read: what is inside is still encrypted by the TPM.
        Ok(Blob::from_bytes(stored.expose())?)
    }
}

impl KeyBackend for TpmBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn expand_root(&self, info: &Info) -> Result<SecretArray<32>, BackendError> {
        Ok(self.tpm.hmac(&self.root, &self.protection, info.hmac_message())?)
    }

    fn generate_key_pair(&self, key: KeyId, algorithm: KeyAlgorithm) -> Result<GeneratedKeyPair, BackendError> {
        if !self.capabilities.holds(algorithm) {
            return Err(BackendError::Algorithm(algorithm));
        }
        let label = key.to_string();
        refuse_existing(&self.key_file(key), &label)?;
        let made = self.tpm.generate_signature_key(&self.protection)?;
        let sealed = kf_crypto::seal(&self.wrapping_key()?, &context(key), &made.to_bytes())
            .map_err(|_opaque| BackendError::Crypto)?;
        write_new(&self.key_file(key), &label, &sealed)?;
        Ok(GeneratedKeyPair { spki: made.spki()?, handle: KeyHandle::Token { algorithm, label } })
    }

    fn open_key(&self, key: KeyId, handle: &KeyHandle) -> Result<Box<dyn SignatureKey>, BackendError> {
        match handle {
            KeyHandle::Wrapped { algorithm, sealed } => open_wrapped(self, key, *algorithm, sealed),
            KeyHandle::Token { algorithm, label } => {
                if *label != key.to_string() || !self.capabilities.holds(*algorithm) {
                    return Err(BackendError::Handle);
                }
                let blob = self.load(key)?;
                Ok(Box::new(TpmKey {
                    spki: blob.spki()?,
                    blob,
                    tpm: self.tpm.clone(),
                    protection: Arc::clone(&self.protection),
                    file: self.key_file(key),
                    label: label.clone(),
                }))
            }
        }
    }

    fn destroy_key(&self, key: KeyId, handle: &KeyHandle) -> Result<(), BackendError> {
        match handle {
            KeyHandle::Wrapped { .. } => self.open_key(key, handle).map(drop),
            KeyHandle::Token { label, .. } if *label == key.to_string() => destroy(&self.key_file(key), label),
            KeyHandle::Token { .. } => Err(BackendError::Handle),
        }
    }

    fn health(&self) -> Result<(), BackendError> {
        let now = self.tpm.hmac(&self.root, &self.protection, key_check_info()?.hmac_message())?;
        if now.equals(&self.key_check) { Ok(()) } else { Err(BackendError::OtherRoot) }
    }
}

struct TpmKey {
    tpm: Tpm,
    blob: Blob,
    spki: Vec<u8>,
    protection: Arc<Protection>,
    file: PathBuf,
    label: String,
}

impl SignatureKey for TpmKey {
    fn algorithm(&self) -> KeyAlgorithm {
        KeyAlgorithm::P256
    }

    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BackendError> {
        // A key that was destroyed while it was open signs no more.
        if !self.file.exists() {
            return Err(BackendError::MissingKey { label: self.label.clone() });
        }
        Ok(self.tpm.sign(&self.blob, &self.protection, message)?)
    }
}

fn context(key: KeyId) -> Vec<u8> {
    [KEY_CONTEXT, key.as_bytes()].concat()
}

fn fault(error: &io::Error) -> BackendError {
    BackendError::Token(TokenFault::Call { function: "the file of the key".to_owned(), code: error.kind().to_string() })
}

fn refuse_existing(path: &Path, label: &str) -> Result<(), BackendError> {
    if path.symlink_metadata().is_ok() {
        return Err(BackendError::KeyExists { label: label.to_owned() });
    }
    Ok(())
}

/// A file that must not exist, durable with its name before this returns.
fn write_new(path: &Path, label: &str, content: &[u8]) -> Result<(), BackendError> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => BackendError::KeyExists { label: label.to_owned() },
            _ => fault(&error),
        })?;
    file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| sync_directory(path)).map_err(|e| fault(&e))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn read(path: &Path, label: &str) -> Result<Vec<u8>, BackendError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BackendError::MissingKey { label: label.to_owned() },
        _ => fault(&error),
    })?;
    let limit = MAX_BLOB_OCTETS.saturating_add(kf_crypto::AEAD_OVERHEAD);
    let mut content = Vec::new();
    let most = u64::try_from(limit).unwrap_or_default().saturating_add(1);
    file.take(most).read_to_end(&mut content).map_err(|error| fault(&error))?;
    if content.len() > limit {
        return Err(BackendError::Handle);
    }
    Ok(content)
}

/// Overwrites the file before it is removed: what is left of it then on a disk that does not remap opens nothing.
fn destroy(path: &Path, label: &str) -> Result<(), BackendError> {
    let overwrite = || {
        let mut file = OpenOptions::new().write(true).open(path)?;
        let octets = usize::try_from(file.metadata()?.len()).unwrap_or(MAX_BLOB_OCTETS);
        file.write_all(&vec![0; octets])?;
        file.sync_all()
    };
    overwrite().and_then(|()| fs::remove_file(path)).and_then(|()| sync_directory(path)).map_err(|error| {
        match error.kind() {
            io::ErrorKind::NotFound => BackendError::MissingKey { label: label.to_owned() },
            _ => fault(&error),
        }
    })
}
