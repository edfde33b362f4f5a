//! Acts outside the database: intent recorded first, then the act, then the outcome. Start-up reconciles what has none.

use kf_key::{IntentId, UnixMillis};

use crate::act::Class;
use crate::column::{self, millis};
use crate::{Audit, Logged, Store, StoreError, sql};

const MAX_DETAIL_OCTETS: usize = 16_384;
const MAX_OUTCOME_OCTETS: usize = 1_000;

/// An act outside the database that is about to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Identifier.
    pub id: IntentId,
    /// `noun.verb`.
    pub act: String,
    /// What reconciliation needs to find out what happened; at most 16,384 octets, never a secret.
    pub detail: serde_json::Value,
    /// When.
    pub at: UnixMillis,
}

impl Store {
    /// Records an intent, before the act.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `id`.
    pub async fn record_intent(&self, intent: Intent, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let Intent { id, act: name, detail, at } = &intent;
            let detail = detail.to_string();
            if detail.len() > MAX_DETAIL_OCTETS || name.len() > 64 {
                return Err(StoreError::Invalid { field: "intent", problem: "at most 64 and 16,384 octets" });
            }
            let sql = "INSERT INTO intent (id, act, detail, at) VALUES (?1, ?2, ?3, ?4)";
            act.execute(sql, (id.as_bytes(), name, detail, millis(*at)))?;
            Ok(())
        })
        .await
    }

    /// Records what came of an intent (at most 1,000 octets), after the act.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it has an outcome.
    pub async fn record_outcome(
        &self,
        id: IntentId,
        outcome: String,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            if outcome.len() > MAX_OUTCOME_OCTETS {
                return Err(StoreError::Invalid { field: "outcome", problem: "at most 1,000 octets" });
            }
            let sql = "UPDATE intent SET outcome = ?2 WHERE id = ?1 AND outcome IS NULL";
            if act.execute(sql, (id.as_bytes(), &outcome))? == 1 {
                return Ok(());
            }
            let sql = "SELECT outcome FROM intent WHERE id = ?1";
            match act.one(sql, [id.as_bytes()], |row| row.get::<_, String>(0))? {
                None => Err(StoreError::NotFound { what: "intent" }),
                Some(found) => {
                    Err(StoreError::IllegalState { what: "outcome of the intent", found, expected: "open".into() })
                }
            }
        })
        .await
    }

    /// Intents without an outcome, oldest first, at most 10,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_intents(&self) -> Result<Vec<Intent>, StoreError> {
        let sql = "SELECT id, act, detail, at FROM intent WHERE outcome IS NULL ORDER BY id LIMIT 10000";
        self.read(|connection| {
            sql::all(connection, sql, [], |row| {
                Ok(Intent {
                    id: column::id(row, 0)?,
                    act: row.get(1)?,
                    detail: column::json(row, 2)?,
                    at: column::time(row, 3)?,
                })
            })
        })
    }
}
