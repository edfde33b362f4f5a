//! `keyfleet escrow`: ceremonies by people, on a machine of theirs. The server never sees a share.

mod gather;
mod handing;
mod paper;
mod record;
mod split;
mod transcript;
mod under_way;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kf_age::{Identity, Recipient};
use kf_api::escrow::{Escrow, EscrowOutcome, EscrowRequest, ShareUse};
use kf_escrow::Class;
use kf_key::{ProposalId, SecretArray, SecretBytes};
use kf_signer::{BackendKind, Pkcs11Config, SignerConfig, ceremony};

use super::revoke::waiting;
use super::serve::unlock::Unlock;
use crate::api::Context;
use crate::failure::Failure;
use crate::file;
use crate::output::{Listing, Names, object, say};
use gather::{Shares, gather};
use record::Directory;

const COLUMNS: [&str; 6] = ["ceremony", "name", "class", "threshold", "made", "rehearsed"];

/// What can be done with escrows.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Split a key by a reviewed ceremony file, into shares for its custodians
    Split(split::Split),
    /// Make known to the server what a ceremony made; it then alarms when a rehearsal is overdue
    Register {
        /// The directory of the ceremony
        directory: PathBuf,
    },
    /// List the escrows that the server knows
    List,
    /// Check one share, as its custodian: it opens, and is of this ceremony
    Verify {
        /// The directory of the ceremony, with escrow.json
        directory: PathBuf,
        #[command(flatten)]
        shares: Shares,
    },
    /// Show that the escrow opens a backup of today, and keep nothing
    Rehearse(Rehearse),
    /// Bring the key back, once a second person has approved
    Release(Release),
}

/// A rehearsal.
#[derive(Debug, Args)]
pub(crate) struct Rehearse {
    /// The directory of the ceremony
    directory: PathBuf,
    #[command(flatten)]
    shares: Shares,
    /// A backup of today, which the key must open or recognise; of the directory in which backups lie, the newest
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Without a server: the transcript alone records it
    #[arg(long)]
    offline: bool,
}

/// A release.
#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The directory of the ceremony
    directory: PathBuf,
    #[command(flatten)]
    shares: Shares,
    /// Why; without shares this proposes the release
    #[arg(long)]
    why: String,
    /// The approved proposal
    #[arg(long, value_name = "PROPOSAL")]
    proposal: Option<ProposalId>,
    /// Without a server, because it is lost: two people are named instead, and the transcript alone records it
    #[arg(long, conflicts_with = "proposal")]
    offline: bool,
    /// Who approves an offline release; give two
    #[arg(long, value_name = "PERSON", requires = "offline")]
    approved_by: Vec<String>,
    /// A backup key is sealed to these recipients of age
    #[arg(long = "recipient", value_name = "RECIPIENT")]
    recipients: Vec<Recipient>,
    /// Where to write a backup key, sealed
    #[arg(long, value_name = "FILE", requires = "recipients")]
    out: Option<PathBuf>,
    /// PKCS#11 module of a token that the root is brought into, when no fleet is in --data yet
    #[arg(long, value_name = "PATH", requires_all = ["pkcs11_token", "fleet"])]
    pkcs11_module: Option<PathBuf>,
    /// Label of that token
    #[arg(long, value_name = "LABEL")]
    pkcs11_token: Option<String>,
    /// Name of the fleet, as `init` is to be given it
    #[arg(long)]
    fleet: Option<String>,
    #[command(flatten)]
    unlock: Unlock,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Split(split) => split::run(context, &split),
        Verb::Register { directory } => {
            let directory = Directory::open(&directory)?;
            let made: Escrow = context.api()?.post("/v1/escrows", &directory.escrow).await?;
            object(context.format, &made, &Names::new())
        }
        Verb::List => {
            let page: kf_api::Page<Escrow> = context.api()?.get("/v1/escrows").await?;
            let mut listing = Listing::new(context.format, &COLUMNS);
            listing.rows(&page.items, &Names::new())?;
            listing.end(None)
        }
        Verb::Verify { directory, shares } => {
            let directory = Directory::open(&directory)?;
            if let Some(approved) = directory.transcript.open_release() {
                say(&format!(
                    "open: a release ({approved}) was cut short; the same `keyfleet escrow release` goes on with it"
                ));
            }
            let given = shares.read()?;
            if given.is_empty() {
                let Escrow { ceremony, class, threshold, custodians, .. } = &directory.escrow;
                say(&format!(
                    "ceremony {ceremony}: {threshold} of {} shares bring the {class} back; none was given to be checked: --share FILE, and \
                     --identity FILE where it is sealed",
                    custodians.len()
                ));
            }
            for share in given {
                let custodian = directory.custodian(&share)?;
                say(&format!("share {} of ceremony {}, for {custodian}: it is whole", share.index(), share.ceremony()));
            }
            Ok(())
        }
        Verb::Rehearse(rehearse) => self::rehearse(context, rehearse).await,
        Verb::Release(release) => self::release(context, release).await,
    }
}

async fn rehearse(context: &Context, rehearse: Rehearse) -> Result<(), Failure> {
    let Rehearse { directory, shares, from, offline } = rehearse;
    ceremony::harden()?;
    let mut directory = Directory::open(&directory)?;
    let online = (!offline).then_some(context);
    let key = gather(online, &mut directory, &shares, ShareUse::Rehearsal, None).await?;
    let what = match directory.class()? {
        Class::Root => {
            let root = ceremony::root_of(&key)?;
            let signer = ceremony::rehearse(root)?;
            let manifest = kf_fleet::check_seal(&signer, &from).await?;
            signer.shutdown().await;
            format!("the root recognises backup {}", manifest.id)
        }
        Class::BackupKey => {
            let scratch = super::restore::scratch_directory()?;
            let manifest = kf_fleet::verify_backup(&from, &backup_keys(&key)?, scratch.path())?;
            format!("the key opens backup {}", manifest.id)
        }
    };
    directory.transcript.add("rehearsed", &[("proof", &what)])?;
    say(&format!("{what}; nothing was kept"));
    if !offline {
        let path = format!("/v1/escrows/{}/rehearsals", directory.escrow.ceremony);
        let known: Escrow = context.api()?.post(&path, &EscrowRequest { why: what }).await?;
        object(context.format, &known, &Names::new())?;
    }
    Ok(())
}

fn backup_keys(key: &SecretBytes) -> Result<kf_fleet::BackupKeys, Failure> {
    Ok(kf_fleet::BackupKeys::open(&[], &[identity(key)?.to_file()])?)
}

fn identity(key: &SecretBytes) -> Result<Identity, Failure> {
    Identity::from_octets(key).map_err(|error| {
        Failure::local(format!("the shares give no backup key: {error}"), "give the shares of this ceremony")
    })
}

async fn release(context: &Context, release: Release) -> Result<(), Failure> {
    let directory = Directory::open(&release.directory)?;
    if release.proposal.is_none() && !release.offline {
        let path = format!("/v1/escrows/{}/release", directory.escrow.ceremony);
        let outcome: EscrowOutcome = context.api()?.post(&path, &EscrowRequest { why: release.why }).await?;
        object(context.format, &outcome, &Names::new())?;
        say("afterwards: the same command with --proposal and the shares");
        return Err(waiting(&outcome.proposal));
    }
    bring_back(context, directory, release).await
}

/// The target is looked at before a share is used.
async fn bring_back(context: &Context, mut directory: Directory, release: Release) -> Result<(), Failure> {
    let Release { shares, why, proposal, offline, approved_by, recipients, out, .. } = &release;
    let approvers: std::collections::BTreeSet<String> = approved_by.iter().map(|name| name.to_lowercase()).collect();
    if *offline && approvers.len() < 2 {
        return Err(Failure::usage("an offline release is never one person's", "give --approved-by twice, two people"));
    }
    let class = directory.class()?;
    let target = match class {
        Class::Root => Some(signer_config(context, &release)?),
        Class::BackupKey => None,
    };
    if class == Class::BackupKey && (out.is_none() || recipients.is_empty()) {
        return Err(Failure::usage("where the backup key goes is not said", "give --out FILE and --recipient age1..."));
    }
    let by = if *offline { approved_by.join(", ") } else { proposal.map_or_else(String::new, |id| id.to_string()) };
    // The same approval again: it was cut short, and goes on.
    let goes_on = directory.transcript.open_release() == Some(by.as_str());
    if let (Some(config), false) = (&target, goes_on) {
        must_take_a_root(config)?;
    }
    let is_written = goes_on && out.as_deref().is_some_and(|out| is_sealed_already(&directory, out));
    if !is_written {
        file::must_be_free(out.as_deref())?;
    }
    ceremony::harden()?;
    directory.transcript.add(if goes_on { "resumed" } else { "release" }, &[("why", why), ("approved", &by)])?;
    if is_written {
        return directory.transcript.add("released", &[]);
    }
    let online = (!offline).then_some(context);
    let key = gather(online, &mut directory, shares, ShareUse::Release, *proposal).await?;
    match (target, out) {
        (Some(config), _) => {
            let root = ceremony::root_of(&key)?;
            if goes_on && is_back_already(&config, &root)? {
                say("the root was back already");
            } else {
                ceremony::bring_root(&config, &root)?;
                say("the root is back");
            }
        }
        (None, Some(out)) => {
            let mut sealed = Vec::new();
            // Exposed to be sealed to whom the command line names.
            kf_age::seal(recipients, identity(&key)?.to_file().expose(), &mut sealed)
                .map_err(|error| Failure::local(format!("the key was not sealed: {error}"), "please report this"))?;
            // Announced with its digest, so that whoever goes on after a crash knows whether it is the one.
            directory.transcript.add("sealed", &[("sha256", &hex::encode(kf_crypto::sha256(&sealed)))])?;
            file::write_whole(out, &sealed)?;
            say(&format!("the backup key is back, sealed, in {}", out.display()));
        }
        (None, None) => {}
    }
    directory.transcript.add("released", &[])
}

/// Whether the file is what this very release has sealed.
fn is_sealed_already(directory: &Directory, out: &std::path::Path) -> bool {
    let written = file::read(out).ok().map(|octets| hex::encode(kf_crypto::sha256(&octets)));
    written.is_some() && directory.transcript.of_release("sealed", "sha256") == written.as_deref()
}

/// Refuses a sealed file that is there already, before a share is used. A token does not say that it holds a root.
fn must_take_a_root(config: &SignerConfig) -> Result<(), Failure> {
    let path = &config.sealed_file.path;
    if config.backend != BackendKind::SealedFile || path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Failure::InTheWay {
        problem: format!("signer.sealed_file.path: {} exists", path.display()),
        remedy:
            "nothing is overwritten, and no share was used: move the file away, or name another directory with --data"
                .to_owned(),
    })
}

/// Whether this root is where it is to go. A token does not say which root it holds; it then refuses a second one by itself.
fn is_back_already(config: &SignerConfig, root: &SecretArray<32>) -> Result<bool, Failure> {
    if config.backend != BackendKind::SealedFile || !config.sealed_file.path.exists() {
        return Ok(false);
    }
    let there = ceremony::take_root(config)?;
    if there.equals(root) {
        return Ok(true);
    }
    Err(Failure::local(
        format!("{} holds another root", config.sealed_file.path.display()),
        "nothing was overwritten; move it away and run the same command again",
    ))
}

/// Where the root goes: as the configuration in --data says, or into the token that is named.
fn signer_config(context: &Context, release: &Release) -> Result<SignerConfig, Failure> {
    let mut config = match (&release.pkcs11_module, &release.pkcs11_token, &release.fleet) {
        (Some(module), Some(token), Some(fleet)) => SignerConfig {
            backend: BackendKind::Pkcs11,
            pkcs11: Some(Pkcs11Config {
                module: std::fs::canonicalize(module).map_err(|error| Failure::file("read", module, error))?,
                token: token.clone(),
                root_label: format!("keyfleet root {fleet}"),
            }),
            ..SignerConfig::default()
        },
        _ => {
            let dir = context.data_dir()?;
            dir.load_config()?.signer.below(dir.path())
        }
    };
    release.unlock.apply_to(&mut config)?;
    Ok(config)
}
