//! The rows of an import, one after the other, from CSV (RFC 4180) or a JSON array, without holding them all.

use std::collections::{BTreeMap, BTreeSet};

use kf_api::device::{ImportFormat, NewDevice};
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::FleetError;
use crate::naming::shortened;

/// The most octets of an import.
pub(crate) const MAX_OCTETS: usize = 64 << 20;
/// The most rows of an import.
pub(crate) const MAX_ROWS: u64 = 1_000_000;

const REQUIRED: [&str; 3] = ["name", "facility", "product_line"];
const HEADER_REMEDY: &str =
    "begin with `name,facility,product_line`, then, where wanted, `batch` and `attr.<key>` columns";
const ARRAY_REMEDY: &str =
    "send one JSON array of objects with name, facility, product_line and, where wanted, batch and attributes";

/// A row that could not be read as a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadRow {
    pub(crate) field: String,
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

/// Reads the rows of one text.
pub(crate) enum Rows<'a> {
    /// Columns by position, and the reader behind the header.
    Csv { columns: Vec<Column>, reader: Box<csv::Reader<&'a [u8]>> },
    /// A JSON array.
    Json(Elements<'a>),
}

/// What a CSV column holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    Name,
    Facility,
    ProductLine,
    Batch,
    Attribute(String),
}

impl<'a> Rows<'a> {
    /// Begins to read: checks size, and header or opening bracket.
    ///
    /// # Errors
    /// [`FleetError::Invalid`].
    pub(crate) fn new(format: ImportFormat, text: &'a [u8]) -> Result<Self, FleetError> {
        if text.len() > MAX_OCTETS {
            return Err(FleetError::invalid(
                "body",
                format!("{} octets are more than {MAX_OCTETS}", text.len()),
                "split the file; rows that are there already are passed over",
            ));
        }
        // Spreadsheets put a byte order mark in front.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        match format {
            ImportFormat::Json => Ok(Self::Json(Elements::new(text)?)),
            ImportFormat::Csv => {
                let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
                let columns = columns_of(reader.byte_headers().map_err(|_unreadable| no_header("is unreadable"))?)?;
                Ok(Self::Csv { columns, reader: Box::new(reader) })
            }
        }
    }

    /// The next row; `None` after the last one.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] where the text as a whole cannot be read any further.
    pub(crate) fn next_row(&mut self) -> Result<Option<Result<NewDevice, BadRow>>, FleetError> {
        match self {
            Self::Csv { columns, reader } => {
                let mut record = csv::ByteRecord::new();
                let found = reader.read_byte_record(&mut record).map_err(|error| broken("body", &error.to_string()))?;
                Ok(found.then(|| device_of_record(columns, &record)))
            }
            Self::Json(elements) => {
                let Some(value) = elements.next::<serde_json::Value>()? else { return Ok(None) };
                Ok(Some(serde_json::from_value(value).map_err(|error| BadRow {
                    field: "row".into(),
                    problem: shortened(&error.to_string()),
                    remedy: "give name, facility, product_line and, where wanted, batch and attributes".into(),
                })))
            }
        }
    }

    /// Passes over up to `most` rows; says how many there were. For counting before anything is written.
    ///
    /// # Errors
    /// As [`Rows::next_row`].
    pub(crate) fn skip(&mut self, most: u64) -> Result<u64, FleetError> {
        let mut record = csv::ByteRecord::new();
        for passed in 0..most {
            let more = match self {
                Self::Csv { reader, .. } => {
                    reader.read_byte_record(&mut record).map_err(|error| broken("body", &error.to_string()))?
                }
                Self::Json(elements) => elements.next::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(passed);
            }
        }
        Ok(most)
    }
}

fn no_header(problem: &str) -> FleetError {
    FleetError::invalid("header", problem, HEADER_REMEDY)
}

fn broken(field: &str, problem: &str) -> FleetError {
    FleetError::invalid(
        field,
        shortened(problem),
        "correct the text there; nothing before that place is lost by sending it again",
    )
}

/// What each column of a header holds: known names only, each once, the required ones all there.
fn columns_of(header: &csv::ByteRecord) -> Result<Vec<Column>, FleetError> {
    let mut columns = Vec::with_capacity(header.len());
    for name in header {
        let name = std::str::from_utf8(name).map_err(|_not_text| no_header("is not UTF-8"))?.trim();
        columns.push(match name {
            "name" => Column::Name,
            "facility" => Column::Facility,
            "product_line" => Column::ProductLine,
            "batch" => Column::Batch,
            _ => match name.strip_prefix("attr.") {
                Some(key) if !key.is_empty() => Column::Attribute(key.to_owned()),
                _ => return Err(no_header(&format!("has an unknown column `{}`", shortened(name)))),
            },
        });
    }
    for (required, column) in REQUIRED.into_iter().zip([Column::Name, Column::Facility, Column::ProductLine]) {
        if !columns.contains(&column) {
            return Err(no_header(&format!("lacks the column `{required}`")));
        }
    }
    if columns.iter().collect::<BTreeSet<_>>().len() != columns.len() {
        return Err(no_header("has a column twice"));
    }
    Ok(columns)
}

/// A device from the fields of a row. Empty fields of `batch` and attributes mean that there is none.
fn device_of_record(columns: &[Column], record: &csv::ByteRecord) -> Result<NewDevice, BadRow> {
    if record.len() != columns.len() {
        return Err(BadRow {
            field: "row".into(),
            problem: format!("has {} fields, the header has {}", record.len(), columns.len()),
            remedy: "give every column a field, empty where there is nothing; put fields with commas in quotes".into(),
        });
    }
    let (mut name, mut facility, mut product_line) = (String::new(), String::new(), String::new());
    let (mut batch, mut attributes) = (None, BTreeMap::new());
    for (column, field) in columns.iter().zip(record) {
        let text = std::str::from_utf8(field).map_err(|_not_text| BadRow {
            field: column_name(column),
            problem: "is not UTF-8".into(),
            remedy: "save the file as UTF-8".into(),
        })?;
        match column {
            Column::Name => text.clone_into(&mut name),
            Column::Facility => text.clone_into(&mut facility),
            Column::ProductLine => text.clone_into(&mut product_line),
            Column::Batch => batch = (!text.is_empty()).then(|| text.to_owned()),
            Column::Attribute(key) if !text.is_empty() => {
                attributes.insert(key.clone(), text.to_owned());
            }
            Column::Attribute(_) => {}
        }
    }
    Ok(NewDevice { name, facility, product_line, batch, attributes })
}

fn column_name(column: &Column) -> String {
    match column {
        Column::Name => "name".into(),
        Column::Facility => "facility".into(),
        Column::ProductLine => "product_line".into(),
        Column::Batch => "batch".into(),
        Column::Attribute(key) => format!("attributes.{}", shortened(key)),
    }
}

/// The elements of a JSON array, read one at a time.
pub(crate) struct Elements<'a> {
    text: &'a [u8],
    /// What has not been read; `None` after the closing bracket.
    rest: Option<&'a [u8]>,
    first: bool,
}

impl<'a> Elements<'a> {
    fn new(text: &'a [u8]) -> Result<Self, FleetError> {
        let rest = text
            .trim_ascii_start()
            .strip_prefix(b"[")
            .ok_or_else(|| FleetError::invalid("body", "is not a JSON array", ARRAY_REMEDY))?;
        Ok(Self { text, rest: Some(rest), first: true })
    }

    /// The next element.
    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FleetError> {
        let Some(rest) = self.rest else { return Ok(None) };
        let rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b"]") {
            self.rest = None;
            return if after.trim_ascii().is_empty() {
                Ok(None)
            } else {
                Err(self.broken(after, "text after the array"))
            };
        }
        let rest = match (self.first, rest.strip_prefix(b",")) {
            (true, None) => rest,
            (false, Some(after)) => after,
            _ => return Err(self.broken(rest, "expected a comma between elements, or the end of the array")),
        };
        self.first = false;
        let mut stream = serde_json::Deserializer::from_slice(rest).into_iter::<T>();
        match stream.next() {
            Some(Ok(value)) => {
                self.rest = rest.get(stream.byte_offset()..);
                Ok(Some(value))
            }
            Some(Err(error)) => Err(self.broken(rest, &error.to_string())),
            None => Err(self.broken(b"", "the array is not closed")),
        }
    }

    /// An error at the beginning of `rest`, the part of the text that is unread. Reading ends here.
    fn broken(&mut self, rest: &[u8], problem: &str) -> FleetError {
        self.rest = None;
        let read = self.text.get(..self.text.len().saturating_sub(rest.len())).unwrap_or_default();
        let line = 1 + read.iter().filter(|octet| **octet == b'\n').count();
        // serde_json counts lines from where it began.
        let problem = problem.split(" at line ").next().unwrap_or(problem);
        FleetError::invalid("body", format!("not JSON from line {line} on: {}", shortened(problem)), ARRAY_REMEDY)
    }
}

#[cfg(test)]
mod tests;
