//! Facilities: sites and factories, and scopes of access.

use kf_key::{FacilityId, UnixMillis};
use serde::{Deserialize, Serialize};

/// A facility.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facility {
    /// Identifier.
    pub id: FacilityId,
    /// Unique name: 1 to 64 characters of `a-z`, `0-9`, `-`, `.`, `_`, starting with a letter or digit.
    pub name: String,
    /// Free text, at most 200 characters.
    pub description: String,
    /// When it was created.
    pub created: UnixMillis,
}

/// A facility to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewFacility {
    /// Unique name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
}
