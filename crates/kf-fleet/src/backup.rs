//! Backups: made while the server works, sealed to a key of which the server has the public half alone, listed, retired. A full one
//! holds the registry; an increment holds the pages that changed since the backup before it.
//!
//! A backup is known before it is made, to the registry and to the witness: what is destroyed from then on is barred by it. It
//! appears under its name when it is whole, and is recorded then; a start after a crash finishes or removes what is between.

mod making;
mod pages;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use kf_access::{Action, Principal, Target, authorize};
use kf_age::Recipient;
use kf_api::backup::{Backup, BackupKey, BackupManifest, BackupOutcome, BackupState, NewBackup, NewBackupKey};
use kf_api::proposal::ProposedAct;
use kf_api::{Page, PageRequest};
use kf_key::{BackupId, ProposalId};

use crate::entry::Entry;
use crate::fence::Line;
use crate::log_publisher::{local, write_durably};
use crate::naming::check_why;
use crate::{Fleet, FleetError};

pub(crate) use making::{MAX_INCREMENTS, digest_of};

/// The names in the directory of a backup.
pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const SEAL: &str = "manifest.seal";
pub(crate) const REGISTRY: &str = "registry.sqlite.age";
/// What changed since the backup before, in the place of the registry.
pub(crate) const INCREMENT: &str = "registry.sqlite-wal.age";
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

    /// Makes a backup while everything goes on, sealed to the newest backup key: a full one, or the increment to the newest. Where there
    /// is none that it could build on, an increment is a full one, and says why.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] without a backup key, [`FleetError::Local`] for a directory that cannot be written.
    pub async fn backup_create(&self, who: &Principal, new: NewBackup) -> Result<Backup, FleetError> {
        let NewBackup { why, incremental } = new;
        check_why(&why)?;
        authorize(who, Action::BackupCreate, Target::Fleet)?;
        let key = self.store.backup_keys()?.into_iter().next().ok_or_else(|| {
            FleetError::conflict(
                "backup key",
                "there is none, so nothing could be sealed",
                "make one with `keyfleet backup key create`",
            )
        })?;
        // One at a time: the copy and what is known of its pages have one place.
        let _turn = self.backup_turn.lock().await;
        let (base, full_because) = match incremental.then(|| self.base_under(&key)).transpose()? {
            None => (None, None),
            Some(Ok(base)) => (Some(base), None),
            Some(Err(why)) => (None, Some(why)),
        };
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
            full_because,
        };
        let entry = |act: &str| Entry::done(who, act, now).about(id).because(&why).with("key_version", key.version);
        self.store.keep_backup(backup.clone(), self.evidence(entry("backup.begin")).build()).await?;
        self.fence.add(&[Line::Backup { backup: id, key_version: key.version, at: now }])?;
        match self.make_backup(&backup, &key, base).await {
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

    /// The copy that is sealed; it lies beside the registry, and is as well protected.
    fn copy_path(&self) -> PathBuf {
        self.dir.path().join("registry.backup-copy")
    }

    async fn give_up_backup(&self, backup: Backup, why: &str) -> Result<(), FleetError> {
        remove_if_there(&self.copy_path())?;
        for place in [partial_of(&backup), PathBuf::from(&backup.directory)] {
            remove_dir_if_there(&place)?;
        }
        remove_if_there(&self.new_pages_path())?;
        if Self::is_index_of(&self.pages_path(), backup.id)? {
            remove_if_there(&self.pages_path())?;
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
                    if Self::is_index_of(&self.new_pages_path(), backup.id)? {
                        self.adopt_pages()?;
                    }
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
        remove_if_there(&self.new_pages_path())?;
        self.finish_backup_retirements().await?;
        // A crash may have come between the last retirement and what it settles.
        self.settle_destructions().await
    }

    /// Proposes that a backup is retired, with the increments that build on it: that no copy of them is left, or that none can be
    /// opened any more.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] for one that is retired, [`FleetError::Denied`].
    pub async fn backup_retire(&self, who: &Principal, id: BackupId, why: String) -> Result<BackupOutcome, FleetError> {
        check_why(&why)?;
        if why.trim().is_empty() {
            return Err(FleetError::invalid("why", "is missing", "say what became of the copies, or of the key"));
        }
        let backup = self.backup_to_retire(who, id)?;
        let increments: Vec<BackupId> = match &backup.manifest {
            None => Vec::new(),
            Some(BackupManifest { base: None, .. }) => self.store.increments_after(id, 0)?,
            Some(BackupManifest { base: Some(base), .. }) => self.store.increments_after(base.full, base.number)?,
        }
        .into_iter()
        .map(|increment| increment.id)
        .collect();
        let control = self.dual_control().always(self.now());
        let act = ProposedAct::RetireBackup { backup: id, increments: increments.clone(), why };
        let waiting = self.propose(who, act, control, (0, 0), None).await?;
        let proposal = waiting.and_then(|waiting| waiting.proposal);
        let proposal = proposal.ok_or(FleetError::Bug("retiring asked for no second person"))?;
        Ok(BackupOutcome { proposal, increments })
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
            let ProposedAct::RetireBackup { backup, increments, why } = &proposal.act else { continue };
            // The backup itself last: while it is not retired, its proposal is open.
            for id in increments.iter().chain([backup]) {
                let backup = self.store.backup(*id)?.ok_or(FleetError::NotFound("backup"))?;
                if backup.state == BackupState::Openable {
                    self.retire_backup(backup, proposal.id, why).await?;
                }
            }
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
        if let Some(base) = &manifest.base {
            entry = entry.with("builds_on", base.backup).with("increment", base.number);
        }
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
