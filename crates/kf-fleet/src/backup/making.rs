//! The making of a backup: a copy of the registry, what of it is sealed, the manifest, and at last the name.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use kf_age::Recipient;
use kf_api::backup::{Backup, BackupBase, BackupFile, BackupKey, BackupManifest, BackupState, RegistryFile};
use kf_crypto::Sha256;
use kf_key::{BackupId, SecretBytes};
use kf_store::Store;
use kf_store::backup::{CopyFacts, inspect};

use super::pages::{Changed, PageIndex, Pages, WholeCopy};
use super::{CONFIG, INCREMENT, MANIFEST, REGISTRY, SEAL, SEAL_CONTEXT, partial_of, remove_if_there, sync_dir};
use crate::log_publisher::{LOG_ORIGIN_FACT, local, write_durably};
use crate::{Fleet, FleetError};

/// The most increments on a full backup: a restore opens all of them.
pub(crate) const MAX_INCREMENTS: u32 = 1_000;

/// What an increment builds on.
pub(super) struct Base {
    link: BackupBase,
    index: PageIndex,
}

/// The files of one making.
struct Workshop {
    store: Store,
    recipient: Recipient,
    copy: PathBuf,
    index: PathBuf,
    directory: PathBuf,
    backup: BackupId,
}

/// What came of it.
struct Made {
    facts: CopyFacts,
    registry: RegistryFile,
    base: Option<BackupBase>,
    files: Vec<BackupFile>,
}

impl Workshop {
    /// Copies the registry, and seals all of it or what changed since `base`, and the configuration.
    fn make(&self, base: Option<Base>, config: &str) -> Result<Made, FleetError> {
        let Self { store, recipient, copy, index, directory, backup } = self;
        remove_if_there(copy)?;
        std::fs::create_dir_all(directory).map_err(|error| local(directory, &error))?;
        store.copy_to(copy)?;
        let facts = inspect(copy)?;
        let (link, before) = base.map_or((None, None), |Base { link, index }| (Some(link), Some(index)));
        let mut pages = Pages::open(copy, index, *backup, before)?;
        let (sealed, base) = match link {
            None => (seal_file(recipient, WholeCopy::of(&mut pages), directory, REGISTRY)?, None),
            Some(link) => {
                let mut changed = Changed::of(&mut pages, kf_crypto::random_array()?);
                let sealed = seal_file(recipient, &mut changed, directory, INCREMENT)?;
                (sealed, Some(BackupBase { pages: changed.frames(), ..link }))
            }
        };
        let registry = pages.finish()?;
        remove_if_there(copy)?;
        let config = seal_file(recipient, config.as_bytes(), directory, CONFIG)?;
        Ok(Made { facts, registry, base, files: vec![sealed, config] })
    }
}

impl Fleet {
    /// What an increment under this key can build on; the inner error says why there is nothing.
    pub(super) fn base_under(&self, key: &BackupKey) -> Result<Result<Base, String>, FleetError> {
        let none = |why: &str| Ok(Err(why.to_owned()));
        let Some(index) = PageIndex::open(&self.pages_path())? else {
            return none("no earlier backup was made here, or what is known of its pages is damaged");
        };
        let Some(backup) = self.store.backup(index.backup())? else {
            return none("this registry does not know of the newest backup that was made here");
        };
        if backup.state != BackupState::Openable {
            return none("the newest backup was retired");
        }
        let Some(manifest) = backup.manifest else { return none("the newest backup was not finished") };
        if manifest.key_version != key.version {
            return none("the newest backup is sealed to an earlier version of the backup key");
        }
        let number = manifest.base.as_ref().map_or(0, |base| base.number) + 1;
        if number > MAX_INCREMENTS {
            return Ok(Err(format!("its chain would be longer than {MAX_INCREMENTS} increments")));
        }
        let link = BackupBase {
            backup: manifest.id,
            full: manifest.base.map_or(manifest.id, |base| base.full),
            number,
            registry_sha256: manifest.registry.sha256,
            pages: 0,
        };
        Ok(Ok(Base { link, index }))
    }

    /// Everything up to the moment when the backup appears under its name, and its pages are known.
    pub(super) async fn make_backup(
        &self,
        backup: &Backup,
        key: &BackupKey,
        base: Option<Base>,
    ) -> Result<BackupManifest, FleetError> {
        let partial = partial_of(backup);
        let workshop = Workshop {
            store: self.store.clone(),
            recipient: key.recipient.parse().map_err(|_detail| FleetError::Bug("a stored recipient"))?,
            copy: self.copy_path(),
            index: self.new_pages_path(),
            directory: partial.clone(),
            backup: backup.id,
        };
        let config = toml::to_string_pretty(&self.config).map_err(|_bug| FleetError::Bug("configuration"))?;
        let made = tokio::task::spawn_blocking(move || workshop.make(base, &config));
        let made = made.await.map_err(|_panic| FleetError::Bug("the backup ended early"))??;
        let manifest = self.manifest_of(backup, key, made)?;
        let text = serde_json::to_vec_pretty(&manifest).map_err(|_bug| FleetError::Bug("manifest"))?;
        let digest = SecretBytes::from_vec(kf_crypto::sha256(&text).to_vec());
        let seal = self.signer.wrap(SEAL_CONTEXT, &digest).await?;
        write_durably(&partial.join(MANIFEST), &text)?;
        write_durably(&partial.join(SEAL), hex::encode(seal).as_bytes())?;
        let place = PathBuf::from(&backup.directory);
        std::fs::rename(&partial, &place).map_err(|error| local(&place, &error))?;
        sync_dir(&self.backups_dir())?;
        self.adopt_pages()?;
        Ok(manifest)
    }

    fn manifest_of(&self, backup: &Backup, key: &BackupKey, made: Made) -> Result<BackupManifest, FleetError> {
        let Made { facts, registry, base, files } = made;
        Ok(BackupManifest {
            v: 2,
            id: backup.id,
            base,
            fleet: self.config.fleet.clone(),
            origin: self.store.fact(LOG_ORIGIN_FACT)?.ok_or(FleetError::Bug("no log origin"))?,
            created: backup.created,
            as_of: facts.as_of,
            tool: format!("keyfleet {}, SQLite {}", env!("CARGO_PKG_VERSION"), kf_store::engine_version()),
            schema: facts.schema,
            log_size: facts.log_size,
            log_root: hex::encode(facts.log_root),
            key_version: key.version,
            recipient: key.recipient.clone(),
            registry,
            files,
        })
    }

    /// The index of the newest backup becomes the one that the next increment is compared with.
    pub(super) fn adopt_pages(&self) -> Result<(), FleetError> {
        let path = self.pages_path();
        std::fs::rename(self.new_pages_path(), &path).map_err(|error| local(&path, &error))?;
        sync_dir(self.dir.path())
    }

    /// Whether an index is that of this backup.
    pub(super) fn is_index_of(path: &Path, backup: BackupId) -> Result<bool, FleetError> {
        Ok(PageIndex::open(path)?.is_some_and(|index| index.backup() == backup))
    }

    /// Digests of the pages of the newest backup.
    pub(super) fn pages_path(&self) -> PathBuf {
        self.dir.path().join("backup.pages")
    }

    /// The same of a backup that is being made.
    pub(super) fn new_pages_path(&self) -> PathBuf {
        self.dir.path().join("backup.pages.new")
    }
}

/// Counts and digests what passes.
struct Digesting<W> {
    to: W,
    octets: u64,
    digest: Sha256,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.to.write(octets)?;
        self.digest.update(octets.get(..written).unwrap_or_default());
        self.octets += u64::try_from(written).unwrap_or(0);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Seals a file durably, and reads back what is on the disk: the digest is of that.
fn seal_file(recipient: &Recipient, from: impl Read, directory: &Path, name: &str) -> Result<BackupFile, FleetError> {
    let path = directory.join(name);
    let file = File::create(&path).map_err(|error| local(&path, &error))?;
    let mut to = Digesting { to: io::BufWriter::new(file), octets: 0, digest: Sha256::new() };
    kf_age::seal(std::slice::from_ref(recipient), from, &mut to).map_err(|error| FleetError::Local {
        path: path.display().to_string(),
        problem: match error {
            kf_age::SealError::Io(error) => error.to_string(),
            other => other.to_string(),
        },
    })?;
    let Digesting { to, octets, digest } = to;
    let file = to.into_inner().map_err(|error| local(&path, error.error()))?;
    file.sync_all().map_err(|error| local(&path, &error))?;
    let sha256 = hex::encode(digest.finish());
    if digest_of(&path)? != (octets, sha256.clone()) {
        return Err(FleetError::Local {
            path: path.display().to_string(),
            problem: "what was written does not read back; look at the disk".to_owned(),
        });
    }
    Ok(BackupFile { name: name.to_owned(), octets, sha256 })
}

/// Octets of a file and their SHA-256.
pub(crate) fn digest_of(path: &Path) -> Result<(u64, String), FleetError> {
    let mut file = File::open(path).map_err(|error| local(path, &error))?;
    let mut sink = Digesting { to: io::sink(), octets: 0, digest: Sha256::new() };
    io::copy(&mut file, &mut sink).map_err(|error| local(path, &error))?;
    Ok((sink.octets, hex::encode(sink.digest.finish())))
}
