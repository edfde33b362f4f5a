//! `keyfleet audit verify`: the complete check of `kf_log::verify_log`, over a directory or over what the server serves.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use kf_log::succession::SUCCESSION;
use kf_log::{Checkpoint, NoteError, Report, TilePath, TileSource, VerifierKey, trusted_keys, verify_log};
use serde::Serialize;

use crate::api::{Api, Context};
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, Names, object, printable, say};

/// The most octets of one file of the log: a bundle of 256 entries of 16 KiB (`kf_log::entry::MAX_ENTRY_OCTETS`), each
/// with its length.
const MAX_FILE_OCTETS: u64 = 256 * (16 * 1024 + 2);
/// Files fetched from a server that are kept: the check reads a hash tile twice, its parents often.
const MAX_KEPT_FILES: usize = 64;

/// What to check against what.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The published log (checkpoint and tiles) [default: `log` in the data directory]
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    log: Option<PathBuf>,
    /// Fetch the log from the server of the profile instead
    #[arg(long)]
    server: bool,
    /// The log's public key, `name+hash+key`, or a file that holds it; keep your own copy
    #[arg(long, value_name = "KEY|FILE")]
    verifier_key: Option<String>,
    /// Check against this signed checkpoint instead of the one beside the tiles
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// A signed checkpoint kept from before, which this log must continue; repeat for several
    #[arg(long, value_name = "FILE")]
    previous: Vec<PathBuf>,
    /// When everything holds, keep the newest signed checkpoint here for the next `--previous`, replacing an older one
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Verdict {
    holds: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    entries: u64,
    tiles: u64,
    consistent_with: usize,
    findings: Vec<String>,
}

pub(crate) async fn run(context: &Context, wanted: Verify) -> Result<(), Failure> {
    let key = verifier_key(context, &wanted).await?;
    let previous = wanted.previous.clone();
    let override_checkpoint = wanted.checkpoint.as_deref().map(file::read).transpose()?;
    let place = if wanted.server {
        Place::Server { api: RefCell::new(context.api()?), runtime: tokio::runtime::Handle::current() }
    } else {
        Place::Directory(match &wanted.log {
            Some(log) => log.clone(),
            None => context.data_dir()?.log_dir(),
        })
    };
    // The check is pure and blocking; the event loop stays free for the fetches that it waits for.
    let checked = tokio::task::spawn_blocking(move || {
        let source = Source { place, override_checkpoint, kept: RefCell::default() };
        // A checkpoint that was kept may be signed by any key from the given one on.
        let keys = trusted_keys(&source, &key)?;
        let older = previous.iter().map(|path| older_checkpoint(path, &keys)).collect::<Result<Vec<_>, _>>()?;
        let report = verify_log(&source, &key, &older)?;
        Ok::<_, Failure>((report, source.read("checkpoint")?))
    });
    let (report, note) =
        checked.await.map_err(|error| Failure::local(format!("the check stopped: {error}"), "report this"))??;
    conclude(context, &wanted, &report, note)
}

/// Copies the log of the server of the profile into a directory while it checks it, by the key that the server names; the
/// digests of the files by their names.
///
/// # Errors
/// [`Failure`] of the fetches and of the directory. What is wrong with the log is in the report.
pub(crate) async fn copy_log(
    context: &Context,
    directory: &Path,
) -> Result<(Report, BTreeMap<String, String>), Failure> {
    let wanted =
        Verify { log: None, server: true, verifier_key: None, checkpoint: None, previous: Vec::new(), keep: None };
    let key = verifier_key(context, &wanted).await?;
    let place = Place::Server { api: RefCell::new(context.api()?), runtime: tokio::runtime::Handle::current() };
    let directory = directory.to_owned();
    let copied = tokio::task::spawn_blocking(move || {
        let source = Source { place, override_checkpoint: None, kept: RefCell::default() };
        let copying = Copying { source, directory, sums: RefCell::default() };
        let report = verify_log(&copying, &key, &[])?;
        Ok::<_, Failure>((report, copying.sums.into_inner()))
    });
    copied.await.map_err(|error| Failure::local(format!("the check stopped: {error}"), "report this"))?
}

/// A source whose files are kept as they are read.
struct Copying {
    source: Source,
    directory: PathBuf,
    sums: RefCell<BTreeMap<String, String>>,
}

impl TileSource for Copying {
    type Error = Failure;

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let found = self.source.read(path)?;
        let mut sums = self.sums.borrow_mut();
        if let (Some(octets), false) = (&found, sums.contains_key(path)) {
            let target = self.directory.join(path);
            file::private_directory(target.parent().unwrap_or(&self.directory))?;
            file::write_private(&target, octets)?;
            sums.insert(path.to_owned(), hex::encode(kf_crypto::sha256(octets)));
        }
        Ok(found)
    }
}

fn conclude(context: &Context, wanted: &Verify, report: &Report, note: Option<Vec<u8>>) -> Result<(), Failure> {
    let verdict = verdict(report);
    if context.format == Format::Table {
        for finding in &verdict.findings {
            say(&format!("fault: {}", printable(finding)));
        }
        if let (Some(origin), Some(size), Some(root)) = (&verdict.origin, verdict.size, &verdict.root) {
            let facts = serde_json::json!({ "origin": origin, "size": size, "root": root, "entries": verdict.entries,
                "tiles": verdict.tiles, "consistent_with": verdict.consistent_with, "holds": verdict.holds });
            object(context.format, &facts, &Names::new())?;
        }
    } else {
        object(context.format, &verdict, &Names::new())?;
    }
    if !report.holds() {
        let first = verdict.findings.first().map_or("no finding", String::as_str);
        return Err(Failure::LogFault { problem: printable(first) });
    }
    if let (Some(path), Some(note)) = (&wanted.keep, note) {
        replace(path, &note)?;
        say(&format!("checkpoint kept in {}; give it as --previous next time", path.display()));
    }
    Ok(())
}

fn verdict(report: &Report) -> Verdict {
    let findings = report.findings.iter().map(|finding| match finding.source() {
        Some(cause) => format!("{finding}: {cause}"),
        None => finding.to_string(),
    });
    let checkpoint = report.checkpoint.as_ref();
    Verdict {
        holds: report.holds(),
        origin: checkpoint.map(|checkpoint| checkpoint.origin.clone()),
        size: checkpoint.map(|checkpoint| checkpoint.size),
        root: checkpoint.map(|checkpoint| hex::encode(checkpoint.root)),
        entries: report.entries,
        tiles: report.tiles,
        consistent_with: report.consistent,
        findings: findings.collect(),
    }
}

/// The key given, else the one in the data directory, else the server's: only the first needs no trust in the host.
async fn verifier_key(context: &Context, wanted: &Verify) -> Result<VerifierKey, Failure> {
    let text = match (&wanted.verifier_key, wanted.server) {
        (Some(given), _) if given.contains('+') => given.clone(),
        (Some(path), _) => file::read_text(Path::new(path))?,
        (None, false) => file::read_text(&context.data_dir()?.verifier_key())?,
        (None, true) => {
            say("the key is the server's own word: give --verifier-key with the copy that init printed");
            let key = context.api()?.get_raw("/v1/audit/verifier-key").await?;
            String::from_utf8(key).unwrap_or_default()
        }
    };
    VerifierKey::from_text(text.trim()).map_err(|error| {
        Failure::usage(
            error.to_string(),
            "give --verifier-key with what `keyfleet init` printed, or a file that holds it",
        )
    })
}

fn older_checkpoint(path: &Path, keys: &[VerifierKey]) -> Result<Checkpoint, Failure> {
    let note = file::read_text(path)?;
    let mut outcome = Err(NoteError::Unsigned);
    for key in keys {
        outcome = Checkpoint::open(&note, key);
        if outcome != Err(NoteError::Unsigned) {
            break;
        }
    }
    outcome.map_err(|error| Failure::LogFault {
        problem: format!("{} is no checkpoint signed by this key: {error}", path.display()),
    })
}

/// Replaces a file by a complete one or not at all.
fn replace(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    let refused = |error| Failure::file("write", path, error);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut fresh = tempfile::NamedTempFile::new_in(directory).map_err(refused)?;
    io::Write::write_all(&mut fresh, contents).map_err(refused)?;
    fresh.as_file().sync_all().map_err(refused)?;
    fresh.persist(path).map_err(|error| refused(error.error))?;
    Ok(())
}

enum Place {
    Directory(PathBuf),
    Server { api: RefCell<Api>, runtime: tokio::runtime::Handle },
}

struct Source {
    place: Place,
    override_checkpoint: Option<Vec<u8>>,
    kept: RefCell<BTreeMap<String, Option<Vec<u8>>>>,
}

impl TileSource for Source {
    type Error = Failure;

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        if let ("checkpoint", Some(note)) = (path, &self.override_checkpoint) {
            return Ok(Some(note.clone()));
        }
        // Paths are made by the check, but what goes into a file name or an address is looked at once more.
        if !matches!(path, "checkpoint" | SUCCESSION) && path.parse::<TilePath>().is_err() {
            return Ok(None);
        }
        match &self.place {
            Place::Directory(directory) => read_file(&directory.join(path)),
            Place::Server { api, runtime } => {
                if let Some(kept) = self.kept.borrow().get(path) {
                    return Ok(kept.clone());
                }
                let fetched = runtime.block_on(fetch(&mut api.borrow_mut(), path))?;
                let mut kept = self.kept.borrow_mut();
                if kept.len() >= MAX_KEPT_FILES {
                    kept.clear();
                }
                kept.insert(path.to_owned(), fetched.clone());
                Ok(fetched)
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let refused = |error| Failure::file("read", path, error);
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    let mut octets = Vec::new();
    file.take(MAX_FILE_OCTETS).read_to_end(&mut octets).map_err(refused)?;
    Ok(Some(octets))
}

async fn fetch(api: &mut Api, path: &str) -> Result<Option<Vec<u8>>, Failure> {
    match api.get_raw(&format!("/v1/audit/log/{path}")).await {
        Ok(octets) => Ok(Some(octets)),
        Err(failure) if failure.code() == crate::failure::exit::NOT_FOUND => Ok(None),
        Err(failure) => Err(failure),
    }
}
