//! `keyfleet image remnants`.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use kf_crypto::hmac_sha256;
use kf_flash::nvs::{self, MAX_PARTITION_OCTETS, NvsCipher, NvsError, NvsKeys, Partition, Remnant, RemnantKind};
use kf_flash::scan::{FindingKind, ImageReport, NamedSecret, Scanner, StructureKind};
use kf_key::{SecretArray, SecretBytes};
use serde::Serialize;

use super::Remnants;
use super::report::{self, Row, place, section};
use crate::api::Context;
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, Names, object, say};

/// A partition that was looked through.
#[derive(Serialize)]
struct Looked {
    label: String,
    offset: u64,
    length: u64,
    /// `plain`, `opened` with the keys given, or `encrypted`: then only what its states tell is known.
    state: &'static str,
    remnants: usize,
}

#[derive(Serialize)]
struct Report {
    octets: u64,
    partitions: Vec<Looked>,
    findings: Vec<Row>,
}

/// Where a partition lies in the file.
struct Place {
    label: String,
    offset: u64,
    octets: u64,
}

pub(super) fn run(context: &Context, asked: &Remnants) -> Result<(), Failure> {
    let cipher = cipher(asked)?;
    let scanned = report::scan(&asked.file, super::secrets::read(&asked.sought.secrets, &[])?)?;
    let places = places(asked, &scanned);
    if places.is_empty() && asked.sought.secrets.is_empty() {
        return Err(Failure::usage(
            format!("{} has no partition table and is no NVS partition", asked.file.display()),
            "give --offset and --length of the partition, or --secret for what to look for",
        ));
    }
    // Fragments of what the caller named, as they lie in the file; keys that tell themselves are for `image check`.
    let sought = |kind: &FindingKind| matches!(kind, FindingKind::Secret { .. });
    let mut findings: Vec<Row> =
        scanned.findings.iter().filter(|finding| sought(&finding.kind)).map(Row::from).collect();
    let mut partitions = Vec::new();
    for at in places {
        let mut octets = read(&asked.file, &at)?;
        let is_opened = match &cipher {
            Some(cipher) => octets.decrypt(cipher)?,
            None => false,
        };
        let partition = Partition::new(octets.as_slice()).map_err(|error| refused(&at, &error))?;
        let is_readable = is_readable(partition);
        let state = match (is_readable, is_opened) {
            (true, true) => "opened",
            (true, false) => "plain",
            (false, _) => "encrypted",
        };
        let rows: Vec<Row> = nvs::remnants(partition)
            .filter(|remnant| is_readable || remnant.kind != RemnantKind::DamagedOctets)
            .map(|remnant| row(&at, partition, &remnant))
            .collect();
        partitions.push(Looked {
            label: at.label.clone(),
            offset: at.offset,
            length: at.octets,
            state,
            remnants: rows.len(),
        });
        findings.extend(rows);
        if is_opened && !asked.sought.secrets.is_empty() {
            findings.extend(within(asked, &at, octets.as_slice())?);
        }
    }
    findings.sort_by_key(|row| (row.offset, row.length));
    write(context, Report { octets: scanned.octets, partitions, findings })
}

fn write(context: &Context, report: Report) -> Result<(), Failure> {
    match context.format {
        Format::Json => object(Format::Json, &report, &Names::new())?,
        Format::Csv => report::csv(&report.findings)?,
        Format::Table => table(&report)?,
    }
    for partition in report.partitions.iter().filter(|partition| partition.state == "encrypted") {
        say(&format!(
            "{} is encrypted: only what its states tell was looked at; give --nvs-keys or --hmac-key",
            partition.label
        ));
    }
    report::verdict(report.findings.len(), "nothing is left")
}

/// A row for people.
#[derive(Serialize)]
struct Line {
    kind: &'static str,
    offset: String,
    length: u64,
    partition: String,
    item: String,
    detail: String,
}

fn table(report: &Report) -> Result<(), Failure> {
    section("Partitions", &["label", "offset", "length", "state", "remnants"], &report.partitions)?;
    let lines: Vec<Line> = report
        .findings
        .iter()
        .map(|row| Line {
            kind: row.kind,
            offset: place(row.offset),
            length: row.length,
            partition: row.partition.clone().unwrap_or_default(),
            item: match (&row.namespace, &row.key) {
                (Some(namespace), Some(key)) => format!("{namespace}/{key}"),
                _ => String::new(),
            },
            detail: row.detail.clone(),
        })
        .collect();
    section("Left over", &["kind", "offset", "length", "partition", "item", "detail"], &lines)
}

/// The partitions to look through: the one that was asked for, those of the table, or the file itself.
fn places(asked: &Remnants, scanned: &ImageReport) -> Vec<Place> {
    if let Some(octets) = asked.length {
        return vec![Place { label: "nvs".to_owned(), offset: asked.offset.unwrap_or_default(), octets }];
    }
    let tables = scanned.structures.iter().filter_map(|structure| match &structure.kind {
        StructureKind::PartitionTable { partitions, .. } => Some(partitions),
        _ => None,
    });
    let named: Vec<Place> = tables
        .flatten()
        .filter(|partition| partition.purpose() == "nvs")
        .map(|partition| Place {
            label: partition.label().escape_ascii().to_string(),
            offset: partition.offset.into(),
            octets: partition.octets.into(),
        })
        .collect();
    let is_nvs = scanned.structures.iter().any(|structure| matches!(structure.kind, StructureKind::Nvs { .. }));
    if named.is_empty() && is_nvs {
        return vec![Place { label: "nvs".to_owned(), offset: 0, octets: scanned.octets }];
    }
    named
}

/// Octets of a partition; wiped when dropped, because they can be opened in place.
struct Octets(SecretBytes);

impl Octets {
    fn as_slice(&self) -> &[u8] {
        // Exposed because the partition is what is looked through.
        self.0.expose()
    }

    /// Decrypts, if it is encrypted. Whether it was.
    fn decrypt(&mut self, cipher: &NvsCipher) -> Result<bool, Failure> {
        if Partition::new(self.as_slice()).is_ok_and(is_readable) {
            return Ok(false);
        }
        let mut outcome = Ok(());
        self.0 = SecretBytes::fill(self.0.len(), |opened| {
            opened.copy_from_slice(self.0.expose());
            outcome = cipher.decrypt(opened);
        });
        outcome.map_err(|error| Failure::usage(error.to_string(), "check --offset and --length"))?;
        Ok(true)
    }
}

fn read(path: &Path, at: &Place) -> Result<Octets, Failure> {
    let length = usize::try_from(at.octets).ok().filter(|octets| *octets <= MAX_PARTITION_OCTETS);
    let length = length.ok_or_else(|| refused(at, &NvsError::PartitionSize { octets: usize::MAX }))?;
    let mut outcome = Ok(());
    let octets = SecretBytes::fill(length, |octets| {
        outcome = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(at.offset))?;
            file.read_exact(octets)
        });
    });
    match outcome {
        Ok(()) => Ok(Octets(octets)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Failure::usage(
            format!("the partition {} ends past the end of {}", at.label, path.display()),
            "dump the whole flash, or give --offset and --length",
        )),
        Err(error) => Err(Failure::file("read", path, error)),
    }
}

fn refused(at: &Place, error: &NvsError) -> Failure {
    Failure::usage(format!("partition {}: {error}", at.label), "check --offset and --length")
}

/// Whether entries can be read, or there are none that could be.
fn is_readable(partition: Partition<'_>) -> bool {
    let mut written = partition.entries().peekable();
    written.peek().is_none() || written.any(|placed| placed.entry().is_some())
}

fn row(at: &Place, partition: Partition<'_>, remnant: &Remnant) -> Row {
    let absolute = |octets: usize| at.offset + u64::try_from(octets).unwrap_or_default();
    let mut row = Row {
        kind: remnant.kind.name(),
        offset: absolute(remnant.offset),
        length: u64::try_from(remnant.octets).unwrap_or_default(),
        partition: Some(at.label.clone()),
        detail: meaning(remnant.kind).to_owned(),
        ..Row::default()
    };
    if let Some(item) = &remnant.item {
        let name = partition.namespace_name(item.namespace).map(|name| name.to_string());
        row.namespace = Some(name.unwrap_or_else(|| item.namespace.to_string()));
        row.key = Some(item.key.to_string());
        row.value_offset = Some(absolute(item.value_offset));
        row.value_length = u64::try_from(item.value_octets).ok();
    }
    row
}

const fn meaning(kind: RemnantKind) -> &'static str {
    match kind {
        RemnantKind::ErasedItem => "marked erased, and readable with key and value",
        RemnantKind::ErasedOctets => "marked erased, octets are there",
        RemnantKind::SupersededItem => "a later value took its place",
        RemnantKind::OrphanChunk => "a part of a blob that is gone",
        RemnantKind::DamagedOctets => "marked written, cannot be read",
        RemnantKind::UnmarkedOctets => "written when the power went",
        RemnantKind::AbandonedPage => "in a page that the firmware no longer reads",
    }
}

/// Fragments of the secrets in an opened partition.
fn within(asked: &Remnants, at: &Place, octets: &[u8]) -> Result<Vec<Row>, Failure> {
    let mut scanner = Scanner::new(super::secrets::read(&asked.sought.secrets, &[])?);
    scanner.push(octets).map_err(|error| Failure::usage(error.to_string(), "give --offset and --length"))?;
    let report = scanner.finish();
    let rows = report.findings.iter().filter(|finding| matches!(finding.kind, FindingKind::Secret { .. }));
    Ok(rows
        .map(|finding| {
            let row = Row::from(finding);
            Row { offset: row.offset + at.offset, partition: Some(at.label.clone()), ..row }
        })
        .collect())
}

fn cipher(asked: &Remnants) -> Result<Option<NvsCipher>, Failure> {
    let keys = if let Some(path) = &asked.nvs_keys {
        // Exposed to read the keys out of their partition.
        NvsKeys::from_partition(file::read_secret(path)?.expose())
    } else if let Some(path) = &asked.hmac_key {
        let parts = NamedSecret::from_file("hmac-key", file::read_secret(path)?);
        let key = parts.ok().and_then(|mut parts| parts.pop()).map(|part| part.octets);
        // Exposed because the HMAC peripheral is computed here.
        let key = key.filter(|key| key.len() == 32).ok_or_else(|| {
            Failure::usage(format!("{} holds no eFuse key", path.display()), "give 32 octets, or 64 hexadecimal digits")
        })?;
        NvsKeys::from_hmac(|message| {
            Ok::<_, NvsError>(SecretArray::fill(|tag: &mut [u8; 32]| *tag = hmac_sha256(key.expose(), message)))
        })
    } else {
        return Ok(None);
    };
    let keys = keys.map_err(|error| {
        Failure::usage(format!("the keys of NVS: {error}"), "give the keys partition in clear, not as flash holds it")
    })?;
    Ok(Some(keys.cipher()))
}
