//! Why somebody may do something, or not.

use kf_key::OperatorId;
use serde::{Deserialize, Serialize};

use crate::operator::Role;

/// Who asks to do what, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessQuestion {
    /// Name or id of the operator.
    pub who: String,
    /// The action, `noun.verb`.
    pub action: String,
    /// Name or id of the facility; the fleet as a whole when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessExplained {
    /// The operator.
    pub operator: OperatorId,
    /// Their name.
    pub name: String,
    /// Their role.
    pub role: Role,
    /// Names of the facilities in their scope; empty for the whole fleet.
    pub scope: Vec<String>,
    /// The action.
    pub action: String,
    /// Name of the facility that was asked about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<String>,
    /// Whether the rules allow it.
    pub allowed: bool,
    /// Why, each reason a sentence.
    pub because: Vec<String>,
    /// The roles that may do it in their scope.
    pub roles: Vec<Role>,
    /// When it takes a second person.
    pub second_person: String,
    /// Break-glass credentials that would allow it, with how long each lasts; none is opened quietly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub break_glass: Vec<String>,
}
