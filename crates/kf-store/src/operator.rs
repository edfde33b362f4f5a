//! Operators and their API tokens.

use kf_api::operator::{Operator, Token};
use kf_api::{Page, PageRequest};
use kf_key::{OperatorId, SerialNumber, TokenId};

use crate::certificate::StatusAnswer;
use crate::{Audit, Logged, Store, StoreError};

impl Store {
    /// Adds an operator.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`; [`StoreError::NotFound`] for a facility.
    pub async fn insert_operator(&self, operator: Operator, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let _ = (operator, audit.into());
        todo!()
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
        let _ = (id, enabled, audit.into());
        todo!()
    }

    /// An operator by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn operator(&self, id: OperatorId) -> Result<Option<Operator>, StoreError> {
        let _ = id;
        todo!()
    }

    /// An operator by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn operator_by_name(&self, name: &str) -> Result<Option<Operator>, StoreError> {
        let _ = name;
        todo!()
    }

    /// Operators in the order of their ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn operators(&self, page: &PageRequest) -> Result<Page<Operator>, StoreError> {
        let _ = page;
        todo!()
    }

    /// The operator whom the certificate with this serial number names, and the status of that certificate.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn operator_by_certificate(
        &self,
        serial: SerialNumber,
    ) -> Result<Option<(Operator, StatusAnswer)>, StoreError> {
        let _ = serial;
        todo!()
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
        let _ = (token, hash, audit.into());
        todo!()
    }

    /// The token with this hash and whose it is. Expiry, withdrawal and a disabled operator are the caller's to refuse.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<(Token, Operator)>, StoreError> {
        let _ = hash;
        todo!()
    }

    /// A token by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn token(&self, id: TokenId) -> Result<Option<Token>, StoreError> {
        let _ = id;
        todo!()
    }

    /// The tokens of an operator, newest first, at most 1,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn tokens_of_operator(&self, operator: OperatorId) -> Result<Vec<Token>, StoreError> {
        let _ = operator;
        todo!()
    }

    /// Withdraws a token. Withdrawing it again changes nothing and is logged.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn withdraw_token(&self, id: TokenId, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let _ = (id, audit.into());
        todo!()
    }
}
