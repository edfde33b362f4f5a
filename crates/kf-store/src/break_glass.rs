//! Break-glass credentials: hashes and sealed secrets, and how each was used.

use kf_access::Visibility;
use kf_api::break_glass::BreakGlass;
use kf_api::{Page, PageRequest};
use kf_key::{FacilityId, ProposalId, UnixMillis};
use rusqlite::Row;

use crate::act::{Act, Class};
use crate::column::{self, integer, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

fn row(row: &Row<'_>) -> rusqlite::Result<BreakGlass> {
    column::json(row, 0)
}

fn text_of(record: &BreakGlass) -> Result<String, StoreError> {
    serde_json::to_string(record)
        .map_err(|_detail| StoreError::Invalid { field: "break-glass", problem: "is unwritable" })
}

fn write(act: &Act<'_>, record: &BreakGlass) -> Result<(), StoreError> {
    let ended = record.used.as_ref().and_then(|used| used.ended);
    let sql = "UPDATE break_glass SET record = ?2, ended = ?3 WHERE id = ?1";
    match act.execute(sql, (record.id.as_bytes(), text_of(record)?, ended.map(millis)))? {
        0 => Err(StoreError::NotFound { what: "break-glass credential" }),
        _ => Ok(()),
    }
}

fn in_transaction(act: &Act<'_>, id: ProposalId) -> Result<BreakGlass, StoreError> {
    let found = act.one("SELECT record FROM break_glass WHERE id = ?1", [id.as_bytes()], row)?;
    found.ok_or(StoreError::NotFound { what: "break-glass credential" })
}

fn changed() -> StoreError {
    StoreError::IllegalState {
        what: "break-glass credential",
        found: "another state".into(),
        expected: "as seen".into(),
    }
}

impl Store {
    /// Keeps a credential that was agreed to. `facility` is the one it is for, where it is one: its operators see it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name`.
    pub async fn insert_break_glass(
        &self,
        record: BreakGlass,
        facility: Option<FacilityId>,
        (hash, sealed): ([u8; 32], Vec<u8>),
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let sql =
                "INSERT INTO break_glass (id, name, facility, hash, record, sealed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let facility = facility.as_ref().map(FacilityId::as_bytes);
            let params = (record.id.as_bytes(), &record.name, facility, hash, text_of(&record)?, &sealed);
            act.execute(sql, params)?;
            Ok(())
        })
        .await
    }

    /// Opens one: exactly one of two at a time succeeds, and none ever again. The session's token is found by `session`.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when it was opened or withdrawn before.
    pub async fn open_break_glass(
        &self,
        record: BreakGlass,
        session: [u8; 32],
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            let found = in_transaction(act, record.id)?;
            let Some(used) = record.used.as_ref().filter(|_| found.used.is_none() && found.withdrawn.is_none()) else {
                return Err(changed());
            };
            write(act, &record)?;
            let sql = "UPDATE break_glass SET session = ?2, opened = ?3, ends = ?4 WHERE id = ?1";
            act.execute(sql, (record.id.as_bytes(), session, millis(used.opened), millis(used.ends)))?;
            Ok(())
        })
        .await
    }

    /// Keeps what became of one, if it is still as `seen`.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when it is not.
    pub async fn keep_break_glass(
        &self,
        seen: BreakGlass,
        record: BreakGlass,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            if in_transaction(act, record.id)? != seen {
                return Err(changed());
            }
            write(act, &record)
        })
        .await
    }

    /// The credential whose secret has this hash.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn break_glass_by_secret(&self, hash: &[u8; 32]) -> Result<Option<BreakGlass>, StoreError> {
        self.read(|connection| sql::one(connection, "SELECT record FROM break_glass WHERE hash = ?1", [hash], row))
    }

    /// The credential whose session has this hash. Whether it is over is the caller's to say.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn break_glass_by_session(&self, hash: &[u8; 32]) -> Result<Option<BreakGlass>, StoreError> {
        self.read(|connection| sql::one(connection, "SELECT record FROM break_glass WHERE session = ?1", [hash], row))
    }

    /// One by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn break_glass(&self, name: &str, visibility: &Visibility) -> Result<Option<BreakGlass>, StoreError> {
        let sql = concat!("SELECT record FROM break_glass WHERE name = ?2 AND ", in_scope!("facility"));
        self.read(|connection| sql::one(connection, sql, (scope(visibility), name), row))
    }

    /// The sealed secret of one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn break_glass_sealed(&self, id: ProposalId) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT sealed FROM break_glass WHERE id = ?1";
        self.read(|connection| sql::one(connection, sql, [id.as_bytes()], |row| row.get(0)))
    }

    /// All that the caller sees, in the order of their names.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn break_glasses(&self, visibility: &Visibility, page: &PageRequest) -> Result<Page<BreakGlass>, StoreError> {
        let after = page.after.clone().unwrap_or_default();
        if after.len() > 64 {
            return Err(BAD_CURSOR);
        }
        let sql = concat!(
            "SELECT record FROM break_glass WHERE name > ?2 AND ",
            in_scope!("facility"),
            " ORDER BY name LIMIT ?3"
        );
        let most = integer(u64::from(page.rows()).saturating_add(1));
        let mut items = self.read(|connection| sql::all(connection, sql, (scope(visibility), &after, most), row))?;
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let next = next_of(&mut items, rows, |last: &BreakGlass| last.name.clone());
        Ok(Page { items, next })
    }

    /// Those that were opened and not reviewed by enough people, at most 100.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn used_break_glasses(&self) -> Result<Vec<BreakGlass>, StoreError> {
        let sql = "SELECT record FROM break_glass WHERE opened IS NOT NULL
            AND coalesce(json_array_length(record, '$.use.reviews'), 0) < 2 ORDER BY opened LIMIT 100";
        self.read(|connection| sql::all(connection, sql, [], row))
    }

    /// Withdraws what the witness knows to have been opened, in a registry that was restored from before. Whether it was sealed.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn void_break_glass(
        &self,
        id: ProposalId,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let found = act.one("SELECT record FROM break_glass WHERE id = ?1", [id.as_bytes()], row)?;
            let Some(found) = found.filter(|found| found.used.is_none() && found.withdrawn.is_none()) else {
                return Ok(false);
            };
            write(act, &BreakGlass { withdrawn: Some(at), ..found })?;
            act.log(&audit)?;
            Ok(true)
        })
        .await
    }
}
