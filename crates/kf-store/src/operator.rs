//! Operators and their API tokens.

use kf_api::operator::{Operator, Token};
use kf_api::{Page, PageRequest};
use kf_key::{FacilityId, OperatorId, SerialNumber, TokenId};

use rusqlite::{Connection, Row};

use crate::act::Class;
use crate::certificate::StatusAnswer;
use crate::column::{self, Coded, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::{Audit, Logged, Store, StoreError, sql};

/// An operator without facilities, which are in a table of their own.
fn operator_row(row: &Row<'_>) -> rusqlite::Result<Operator> {
    Ok(Operator {
        id: column::id(row, 0)?,
        name: row.get(1)?,
        role: column::coded(row, 2)?,
        facilities: Vec::new(),
        enabled: row.get(3)?,
        voucher_key_pem: row.get(4)?,
        created: column::time(row, 5)?,
    })
}

fn facilities(connection: &Connection, operator: OperatorId) -> Result<Vec<FacilityId>, StoreError> {
    let sql = "SELECT facility FROM operator_facility WHERE operator = ?1 ORDER BY facility";
    sql::all(connection, sql, [operator.as_bytes()], |row| column::id(row, 0))
}

fn with_facilities(connection: &Connection, operator: Option<Operator>) -> Result<Option<Operator>, StoreError> {
    let Some(mut operator) = operator else { return Ok(None) };
    operator.facilities = facilities(connection, operator.id)?;
    Ok(Some(operator))
}

fn by_id(connection: &Connection, id: OperatorId) -> Result<Option<Operator>, StoreError> {
    let sql = "SELECT id, name, role, enabled, voucher_key, created FROM operator WHERE id = ?1";
    with_facilities(connection, sql::one(connection, sql, [id.as_bytes()], operator_row)?)
}

fn token_row(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: column::id(row, 0)?,
        operator: column::id(row, 1)?,
        created: column::time(row, 2)?,
        expires: column::time(row, 3)?,
        withdrawn: row.get(4)?,
    })
}

impl Store {
    /// Adds an operator.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`; [`StoreError::NotFound`] for a facility.
    pub async fn insert_operator(&self, operator: Operator, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let Operator { id, name, role, facilities, enabled, voucher_key_pem, created } = &operator;
            let sql = "INSERT INTO operator (id, name, role, enabled, voucher_key, created)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            act.execute(sql, (id.as_bytes(), name, role.code(), enabled, voucher_key_pem, millis(*created)))?;
            for facility in facilities {
                act.require_facility(*facility)?;
                let sql = "INSERT OR IGNORE INTO operator_facility (operator, facility) VALUES (?1, ?2)";
                act.execute(sql, (id.as_bytes(), facility.as_bytes()))?;
            }
            Ok(())
        })
        .await
    }

    /// Lets an operator sign in, or not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_operator_enabled(
        &self,
        id: OperatorId,
        enabled: bool,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        // Shutting somebody out goes on when the disk is full.
        let class = if enabled { Class::Ordinary } else { Class::Reserved };
        self.logged(class, audit.into(), move |act| {
            match act.execute("UPDATE operator SET enabled = ?2 WHERE id = ?1", (id.as_bytes(), enabled))? {
                0 => Err(StoreError::NotFound { what: "operator" }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// An operator by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn operator(&self, id: OperatorId) -> Result<Option<Operator>, StoreError> {
        self.read(|connection| by_id(connection, id))
    }

    /// An operator by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn operator_by_name(&self, name: &str) -> Result<Option<Operator>, StoreError> {
        let sql = "SELECT id, name, role, enabled, voucher_key, created FROM operator WHERE name = ?1";
        self.read(|connection| with_facilities(connection, sql::one(connection, sql, [name], operator_row)?))
    }

    /// Operators in the order of their ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn operators(&self, page: &PageRequest) -> Result<Page<Operator>, StoreError> {
        let after = match &page.after {
            None => None,
            Some(text) => Some(text.parse::<OperatorId>().map_err(|_detail| BAD_CURSOR)?),
        };
        let after = after.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        let sql = "SELECT id, name, role, enabled, voucher_key, created FROM operator WHERE id > ?1
            ORDER BY id LIMIT ?2";
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        self.read(|connection| {
            let mut items = sql::all(connection, sql, (after, page.rows() + 1), operator_row)?;
            for operator in &mut items {
                operator.facilities = facilities(connection, operator.id)?;
            }
            let next = next_of(&mut items, rows, |last| last.id.to_string());
            Ok(Page { items, next })
        })
    }

    /// The operator whom the certificate with this serial number names, and the status of that certificate.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn operator_by_certificate(
        &self,
        serial: SerialNumber,
    ) -> Result<Option<(Operator, StatusAnswer)>, StoreError> {
        let sql = "SELECT b.operator, c.status, c.revoked, c.reason FROM certificate c
            JOIN certificate_body b USING (body) WHERE c.serial = ?1 AND b.operator IS NOT NULL";
        self.read(|connection| {
            let found = sql::one(connection, sql, [serial.as_bytes()], |row| {
                Ok((column::id::<OperatorId>(row, 0)?, crate::certificate::status_of(row, 1)?))
            })?;
            let Some((id, status)) = found else { return Ok(None) };
            Ok(by_id(connection, id)?.map(|operator| (operator, status)))
        })
    }

    /// Adds an API token by its hash.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the operator; [`StoreError::Conflict`] on `id` or `token`.
    pub async fn insert_token(
        &self,
        token: Token,
        hash: [u8; 32],
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let Token { id, operator, created, expires, withdrawn } = &token;
            if !act.exists("SELECT 1 FROM operator WHERE id = ?1", [operator.as_bytes()])? {
                return Err(StoreError::NotFound { what: "operator" });
            }
            let sql = "INSERT INTO token (id, hash, operator, created, expires, withdrawn)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let times = (millis(*created), millis(*expires));
            act.execute(sql, (id.as_bytes(), hash, operator.as_bytes(), times.0, times.1, withdrawn))?;
            Ok(())
        })
        .await
    }

    /// The token with this hash and whose it is. Expiry, withdrawal and a disabled operator are the caller's to refuse.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<(Token, Operator)>, StoreError> {
        let sql = "SELECT id, operator, created, expires, withdrawn FROM token WHERE hash = ?1";
        self.read(|connection| {
            let Some(token) = sql::one(connection, sql, [hash], token_row)? else { return Ok(None) };
            Ok(by_id(connection, token.operator)?.map(|operator| (token, operator)))
        })
    }

    /// A token by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn token(&self, id: TokenId) -> Result<Option<Token>, StoreError> {
        let sql = "SELECT id, operator, created, expires, withdrawn FROM token WHERE id = ?1";
        self.read(|connection| sql::one(connection, sql, [id.as_bytes()], token_row))
    }

    /// The tokens of an operator, newest first, at most 1,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn tokens_of_operator(&self, operator: OperatorId) -> Result<Vec<Token>, StoreError> {
        let sql = "SELECT id, operator, created, expires, withdrawn FROM token WHERE operator = ?1
            ORDER BY id DESC LIMIT 1000";
        self.read(|connection| sql::all(connection, sql, [operator.as_bytes()], token_row))
    }

    /// Withdraws a token. Withdrawing it again changes nothing and is logged.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn withdraw_token(&self, id: TokenId, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            match act.execute("UPDATE token SET withdrawn = 1 WHERE id = ?1", [id.as_bytes()])? {
                0 => Err(StoreError::NotFound { what: "token" }),
                _ => Ok(()),
            }
        })
        .await
    }
}
