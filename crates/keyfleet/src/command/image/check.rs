//! `keyfleet image check`.

use kf_flash::scan::{ImageReport, Region, Structure, StructureKind};
use serde::Serialize;

use super::Check;
use super::report::{self, Row, place, section};
use crate::api::Context;
use crate::failure::Failure;
use crate::output::{Format, Names, object};

#[derive(Serialize)]
struct Report {
    octets: u64,
    findings: Vec<Row>,
    structures: Vec<StructureRow>,
    regions: Vec<RegionRow>,
    /// Whether there was more of anything than is listed.
    truncated: bool,
}

#[derive(Serialize)]
struct StructureRow {
    kind: &'static str,
    offset: u64,
    length: u64,
    detail: String,
}

#[derive(Serialize)]
struct RegionRow {
    content: &'static str,
    offset: u64,
    length: u64,
}

/// A row for people: the place in hexadecimal.
#[derive(Serialize)]
struct Line {
    kind: &'static str,
    offset: String,
    length: u64,
    detail: String,
}

pub(super) fn run(context: &Context, check: &Check) -> Result<(), Failure> {
    let secrets = super::secrets::read(&check.sought.secrets, &check.digest)?;
    let report = Report::from(&report::scan(&check.file, secrets)?);
    match context.format {
        Format::Json => object(Format::Json, &report, &Names::new())?,
        Format::Csv => report::csv(&report.findings)?,
        Format::Table => table(&report)?,
    }
    if report.truncated {
        crate::output::say("there is more than is listed: look through the partitions one by one");
    }
    report::verdict(report.findings.len(), "nothing in clear was found")
}

fn table(report: &Report) -> Result<(), Failure> {
    let line = |kind, offset, length, detail: &str| Line { kind, offset: place(offset), length, detail: detail.into() };
    let columns = ["kind", "offset", "length", "detail"];
    let findings: Vec<Line> =
        report.findings.iter().map(|row| line(row.kind, row.offset, row.length, &row.detail)).collect();
    section("In clear", &columns, &findings)?;
    let structures: Vec<Line> =
        report.structures.iter().map(|row| line(row.kind, row.offset, row.length, &row.detail)).collect();
    section("Structures", &columns, &structures)?;
    let regions: Vec<Line> = report.regions.iter().map(|row| line(row.content, row.offset, row.length, "")).collect();
    section("Regions", &["kind", "offset", "length"], &regions)
}

impl From<&ImageReport> for Report {
    fn from(report: &ImageReport) -> Self {
        Self {
            octets: report.octets,
            findings: report.findings.iter().map(Row::from).collect(),
            structures: report.structures.iter().map(StructureRow::from).collect(),
            regions: report.regions.iter().map(RegionRow::from).collect(),
            truncated: report.is_truncated,
        }
    }
}

impl From<&Region> for RegionRow {
    fn from(region: &Region) -> Self {
        Self { content: region.content.name(), offset: region.offset, length: region.octets }
    }
}

impl From<&Structure> for StructureRow {
    fn from(structure: &Structure) -> Self {
        let detail = match &structure.kind {
            StructureKind::PartitionTable { has_digest, partitions } => {
                let named: Vec<String> = partitions.iter().map(|partition| format!("{partition:?}")).collect();
                let digest = if *has_digest { "" } else { "without MD5: " };
                format!("{digest}{}", named.join("; "))
            }
            StructureKind::Nvs { pages, readable_entries, unreadable_slots } => {
                let state = match (readable_entries, unreadable_slots) {
                    (0, 0) => "no entries",
                    (0, _) => "encrypted",
                    (_, 0) => "plain",
                    _ => "plain, some slots damaged",
                };
                format!(
                    "{state}: {pages} pages, {readable_entries} readable entries, {unreadable_slots} unreadable slots"
                )
            }
            StructureKind::SecureCertRecord { record_type, index, protection } => {
                format!("{record_type:?} {index}, {protection:?}")
            }
            StructureKind::Application { project, version } => format!("{project} {version}, not encrypted"),
            StructureKind::FirmwareImage => "not encrypted".to_owned(),
        };
        Self { kind: structure.kind.name(), offset: structure.offset, length: structure.octets, detail }
    }
}
