//! Drills that were held: when, of what, and what came of them.

use kf_api::drill::RecordedDrill;
use kf_api::{Page, PageRequest};
use kf_key::UnixMillis;
use rusqlite::Row;

use crate::act::Class;
use crate::column::{self, integer, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::{Audit, Logged, Store, StoreError, sql};

fn row(row: &Row<'_>) -> rusqlite::Result<RecordedDrill> {
    column::json(row, 0)
}

impl Store {
    /// Records a drill, with its log entry; the record has the entry's index.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn record_drill(
        &self,
        drill: RecordedDrill,
        audit: impl Into<Audit>,
    ) -> Result<Logged<RecordedDrill>, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let index = act.log(&audit)?;
            let drill = RecordedDrill { log_index: Some(index), ..drill.clone() };
            let text = serde_json::to_string(&drill)
                .map_err(|_detail| StoreError::Invalid { field: "drill", problem: "is unwritable" })?;
            let sql = "INSERT INTO drill (id, recorded, passed, record) VALUES (?1, ?2, ?3, ?4)";
            act.execute(sql, (integer(index), millis(drill.recorded), drill.passed, text))?;
            Ok(Logged { value: drill, index })
        })
        .await
    }

    /// Drills, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn drills(&self, page: &PageRequest) -> Result<Page<RecordedDrill>, StoreError> {
        let after = match &page.after {
            None => -1,
            Some(text) => integer(text.parse::<u64>().map_err(|_detail| BAD_CURSOR)?),
        };
        let sql = "SELECT record FROM drill WHERE id > ?1 ORDER BY id LIMIT ?2";
        let most = integer(u64::from(page.rows()).saturating_add(1));
        let mut items = self.read(|connection| sql::all(connection, sql, (after, most), row))?;
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let next = next_of(&mut items, rows, |last: &RecordedDrill| last.log_index.unwrap_or_default().to_string());
        Ok(Page { items, next })
    }

    /// When the last drill that passed was recorded.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn last_passed_drill(&self) -> Result<Option<UnixMillis>, StoreError> {
        let sql = "SELECT max(recorded) FROM drill WHERE passed = 1";
        self.read(|connection| Ok(sql::one(connection, sql, [], |row| column::optional_time(row, 0))?.flatten()))
    }
}
