//! Product lines. Every facility shares them, so reading them takes no visibility.

use kf_api::product_line::{EnrolmentPolicy, ProductLine};
use kf_api::{Page, PageRequest};
use kf_key::{AuthorityId, ProductLineId};

use rusqlite::{Connection, Row};

use crate::act::{Act, Class};
use crate::column::{self, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::{Audit, Logged, Store, StoreError, sql};

fn row(row: &Row<'_>) -> rusqlite::Result<ProductLine> {
    Ok(ProductLine {
        id: column::id(row, 0)?,
        name: row.get(1)?,
        authority: column::optional_id(row, 2)?,
        policy: column::json(row, 3)?,
        created: column::time(row, 4)?,
    })
}

fn policy_text(policy: &EnrolmentPolicy) -> Result<String, StoreError> {
    serde_json::to_string(policy)
        .map_err(|_detail| StoreError::Invalid { field: "policy", problem: "cannot be written down" })
}

fn require_authority(act: &Act<'_>, authority: Option<AuthorityId>) -> Result<(), StoreError> {
    let Some(authority) = authority else { return Ok(()) };
    if act.exists("SELECT 1 FROM authority WHERE id = ?1", [authority.as_bytes()])? {
        Ok(())
    } else {
        Err(StoreError::NotFound { what: "authority" })
    }
}

/// See [`Store::product_line`].
pub(crate) fn by_id(connection: &Connection, id: ProductLineId) -> Result<Option<ProductLine>, StoreError> {
    let sql = "SELECT id, name, authority, policy, created FROM product_line WHERE id = ?1";
    sql::one(connection, sql, [id.as_bytes()], row)
}

impl Store {
    /// Adds a product line.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`; [`StoreError::NotFound`] for its authority.
    pub async fn insert_product_line(
        &self,
        line: ProductLine,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let ProductLine { id, name, authority, policy, created } = &line;
            require_authority(act, *authority)?;
            let sql = "INSERT INTO product_line (id, name, authority, policy, created) VALUES (?1, ?2, ?3, ?4, ?5)";
            let authority = authority.as_ref().map(AuthorityId::as_bytes);
            act.execute(sql, (id.as_bytes(), name, authority, policy_text(policy)?, millis(*created)))?;
            Ok(())
        })
        .await
    }

    /// Changes the policy and the issuing CA of a product line.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the line or the authority.
    pub async fn update_product_line(
        &self,
        id: ProductLineId,
        authority: Option<AuthorityId>,
        policy: EnrolmentPolicy,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            require_authority(act, authority)?;
            let sql = "UPDATE product_line SET authority = ?2, policy = ?3 WHERE id = ?1";
            let authority = authority.as_ref().map(AuthorityId::as_bytes);
            match act.execute(sql, (id.as_bytes(), authority, policy_text(&policy)?))? {
                0 => Err(StoreError::NotFound { what: "product line" }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// A product line by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn product_line(&self, id: ProductLineId) -> Result<Option<ProductLine>, StoreError> {
        self.read(|connection| by_id(connection, id))
    }

    /// A product line by name, which is its EST label.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn product_line_by_name(&self, name: &str) -> Result<Option<ProductLine>, StoreError> {
        let sql = "SELECT id, name, authority, policy, created FROM product_line WHERE name = ?1";
        self.read(|connection| sql::one(connection, sql, [name], row))
    }

    /// Product lines in the order of their ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn product_lines(&self, page: &PageRequest) -> Result<Page<ProductLine>, StoreError> {
        let after = match &page.after {
            None => None,
            Some(text) => Some(text.parse::<ProductLineId>().map_err(|_detail| BAD_CURSOR)?),
        };
        let after = after.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        let sql = "SELECT id, name, authority, policy, created FROM product_line WHERE id > ?1 ORDER BY id LIMIT ?2";
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let mut items = self.read(|connection| sql::all(connection, sql, (after, page.rows() + 1), row))?;
        let next = next_of(&mut items, rows, |last| last.id.to_string());
        Ok(Page { items, next })
    }
}
