//! Facilities.

use kf_access::Visibility;
use kf_api::facility::Facility;
use kf_api::{Page, PageRequest};
use kf_key::FacilityId;

use rusqlite::{Connection, Row};

use crate::act::Class;
use crate::column::{self, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError, epoch};

fn row(row: &Row<'_>) -> rusqlite::Result<Facility> {
    Ok(Facility {
        id: column::id(row, 0)?,
        name: row.get(1)?,
        description: row.get(2)?,
        created: column::time(row, 3)?,
    })
}

/// See [`Store::facility`].
pub(crate) fn by_id(
    connection: &Connection,
    id: FacilityId,
    visibility: &Visibility,
) -> Result<Option<Facility>, StoreError> {
    let sql = concat!("SELECT id, name, description, created FROM facility WHERE id = ?2 AND ", in_scope!("id"));
    sql::one(connection, sql, (scope(visibility), id.as_bytes()), row)
}

impl Store {
    /// Adds a facility, with its first key epoch.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`.
    pub async fn insert_facility(&self, facility: Facility, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let Facility { id, name, description, created } = &facility;
            let sql = "INSERT INTO facility (id, name, description, created) VALUES (?1, ?2, ?3, ?4)";
            act.execute(sql, (id.as_bytes(), name, description, millis(*created)))?;
            epoch::found(act, *id, *created)
        })
        .await
    }

    /// A facility by id; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn facility(&self, id: FacilityId, visibility: &Visibility) -> Result<Option<Facility>, StoreError> {
        self.read(|connection| by_id(connection, id, visibility))
    }

    /// A facility by name; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn facility_by_name(&self, name: &str, visibility: &Visibility) -> Result<Option<Facility>, StoreError> {
        let sql = concat!("SELECT id, name, description, created FROM facility WHERE name = ?2 AND ", in_scope!("id"));
        self.read(|connection| sql::one(connection, sql, (scope(visibility), name), row))
    }

    /// The ids of all facilities, in their order.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn facility_ids(&self) -> Result<Vec<FacilityId>, StoreError> {
        self.read(|connection| {
            sql::all(connection, "SELECT id FROM facility ORDER BY id", [], |row| column::id(row, 0))
        })
    }

    /// Facilities in the order of their ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn facilities(&self, visibility: &Visibility, page: &PageRequest) -> Result<Page<Facility>, StoreError> {
        let after = match &page.after {
            None => None,
            Some(text) => Some(text.parse::<FacilityId>().map_err(|_detail| BAD_CURSOR)?),
        };
        let after = after.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        let sql = concat!(
            "SELECT id, name, description, created FROM facility WHERE id > ?2 AND ",
            in_scope!("id"),
            " ORDER BY id LIMIT ?3"
        );
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let mut items =
            self.read(|connection| sql::all(connection, sql, (scope(visibility), after, page.rows() + 1), row))?;
        let next = next_of(&mut items, rows, |last| last.id.to_string());
        Ok(Page { items, next })
    }
}
