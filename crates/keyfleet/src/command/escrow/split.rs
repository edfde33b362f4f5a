//! `keyfleet escrow split`.

use std::path::{Path, PathBuf};

use clap::Args;
use kf_age::{Identity, Recipient};
use kf_api::escrow::{Custodian, Escrow};
use kf_escrow::{CeremonyId, Class, Quorum, Share, check_custodians, combine};
use kf_fleet::{Clock as _, SystemClock};
use kf_key::SecretBytes;
use kf_signer::ceremony;
use serde::Deserialize;

use super::paper;
use super::record::RECORD;
use super::transcript::Transcript;
use crate::api::Context;
use crate::command::serve::unlock::Unlock;
use crate::failure::Failure;
use crate::file;
use crate::output::{Names, object, say};

/// The most octets of an opened backup key.
const MAX_KEY_OCTETS: usize = 4_096;
/// Days after which a rehearsal is overdue, unless the file says otherwise.
const REHEARSE_DAYS: u32 = 90;

/// A key is split.
#[derive(Debug, Args)]
pub(crate) struct Split {
    /// The ceremony, a reviewed TOML file
    ceremony: PathBuf,
    /// The directory that the shares and the record go into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Make a new root for a fleet that is not founded yet; `escrow release` brings it into its token
    #[arg(long)]
    fresh: bool,
    /// The sealed backup key, for the class backup-key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The identity file that opens it, mode 0600
    #[arg(long, value_name = "FILE", requires = "key")]
    identity: Option<PathBuf>,
    /// Only say what the ceremony would make
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    unlock: Unlock,
}

/// The reviewed file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CeremonyFile {
    version: u8,
    name: String,
    class: String,
    threshold: u8,
    #[serde(default)]
    rehearse_days: Option<u32>,
    /// Who reviewed it, and why it is held; for people.
    review: String,
    custodian: Vec<CustodianEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CustodianEntry {
    person: String,
    /// A recipient of age; without it the share is printed.
    #[serde(default)]
    recipient: Option<String>,
}

/// A ceremony that may be held.
struct Plan {
    name: String,
    class: Class,
    quorum: Quorum,
    custodians: Vec<(String, Option<Recipient>)>,
    rehearse_days: u32,
    reviewed_sha256: String,
}

fn plan(path: &Path) -> Result<Plan, Failure> {
    let wrong = |problem: String| {
        Failure::usage(format!("{}: {problem}", path.display()), "correct the file and have it reviewed")
    };
    let text = file::read_text(path)?;
    let read: CeremonyFile = toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
    if read.version != 1 {
        return Err(wrong(format!("version {} is not known, 1 is", read.version)));
    }
    if read.name.is_empty() || read.name.chars().count() > 64 || read.review.trim().is_empty() {
        return Err(wrong("`name` (1 to 64 characters) and `review` (who reviewed it) are needed".to_owned()));
    }
    let class = Class::parse(&read.class).map_err(|error| wrong(error.to_string()))?;
    let people = read.custodian.iter().map(|entry| (entry.person.as_str(), entry.recipient.as_deref()));
    let quorum = check_custodians(read.threshold, people).map_err(|error| wrong(error.to_string()))?;
    let mut custodians = Vec::new();
    for CustodianEntry { person, recipient } in read.custodian {
        let recipient = match recipient {
            Some(text) => {
                Some(text.parse::<Recipient>().map_err(|error| wrong(format!("custodian `{person}`: {error}")))?)
            }
            None => None,
        };
        custodians.push((person, recipient));
    }
    let rehearse_days = read.rehearse_days.unwrap_or(REHEARSE_DAYS);
    if !(1..=3_650).contains(&rehearse_days) {
        return Err(wrong("`rehearse_days` is 1 to 3650".to_owned()));
    }
    let reviewed_sha256 = hex::encode(kf_crypto::sha256(text.as_bytes()));
    Ok(Plan { name: read.name, class, quorum, custodians, rehearse_days, reviewed_sha256 })
}

pub(super) fn run(context: &Context, split: &Split) -> Result<(), Failure> {
    let plan = plan(&split.ceremony)?;
    let id = CeremonyId(kf_crypto::random_array().map_err(|error| {
        Failure::local(format!("no random octets: {error}"), "wait until the machine has gathered some")
    })?);
    let escrow = record(&plan, id);
    if split.dry_run {
        say("nothing was made; this would be the record:");
        return object(context.format, &escrow, &Names::new());
    }
    ceremony::harden().map_err(kf_fleet::FleetError::from)?;
    file::private_directory(&split.out)?;
    file::must_be_free(Some(&split.out.join(RECORD)))?;
    let mut transcript = Transcript::open(&split.out)?;
    void_leftovers(&split.out, &mut transcript)?;
    let secret = secret(context, split, plan.class)?;
    transcript.add(
        "begin",
        &[("ceremony", &escrow.ceremony), ("class", &escrow.class), ("reviewed_sha256", &escrow.reviewed_sha256)],
    )?;
    let shares = kf_escrow::split(&secret, plan.quorum, id, kf_crypto::fill_random)
        .map_err(|error| Failure::local(error.to_string(), "please report this"))?;
    verify(&shares, &secret, plan.quorum)?;
    for (share, (person, recipient)) in shares.iter().zip(&plan.custodians) {
        hand_out(split, &mut transcript, share, (&plan.name, person, recipient.as_ref()))?;
    }
    // Last: a directory without it holds no ceremony, and its shares are void.
    let text = serde_json::to_vec_pretty(&escrow)
        .map_err(|error| Failure::local(format!("the record: {error}"), "please report this"))?;
    file::write_new(&split.out.join(RECORD), &text)?;
    transcript.add("end", &[("ceremony", &escrow.ceremony)])?;
    object(context.format, &escrow, &Names::new())?;
    say(
        "next: hand each share to its custodian, who checks it with `keyfleet escrow verify`; `keyfleet escrow register` makes \
         the ceremony known to the server; then remove the shares from here",
    );
    Ok(())
}

fn record(plan: &Plan, id: CeremonyId) -> Escrow {
    let custodian = |((person, recipient), index): (&(String, Option<Recipient>), u8)| Custodian {
        index,
        person: person.clone(),
        recipient: recipient.as_ref().map(ToString::to_string),
    };
    Escrow {
        v: 1,
        ceremony: id.to_string(),
        name: plan.name.clone(),
        class: plan.class.name().to_owned(),
        threshold: plan.quorum.threshold(),
        custodians: plan.custodians.iter().zip(1..).map(custodian).collect(),
        made: SystemClock.now(),
        rehearse_days: plan.rehearse_days,
        reviewed_sha256: plan.reviewed_sha256.clone(),
        rehearsed: None,
    }
}

/// Shares of a ceremony that was cut short: the polynomials are gone with the process, so they can be completed by nobody.
fn void_leftovers(out: &Path, transcript: &mut Transcript) -> Result<(), Failure> {
    let mut removed = 0_u32;
    for entry in std::fs::read_dir(out).map_err(|error| Failure::file("read", out, error))? {
        let path = entry.map_err(|error| Failure::file("read", out, error))?.path();
        let is_share = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("share-"));
        if is_share {
            std::fs::remove_file(&path).map_err(|error| Failure::file("remove", &path, error))?;
            removed += 1;
        }
    }
    if removed > 0 {
        transcript.add("void", &[("shares", &removed.to_string())])?;
        say(&format!("{removed} shares of a ceremony that was cut short are void, and were removed"));
    }
    Ok(())
}

/// What is split.
fn secret(context: &Context, split: &Split, class: Class) -> Result<SecretBytes, Failure> {
    let copied = |octets: &[u8]| SecretBytes::fill(octets.len(), |place| place.copy_from_slice(octets));
    match (class, &split.key, &split.identity) {
        (Class::Root, ..) if split.fresh => kf_crypto::random_secret::<32>()
            .map(|root| copied(root.expose())) // into the shares
            .map_err(|error| Failure::local(format!("no random octets: {error}"), "try again")),
        (Class::Root, ..) => {
            let dir = context.data_dir()?;
            let mut config = dir.load_config()?.signer.below(dir.path());
            split.unlock.apply_to(&mut config)?;
            let root = ceremony::take_root(&config).map_err(kf_fleet::FleetError::from)?;
            Ok(copied(root.expose())) // into the shares
        }
        (Class::BackupKey, Some(key), Some(identity)) => {
            let wrong = |error: String| Failure::usage(error, "give --key and --identity as for `keyfleet restore`");
            let person = Identity::from_file(file::read_secret(identity)?.expose()) // parsed
                .map_err(|error| wrong(error.to_string()))?;
            let opened = kf_age::open_secret(&[&person], &file::read(key)?, MAX_KEY_OCTETS)
                .map_err(|error| wrong(error.to_string()))?;
            let key = Identity::from_file(opened.expose()).map_err(|error| wrong(error.to_string()))?; // parsed
            let octets = key.octets().map_err(|error| wrong(error.to_string()))?;
            Ok(copied(octets.expose())) // into the shares
        }
        (Class::BackupKey, ..) => {
            Err(Failure::usage("the backup key is not given", "give --key FILE and --identity FILE"))
        }
    }
}

/// Each share is in a quorum that brings the key back, before any is handed out.
fn verify(shares: &[Share], secret: &SecretBytes, quorum: Quorum) -> Result<(), Failure> {
    for first in 0..shares.len() {
        let chosen = shares.iter().cycle().skip(first).take(quorum.threshold().into());
        let copies: Result<Vec<Share>, _> = chosen.map(|share| Share::decode(share.encode().expose())).collect();
        let is_back = copies.is_ok_and(|copies| combine(&copies).is_ok_and(|key| key.equals(secret.expose())));
        if !is_back {
            return Err(Failure::local(
                "the shares do not bring the key back",
                "please report this; none was handed out",
            ));
        }
    }
    Ok(())
}

/// Writes one share for its custodian: sealed, or to be printed.
fn hand_out(
    split: &Split,
    transcript: &mut Transcript,
    share: &Share,
    (ceremony, person, recipient): (&str, &str, Option<&Recipient>),
) -> Result<(), Failure> {
    let paper = paper::print(share, ceremony, person)?;
    let (name, octets) = match recipient {
        Some(recipient) => {
            let mut sealed = Vec::new();
            // Exposed to be sealed to the custodian.
            kf_age::seal(std::slice::from_ref(recipient), paper.expose(), &mut sealed)
                .map_err(|error| Failure::local(format!("a share was not sealed: {error}"), "please report this"))?;
            (format!("share-{:02}-{person}.age", share.index()), sealed)
        }
        None => (format!("share-{:02}-{person}.txt", share.index()), Vec::new()),
    };
    let path = split.out.join(&name);
    if recipient.is_some() {
        file::write_private(&path, &octets)?;
    } else {
        // Exposed to the file that is printed, mode 0600.
        file::write_private(&path, paper.expose())?;
    }
    let kind = if recipient.is_some() { "sealed" } else { "paper" };
    transcript.add("share", &[("share", &share.index().to_string()), ("custodian", person), ("kind", kind)])
}
