//! What was checked, one line each.

use serde::Serialize;

/// One check and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    /// What was looked at.
    pub(crate) what: String,
    /// What was found.
    pub(crate) found: String,
    /// What it must be.
    pub(crate) limit: String,
    pub(crate) holds: bool,
    /// For which target; none for what is about no single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<&'static str>,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    Text,
    /// One JSON object a line.
    Json,
}

/// Prints a row as soon as it is known.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn print(format: Format, row: &Row) -> std::io::Result<()> {
    use std::io::Write as _;
    let Row { what, found, limit, holds, target } = row;
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string(row)?),
        Format::Text => {
            let (verdict, target) = (if *holds { "holds" } else { "FAILS" }, target.unwrap_or("life"));
            let family = target.split('-').next().unwrap_or(target);
            writeln!(out, "{verdict} {family:<12} {what:<42} {found:<46} {limit}")
        }
    }
}
