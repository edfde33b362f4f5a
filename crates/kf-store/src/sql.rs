//! Running statements, cached on their connection.

use kf_access::Visibility;
use rusqlite::{Connection, ErrorCode, Params, Row, ToSql, ffi};

use crate::StoreError;

/// Condition that limits a statement to a facility in the scope bound to `?1`: null for the whole fleet, otherwise a
/// JSON array of facility ids in hexadecimal, made by [`scope`].
macro_rules! in_scope {
    ($column:literal) => {
        concat!("(?1 IS NULL OR hex(", $column, ") IN (SELECT value FROM json_each(?1)))")
    };
}
pub(crate) use in_scope;

/// The parameter of [`in_scope`].
pub(crate) fn scope(visibility: &Visibility) -> Option<String> {
    match visibility {
        Visibility::Fleet => None,
        Visibility::Facilities(facilities) => {
            let quoted: Vec<_> =
                facilities.iter().map(|id| format!("\"{}\"", hex::encode_upper(id.as_bytes()))).collect();
            Some(format!("[{}]", quoted.join(",")))
        }
    }
}

/// The one row, if there is one.
pub(crate) fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    Ok(match rows.next()? {
        None => None,
        Some(row) => Some(read(row)?),
    })
}

/// All rows; the statement carries the limit.
pub(crate) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// Whether there is a row.
pub(crate) fn exists(connection: &Connection, sql: &str, params: impl Params) -> Result<bool, StoreError> {
    one(connection, sql, params, |_row| Ok(())).map(|found| found.is_some())
}

/// Runs several reads on one snapshot of the database: they fit together, and its locks are taken once.
pub(crate) fn at_once<T>(
    connection: &Connection,
    read: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if !connection.is_autocommit() {
        return read();
    }
    execute(connection, "BEGIN", [])?;
    let found = read();
    execute(connection, "COMMIT", [])?;
    found
}

/// Runs a statement that changes rows; how many it changed.
pub(crate) fn execute(connection: &Connection, sql: &str, params: impl Params) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached(sql)?.execute(params)?)
}

/// Inserts rows of two columns into what `head` names, many with each statement: what a statement costs by itself is more than a
/// row. `head` must resolve conflicts by itself (`INSERT OR …`), without which SQLite notes how to undo half a statement.
pub(crate) fn insert_pairs<A: ToSql, B: ToSql>(
    connection: &Connection,
    head: &str,
    rows: &[(A, B)],
) -> Result<(), StoreError> {
    const ROWS_AT_ONCE: [usize; 3] = [32, 8, 1];
    let mut rest = rows;
    for count in ROWS_AT_ONCE {
        if rest.len() < count {
            continue;
        }
        let sql = format!("{head} VALUES {}(?, ?)", "(?, ?), ".repeat(count - 1));
        let mut statement = connection.prepare_cached(&sql)?;
        while let Some((rows, others)) = rest.split_at_checked(count) {
            for (place, (first, second)) in (1..).step_by(2).zip(rows) {
                statement.raw_bind_parameter(place, first)?;
                statement.raw_bind_parameter(place + 1, second)?;
            }
            statement.raw_execute()?;
            rest = others;
        }
    }
    Ok(())
}

/// The unique column that a statement violated, from SQLite's message `UNIQUE constraint failed: table.column`.
fn violated(message: &str) -> &'static str {
    const KNOWN: [(&str, &str); 18] = [
        ("batch.station, batch.sequence", "sequence"),
        ("batch.request", "station request"),
        ("batch.key_identifier", "station request"),
        ("batch.authority", "authority"),
        ("device_order.device, device_order.counter", "counter"),
        ("encryption_key_version.key", "version"),
        ("voucher.id", "voucher"),
        ("backup_key.recipient", "recipient"),
        ("succession.predecessor", "succession"),
        ("certificate.serial", "serial"),
        ("pre_image.serial", "serial"),
        ("code.hash", "code"),
        ("token.hash", "token"),
        ("key.id", "key"),
        ("spki.sha256", "key"),
        (".name", "name"),
        (".id", "id"),
        ("enrolment.device", "enrolment"),
    ];
    KNOWN.iter().find(|(column, _)| message.contains(column)).map_or("value", |(_, field)| field)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let what = error.to_string();
        match &error {
            rusqlite::Error::SqliteFailure(failure, message) => match failure.code {
                ErrorCode::DiskFull => Self::Full,
                // The shared-memory file of the WAL could not grow: what a full disk looks like from there.
                _ if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Self::Full,
                ErrorCode::ConstraintViolation => {
                    Self::Conflict { field: violated(message.as_deref().unwrap_or_default()) }
                }
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt { what },
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy,
                _ => Self::Io { what },
            },
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..) => Self::Corrupt { what },
            _ => Self::Io { what },
        }
    }
}
