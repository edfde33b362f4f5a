//! `keyfleet device import`: a file of any length in pieces that the server takes, each piece whole or not at all.
//!
//! The server answers a device that is there already, with the same facts, by "already there"; so the way to resume
//! after an interruption is to run the same command again, or to skip what was sent with `--from-row`.

mod rows;

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use kf_api::device::{ImportFormat, ImportReport, RowError};
use kf_client::{HeaderValue, Method};
use tokio::sync::mpsc;

use crate::api::{Api, Context};
use crate::failure::Failure;
use crate::output::{Format, Listing, Names, object, octets_bar, say};
use rows::{Piece, Source};

/// The most refused rows that are listed; all are counted.
const MAX_LISTED_ERRORS: usize = 1_000;
/// Pieces that may wait while one is being sent.
const PIECES_AHEAD: usize = 2;
const ERROR_COLUMNS: [&str; 4] = ["row", "field", "problem", "remedy"];

/// What to import.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// CSV with the header name,facility,product_line[,batch][,attr.KEY...], or a JSON array of the same fields
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How the file is written [default: by its name]
    #[arg(long, value_name = "csv|json")]
    encoding: Option<EncodingArgument>,
    /// Check every row, register nothing
    #[arg(long)]
    dry_run: bool,
    /// Start at this row of data (the first is 1), to skip what was sent before
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_row: u64,
    /// Rows sent in one call
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    rows_per_call: u32,
}

/// How a file of devices is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EncodingArgument {
    /// RFC 4180
    Csv,
    /// An array of objects
    Json,
}

pub(crate) async fn run(context: &Context, import: &Import) -> Result<(), Failure> {
    let source = Source {
        encoding: encoding_of(import)?,
        from_row: import.from_row,
        rows_per_piece: usize::try_from(import.rows_per_call).unwrap_or(1),
    };
    let file = File::open(&import.file).map_err(|error| Failure::file("read", &import.file, error))?;
    let length = file.metadata().map_err(|error| Failure::file("read", &import.file, error))?.len();
    let mut api = context.api_within(Duration::from_secs(600))?;
    let bar = octets_bar(length);
    let (sender, mut pieces) = mpsc::channel(PIECES_AHEAD);
    let reader = tokio::task::spawn_blocking(move || source.read(file, &sender));
    let mut total = ImportReport { dry_run: import.dry_run, ..ImportReport::default() };
    let mut sent_up_to = import.from_row - 1;
    while let Some(piece) = pieces.recv().await {
        bar.set_position(piece.octets_read);
        let last_row = piece.last_row;
        if let Err(failure) = send(&mut api, import.dry_run, source.encoding, piece, &mut total).await {
            bar.abandon();
            say(&format!("rows up to {sent_up_to} were answered; resume with --from-row {}", sent_up_to + 1));
            return Err(failure);
        }
        sent_up_to = last_row;
    }
    bar.finish_and_clear();
    let read = reader.await.map_err(|error| Failure::local(format!("the reader stopped: {error}"), "try again"))?;
    read.map_err(|problem| {
        say(&format!("rows up to {sent_up_to} were answered"));
        Failure::local(
            format!("{}: {problem}", import.file.display()),
            "correct the file and import it again: what is there already is left alone",
        )
    })?;
    finish(context, &total)
}

fn encoding_of(import: &Import) -> Result<ImportFormat, Failure> {
    let by_name = || match import.file.extension().and_then(std::ffi::OsStr::to_str) {
        Some("csv") => Some(EncodingArgument::Csv),
        Some("json") => Some(EncodingArgument::Json),
        _ => None,
    };
    match import.encoding.or_else(by_name) {
        Some(EncodingArgument::Csv) => Ok(ImportFormat::Csv),
        Some(EncodingArgument::Json) => Ok(ImportFormat::Json),
        None => Err(Failure::usage(
            format!("{} ends in neither .csv nor .json", import.file.display()),
            "give --encoding csv or --encoding json",
        )),
    }
}

/// Sends one piece and adds its report to the total, with the rows numbered as in the file.
async fn send(
    api: &mut Api,
    dry_run: bool,
    encoding: ImportFormat,
    piece: Piece,
    total: &mut ImportReport,
) -> Result<(), Failure> {
    let Piece { body, rows, mut refused, .. } = piece;
    let mut report = ImportReport::default();
    if !rows.is_empty() {
        let (name, content_type) = match encoding {
            ImportFormat::Csv => ("csv", HeaderValue::from_static("text/csv; charset=utf-8")),
            ImportFormat::Json => ("json", HeaderValue::from_static("application/json")),
        };
        let path = format!("/v1/devices/import?format={name}&dry_run={dry_run}");
        report = api.send_body(Method::POST, &path, content_type, body).await?;
    }
    for error in &mut report.errors {
        let index = usize::try_from(error.row.saturating_sub(1)).unwrap_or(usize::MAX);
        error.row = rows.get(index).copied().unwrap_or(error.row);
    }
    total.rows += report.rows + to_count(refused.len());
    total.registered += report.registered;
    total.already_there += report.already_there;
    total.refused += report.refused + to_count(refused.len());
    refused.append(&mut report.errors);
    refused.sort_by_key(|error| error.row);
    let room = MAX_LISTED_ERRORS.saturating_sub(total.errors.len());
    total.errors.extend(refused.into_iter().take(room));
    Ok(())
}

fn to_count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Writes what an import came to; refused rows are a failure of their own.
pub(crate) fn finish(context: &Context, total: &ImportReport) -> Result<(), Failure> {
    if context.format == Format::Json {
        object(context.format, total, &Names::new())?;
    } else {
        let done = if total.dry_run { "would be registered" } else { "registered" };
        say(&format!(
            "{} rows: {} {done}, {} already there, {} refused",
            total.rows, total.registered, total.already_there, total.refused
        ));
        let mut listing = Listing::new(context.format, &ERROR_COLUMNS);
        listing.rows::<RowError>(&total.errors, &Names::new())?;
        if context.format == Format::Csv {
            listing.end(None)?;
        }
    }
    if total.refused == 0 {
        return Ok(());
    }
    Err(Failure::Partial {
        problem: format!("{} of {} rows were refused", total.refused, total.rows),
        remedy: "correct these rows and import the same file again: what is there already is left alone".to_owned(),
    })
}
