//! Operators, their tokens, and who is calling.

use kf_access::Principal;
use kf_api::ShownOnce;
use kf_api::operator::{NewOperator, NewToken, Operator, Token, TokenRequest, WhoAmI};
use kf_api::{Page, PageRequest};
use kf_key::{SecretBytes, TokenId};

use crate::{ClientCertificate, Fleet, FleetError};

impl Fleet {
    /// Who holds this API token.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`] for an unknown, expired or withdrawn token or a disabled operator.
    pub async fn authenticate_token(&self, token: &SecretBytes) -> Result<Principal, FleetError> {
        let _ = token;
        todo!()
    }

    /// Who presents this client certificate: an operator (profile `operator`), current, not revoked, enabled.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`].
    pub async fn authenticate_certificate(&self, certificate: &ClientCertificate) -> Result<Principal, FleetError> {
        let _ = certificate;
        todo!()
    }

    /// What the server knows about the caller.
    #[must_use]
    pub fn who_am_i(&self, who: &Principal) -> WhoAmI {
        let _ = who;
        todo!()
    }

    /// Adds an operator.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`] for a name in use, [`FleetError::Denied`].
    pub async fn operator_create(&self, who: &Principal, new: NewOperator) -> Result<Operator, FleetError> {
        let _ = (who, new);
        todo!()
    }

    /// Enables or disables an operator; effective at the next request.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] when it would leave no enabled owner.
    pub async fn operator_enable(
        &self,
        who: &Principal,
        operator: &str,
        enabled: bool,
        why: String,
    ) -> Result<Operator, FleetError> {
        let _ = (who, operator, enabled, why);
        todo!()
    }

    /// All operators.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn operator_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Operator>, FleetError> {
        let _ = (who, page);
        todo!()
    }

    /// Makes an API token for an operator.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn token_create(&self, who: &Principal, request: TokenRequest) -> Result<NewToken, FleetError> {
        let _ = (who, request);
        todo!()
    }

    /// The tokens of an operator.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn token_list(&self, who: &Principal, operator: &str) -> Result<Vec<Token>, FleetError> {
        let _ = (who, operator);
        todo!()
    }

    /// Withdraws a token; effective at the next request.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn token_withdraw(&self, who: &Principal, token: TokenId) -> Result<(), FleetError> {
        let _ = (who, token);
        todo!()
    }
}

/// A fresh API token and the hash that the registry keeps of it.
pub(crate) fn fresh_token() -> Result<(ShownOnce, [u8; 32]), FleetError> {
    todo!()
}
