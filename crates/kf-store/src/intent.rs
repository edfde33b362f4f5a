//! Acts outside the database: intent recorded first, then the act, then the outcome. Start-up reconciles what has none.

use kf_key::{IntentId, UnixMillis};

use crate::{Audit, Logged, Store, StoreError};

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
        let _ = (intent, audit.into());
        todo!()
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
        let _ = (id, outcome, audit.into());
        todo!()
    }

    /// Intents without an outcome, oldest first, at most 10,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_intents(&self) -> Result<Vec<Intent>, StoreError> {
        todo!()
    }
}
