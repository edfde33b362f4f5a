//! Standard output carries data in one of three formats; standard error carries talk.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Aligned columns for people; may change.
    #[default]
    Table,
    /// The API's own JSON; stable.
    Json,
    /// RFC 4180, a header line first; columns are only ever added at the end.
    Csv,
}

/// Fields whose number is a moment in milliseconds since 1970.
const MOMENTS: [&str; 41] = [
    "written",
    "issued",
    "created",
    "last_seen",
    "not_before",
    "not_after",
    "revoked",
    "expires",
    "used",
    "requested",
    "effective",
    "crl_next_update",
    "at",
    "this_update",
    "next_update",
    "renew_at",
    "retired",
    "offered",
    "acknowledged",
    "delivered",
    "ended",
    "activated",
    "rotate_at",
    "started",
    "begins",
    "deactivated",
    "destroyed",
    "key_destroyed",
    "since",
    "opened",
    "closed",
    "planned",
    "due",
    "made",
    "switched",
    "last_expiry",
    "ends",
    "recorded",
    "withdrawn",
    "as_of",
    "rehearsed",
];

/// 2000-01-01T00:00:00Z in milliseconds: what is smaller counts something, under a name that is elsewhere a moment's.
const FIRST_MOMENT: u64 = 946_684_800_000;

/// The most characters of a nested object that stands beside its field.
const BESIDE: usize = 72;
/// How the name of a field ends whose number is a length of time; people read it as a period, without that ending.
const SECONDS: &str = "_seconds";

/// Fields that come first when one object is shown.
const FIRST: [&str; 7] = ["id", "serial", "name", "subject", "kind", "state", "status"];

/// Readable names of identifiers, for tables.
pub(crate) type Names = BTreeMap<String, String>;

/// Talks to the person: a line on standard error. Nobody listening is no failure.
pub(crate) fn say(text: &str) {
    drop(writeln!(io::stderr(), "{}", printable_lines(text)));
}

/// Whether a person sits at both ends and can be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A bar for work on this many octets, where somebody looks.
pub(crate) fn octets_bar(octets: u64) -> ProgressBar {
    let bar = ProgressBar::new(octets);
    if !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    match ProgressStyle::with_template("{bar:40} {percent}% {bytes}/{total_bytes}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_bad_template) => bar,
    }
}

/// A bar for work on rows, where somebody looks.
pub(crate) fn count_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    match ProgressStyle::with_template("{bar:40} {pos}/{len} rows, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_bad_template) => bar,
    }
}

/// A bar for work on devices, where somebody looks.
pub(crate) fn devices_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    match ProgressStyle::with_template("{bar:40} {percent}% {pos}/{len} devices, {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_bad_template) => bar,
    }
}

/// Writes a text to standard output as it is.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Writes one object: JSON, or `field  value` lines, or a CSV of one row with every field.
pub(crate) fn object<T: Serialize>(format: Format, item: &T, names: &Names) -> Result<(), Failure> {
    match format {
        Format::Json => {
            let mut text = serde_json::to_string_pretty(item).map_err(unwritable)?;
            text.push('\n');
            raw(text.as_bytes())
        }
        Format::Table => raw(details(&to_value(item)?, names).as_bytes()),
        Format::Csv => {
            let value = to_value(item)?;
            let columns: Vec<&str> = value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
            let mut listing = Listing::new(format, &columns);
            listing.rows(std::slice::from_ref(&value), names)?;
            listing.end(None)
        }
    }
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure::Output(io::Error::other(error))
}

/// The JSON form of an item.
pub(crate) fn to_value<T: Serialize>(item: &T) -> Result<Value, Failure> {
    serde_json::to_value(item).map_err(unwritable)
}

fn values<T: Serialize>(rows: &[T]) -> Result<Vec<Value>, Failure> {
    rows.iter().map(to_value).collect()
}

/// Rows of a listing, written as they come. JSON: `{"items": […], "next": …}`, one item a line.
pub(crate) struct Listing {
    format: Format,
    columns: Vec<String>,
    widths: Vec<usize>,
    written: u64,
}

impl Listing {
    /// A listing with these fields as columns. A dot reaches into a nested object.
    pub(crate) fn new(format: Format, columns: &[&str]) -> Self {
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        let widths = columns.iter().map(|column| title(column).chars().count()).collect();
        Self { format, columns, widths, written: 0 }
    }

    /// How many rows were written.
    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// Writes further rows.
    pub(crate) fn rows<T: Serialize>(&mut self, rows: &[T], names: &Names) -> Result<(), Failure> {
        let mut text = String::new();
        match self.format {
            Format::Json => {
                for row in rows {
                    text.push_str(if self.written == 0 { "{\"items\": [\n" } else { ",\n" });
                    text.push_str(&serde_json::to_string(row).map_err(unwritable)?);
                    self.written += 1;
                }
            }
            Format::Table => self.table_rows(&values(rows)?, names, &mut text),
            Format::Csv => self.csv_rows(&values(rows)?, &mut text)?,
        }
        raw(text.as_bytes())
    }

    fn table_rows(&mut self, rows: &[Value], names: &Names, text: &mut String) {
        let cells: Vec<Vec<String>> =
            rows.iter().map(|row| self.columns.iter().map(|column| table_cell(row, column, names)).collect()).collect();
        for row in &cells {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if self.written == 0 && !rows.is_empty() {
            let titles: Vec<String> = self.columns.iter().map(|column| title(column)).collect();
            self.line(&titles, text);
        }
        for row in &cells {
            self.line(row, text);
            self.written += 1;
        }
    }

    fn line(&self, cells: &[String], text: &mut String) {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&self.widths) {
            line.push_str(cell);
            let missing = (width + 2).saturating_sub(cell.chars().count());
            line.extend(std::iter::repeat_n(' ', missing));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }

    fn csv_rows(&mut self, rows: &[Value], text: &mut String) -> Result<(), Failure> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let refused = |error: csv::Error| Failure::Output(io::Error::other(error));
        if self.written == 0 {
            writer.write_record(&self.columns).map_err(refused)?;
        }
        for row in rows {
            let cells = self.columns.iter().map(|column| plain_cell(row, column));
            writer.write_record(cells).map_err(refused)?;
            self.written += 1;
        }
        let bytes = writer.into_inner().map_err(|error| Failure::Output(error.into_error()))?;
        text.push_str(&String::from_utf8_lossy(&bytes));
        Ok(())
    }

    /// Ends the listing; `next` is where the next page starts.
    pub(crate) fn end(&mut self, next: Option<&str>) -> Result<(), Failure> {
        match self.format {
            Format::Json => {
                let open = if self.written == 0 { "{\"items\": [" } else { "\n" };
                let next = match next {
                    Some(next) => format!(", \"next\": {}", Value::from(next)),
                    None => String::new(),
                };
                raw(format!("{open}]{next}}}\n").as_bytes())
            }
            Format::Csv if self.written == 0 => self.rows::<Value>(&[], &Names::new()),
            Format::Csv => Ok(()),
            Format::Table if self.written == 0 => {
                say("nothing to list");
                Ok(())
            }
            Format::Table => Ok(()),
        }
    }
}

fn title(column: &str) -> String {
    let key = column.rsplit('.').next().unwrap_or(column);
    key.strip_suffix(SECONDS).unwrap_or(key).replace('_', " ").to_uppercase()
}

fn field<'a>(row: &'a Value, column: &str) -> &'a Value {
    column.split('.').fold(row, |value, key| value.get(key).unwrap_or(&Value::Null))
}

fn table_cell(row: &Value, column: &str, names: &Names) -> String {
    let text = shown(column.rsplit('.').next().unwrap_or(column), field(row, column));
    let text = names.get(&text).cloned().unwrap_or(text);
    printable(if text.is_empty() { "-" } else { &text })
}

fn plain_cell(row: &Value, column: &str) -> String {
    let key = column.rsplit('.').next().unwrap_or(column);
    plain(key, field(row, column))
}

/// As [`plain`], for people: a length of time as a period.
fn shown(key: &str, value: &Value) -> String {
    match value.as_u64() {
        Some(seconds) if key.ends_with(SECONDS) => crate::moment::period(seconds),
        _ => plain(key, value),
    }
}

fn plain(key: &str, value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if MOMENTS.contains(&key) => match number.as_u64() {
            Some(millis) if millis >= FIRST_MOMENT => crate::moment::text(kf_key::UnixMillis(millis)),
            _ => number.to_string(),
        },
        Value::Array(items) if items.iter().all(|item| item.is_string() || item.is_number()) => {
            let items: Vec<String> = items.iter().map(|item| plain(key, item)).collect();
            items.join(if items.iter().any(|item| item.contains(' ')) { "; " } else { " " })
        }
        Value::Array(items) if items.iter().all(is_flat) => {
            let facts = |item: &Value| {
                let facts = item.as_object().into_iter().flatten();
                facts.map(|(key, value)| format!("{key}={}", plain(key, value))).collect::<Vec<_>>().join(" ")
            };
            items.iter().map(facts).collect::<Vec<_>>().join("; ")
        }
        Value::Object(map) if map.values().all(Value::is_string) => {
            map.iter().map(|(key, value)| format!("{key}={}", plain(key, value))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// Whether it is an object of words and numbers.
fn is_flat(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.values().all(|value| value.is_string() || value.is_number()))
}

/// `field  value` lines. What does not fit beside its field stands below it, indented: an object as such lines, objects as a
/// table, sentences one a line.
fn details(value: &Value, names: &Names) -> String {
    let Value::Object(map) = value else { return format!("{}\n", printable(&plain("", value))) };
    let key_of = |key: &str, value: &Value| match value.is_u64() {
        true => key.strip_suffix(SECONDS).unwrap_or(key).to_owned(),
        false => key.to_owned(),
    };
    let mut fields: Vec<_> = map.iter().map(|(key, value)| (key, key_of(key, value), value)).collect();
    let width = fields.iter().map(|(_, title, _)| title.chars().count()).max().unwrap_or(0) + 2;
    fields.sort_by_key(|(key, ..)| rank(key));
    let mut text = String::new();
    for (key, title, value) in fields {
        if let Some(below) = below(key, value, names) {
            text.push_str(&format!("{title}:\n"));
            below.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
            continue;
        }
        let shown = beside(key, value);
        let shown = names.get(&shown).map_or(shown.clone(), |name| format!("{name} ({shown})"));
        if shown.contains('\n') {
            text.push_str(&format!("{title}:\n{}\n", printable_lines(shown.trim_end())));
        } else {
            text.push_str(&format!("{title:width$}{}\n", printable(if shown.is_empty() { "-" } else { &shown })));
        }
    }
    text
}

/// Where a field stands among the others.
fn rank(key: &str) -> usize {
    FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len())
}

/// A value on the line of its field.
fn beside(key: &str, value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let facts = map.iter().map(|(key, value)| format!("{key}={}", plain(key, value)));
            facts.collect::<Vec<_>>().join(" ")
        }
        other => shown(key, other),
    }
}

/// A value that stands below its field; `None` for one that fits beside it.
fn below(key: &str, value: &Value, names: &Names) -> Option<String> {
    match value {
        Value::Object(map) => {
            let is_small = map.values().all(Value::is_string) || map.values().all(Value::is_number);
            let fits = is_small && beside(key, value).chars().count() <= BESIDE;
            (!fits).then(|| details(value, names))
        }
        Value::Array(items) if items.iter().all(is_flat) => (!items.is_empty()).then(|| table(items, names)),
        Value::Array(items) if items.iter().all(Value::is_string) && plain(key, value).chars().count() > BESIDE => {
            let lines = items.iter().filter_map(Value::as_str);
            Some(lines.map(|line| format!("- {}\n", printable(line))).collect())
        }
        _ => None,
    }
}

/// Objects as a table; sentences come last.
fn table(items: &[Value], names: &Names) -> String {
    let widest = |key: &str| items.iter().map(|item| table_cell(item, key, names).chars().count()).max().unwrap_or(0);
    let keys: std::collections::BTreeSet<&String> =
        items.iter().filter_map(Value::as_object).flat_map(|map| map.keys()).collect();
    let mut columns: Vec<&str> = keys.into_iter().map(String::as_str).collect();
    columns.sort_by_key(|key| (Some(widest(key)).filter(|width| *width > BESIDE / 2), rank(key)));
    let mut text = String::new();
    Listing::new(Format::Table, &columns).table_rows(items, names, &mut text);
    text
}

/// A text that came from elsewhere, without what a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn printable_lines(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests;
