//! `keyfleet rewrap`: brings the ciphertexts in files, or in a column of PostgreSQL, under the newest version of their key. All of it
//! is streamed; what is around the ciphertexts stays as it is. The server sees the ciphertexts, this host no plaintext.

mod postgres;
mod scan;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Args;
use indicatif::ProgressBar;
use kf_api::encryption_key::{CipherItem, CipherRequest, EncryptionKey, RewrapAnswer, RewrapOutcome};
use serde::Serialize;

use crate::api::{Api, Context, segment};
use crate::command::encrypt::refused;
use crate::failure::Failure;
use crate::output::{Format, Names, count_bar, object, octets_bar, say};
use scan::{Piece, Scanner};

/// The most ciphertexts, and the most octets of them, in one call; the most octets that wait for their answer.
const MAX_ITEMS: usize = 512;
const MAX_BATCH_OCTETS: usize = 2 * 1024 * 1024;
const MAX_HELD_OCTETS: usize = 8 * 1024 * 1024;

const EXAMPLES: &str = "\
A ciphertext is a word that begins with `kfc1.`, wherever it stands: in CSV, JSON lines, a dump of a database. Those of other
keys, and everything else, stay as they are. A file is replaced as a whole once all of it is done: after a crash it is the old one
or the new one, and the same command goes on with the next.

Examples:
  keyfleet rewrap patients export.csv archive/*.jsonl --dry-run
  keyfleet rewrap patients export.csv archive/*.jsonl
  pg_dump clinic | keyfleet rewrap patients - > clinic.sql
  # A column, while programs go on writing to it; each ciphertext is bound to the key of its row
  keyfleet rewrap patients --postgres 'host=db.example dbname=clinic user=keys' --tls-ca ca.pem \\
    --table patients --column record --external-aad 'patient {key}'";

/// What to bring under the newest version.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rewrap {
    /// Name or id of the encryption key
    key: String,
    /// Files, replaced in place; `-` alone: from standard input to standard output
    #[arg(value_name = "FILE", required_unless_present = "postgres", conflicts_with = "postgres")]
    files: Vec<PathBuf>,
    /// What the ciphertexts are bound to; with --postgres, `{key}` stands for the key of the row
    #[arg(long, value_name = "TEXT", default_value = "")]
    external_aad: String,
    /// Only count the ciphertexts of each version; ask the server for nothing but the key, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave ciphertexts that are refused as they are, instead of leaving the whole file as it is
    #[arg(long)]
    keep_refused: bool,
    #[command(flatten)]
    column: postgres::Column,
}

/// What was found and done.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// The version that everything is to be under.
    newest_version: u32,
    #[serde(skip_serializing_if = "is_zero")]
    files: u64,
    /// Ciphertexts of the key.
    ciphertexts: u64,
    /// Of these: brought under the newest version.
    changed: u64,
    /// Under it already.
    newest: u64,
    /// Left as they are.
    refused: u64,
    /// Of other keys, left alone.
    other_keys: u64,
    /// How many of the key's ciphertexts were of which version before.
    by_version: BTreeMap<u32, u64>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Work on one key.
struct Work {
    api: Api,
    format: Format,
    key: EncryptionKey,
    external_aad: String,
    external_aad_text: String,
    dry_run: bool,
    keep_refused: bool,
    report: Report,
    bar: ProgressBar,
}

pub(crate) async fn run(context: &Context, rewrap: Rewrap) -> Result<(), Failure> {
    let Rewrap { key, files, external_aad, dry_run, keep_refused, column } = rewrap;
    let is_stream = files.iter().any(|file| file == Path::new("-"));
    if is_stream && files.len() > 1 {
        return Err(Failure::usage("`-` stands among other files", "give `-` alone, or files alone"));
    }
    let mut api = context.api()?;
    let key: EncryptionKey = api.get(&format!("/v1/encryption-keys/{}", segment(&key))).await?;
    let total = files.iter().filter_map(|file| fs::metadata(file).ok()).map(|metadata| metadata.len()).sum();
    let mut work = Work {
        api,
        format: context.format,
        report: Report { newest_version: key.newest_version, ..Report::default() },
        key,
        external_aad: BASE64_STANDARD.encode(&external_aad),
        external_aad_text: external_aad,
        dry_run,
        keep_refused,
        bar: octets_bar(total),
    };
    if column.postgres.is_some() {
        work.bar = count_bar();
        return postgres::run(&mut work, column).await;
    }
    for file in &files {
        if let Err(failure) = work.file(file, is_stream).await {
            work.bar.abandon();
            if work.report.files > 0 {
                say(&format!("{} files are done; the same command goes on", work.report.files));
            }
            return Err(failure);
        }
        work.report.files += 1;
    }
    work.bar.finish_and_clear();
    if is_stream && !dry_run {
        // Standard output carries the data.
        let Report { ciphertexts, changed, newest, refused, other_keys, .. } = &work.report;
        say(&format!(
            "{ciphertexts} ciphertexts: {changed} changed, {newest} newest already, {refused} refused; \
            {other_keys} of other keys"
        ));
    } else {
        object(context.format, &flat(context.format, &work.report, &work.report)?, &Names::new())?;
    }
    none_refused(&work.report)
}

/// Prints what came of it.
fn end<T: Serialize>(format: Format, whole: &T, ciphertexts: &Report) -> Result<(), Failure> {
    object(format, &flat(format, whole, ciphertexts)?, &Names::new())?;
    none_refused(ciphertexts)
}

fn none_refused(report: &Report) -> Result<(), Failure> {
    match report.refused {
        0 => Ok(()),
        refused => Err(Failure::InTheWay {
            problem: format!("{refused} ciphertexts were refused and stay as they are"),
            remedy: "without --keep-refused the first one is named, with its place".to_owned(),
        }),
    }
}

/// Tables show the versions in one line.
fn flat<T: Serialize>(format: Format, whole: &T, report: &Report) -> Result<serde_json::Value, Failure> {
    let mut value = crate::output::to_value(whole)?;
    if format == Format::Table {
        let versions: Vec<String> =
            report.by_version.iter().map(|(version, count)| format!("{version}: {count}")).collect();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("by_version".to_owned(), versions.join(", ").into());
        }
    }
    Ok(value)
}

impl Work {
    async fn file(&mut self, path: &Path, is_stream: bool) -> Result<(), Failure> {
        if is_stream {
            let output: Box<dyn Write> = if self.dry_run { Box::new(io::sink()) } else { Box::new(io::stdout()) };
            return self.stream(path, io::stdin(), &mut BufWriter::new(output)).await;
        }
        let input = BufReader::new(File::open(path).map_err(|error| Failure::file("read", path, error))?);
        if self.dry_run {
            return self.stream(path, input, &mut io::sink()).await;
        }
        let refused = |error| Failure::file("write", path, error);
        // A link is followed, so that what it names is replaced and not the link.
        let target = fs::canonicalize(path).map_err(refused)?;
        let draft = draft_of(&target);
        let changed = self.report.changed;
        let outcome = self.draft(&target, &draft, input).await;
        let is_other = outcome.is_ok() && self.report.changed > changed;
        if is_other {
            replace(&draft, &target).map_err(refused)?;
        } else {
            // Nothing has changed, or not all of it could: the old file stays.
            drop(fs::remove_file(&draft));
        }
        outcome
    }

    async fn draft(&mut self, target: &Path, draft: &Path, input: impl Read) -> Result<(), Failure> {
        let refused = |error| Failure::file("write", draft, error);
        // What a crash left behind is begun again.
        drop(fs::remove_file(draft));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).map_err(refused)?;
        // Readable for the same people as the file that it replaces.
        let metadata = fs::metadata(target).map_err(refused)?;
        std::os::unix::fs::fchown(&file, Some(metadata.uid()), Some(metadata.gid())).map_err(refused)?;
        file.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777)).map_err(refused)?;
        let mut output = BufWriter::new(file);
        self.stream(target, input, &mut output).await?;
        let file = output.into_inner().map_err(|error| refused(error.into_error()))?;
        file.sync_all().map_err(refused)
    }

    async fn stream(&mut self, path: &Path, input: impl Read, output: &mut impl Write) -> Result<(), Failure> {
        let mut scanner = Scanner::new(input);
        let (mut held, mut octets, mut items, mut item_octets) = (Vec::new(), 0, 0, 0);
        loop {
            let piece = scanner.next().map_err(|error| Failure::file("read", path, error))?;
            let is_end = piece.is_none();
            if let Some(piece) = piece {
                octets += match &piece {
                    Piece::Other(octets) => octets.len(),
                    Piece::Ciphertext { text, .. } => text.len(),
                };
                if self.is_older(&piece) {
                    items += 1;
                    item_octets += match &piece {
                        Piece::Ciphertext { text, .. } => text.len(),
                        Piece::Other(_) => 0,
                    };
                }
                held.push(piece);
            }
            if is_end || items >= MAX_ITEMS || item_octets >= MAX_BATCH_OCTETS || octets >= MAX_HELD_OCTETS {
                self.bar.inc(u64::try_from(octets).unwrap_or(u64::MAX));
                self.pass(path, std::mem::take(&mut held), output).await?;
                (octets, items, item_octets) = (0, 0, 0);
            }
            if is_end {
                return output.flush().map_err(Failure::Output);
            }
        }
    }

    fn is_older(&self, piece: &Piece) -> bool {
        matches!(piece, Piece::Ciphertext { parsed, .. }
            if parsed.key == self.key.id && parsed.version < self.key.newest_version)
    }

    /// Counts a ciphertext as it was found.
    fn count(&mut self, piece: &Piece) {
        let Piece::Ciphertext { parsed, .. } = piece else { return };
        if parsed.key != self.key.id {
            self.report.other_keys += 1;
            return;
        }
        self.report.ciphertexts += 1;
        *self.report.by_version.entry(parsed.version).or_default() += 1;
        self.report.newest += u64::from(parsed.version >= self.key.newest_version);
    }

    /// Passes pieces on, those that are of older versions as the server gives them back.
    async fn pass(&mut self, path: &Path, pieces: Vec<Piece>, output: &mut impl Write) -> Result<(), Failure> {
        let older = pieces.iter().filter(|piece| self.is_older(piece)).filter_map(|piece| match piece {
            Piece::Ciphertext { text, .. } => {
                Some(CipherItem { ciphertext: text.clone(), external_aad: self.external_aad.clone() })
            }
            Piece::Other(_) => None,
        });
        let items: Vec<CipherItem> = older.collect();
        let mut answers = self.ask(items).await?.into_iter();
        for piece in pieces {
            let octets = match piece {
                Piece::Other(octets) => octets,
                ciphertext => {
                    self.count(&ciphertext);
                    let is_older = self.is_older(&ciphertext);
                    match ciphertext {
                        Piece::Ciphertext { offset, text, .. } if is_older && !self.dry_run => {
                            self.changed(path, offset, text, answers.next())?.into_bytes()
                        }
                        Piece::Ciphertext { text, .. } => text.into_bytes(),
                        Piece::Other(octets) => octets,
                    }
                }
            };
            output.write_all(&octets).map_err(Failure::Output)?;
        }
        Ok(())
    }

    async fn ask(&mut self, items: Vec<CipherItem>) -> Result<Vec<RewrapOutcome>, Failure> {
        if items.is_empty() || self.dry_run {
            return Ok(Vec::new());
        }
        let path = format!("/v1/encryption-keys/{}/rewrap", self.key.id);
        let answer: RewrapAnswer = self.api.post(&path, &CipherRequest { items }).await?;
        Ok(answer.items)
    }

    fn changed(
        &mut self,
        path: &Path,
        offset: u64,
        text: String,
        outcome: Option<RewrapOutcome>,
    ) -> Result<String, Failure> {
        match outcome {
            Some(RewrapOutcome::Newest { ciphertext, .. }) => {
                self.report.changed += 1;
                Ok(ciphertext)
            }
            Some(RewrapOutcome::Refused { .. }) if self.keep_refused => {
                self.report.refused += 1;
                Ok(text)
            }
            Some(RewrapOutcome::Refused { refusal, problem }) => Err(refused(
                refusal,
                format!("{} at octet {offset}: {problem}; the file stays as it was", path.display()),
            )),
            None => Err(Failure::local("the server's answer is not for this request", "update keyfleet or the server")),
        }
    }
}

/// A name beside the file, on the same file system.
fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".rewrap-draft");
    path.with_file_name(name)
}

/// Durably: the draft's octets are on the disk already.
fn replace(draft: &Path, target: &Path) -> io::Result<()> {
    fs::rename(draft, target)?;
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
