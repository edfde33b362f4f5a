//! `keyfleet restore`: works without a server.

use std::path::PathBuf;

use clap::Args;
use kf_fleet::{BackupKeys, Clock as _, RestoreOptions, RestorePoint, SystemClock};

use crate::api::Context;
use crate::failure::Failure;
use crate::file;
use crate::moment;
use crate::output::{Names, object, say};

/// What opens a backup.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// The sealed backup key, as `backup key create` wrote it; without it, the identities are backup keys themselves
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// An identity file of age, mode 0600
    #[arg(long = "identity", required = true, value_name = "FILE")]
    identities: Vec<PathBuf>,
}

impl Keys {
    /// Opens the backup keys.
    pub(crate) fn open(&self) -> Result<BackupKeys, Failure> {
        let keys: Vec<_> = self.keys.iter().map(|path| file::read(path)).collect::<Result<_, _>>()?;
        let identities: Vec<_> =
            self.identities.iter().map(|path| file::read_secret(path)).collect::<Result<_, _>>()?;
        Ok(BackupKeys::open(&keys, &identities)?)
    }
}

/// How to restore.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The directory of a backup, `bkp_...`, or the one in which backups lie: then the newest of them
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The newest of them with nothing in it that happened later: a date, a moment, or a distance back from now (12h)
    #[arg(long, value_name = "WHEN", conflicts_with = "at_entry")]
    at: Option<String>,
    /// The newest of them with at most so many entries of the log
    #[arg(long, value_name = "ENTRIES")]
    at_entry: Option<u64>,
    #[command(flatten)]
    keys: Keys,
    /// The witness, where it is not where the configuration in the backup says
    #[arg(long, value_name = "DIR")]
    witness_dir: Option<PathBuf>,
    /// Take a backup that is older than what the witness has seen: what was revoked or destroyed since stays so, the rest is lost
    #[arg(long)]
    accept_loss: bool,
    /// Open and check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Restore {
    fn point(&self) -> Result<Option<RestorePoint>, Failure> {
        let Some(text) = &self.at else { return Ok(self.at_entry.map(RestorePoint::Entry)) };
        let moment = moment::parse_past(text, SystemClock.now())
            .map_err(|expected| Failure::usage(format!("--at: {expected}"), "see `keyfleet restore --help`"))?;
        Ok(Some(RestorePoint::Time(moment)))
    }
}

pub(crate) fn run(context: &Context, restore: &Restore) -> Result<(), Failure> {
    let dir = context.data_dir()?;
    let options = RestoreOptions {
        from: restore.from.clone(),
        at: restore.point()?,
        keys: restore.keys.open()?,
        witness: restore.witness_dir.clone(),
        accept_loss: restore.accept_loss,
        dry_run: restore.dry_run,
    };
    if !restore.dry_run {
        file::private_directory(dir.path())?;
    }
    let done = kf_fleet::restore(&dir, &options)?;
    object(context.format, &done, &Names::new())?;
    for note in &done.notes {
        say(&format!("note: {note}"));
    }
    if done.done {
        say(&format!("next: keyfleet serve --data {}", dir.path().display()));
    }
    Ok(())
}

/// A directory for what must be opened to be checked; only this user may enter it.
pub(crate) fn scratch_directory() -> Result<tempfile::TempDir, Failure> {
    tempfile::tempdir().map_err(|error| {
        Failure::local(format!("no scratch directory: {error}"), "make room in the temporary directory")
    })
}
