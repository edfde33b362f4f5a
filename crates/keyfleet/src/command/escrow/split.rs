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

use super::handing::{self, DRAFT, Draft};
use super::record::{Directory, RECORD};
use super::transcript::Transcript;
use super::under_way::{STATE, UnderWay};
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
    /// Give up a ceremony that was cut short, instead of going on with it: its shares are void
    #[arg(long)]
    void: bool,
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
    /// The ceremony whose custodians these take over from.
    #[serde(default)]
    replaces: Option<String>,
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
pub(super) struct Plan {
    name: String,
    class: Class,
    pub(super) quorum: Quorum,
    custodians: Vec<(String, Option<Recipient>)>,
    rehearse_days: u32,
    replaces: Option<String>,
    pub(super) reviewed_sha256: String,
}

impl Plan {
    /// Everybody, in the order of their shares.
    fn people(&self) -> impl Iterator<Item = handing::Custodian<'_>> {
        self.custodians.iter().map(|(person, recipient)| handing::Custodian {
            ceremony: &self.name,
            person,
            recipient: recipient.as_ref(),
        })
    }
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
    let is_id = |id: &String| id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    if read.replaces.as_ref().is_some_and(|id| !is_id(id)) {
        return Err(wrong("`replaces` is the id of a ceremony, 16 hexadecimal digits".to_owned()));
    }
    let (name, replaces) = (read.name, read.replaces);
    Ok(Plan { name, class, quorum, custodians, rehearse_days, replaces, reviewed_sha256 })
}

pub(super) fn run(context: &Context, split: &Split) -> Result<(), Failure> {
    let plan = plan(&split.ceremony)?;
    if split.dry_run {
        say("nothing was made; this would be the record:");
        return object(context.format, &record(&plan, fresh_id()?), &Names::new());
    }
    ceremony::harden()?;
    file::private_directory(&split.out)?;
    let mut transcript = Transcript::open(&split.out)?;
    if split.out.join(RECORD).exists() {
        return finish(context, split, &mut transcript);
    }
    let under_way = match UnderWay::read(&split.out) {
        Ok(Some(found)) if !split.void => Some(found),
        Ok(_) => None,
        Err(_unreadable) if split.void => None,
        Err(failure) => return Err(failure),
    };
    let (id, made) = match under_way {
        Some(under_way) => go_on(context, split, &plan, &under_way)?,
        None => {
            void_leftovers(&split.out, &mut transcript)?;
            begin(context, split, &plan)?
        }
    };
    let escrow = record(&plan, id);
    if !transcript.has(&escrow.ceremony, "begin", ("ceremony", &escrow.ceremony)) {
        transcript.add(
            "begin",
            &[("ceremony", &escrow.ceremony), ("class", &escrow.class), ("reviewed_sha256", &escrow.reviewed_sha256)],
        )?;
    }
    match &made {
        Made::Shares(shares) => {
            for (share, custodian) in shares.iter().zip(plan.people()) {
                handing::hand_out(&split.out, &mut transcript, share, &custodian)?;
            }
        }
        Made::Drafts(drafts) => {
            for (draft, custodian) in drafts.iter().zip(plan.people()) {
                handing::reveal(&split.out, &mut transcript, (&escrow.ceremony, draft), &custodian)?;
            }
        }
    }
    // Last: a directory without it holds no ceremony that anybody can use.
    let text = serde_json::to_vec_pretty(&escrow)
        .map_err(|error| Failure::local(format!("the record: {error}"), "please report this"))?;
    file::write_whole(&split.out.join(RECORD), &text)?;
    finish(context, split, &mut transcript)
}

fn fresh_id() -> Result<CeremonyId, Failure> {
    kf_crypto::random_array().map(CeremonyId).map_err(|error| {
        Failure::local(format!("no random octets: {error}"), "wait until the machine has gathered some")
    })
}

/// What is handed out.
enum Made {
    /// Shares of a key that lies somewhere, to be written.
    Shares(Vec<Share>),
    /// Shares of a key that is nowhere else, all written already.
    Drafts(Vec<Draft>),
}

/// A new ceremony. What is needed to go on with it is durable before a share gets its name.
fn begin(context: &Context, split: &Split, plan: &Plan) -> Result<(CeremonyId, Made), Failure> {
    let secret = secret(context, split, plan.class)?;
    let id = fresh_id()?;
    if !split.fresh {
        let coefficients = UnderWay::begin(&split.out, plan, id, &secret)?;
        let shares = shares_of(&secret, plan.quorum, id, &coefficients)?;
        verify(&shares, &secret, plan.quorum)?;
        return Ok((id, Made::Shares(shares)));
    }
    let shares = kf_escrow::split(&secret, plan.quorum, id, kf_crypto::fill_random)
        .map_err(|error| Failure::local(error.to_string(), "please report this"))?;
    verify(&shares, &secret, plan.quorum)?;
    let drafts = shares.iter().zip(plan.people());
    let drafts: Vec<Draft> =
        drafts.map(|(share, custodian)| handing::draft(&split.out, share, &custodian)).collect::<Result<_, _>>()?;
    file::sync_directory(&split.out)?;
    UnderWay::keep_drafts(&split.out, plan, id, drafts.clone())?;
    Ok((id, Made::Drafts(drafts)))
}

/// The very shares of a ceremony that was cut short: those that left already stay good.
fn go_on(context: &Context, split: &Split, plan: &Plan, under_way: &UnderWay) -> Result<(CeremonyId, Made), Failure> {
    let is_fresh = !under_way.drafts.is_empty();
    if split.fresh != is_fresh || under_way.reviewed_sha256 != plan.reviewed_sha256 {
        return Err(Failure::usage(
            format!("ceremony {} is under way here, and was reviewed as another file", under_way.ceremony),
            "give the file and the key that were being held (--fresh for a new root), or void the ceremony with --void",
        ));
    }
    let id = under_way.id().ok_or_else(|| Failure::local("the ceremony has no id", "void it with --void"))?;
    let made = if is_fresh {
        Made::Drafts(under_way.drafts.clone())
    } else {
        let secret = secret(context, split, plan.class)?;
        let coefficients = under_way.open(&secret)?;
        let shares = shares_of(&secret, plan.quorum, id, &coefficients)?;
        verify(&shares, &secret, plan.quorum)?;
        Made::Shares(shares)
    };
    say(&format!("ceremony {id} goes on where it was cut short"));
    Ok((id, made))
}

fn shares_of(
    secret: &SecretBytes,
    quorum: Quorum,
    id: CeremonyId,
    coefficients: &SecretBytes,
) -> Result<Vec<Share>, Failure> {
    let kept = |octets: &mut [u8]| {
        // Exposed to be the polynomials of this ceremony again.
        if octets.len() != coefficients.len() {
            return Err("the state is of another quorum");
        }
        octets.copy_from_slice(coefficients.expose());
        Ok(())
    };
    kf_escrow::split(secret, quorum, id, kept).map_err(|error| Failure::local(error.to_string(), "void it with --void"))
}

/// The ceremony is whole. What is left to be done is done, however often it is asked for.
fn finish(context: &Context, split: &Split, transcript: &mut Transcript) -> Result<(), Failure> {
    let escrow = Directory::open(&split.out)?.escrow;
    let state = split.out.join(STATE);
    let is_told = transcript.has(&escrow.ceremony, "end", ("ceremony", &escrow.ceremony));
    if is_told && !state.exists() {
        file::must_be_free(Some(&split.out.join(RECORD)))?;
    }
    if state.exists() {
        std::fs::remove_file(&state).map_err(|error| Failure::file("remove", &state, error))?;
        file::sync_directory(&split.out)?;
    }
    remove_drafts(&split.out)?;
    if !is_told {
        transcript.add("end", &[("ceremony", &escrow.ceremony)])?;
    }
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
        replaces: plan.replaces.clone(),
        replaced_by: None,
        rehearsed: None,
    }
}

/// Shares of a ceremony that was given up: nobody completes them. Each is named in the transcript before it is removed. Those that had no
/// name yet nobody has seen.
fn void_leftovers(out: &Path, transcript: &mut Transcript) -> Result<(), Failure> {
    remove_drafts(out)?;
    let mut removed = 0_u32;
    for entry in std::fs::read_dir(out).map_err(|error| Failure::file("read", out, error))? {
        let path = entry.map_err(|error| Failure::file("read", out, error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("share-") {
            transcript.add("void", &[("file", &name)])?;
            std::fs::remove_file(&path).map_err(|error| Failure::file("remove", &path, error))?;
            removed += 1;
        }
    }
    let state = out.join(STATE);
    if state.exists() {
        transcript.add("void", &[("file", STATE)])?;
        std::fs::remove_file(&state).map_err(|error| Failure::file("remove", &state, error))?;
    }
    if removed > 0 {
        say(&format!("{removed} shares of a ceremony that was cut short are void, and were removed"));
    }
    file::sync_directory(out)
}

/// Files that were being written when a process ended, under names that nobody reads.
fn remove_drafts(out: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(out).map_err(|error| Failure::file("read", out, error))? {
        let path = entry.map_err(|error| Failure::file("read", out, error))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(DRAFT)) {
            std::fs::remove_file(&path).map_err(|error| Failure::file("remove", &path, error))?;
        }
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
            let root = ceremony::take_root(&config)?;
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
