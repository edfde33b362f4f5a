//! Backups: made while the server works, sealed to a key of which the server has the public half alone, listed, retired.
//!
//! A backup is known before it is made, to the registry and to the witness: what is destroyed from then on is barred by it. It
//! appears under its name when it is whole, and is recorded then; a start after a crash finishes or removes what is between.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use kf_access::{Action, Principal, Target, authorize};
use kf_age::Recipient;
use kf_api::backup::{Backup, BackupFile, BackupKey, BackupManifest, BackupOutcome, BackupState, NewBackupKey};
use kf_api::proposal::ProposedAct;
use kf_api::{Page, PageRequest};
use kf_crypto::Sha256;
use kf_key::{BackupId, ProposalId, SecretBytes};
use kf_store::backup::inspect;

use crate::entry::Entry;
use crate::fence::Line;
use crate::log_publisher::{LOG_ORIGIN_FACT, local, write_durably};
use crate::naming::check_why;
use crate::{Fleet, FleetError};

/// The names in the directory of a backup.
pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const SEAL: &str = "manifest.seal";
pub(crate) const REGISTRY: &str = "registry.sqlite.age";
pub(crate) const CONFIG: &str = "keyfleet.toml.age";
/// What the manifest's digest is wrapped for, by the signer under the root.
pub(crate) const SEAL_CONTEXT: &[u8] = b"backup manifest";
/// The most people that a key is sealed to.
const MAX_SEALED_TO: usize = 32;

impl Fleet {
    /// Makes a version of the backup key known. Whoever made it has the private half, and the server never sees it.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for what is no recipient, [`FleetError::Conflict`] for a known one, [`FleetError::Denied`].
    pub async fn backup_key_create(&self, who: &Principal, new: NewBackupKey) -> Result<BackupKey, FleetError> {
        authorize(who, Action::BackupKeyCreate, Target::Fleet)?;
        let NewBackupKey { recipient, sealed_to } = new;
        let parse = |field: &str, text: &str| {
            text.parse::<Recipient>()
                .map_err(|error| FleetError::invalid(field, error.to_string(), "give a recipient of age, `age1…`"))
        };
        parse("recipient", &recipient)?;
        if sealed_to.is_empty() || sealed_to.len() > MAX_SEALED_TO || sealed_to.contains(&recipient) {
            return Err(FleetError::invalid(
                "sealed_to",
                "is not 1 to 32 people other than the key itself",
                "name the recipients that the private half was sealed to",
            ));
        }
        for person in &sealed_to {
            parse("sealed_to", person)?;
        }
        let entry = Entry::done(who, "backup-key.create", self.now())
            .with("recipient", &recipient)
            .with("sealed_to", sealed_to.join(" "));
        let key = BackupKey { version: 0, recipient, sealed_to, created: self.now() };
        Ok(self.store.insert_backup_key(key, entry.build()).await?.value)
    }

    /// The versions of the backup key, newest first.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn backup_key_list(&self, who: &Principal) -> Result<Vec<BackupKey>, FleetError> {
        authorize(who, Action::BackupRead, Target::Fleet)?;
        Ok(self.store.backup_keys()?)
    }

    /// Backups, newest first.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn backup_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Backup>, FleetError> {
        authorize(who, Action::BackupRead, Target::Fleet)?;
        Ok(self.store.backups(&page)?)
    }

    /// One backup.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn backup_show(&self, who: &Principal, id: BackupId) -> Result<Backup, FleetError> {
        authorize(who, Action::BackupRead, Target::Fleet)?;
        self.store.backup(id)?.ok_or(FleetError::NotFound("backup"))
    }

    /// Makes a backup while everything goes on, sealed to the newest backup key.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] without a backup key, [`FleetError::Local`] for a directory that cannot be written.
    pub async fn backup_create(&self, who: &Principal, why: String) -> Result<Backup, FleetError> {
        check_why(&why)?;
        authorize(who, Action::BackupCreate, Target::Fleet)?;
        let key = self.store.backup_keys()?.into_iter().next().ok_or_else(|| {
            FleetError::conflict(
                "backup key",
                "there is none, so nothing could be sealed",
                "make one with `keyfleet backup key create`",
            )
        })?;
        let now = self.now();
        let id = BackupId::from_parts(now, kf_crypto::random_array()?);
        let place = self.backups_dir().join(id.to_string());
        let backup = Backup {
            id,
            key_version: key.version,
            state: BackupState::Openable,
            created: now,
            directory: place.display().to_string(),
            manifest: None,
            retired: None,
        };
        let entry = |act: &str| Entry::done(who, act, now).about(id).because(&why).with("key_version", key.version);
        self.store.keep_backup(backup.clone(), self.evidence(entry("backup.begin")).build()).await?;
        self.fence.add(&[Line::Backup { backup: id, key_version: key.version, at: now }])?;
        match self.make_backup(&backup, &key).await {
            Ok(manifest) => {
                let backup = Backup { manifest: Some(manifest), ..backup };
                let entry = described(entry("backup.create"), &backup);
                self.store.keep_backup(backup.clone(), self.evidence(entry).build()).await?;
                Ok(backup)
            }
            Err(error) => {
                self.give_up_backup(backup, &error.to_string()).await?;
                Err(error)
            }
        }
    }

    fn backups_dir(&self) -> PathBuf {
        self.config.backup_dir.clone().unwrap_or_else(|| self.dir.backups())
    }

    /// Everything up to the moment when the backup appears under its name.
    async fn make_backup(&self, backup: &Backup, key: &BackupKey) -> Result<BackupManifest, FleetError> {
        let recipient: Recipient = key.recipient.parse().map_err(|_detail| FleetError::Bug("a stored recipient"))?;
        let (partial, copy) = (partial_of(backup), self.copy_path());
        let config = toml::to_string_pretty(&self.config).map_err(|_bug| FleetError::Bug("configuration"))?;
        let store = self.store.clone();
        let origin = store.fact(LOG_ORIGIN_FACT)?.ok_or(FleetError::Bug("no log origin"))?;
        let (fleet, backup_id, key) = (self.config.fleet.clone(), backup.id, key.clone());
        let (created, directory) = (backup.created, partial.clone());
        let made = tokio::task::spawn_blocking(move || {
            remove_if_there(&copy)?;
            std::fs::create_dir_all(&directory).map_err(|error| local(&directory, &error))?;
            store.copy_to(&copy)?;
            let facts = inspect(&copy)?;
            let file = File::open(&copy).map_err(|error| local(&copy, &error))?;
            let registry = seal_file(&recipient, file, &directory, REGISTRY)?;
            remove_if_there(&copy)?;
            let config = seal_file(&recipient, config.as_bytes(), &directory, CONFIG)?;
            Ok::<_, FleetError>(BackupManifest {
                v: 1,
                id: backup_id,
                fleet,
                origin,
                created,
                tool: format!("keyfleet {}, SQLite {}", env!("CARGO_PKG_VERSION"), kf_store::engine_version()),
                schema: facts.schema,
                log_size: facts.log_size,
                log_root: hex::encode(facts.log_root),
                key_version: key.version,
                recipient: key.recipient,
                files: vec![registry, config],
            })
        });
        let manifest = made.await.map_err(|_panic| FleetError::Bug("the backup ended early"))??;
        let text = serde_json::to_vec_pretty(&manifest).map_err(|_bug| FleetError::Bug("manifest"))?;
        let digest = SecretBytes::from_vec(kf_crypto::sha256(&text).to_vec());
        let seal = self.signer.wrap(SEAL_CONTEXT, &digest).await?;
        write_durably(&partial.join(MANIFEST), &text)?;
        write_durably(&partial.join(SEAL), hex::encode(seal).as_bytes())?;
        let place = PathBuf::from(&backup.directory);
        std::fs::rename(&partial, &place).map_err(|error| local(&place, &error))?;
        sync_dir(&self.backups_dir())?;
        Ok(manifest)
    }

    /// The copy that is sealed; it lies beside the registry, and is as well protected.
    fn copy_path(&self) -> PathBuf {
        self.dir.path().join("registry.backup-copy")
    }

    async fn give_up_backup(&self, backup: Backup, why: &str) -> Result<(), FleetError> {
        remove_if_there(&self.copy_path())?;
        for place in [partial_of(&backup), PathBuf::from(&backup.directory)] {
            remove_dir_if_there(&place)?;
        }
        let now = self.now();
        let entry =
            Entry::done(&Self::server_principal(), "backup.fail", now).about(backup.id).because(&shortened(why));
        let id = backup.id;
        let backup = Backup { state: BackupState::Retired, retired: Some(now), ..backup };
        self.store.keep_backup(backup, entry.build()).await?;
        self.fence.add(&[Line::BackupRetired { backup: id, at: now }])?;
        Ok(())
    }

    /// Finishes or removes what a crash left of backups.
    pub(crate) async fn reconcile_backups(&self) -> Result<(), FleetError> {
        for backup in self.store.unfinished_backups()? {
            let place = PathBuf::from(&backup.directory);
            let text = std::fs::read(place.join(MANIFEST)).ok();
            let manifest = text.and_then(|text| serde_json::from_slice::<BackupManifest>(&text).ok());
            match manifest.filter(|manifest| manifest.id == backup.id) {
                Some(manifest) => {
                    let backup = Backup { manifest: Some(manifest), ..backup };
                    let entry = Entry::done(&Self::server_principal(), "backup.create", self.now())
                        .about(backup.id)
                        .because("it was whole when the server stopped");
                    let entry = described(entry, &backup);
                    self.store.keep_backup(backup, entry.build()).await?;
                }
                None => self.give_up_backup(backup, "the server stopped before it was whole").await?,
            }
        }
        // Whatever the registry says: a copy in clear is left by a crash only.
        remove_if_there(&self.copy_path())?;
        self.finish_backup_retirements().await?;
        // A crash may have come between the last retirement and what it settles.
        self.settle_destructions().await
    }

    /// Proposes that a backup is retired: that no copy of it is left, or that none can be opened any more.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] for one that is retired, [`FleetError::Denied`].
    pub async fn backup_retire(&self, who: &Principal, id: BackupId, why: String) -> Result<BackupOutcome, FleetError> {
        check_why(&why)?;
        if why.trim().is_empty() {
            return Err(FleetError::invalid("why", "is missing", "say what became of the copies, or of the key"));
        }
        self.backup_to_retire(who, id)?;
        let control = self.dual_control().always(self.now());
        let act = ProposedAct::RetireBackup { backup: id, why };
        let waiting = self.propose(who, act, control, (0, 0), None).await?;
        let proposal = waiting.and_then(|waiting| waiting.proposal);
        Ok(BackupOutcome { proposal: proposal.ok_or(FleetError::Bug("retiring asked for no second person"))? })
    }

    /// The backup, if the caller may retire it and it is not retired.
    pub(crate) fn backup_to_retire(&self, who: &Principal, id: BackupId) -> Result<Backup, FleetError> {
        authorize(who, Action::BackupRetire, Target::Fleet)?;
        let backup = self.store.backup(id)?.ok_or(FleetError::NotFound("backup"))?;
        if backup.state == BackupState::Retired {
            return Err(FleetError::conflict("backup", "it is retired", "`keyfleet backup list` shows the others"));
        }
        Ok(backup)
    }

    /// Finishes the retirements that were approved, and settles what the backups barred.
    pub(crate) async fn finish_backup_retirements(&self) -> Result<(), FleetError> {
        let open = self.store.open_backup_retirements()?;
        let any = !open.is_empty();
        for proposal in open {
            let ProposedAct::RetireBackup { backup, why } = &proposal.act else { continue };
            let backup = self.store.backup(*backup)?.ok_or(FleetError::NotFound("backup"))?;
            self.retire_backup(backup, proposal.id, why).await?;
        }
        if any { self.settle_destructions().await } else { Ok(()) }
    }

    async fn retire_backup(&self, backup: Backup, proposal: ProposalId, why: &str) -> Result<(), FleetError> {
        let now = self.now();
        let entry = self
            .evidence(Entry::done(&Self::server_principal(), "backup.retire", now))
            .about(backup.id)
            .about(proposal)
            .because(why);
        let directory = PathBuf::from(&backup.directory);
        // The copy on this host goes first, and the witness hears of it: the registry must not say that none is left while
        // there is one.
        if !directory.as_os_str().is_empty() {
            remove_dir_if_there(&directory)?;
        }
        self.fence.add(&[Line::BackupRetired { backup: backup.id, at: now }])?;
        let backup = Backup { state: BackupState::Retired, retired: Some(now), ..backup };
        self.store.keep_backup(backup, entry.build()).await?;
        Ok(())
    }

    /// Writes the root certificates that are handed out, and the log's verifier key where it is missing: a restored fleet has
    /// neither.
    pub(crate) fn write_public_files(&self) -> Result<(), FleetError> {
        let authorities = self.authorities();
        let anchors: String = authorities.anchors().iter().map(|known| known.record.certificate_pem.as_str()).collect();
        let path = self.dir.root_certificate();
        if !anchors.is_empty() && std::fs::read_to_string(&path).ok().as_ref() != Some(&anchors) {
            write_durably(&path, anchors.as_bytes())?;
        }
        self.write_verifier_key()
    }

    /// Writes the newest verifier key, where it is not there yet. Copies of older ones lead to it.
    pub(crate) fn write_verifier_key(&self) -> Result<(), FleetError> {
        let (path, text) = (self.dir.verifier_key(), format!("{}\n", self.log.verifier()));
        if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            return Ok(());
        }
        write_durably(&path, text.as_bytes())
    }
}

fn described(mut entry: Entry, backup: &Backup) -> Entry {
    if let Some(manifest) = &backup.manifest {
        entry = entry.with("log_size", manifest.log_size).with("recipient", &manifest.recipient);
        for file in &manifest.files {
            entry = entry.with(&file.name, format!("{} octets, sha256 {}", file.octets, file.sha256));
        }
    }
    entry
}

fn shortened(why: &str) -> String {
    why.chars().filter(|character| !character.is_control()).take(400).collect()
}

fn partial_of(backup: &Backup) -> PathBuf {
    let place = PathBuf::from(&backup.directory);
    place.with_file_name(format!(".partial-{}", backup.id))
}

fn remove_if_there(path: &Path) -> Result<(), FleetError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(local(path, &error)),
        _ => Ok(()),
    }
}

fn remove_dir_if_there(path: &Path) -> Result<(), FleetError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(local(path, &error)),
        _ => Ok(()),
    }
}

pub(crate) fn sync_dir(path: &Path) -> Result<(), FleetError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| local(path, &error))
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
