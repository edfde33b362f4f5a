//! Break-glass: a credential that two people make beforehand and one person uses once, when the others are away.

use kf_key::{FacilityId, OperatorId, ProposalId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::ShownOnce;
use crate::operator::Role;

/// The longest session, minutes.
pub const MAX_SESSION_MINUTES: u32 = 60;
/// Reviews that close a use.
pub const REVIEWS: usize = 2;

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBreakGlass {
    /// Unique name (alphabet of facility names).
    pub name: String,
    /// `fleet-operator` or `facility-operator`: there is none for owners.
    pub role: Role,
    /// Names or ids of facilities, for a facility operator.
    #[serde(default)]
    pub facilities: Vec<String>,
    /// The recipient of age that the secret is sealed to. Its identity lies where one person gets at it, and is seen to have.
    pub recipient: String,
    /// Minutes of a session, 1 to 60; 60 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_minutes: Option<u32>,
    /// Days until it can be opened no more, 1 to 366; 366 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_days: Option<u32>,
    /// Why, for the log.
    pub why: String,
}

/// What asking for one came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlassOutcome {
    /// The proposal that waits; the credential is made when a second person approves, and has its id.
    pub proposal: ProposalId,
}

/// Where one stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakGlassState {
    /// It can be opened.
    Sealed,
    /// Somebody uses it.
    Open,
    /// Its use is over, and waits for two people to review it.
    Unreviewed,
    /// It was used, and two people have reviewed what was done.
    Reviewed,
    /// It was not used and can be opened no more: withdrawn, or too old.
    Void,
}

impl BreakGlassState {
    /// The name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Open => "open",
            Self::Unreviewed => "unreviewed",
            Self::Reviewed => "reviewed",
            Self::Void => "void",
        }
    }
}

/// Somebody's word on what was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Who.
    pub operator: OperatorId,
    /// Name.
    pub name: String,
    /// When.
    pub at: UnixMillis,
    /// What they found.
    pub why: String,
}

/// How it was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlassUse {
    /// Who opened it: by a credential of their own.
    pub operator: OperatorId,
    /// Name.
    pub name: String,
    /// Why.
    pub why: String,
    /// When.
    pub opened: UnixMillis,
    /// When the session ends by itself. Nothing moves it.
    pub ends: UnixMillis,
    /// When it ended, and that was recorded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<UnixMillis>,
    /// Who has reviewed it.
    #[serde(default)]
    pub reviews: Vec<Review>,
}

/// A break-glass credential, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlass {
    /// Identifier: that of the proposal that was approved. Everything that is done with it has it as a subject in the log.
    pub id: ProposalId,
    /// Name.
    pub name: String,
    /// What its holder is for as long as it is open.
    pub role: Role,
    /// Where; empty for the whole fleet.
    pub facilities: Vec<FacilityId>,
    /// Who can unseal it.
    pub recipient: String,
    /// Minutes of its session.
    pub session_minutes: u32,
    /// When it was made.
    pub created: UnixMillis,
    /// The last moment at which it can be opened.
    pub expires: UnixMillis,
    /// Who proposed it.
    pub proposed_by: String,
    /// Who approved it.
    pub approved_by: String,
    /// When it was withdrawn.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub withdrawn: Option<UnixMillis>,
    /// How it was used.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none", default)]
    pub used: Option<BreakGlassUse>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<BreakGlassState>,
}

impl BreakGlass {
    /// Where it stands at `now`.
    #[must_use]
    pub fn state_at(&self, now: UnixMillis) -> BreakGlassState {
        match &self.used {
            None if self.withdrawn.is_some() || now > self.expires => BreakGlassState::Void,
            None => BreakGlassState::Sealed,
            Some(used) if used.ended.is_none() && now <= used.ends => BreakGlassState::Open,
            Some(used) if used.reviews.len() < REVIEWS => BreakGlassState::Unreviewed,
            Some(_) => BreakGlassState::Reviewed,
        }
    }

    /// The same, with its state at `now`.
    #[must_use]
    pub fn judged(mut self, now: UnixMillis) -> Self {
        self.state = Some(self.state_at(now));
        self
    }
}

/// The sealed secret: a file of age, of use to nobody but who has the recipient's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedEnvelope {
    /// The credential.
    pub id: ProposalId,
    /// Base64.
    pub sealed: String,
}

/// It is opened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassOpening {
    /// What was unsealed.
    pub secret: ShownOnce,
    /// Why, for everybody.
    pub why: String,
}

/// A session.
#[derive(Debug, Serialize, Deserialize)]
pub struct BreakGlassSession {
    /// The credential.
    pub id: ProposalId,
    /// Its name.
    pub name: String,
    /// An API token that ends with the session.
    pub token: ShownOnce,
    /// When that is.
    pub ends: UnixMillis,
}

/// A reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassRequest {
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}
