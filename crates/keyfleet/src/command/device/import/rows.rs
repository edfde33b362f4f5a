//! Reading a file of devices row by row and cutting it into pieces. Runs on a thread of its own, a bounded queue ahead.

use std::fmt;
use std::io::{BufReader, Read};

use kf_api::device::{ImportFormat, RowError};
use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use tokio::sync::mpsc::Sender;

/// The most octets of one row.
const MAX_ROW_OCTETS: usize = 64 * 1024;
/// The most octets of one piece: a sixteenth of what the server takes.
const MAX_PIECE_OCTETS: usize = 4 * 1024 * 1024;

/// A piece of the file, encoded as the server wants it.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// The body to send.
    pub(super) body: Vec<u8>,
    /// For each row in `body`, its number in the file.
    pub(super) rows: Vec<u64>,
    /// Rows that are not even sent.
    pub(super) refused: Vec<RowError>,
    /// Number of the last row of this piece.
    pub(super) last_row: u64,
    /// Octets of the file read up to here.
    pub(super) octets_read: u64,
}

/// How to read and cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) encoding: ImportFormat,
    pub(super) from_row: u64,
    pub(super) rows_per_piece: usize,
}

impl Source {
    /// Reads everything and sends it piece by piece. Ends early, without an error, when nobody receives any more.
    ///
    /// # Errors
    /// What is wrong with the file as a whole, and where.
    pub(super) fn read(self, input: impl Read, pieces: &Sender<Piece>) -> Result<(), String> {
        match self.encoding {
            ImportFormat::Csv => self.read_csv(input, pieces),
            ImportFormat::Json => self.read_json(input, pieces),
        }
    }

    fn read_csv(self, input: impl Read, pieces: &Sender<Piece>) -> Result<(), String> {
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(BufReader::new(input));
        let header = reader.byte_headers().map_err(|error| error.to_string())?.clone();
        if header.is_empty() {
            return Err("there is no header line: it must begin with name,facility,product_line".to_owned());
        }
        let mut cutter = Cutter::new(self, pieces);
        let header = csv_line(&header)?;
        let mut record = csv::ByteRecord::new();
        loop {
            let more = reader.read_byte_record(&mut record).map_err(|error| error.to_string())?;
            if !more {
                return cutter.flush().map(|_received| ());
            }
            cutter.octets_read = reader.position().byte();
            let row = cutter.next_row();
            if row < self.from_row {
                continue;
            }
            let line = csv_line(&record)?;
            if record.iter().any(|field| std::str::from_utf8(field).is_err()) {
                cutter.refuse("row", "it is not UTF-8", "save the file as UTF-8");
            } else if line.len() > MAX_ROW_OCTETS {
                cutter.refuse("row", "it is longer than 64 KiB", "check for a quote that is never closed");
            } else {
                cutter.keep(&header, &line, b"");
            }
            if !cutter.flush_when_full()? {
                return Ok(());
            }
        }
    }

    fn read_json(self, input: impl Read, pieces: &Sender<Piece>) -> Result<(), String> {
        let mut cutter = Cutter::new(self, pieces);
        let mut decoder = serde_json::Deserializer::from_reader(BufReader::new(input));
        decoder
            .deserialize_seq(Rows { cutter: &mut cutter, from_row: self.from_row })
            .map_err(|error| error.to_string())?;
        decoder.end().map_err(|error| error.to_string())?;
        cutter.flush().map(|_received| ())
    }
}

fn csv_line(record: &csv::ByteRecord) -> Result<Vec<u8>, String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_byte_record(record).map_err(|error| error.to_string())?;
    writer.into_inner().map_err(|error| error.to_string())
}

/// Collects rows into pieces.
struct Cutter<'a> {
    source: Source,
    pieces: &'a Sender<Piece>,
    piece: Piece,
    row: u64,
    octets_read: u64,
}

impl<'a> Cutter<'a> {
    fn new(source: Source, pieces: &'a Sender<Piece>) -> Self {
        Self { source, pieces, piece: Piece::default(), row: 0, octets_read: 0 }
    }

    fn next_row(&mut self) -> u64 {
        self.row += 1;
        self.row
    }

    fn refuse(&mut self, field: &str, problem: &str, remedy: &str) {
        self.piece.refused.push(RowError {
            row: self.row,
            field: field.to_owned(),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        });
    }

    fn keep(&mut self, opening: &[u8], row: &[u8], separator: &[u8]) {
        self.piece.body.extend_from_slice(if self.piece.rows.is_empty() { opening } else { separator });
        self.piece.body.extend_from_slice(row);
        self.piece.rows.push(self.row);
    }

    /// Whether anybody still receives.
    fn flush_when_full(&mut self) -> Result<bool, String> {
        let rows = self.piece.rows.len() + self.piece.refused.len();
        if rows >= self.source.rows_per_piece || self.piece.body.len() >= MAX_PIECE_OCTETS {
            return self.flush();
        }
        Ok(true)
    }

    fn flush(&mut self) -> Result<bool, String> {
        let mut piece = std::mem::take(&mut self.piece);
        if piece.rows.is_empty() && piece.refused.is_empty() {
            return Ok(true);
        }
        if self.source.encoding == ImportFormat::Json && !piece.rows.is_empty() {
            piece.body.push(b']');
        }
        piece.last_row = self.row;
        piece.octets_read = self.octets_read;
        Ok(self.pieces.blocking_send(piece).is_ok())
    }
}

/// Visits the elements of the outer array one by one, so that a file of any length is never in memory whole.
struct Rows<'c, 'a> {
    cutter: &'c mut Cutter<'a>,
    from_row: u64,
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of devices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        loop {
            let row = self.cutter.next_row();
            if row < self.from_row {
                if rows.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(());
                }
                continue;
            }
            let Some(device) = rows.next_element::<Value>()? else {
                self.cutter.row -= 1;
                return Ok(());
            };
            let text = serde_json::to_vec(&device).map_err(A::Error::custom)?;
            if text.len() > MAX_ROW_OCTETS {
                self.cutter.refuse("row", "it is longer than 64 KiB", "keep large facts elsewhere");
            } else {
                self.cutter.octets_read += u64::try_from(text.len()).unwrap_or(0) + 1;
                self.cutter.keep(b"[", &text, b",");
            }
            if !self.cutter.flush_when_full().map_err(A::Error::custom)? {
                return Err(A::Error::custom("interrupted"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
