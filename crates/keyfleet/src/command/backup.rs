//! `keyfleet backup`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kf_age::{Identity, Recipient};
use kf_api::PageRequest;
use kf_api::backup::{Backup, BackupKey, BackupOutcome, BackupRequest, NewBackup, NewBackupKey, Restored};
use kf_key::BackupId;

use super::restore::{Keys, scratch_directory};
use super::revoke::waiting;
use crate::api::{Context, Paging, list};
use crate::ask;
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, Listing, Names, object, say};

const COLUMNS: [&str; 7] =
    ["id", "state", "key_version", "created", "manifest.as_of", "manifest.base.backup", "directory"];
const VERIFIED_COLUMNS: [&str; 6] = ["id", "number", "as_of", "log_size", "problem", "directory"];
const KEY_COLUMNS: [&str; 4] = ["version", "recipient", "created", "sealed_to"];

/// What can be done with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Keys that backups are sealed to; the server knows their public halves alone
    #[command(subcommand)]
    Key(KeyVerb),
    /// Make a backup while the server works
    Create {
        /// Only what changed since the newest backup; a full one where there is none to build on
        #[arg(long)]
        incremental: bool,
        /// Why, for the log; at most 500 characters
        #[arg(long, default_value = "")]
        why: String,
    },
    /// List backups, newest first
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a backup and its manifest
    Show {
        /// Identifier, `bkp_...`
        id: BackupId,
    },
    /// Open a copy of a backup, or of many, and check all of it, without a server
    Verify {
        /// The directory of a backup, or the one in which they lie
        directory: PathBuf,
        #[command(flatten)]
        keys: Keys,
    },
    /// Propose to retire a backup and the increments on it: no copy is left, or none can be opened any more
    Retire {
        /// Identifier, `bkp_...`
        id: BackupId,
        /// What became of the copies or of the key, for the log; at most 500 characters
        #[arg(long)]
        why: String,
        /// Do not ask: the copy on the server is removed
        #[arg(long)]
        yes: bool,
    },
    /// Show what a restored registry has lost
    Restored,
    /// Propose to take a restored registry into service
    Accept {
        /// Why, for the log; at most 500 characters
        #[arg(long)]
        why: String,
    },
}

/// What can be done with backup keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Make a key here, seal its private half to people, and make its public half known to the server
    Create(CreateKey),
    /// List the versions, newest first
    List,
}

/// A key to be made.
#[derive(Debug, Args)]
pub(crate) struct CreateKey {
    /// Somebody who can open it: a recipient of age, `age1...`; give several
    #[arg(long = "recipient", required = true, value_name = "RECIPIENT")]
    recipients: Vec<Recipient>,
    /// Where to write the sealed private half; keep it apart from the backups
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Key(KeyVerb::Create(create)) => create_key(context, create).await,
        Verb::Key(KeyVerb::List) => {
            let page: kf_api::Page<BackupKey> = context.api()?.get("/v1/backup-keys").await?;
            let mut listing = Listing::new(context.format, &KEY_COLUMNS);
            listing.rows(&page.items, &Names::new())?;
            listing.end(None)
        }
        Verb::Create { incremental, why } => {
            // A large registry takes its time, and is copied while everything goes on.
            let mut api = context.api_within(std::time::Duration::from_secs(3_600))?;
            let made: Backup = api.post("/v1/backups", &NewBackup { why, incremental }).await?;
            object(context.format, &made, &Names::new())?;
            if let Some(why) = &made.full_because {
                say(&format!("note: it is a full one: {why}"));
            }
            Ok(())
        }
        Verb::List { paging } => {
            let page = PageRequest::default();
            list::<Backup>(context, &mut context.api()?, "/v1/backups", page, &paging, &COLUMNS).await
        }
        Verb::Show { id } => {
            let found: Backup = context.api()?.get(&format!("/v1/backups/{id}")).await?;
            object(context.format, &found, &Names::new())
        }
        Verb::Verify { directory, keys } => verify(context, &directory, &keys),
        Verb::Retire { id, why, yes } => {
            ask::consent(
                yes,
                &format!(
                    "this proposes to remove {id} and every increment on it, and to say that no copy of them can be opened"
                ),
            )?;
            propose(context, &format!("/v1/backups/{id}/retire"), why).await
        }
        Verb::Restored => match context.api()?.get::<Option<Restored>>("/v1/restored").await? {
            Some(restored) => object(context.format, &restored, &Names::new()),
            None if context.format == Format::Table => {
                say("the registry was not restored from before, or was accepted");
                Ok(())
            }
            None => object(context.format, &serde_json::Value::Null, &Names::new()),
        },
        Verb::Accept { why } => propose(context, "/v1/restored/accept", why).await,
    }
}

async fn propose(context: &Context, path: &str, why: String) -> Result<(), Failure> {
    let outcome: BackupOutcome = context.api()?.post(path, &BackupRequest { why }).await?;
    object(context.format, &outcome, &Names::new())?;
    Err(waiting(&outcome.proposal))
}

/// One backup, or all that lie in a directory.
fn verify(context: &Context, directory: &Path, keys: &Keys) -> Result<(), Failure> {
    let (scratch, keys) = (scratch_directory()?, keys.open()?);
    if directory.join("manifest.json").exists() {
        let manifest = kf_fleet::verify_backup(directory, &keys, scratch.path())?;
        object(context.format, &manifest, &Names::new())?;
    } else {
        let rows = kf_fleet::verify_backups(directory, &keys, scratch.path())?;
        let mut listing = Listing::new(context.format, &VERIFIED_COLUMNS);
        listing.rows(&rows, &Names::new())?;
        listing.end(None)?;
        let bad = rows.iter().filter(|row| row.problem.is_some()).count();
        if bad > 0 {
            return Err(Failure::local(
                format!("{bad} of {} backups cannot be restored", rows.len()),
                "replace them by good copies, or make a full backup now",
            ));
        }
    }
    say(
        "it opens, and holds what its manifest says; that it is of your fleet is checked by the root when it is restored",
    );
    Ok(())
}

/// The private half is made here and leaves sealed; the file is written before the server hears of the key, so that no backup
/// is ever sealed to a key that nobody has.
async fn create_key(context: &Context, create: CreateKey) -> Result<(), Failure> {
    let CreateKey { recipients, out } = create;
    file::must_be_free(Some(&out))?;
    let identity = Identity::generate();
    let mut sealed = Vec::new();
    // Exposed to be sealed to the people named.
    kf_age::seal(&recipients, identity.to_file().expose(), &mut sealed)
        .map_err(|error| Failure::local(format!("the key was not sealed: {error}"), "please report this"))?;
    file::write_private(&out, &sealed)?;
    let new = NewBackupKey {
        recipient: identity.recipient().to_string(),
        sealed_to: recipients.iter().map(ToString::to_string).collect(),
    };
    let made: BackupKey = context.api()?.post("/v1/backup-keys", &new).await?;
    object(context.format, &made, &Names::new())?;
    say(&format!(
        "{} opens every backup that is made from now on: keep copies of it apart from the backups, and none on the server",
        out.display()
    ));
    Ok(())
}
