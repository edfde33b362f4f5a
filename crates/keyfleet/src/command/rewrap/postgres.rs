//! Ciphertexts in a column of a PostgreSQL table: page after page in the order of a unique column, each page brought along by one
//! statement that changes a value only as it was read.
//!
//! Nothing is remembered: a value under the newest version is left alone, so that whatever ended a run, the same command does
//! the rest. Writers are never kept waiting for the server of keys: no row is locked while it is asked.

mod connect;
mod table;

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Args;
use kf_api::encryption_key::{CipherItem, RewrapOutcome};
use serde::Serialize;

use super::scan::{Piece, Scanner};
use super::{Report, Work};
use crate::command::encrypt::refused;
use crate::failure::Failure;
use crate::output::say;
pub(super) use connect::Access;
use table::{Cell, Table, Value};

/// Rows of a page, and the most octets of a value: together the memory of a run.
const ROWS_AT_A_TIME: i64 = 128;
const MAX_VALUE_OCTETS: usize = 1024 * 1024;
/// How often values are read again that somebody else changed meanwhile.
const ATTEMPTS: u32 = 4;
/// What stands in `--external-aad` for the row's key.
const KEY_IN_AAD: &str = "{key}";

/// Which column.
#[derive(Debug, Args)]
pub(super) struct Column {
    /// Connection to PostgreSQL, as libpq takes it: `host=db.example dbname=clinic user=clinic`, without a password
    #[arg(long, value_name = "CONNECTION", requires_all = ["table", "column"])]
    pub(super) postgres: Option<String>,
    /// The table, with its schema if it is not in the search path
    #[arg(long, requires = "postgres")]
    table: Option<String>,
    /// The column, of type text, varchar or bytea
    #[arg(long, requires = "postgres")]
    column: Option<String>,
    /// A column that is unique and never null; the primary key when absent
    #[arg(long, value_name = "COLUMN", requires = "postgres")]
    key_column: Option<String>,
    /// Begin behind the row with this key
    #[arg(long, value_name = "KEY", requires = "postgres")]
    after: Option<String>,
    #[command(flatten)]
    access: Access,
}

/// What was found and done in a table.
#[derive(Debug, Default, Serialize)]
struct TableReport {
    #[serde(flatten)]
    ciphertexts: Report,
    /// Rows that were looked at.
    rows: u64,
    /// Of these: null in the column.
    nulls: u64,
    /// Rows that were changed.
    rows_changed: u64,
    /// Values that somebody else went on changing; the next run finds them.
    rows_contended: u64,
    /// Values of more than 1 MiB, left alone.
    rows_too_large: u64,
}

/// A value with its ciphertexts.
struct Found {
    cell: Cell,
    pieces: Vec<Piece>,
}

pub(super) async fn run(work: &mut Work, column: Column) -> Result<(), Failure> {
    let Column { postgres, table, column, key_column, after, access } = column;
    let (Some(connection), Some(table), Some(column)) = (postgres, table, column) else {
        return Err(Failure::usage("a table without a connection", "give --postgres, --table and --column"));
    };
    let client = connect::connect(&connection, &access).await?;
    let table = Table::find(client, &table, &column, key_column.as_deref()).await?;
    work.bar.set_length(table.estimate().await?);
    let mut report = TableReport::default();
    let mut after = after;
    let outcome = loop {
        match page(work, &table, &mut report, after.as_deref()).await {
            Ok(None) => break Ok(()),
            Ok(last) => after = last,
            Err(failure) => break Err(failure),
        }
    };
    if let Err(failure) = outcome {
        work.bar.abandon();
        if let Some(after) = after {
            say(&format!(
                "everything up to the key {after} is done; the same command goes on, `--after` skips what is done"
            ));
        }
        return Err(failure);
    }
    work.bar.finish_and_clear();
    report.ciphertexts = std::mem::take(&mut work.report);
    super::end(work.format, &report, &report.ciphertexts)?;
    left(&report)
}

/// Whether a script has to look again.
fn left(report: &TableReport) -> Result<(), Failure> {
    let TableReport { rows_contended, rows_too_large, .. } = report;
    if rows_contended + rows_too_large == 0 {
        return Ok(());
    }
    Err(Failure::Partial {
        problem: format!(
            "{rows_contended} values were changed by others again and again, {rows_too_large} are larger than 1 MiB"
        ),
        remedy: "run it again for the first; encrypt the second with a data key and keep its ciphertext here"
            .to_owned(),
    })
}

/// One page; the key of its last row, `None` at the end.
async fn page(
    work: &mut Work,
    table: &Table,
    report: &mut TableReport,
    after: Option<&str>,
) -> Result<Option<String>, Failure> {
    let cells = table.page(after, ROWS_AT_A_TIME).await?;
    let Some(last) = cells.last().map(|cell| cell.key.clone()) else { return Ok(None) };
    work.bar.inc(u64::try_from(cells.len()).unwrap_or(0));
    let mut waiting = Vec::new();
    for cell in cells {
        report.rows += 1;
        match &cell.value {
            Value::Null => report.nulls += 1,
            Value::TooLarge => report.rows_too_large += 1,
            Value::Text(_) | Value::Octets(_) => waiting.push(cell),
        }
    }
    for _ in 0..ATTEMPTS {
        let lost = bring_along(work, table, report, waiting).await?;
        if lost.is_empty() {
            return Ok(Some(last));
        }
        waiting = table.again(&lost).await?;
    }
    report.rows_contended += u64::try_from(waiting.len()).unwrap_or(0);
    Ok(Some(last))
}

/// Brings the values of a page along; the keys of those that somebody changed meanwhile.
async fn bring_along(
    work: &mut Work,
    table: &Table,
    report: &mut TableReport,
    cells: Vec<Cell>,
) -> Result<Vec<String>, Failure> {
    let mut older = Vec::new();
    for cell in cells {
        let pieces = pieces_of(&cell)?;
        if pieces.iter().any(|piece| work.is_older(piece)) {
            older.push(Found { cell, pieces });
        } else {
            pieces.iter().for_each(|piece| work.count(piece));
        }
    }
    if work.dry_run {
        older.iter().flat_map(|found| &found.pieces).for_each(|piece| work.count(piece));
        return Ok(Vec::new());
    }
    let mut answers = ask(work, &older).await?.into_iter();
    let (mut changes, mut counted) = (Vec::new(), BTreeMap::new());
    for found in older {
        let before = found.cell.value.octets().to_vec();
        let mut octets = Vec::with_capacity(before.len());
        for piece in &found.pieces {
            match piece {
                Piece::Other(other) => octets.extend_from_slice(other),
                Piece::Ciphertext { text, .. } if work.is_older(piece) => {
                    octets.extend_from_slice(changed(work, &found.cell.key, text, answers.next())?.as_bytes());
                }
                Piece::Ciphertext { text, .. } => octets.extend_from_slice(text.as_bytes()),
            }
        }
        counted.insert(found.cell.key.clone(), found.pieces);
        if octets == before {
            // Everything older in it was refused, and stays.
            counted.remove(&found.cell.key).iter().flatten().for_each(|piece| work.count(piece));
        } else {
            changes.push(found.cell.to(octets)?);
        }
    }
    let done = table.change(&changes).await?;
    for key in &done {
        for piece in counted.remove(key).iter().flatten() {
            work.report.changed += u64::from(work.is_older(piece));
            work.count(piece);
        }
    }
    report.rows_changed += u64::try_from(done.len()).unwrap_or(0);
    // What is left was changed meanwhile; it is counted as it is then.
    Ok(counted.into_keys().collect())
}

fn pieces_of(cell: &Cell) -> Result<Vec<Piece>, Failure> {
    let mut scanner = Scanner::new(cell.value.octets());
    let mut pieces = Vec::new();
    while let Some(piece) = scanner.next().map_err(Failure::Output)? {
        pieces.push(piece);
    }
    Ok(pieces)
}

/// Asks for every older ciphertext of a page, in calls of the size that the server takes.
async fn ask(work: &mut Work, found: &[Found]) -> Result<Vec<RewrapOutcome>, Failure> {
    let mut answers = Vec::new();
    let (mut items, mut octets) = (Vec::new(), 0);
    for Found { cell, pieces } in found {
        let external_aad = external_aad(&work.external_aad_text, &cell.key);
        for piece in pieces {
            let Piece::Ciphertext { text, .. } = piece else { continue };
            if !work.is_older(piece) {
                continue;
            }
            if items.len() >= super::MAX_ITEMS || octets + text.len() > super::MAX_BATCH_OCTETS {
                answers.extend(work.ask(std::mem::take(&mut items)).await?);
                octets = 0;
            }
            octets += text.len();
            items.push(CipherItem { ciphertext: text.clone(), external_aad: external_aad.clone() });
        }
    }
    answers.extend(work.ask(items).await?);
    Ok(answers)
}

fn external_aad(text: &str, key: &str) -> String {
    BASE64_STANDARD.encode(text.replace(KEY_IN_AAD, key))
}

fn changed(work: &mut Work, key: &str, text: &str, outcome: Option<RewrapOutcome>) -> Result<String, Failure> {
    match outcome {
        Some(RewrapOutcome::Newest { ciphertext, .. }) => Ok(ciphertext),
        Some(RewrapOutcome::Refused { .. }) if work.keep_refused => {
            work.report.refused += 1;
            Ok(text.to_owned())
        }
        Some(RewrapOutcome::Refused { refusal, problem }) => {
            Err(refused(refusal, format!("the row with key {key}: {problem}; nothing of its page was changed")))
        }
        None => Err(Failure::local("the server's answer is not for this request", "update keyfleet or the server")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ciphertext_may_be_bound_to_the_key_of_its_row() {
        assert_eq!(external_aad("patient {key}", "7"), BASE64_STANDARD.encode("patient 7"));
        assert_eq!(external_aad("clinic", "7"), BASE64_STANDARD.encode("clinic"));
    }
}
