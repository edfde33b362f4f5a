//! The schema as numbered migrations, applied in order, each in its own transaction. A file of a newer version is
//! refused.

use rusqlite::Connection;

use crate::StoreError;

/// `PRAGMA application_id` of our files: "KfSt".
const APPLICATION_ID: i64 = 0x4b66_5374;

/// The migrations; the version of the schema is how many have been applied. One that was released never changes.
const MIGRATIONS: [&str; 1] = [include_str!("schema/0001.sql")];

/// The newest schema version that is known here.
pub(crate) fn known_version() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

fn version(connection: &Connection) -> Result<u32, StoreError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    u32::try_from(found).map_err(|_negative| StoreError::Corrupt { what: format!("schema version {found}") })
}

/// The schema version of a copy, which is not brought up to date.
pub(crate) fn of_copy(connection: &Connection) -> Result<u32, StoreError> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let (found, known) = (version(connection)?, known_version());
    if application != APPLICATION_ID || found == 0 {
        return Err(StoreError::Corrupt { what: "this is no registry".into() });
    }
    if found > known { Err(StoreError::NewerSchema { found, known }) } else { Ok(found) }
}

/// Brings the schema up to date.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let known = known_version();
    let found = version(connection)?;
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && tables != 0 {
        return Err(StoreError::Corrupt { what: "this is a database of another program".into() });
    }
    let skip = usize::try_from(found).unwrap_or(usize::MAX);
    for (migration, next) in MIGRATIONS.iter().skip(skip).zip(found.saturating_add(1)..) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", next)?;
        transaction.commit()?;
    }
    Ok(())
}
