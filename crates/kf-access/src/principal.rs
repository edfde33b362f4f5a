//! Who is acting.

use std::collections::BTreeSet;

use kf_api::operator::{Credential, Role};
use kf_key::{FacilityId, ProposalId, TokenId};

/// How far somebody's role reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole fleet.
    Fleet,
    /// These facilities and nothing else.
    Facilities(BTreeSet<FacilityId>),
}

/// Somebody who proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Text form of the operator's or device's id, or `server`.
    pub id: String,
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// How far it reaches. For owner, fleet operator and auditor always the fleet; see [`Principal::new`].
    pub scope: Scope,
    /// How they proved it.
    pub credential: Credential,
    /// Which API token, where it was one.
    pub token: Option<TokenId>,
    /// Which break-glass credential is open, where it is the session of one.
    pub break_glass: Option<ProposalId>,
}

/// What a query may return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Everything.
    Fleet,
    /// What belongs to these facilities.
    Facilities(BTreeSet<FacilityId>),
}

impl Visibility {
    /// Whether things of `facility` may be shown.
    #[must_use]
    pub fn sees(&self, facility: FacilityId) -> bool {
        match self {
            Self::Fleet => true,
            Self::Facilities(facilities) => facilities.contains(&facility),
        }
    }
}

impl Principal {
    /// A principal whose scope follows from the role: a facility operator, station, relay or application reaches `facilities`, which may be
    /// empty and then reaches nothing; a device reaches nothing; the others reach the fleet.
    #[must_use]
    pub fn new(
        id: String,
        name: String,
        role: Role,
        facilities: impl IntoIterator<Item = FacilityId>,
        credential: Credential,
    ) -> Self {
        let scope = match role {
            Role::Owner | Role::FleetOperator | Role::Auditor => Scope::Fleet,
            Role::FacilityOperator | Role::Station | Role::Relay | Role::Application => {
                Scope::Facilities(facilities.into_iter().collect())
            }
            Role::Device => Scope::Facilities(BTreeSet::new()),
        };
        Self { id, name, role, scope, credential, token: None, break_glass: None }
    }

    /// The same, by this API token.
    #[must_use]
    pub fn by_token(self, token: TokenId) -> Self {
        Self { credential: Credential::Token, token: Some(token), ..self }
    }

    /// The same, in the session of this break-glass credential.
    #[must_use]
    pub fn behind_glass(self, credential: ProposalId) -> Self {
        Self { credential: Credential::BreakGlass, token: None, break_glass: Some(credential), ..self }
    }

    /// The server itself, for its background work.
    #[must_use]
    pub fn server() -> Self {
        Self {
            id: "server".into(),
            name: "server".into(),
            role: Role::FleetOperator,
            scope: Scope::Fleet,
            credential: Credential::Server,
            token: None,
            break_glass: None,
        }
    }

    /// What queries made for this principal may return.
    #[must_use]
    pub fn visibility(&self) -> Visibility {
        match &self.scope {
            Scope::Fleet => Visibility::Fleet,
            Scope::Facilities(facilities) => Visibility::Facilities(facilities.clone()),
        }
    }
}
