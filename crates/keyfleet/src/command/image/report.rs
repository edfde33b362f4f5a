//! Findings as they are written, for both verbs.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use kf_flash::scan::{Finding, FindingKind, ImageReport, Scanner, Secrets};
use kf_key::SecretBytes;
use serde::Serialize;

use crate::failure::{Failure, exit};
use crate::output::{Format, Listing, Names, octets_bar, say};

/// How much of an image is read at once.
const PIECE_OCTETS: usize = 64 << 10;

/// A finding of either verb. Never with the octets found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Row {
    pub(super) kind: &'static str,
    /// Where it begins in the file, in octets.
    pub(super) offset: u64,
    /// How many octets of the file it takes.
    pub(super) length: u64,
    /// What it is, for people.
    pub(super) detail: String,
    /// The name that the caller gave a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encoding: Option<&'static str>,
    /// Which octets of the secret they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret_offset: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// Where the value lies, and how many octets of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value_offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value_length: Option<u64>,
}

impl From<&Finding> for Row {
    fn from(finding: &Finding) -> Self {
        let mut row =
            Self { kind: finding.kind.name(), offset: finding.offset, length: finding.octets, ..Self::default() };
        match &finding.kind {
            FindingKind::PrivateKeyPem { label, is_truncated } => {
                row.detail = if *is_truncated { format!("{label}, without its last line") } else { label.clone() };
            }
            FindingKind::PrivateKeyDer { format } => row.detail = format!("private key, {}", format.name()),
            FindingKind::NvsKeys => "keys of NVS encryption, in clear".clone_into(&mut row.detail),
            FindingKind::Secret { name, encoding, secret_offset, secret_octets, is_whole } => {
                let end = secret_offset + secret_octets;
                row.detail = if *is_whole {
                    format!("{name}, {}", encoding.name())
                } else {
                    format!("octets {secret_offset} to {end} of {name}, {}", encoding.name())
                };
                row.name = Some(name.clone());
                row.encoding = Some(encoding.name());
                row.secret_offset = Some(*secret_offset);
                row.secret_length = Some(*secret_octets);
            }
            FindingKind::SecretDigest { name } => {
                row.detail = format!("{name}, by its digest");
                row.name = Some(name.clone());
            }
        }
        row
    }
}

/// Reads a file and scans it, with a bar for whom waits.
pub(super) fn scan(path: &Path, secrets: Secrets) -> Result<ImageReport, Failure> {
    let unreadable = |error| Failure::file("read", path, error);
    let mut file = File::open(path).map_err(unreadable)?;
    let bar = octets_bar(file.metadata().map_err(unreadable)?.len());
    let mut scanner = Scanner::new(secrets);
    // Wiped afterwards: an image can hold keys in clear, which is why it is looked through.
    let mut outcome = Ok(());
    drop(SecretBytes::fill(PIECE_OCTETS, |piece| {
        outcome = loop {
            match file.read(piece) {
                Ok(0) => break Ok(()),
                Ok(octets) => {
                    if let Err(too_long) = scanner.push(piece.get(..octets).unwrap_or_default()) {
                        break Err(Failure::usage(format!("{}: {too_long}", path.display()), "cut the image up"));
                    }
                    bar.inc(u64::try_from(octets).unwrap_or_default());
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => break Err(unreadable(error)),
            }
        };
    }));
    bar.finish_and_clear();
    outcome.map(|()| scanner.finish())
}

/// Writes a section of a report for people, if it has rows.
pub(super) fn section<T: Serialize>(heading: &str, columns: &[&str], rows: &[T]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    crate::output::raw(format!("{heading}\n").as_bytes())?;
    let mut listing = Listing::new(Format::Table, columns);
    listing.rows(rows, &Names::new())?;
    listing.end(None)?;
    crate::output::raw(b"\n")
}

/// The findings as CSV, every field.
pub(super) fn csv(rows: &[Row]) -> Result<(), Failure> {
    let columns = [
        "kind",
        "offset",
        "length",
        "detail",
        "name",
        "encoding",
        "secret_offset",
        "secret_length",
        "partition",
        "namespace",
        "key",
        "value_offset",
        "value_length",
    ];
    let mut listing = Listing::new(Format::Csv, &columns);
    listing.rows(rows, &Names::new())?;
    listing.end(None)
}

/// A place in the file, as people read it beside a hex dump.
pub(super) fn place(offset: u64) -> String {
    format!("{offset:#010x}")
}

/// Findings, as a failure that was told already.
pub(super) fn verdict(findings: usize, clean: &str) -> Result<(), Failure> {
    if findings == 0 {
        say(clean);
        return Ok(());
    }
    say(&format!("{findings} finding{}", if findings == 1 { "" } else { "s" }));
    Err(Failure::Silent(exit::FAILED))
}
