//! Escrows that were made: who holds shares, and when it was last shown that they open. No share is here.

use kf_api::escrow::Escrow;

use crate::act::Class;
use crate::column;
use crate::{Audit, Logged, Store, StoreError, sql};

fn write(escrow: &Escrow) -> Result<String, StoreError> {
    serde_json::to_string(escrow).map_err(|_detail| StoreError::Invalid { field: "escrow", problem: "is unwritable" })
}

impl Store {
    /// Keeps an escrow.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for a ceremony that is known.
    pub async fn insert_escrow(&self, escrow: Escrow, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            if act.exists("SELECT 1 FROM escrow WHERE ceremony = ?1", [&escrow.ceremony])? {
                return Err(StoreError::Conflict { field: "ceremony" });
            }
            let sql = "INSERT INTO escrow (ceremony, record) VALUES (?1, ?2)";
            act.execute(sql, (&escrow.ceremony, write(&escrow)?))?;
            Ok(())
        })
        .await
    }

    /// Changes what is known of an escrow.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn keep_escrow(&self, escrow: Escrow, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let sql = "UPDATE escrow SET record = ?2 WHERE ceremony = ?1";
            match act.execute(sql, (&escrow.ceremony, write(&escrow)?))? {
                0 => Err(StoreError::NotFound { what: "escrow" }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// An escrow by its ceremony.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn escrow(&self, ceremony: &str) -> Result<Option<Escrow>, StoreError> {
        let sql = "SELECT record FROM escrow WHERE ceremony = ?1";
        self.read(|connection| sql::one(connection, sql, [ceremony], |row| column::json(row, 0)))
    }

    /// Every escrow, at most 1,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn escrows(&self) -> Result<Vec<Escrow>, StoreError> {
        let sql = "SELECT record FROM escrow ORDER BY ceremony LIMIT 1000";
        self.read(|connection| sql::all(connection, sql, [], |row| column::json(row, 0)))
    }
}
