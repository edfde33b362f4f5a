//! The table as it is read and changed: pages in the order of a unique column, values compared when they are written.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::MAX_VALUE_OCTETS;
use super::connect::failed;
use crate::failure::Failure;

/// What a cell holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Text(String),
    Octets(Vec<u8>),
    TooLarge,
}

impl Value {
    pub(super) fn octets(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Octets(octets) => octets,
            Self::Null | Self::TooLarge => &[],
        }
    }
}

/// A cell, by the key of its row as text.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) key: String,
    pub(super) value: Value,
}

impl Cell {
    /// The change to other octets, of the same type.
    pub(super) fn to(self, octets: Vec<u8>) -> Result<Change, Failure> {
        let to = match &self.value {
            Value::Text(_) => Value::Text(
                String::from_utf8(octets)
                    .map_err(|_not_text| Failure::local("a changed value is no text", "report this"))?,
            ),
            _ => Value::Octets(octets),
        };
        Ok(Change { cell: self, to })
    }
}

/// A value that is to become another, if it is still as it was read.
#[derive(Debug)]
pub(super) struct Change {
    cell: Cell,
    to: Value,
}

/// A column of a table.
pub(super) struct Table {
    client: Client,
    /// Names, quoted.
    table: String,
    column: String,
    key: String,
    /// The type of the key column, as SQL writes it.
    key_type: String,
    is_octets: bool,
}

/// A name as SQL takes it, whatever is in it.
fn quoted(name: &str) -> Result<String, Failure> {
    if name.is_empty() || name.contains('\0') {
        return Err(Failure::usage("an empty name of a table or column", "name it as PostgreSQL knows it"));
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

impl Table {
    /// Finds table and columns, and looks whether they can be worked with.
    pub(super) async fn find(client: Client, table: &str, column: &str, key: Option<&str>) -> Result<Self, Failure> {
        let name = table.split('.').map(quoted).collect::<Result<Vec<_>, _>>()?.join(".");
        let known: Option<u32> =
            client.query_one("SELECT to_regclass($1)::oid", &[&name]).await.map_err(failed)?.get(0);
        let oid = known.ok_or_else(|| {
            Failure::usage(format!("there is no table {table}"), "name it with its schema, as in public.patients")
        })?;
        let kind = column_type(&client, oid, column).await?;
        let is_octets = match kind.0.as_str() {
            "text" | "varchar" => false,
            "bytea" => true,
            other => {
                let problem = format!("the column {column} is of type {other}");
                return Err(Failure::usage(problem, "text, varchar and bytea can hold ciphertexts"));
            }
        };
        let key = match key {
            Some(key) => key.to_owned(),
            None => primary_key(&client, oid, table).await?,
        };
        let key_type = column_type(&client, oid, &key).await?.1;
        must_be_unique(&client, oid, &key).await?;
        Ok(Self { client, table: name, column: quoted(column)?, key: quoted(&key)?, key_type, is_octets })
    }

    /// How many rows there are, as far as the database remembers.
    pub(super) async fn estimate(&self) -> Result<u64, Failure> {
        let sql = "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass($1)";
        let row = self.client.query_one(sql, &[&self.table]).await.map_err(failed)?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    /// What is read of a row; of a value that is too large, nothing.
    fn selected(&self) -> String {
        let Self { key, column, .. } = self;
        format!(
            "SELECT t.{key}::text, t.{column} IS NULL,
                CASE WHEN octet_length(t.{column}) <= {MAX_VALUE_OCTETS} THEN t.{column} END"
        )
    }

    fn cells(&self, rows: &[Row]) -> Result<Vec<Cell>, Failure> {
        let cell = |row: &Row| {
            let value = match (row.try_get::<_, bool>(1)?, self.is_octets) {
                (true, _) => Value::Null,
                (false, true) => row.try_get::<_, Option<Vec<u8>>>(2)?.map_or(Value::TooLarge, Value::Octets),
                (false, false) => row.try_get::<_, Option<String>>(2)?.map_or(Value::TooLarge, Value::Text),
            };
            Ok(Cell { key: row.try_get(0)?, value })
        };
        rows.iter().map(cell).collect::<Result<_, _>>().map_err(failed)
    }

    /// The rows behind a key, in the order of the key.
    pub(super) async fn page(&self, after: Option<&str>, rows: i64) -> Result<Vec<Cell>, Failure> {
        let Self { table, key, key_type, .. } = self;
        // Without the table's name, ORDER BY would take the text that is selected under the same name, and sort 10 before 9.
        let (selected, order) = (self.selected(), format!("ORDER BY t.{key} LIMIT $1"));
        let found = match after {
            None => self.client.query(&format!("{selected} FROM {table} AS t {order}"), &[&rows]).await,
            Some(after) => {
                let sql = format!("{selected} FROM {table} AS t WHERE t.{key} > CAST($2::text AS {key_type}) {order}");
                self.client.query(&sql, &[&rows, &after]).await
            }
        };
        self.cells(&found.map_err(failed)?)
    }

    /// Rows that were read before, as they are now; those that are gone are not among them, nor are values that became null.
    pub(super) async fn again(&self, keys: &[String]) -> Result<Vec<Cell>, Failure> {
        let Self { table, key, key_type, .. } = self;
        let sql = format!(
            "{} FROM {table} AS t WHERE t.{key} IN (SELECT CAST(k AS {key_type}) FROM unnest($1::text[]) AS k)",
            self.selected()
        );
        let found = self.client.query(&sql, &[&keys]).await.map_err(failed)?;
        let mut cells = self.cells(&found)?;
        cells.retain(|cell| matches!(cell.value, Value::Text(_) | Value::Octets(_)));
        Ok(cells)
    }

    /// Changes values in one transaction, each only if it is still as it was read; the keys of those that were.
    pub(super) async fn change(&self, changes: &[Change]) -> Result<Vec<String>, Failure> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let Self { table, column, key, key_type, is_octets, .. } = self;
        let keys: Vec<&str> = changes.iter().map(|change| change.cell.key.as_str()).collect();
        let keys: &(dyn ToSql + Sync) = &keys;
        let value_type = if *is_octets { "bytea" } else { "text" };
        let sql = format!(
            "UPDATE {table} AS t SET {column} = n.after
                FROM unnest($1::text[], $2::{value_type}[], $3::{value_type}[]) AS n(key, before, after)
                WHERE t.{key} = CAST(n.key AS {key_type}) AND t.{column} = n.before RETURNING n.key"
        );
        let (before, after): (Vec<&Value>, Vec<&Value>) =
            changes.iter().map(|change| (&change.cell.value, &change.to)).unzip();
        let found = if *is_octets {
            let octets = |values: &[&Value]| values.iter().map(|value| value.octets().to_vec()).collect::<Vec<_>>();
            let (before, after) = (octets(&before), octets(&after));
            self.client.query(&sql, &[keys, &before, &after]).await
        } else {
            let texts = |values: &[&Value]| {
                values.iter().map(|value| String::from_utf8_lossy(value.octets()).into_owned()).collect()
            };
            let (before, after): (Vec<String>, Vec<String>) = (texts(&before), texts(&after));
            self.client.query(&sql, &[keys, &before, &after]).await
        };
        found.map_err(failed)?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed)
    }
}

/// The name of a column's type, and the type as SQL writes it.
async fn column_type(client: &Client, table: u32, column: &str) -> Result<(String, String), Failure> {
    let sql = "SELECT t.typname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
        JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped";
    let statement = client.prepare_typed(sql, &[Type::OID, Type::TEXT]).await.map_err(failed)?;
    let row = client.query_opt(&statement, &[&table, &column]).await.map_err(failed)?;
    let row =
        row.ok_or_else(|| Failure::usage(format!("there is no column {column}"), "name it as PostgreSQL knows it"))?;
    Ok((row.get(0), row.get(1)))
}

async fn primary_key(client: &Client, table: u32, name: &str) -> Result<String, Failure> {
    let sql = "SELECT a.attname::text FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = $1 AND i.indisprimary";
    let statement = client.prepare_typed(sql, &[Type::OID]).await.map_err(failed)?;
    let rows = client.query(&statement, &[&table]).await.map_err(failed)?;
    match &rows[..] {
        [row] => Ok(row.get(0)),
        _ => Err(Failure::usage(
            format!("{name} has no primary key of one column"),
            "name a column that is unique and never null with --key-column",
        )),
    }
}

/// Pages go by this column: two rows with one key, or none, would be skipped.
async fn must_be_unique(client: &Client, table: u32, key: &str) -> Result<(), Failure> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
        WHERE i.indrelid = $1 AND a.attname = $2 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
            AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum AND a.attnotnull)";
    let statement = client.prepare_typed(sql, &[Type::OID, Type::TEXT]).await.map_err(failed)?;
    let is_unique: bool = client.query_one(&statement, &[&table, &key]).await.map_err(failed)?.get(0);
    if is_unique {
        return Ok(());
    }
    let remedy = "give a column that has a unique index of its own and is NOT NULL";
    Err(Failure::usage(format!("the column {key} may hold a value twice, or none"), remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_name_whatever_is_in_it() {
        assert_eq!(quoted("a\"; DROP TABLE b").unwrap(), "\"a\"\"; DROP TABLE b\"");
        assert!(quoted("").is_err() && quoted("a\0b").is_err());
    }
}
