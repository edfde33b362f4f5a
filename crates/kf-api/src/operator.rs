//! Operators, roles and API tokens.

use kf_key::{FacilityId, OperatorId, SerialNumber, TokenId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::ShownOnce;

/// What somebody is. Fixed on purpose: no role can be configured, so none can grow into a super admin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Sets the fleet up: authorities, operators, facilities. Cannot approve own proposals.
    Owner,
    /// Runs all devices of the fleet.
    FleetOperator,
    /// Runs the devices of named facilities.
    FacilityOperator,
    /// Reads everything, changes nothing.
    Auditor,
    /// A factory station: registers devices of its facilities and vouches for them.
    Station,
    /// A relay: opens sealed payloads of devices of its facilities, and does nothing else.
    Relay,
    /// A program that encrypts and decrypts data with the encryption keys of its facilities, and does nothing else.
    Application,
    /// A device: enrols and renews itself.
    Device,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 8] = [
        Self::Owner,
        Self::FleetOperator,
        Self::FacilityOperator,
        Self::Auditor,
        Self::Station,
        Self::Relay,
        Self::Application,
        Self::Device,
    ];

    /// The name used in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::FleetOperator => "fleet-operator",
            Self::FacilityOperator => "facility-operator",
            Self::Auditor => "auditor",
            Self::Station => "station",
            Self::Relay => "relay",
            Self::Application => "application",
            Self::Device => "device",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or("expected owner, fleet-operator, facility-operator, auditor, station, relay or application")
    }
}

/// An operator: a person or a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Identifier.
    pub id: OperatorId,
    /// Unique name (alphabet of facility names).
    pub name: String,
    /// What they are.
    pub role: Role,
    /// The facilities a facility operator, station, relay or application may act on; empty for the other roles, whose scope is the fleet.
    #[serde(default)]
    pub facilities: Vec<FacilityId>,
    /// Whether they may sign in.
    pub enabled: bool,
    /// For a station: the P-256 public key that signs its vouchers, SubjectPublicKeyInfo PEM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub voucher_key_pem: Option<String>,
    /// When they were added.
    pub created: UnixMillis,
}

/// An operator to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOperator {
    /// Unique name.
    pub name: String,
    /// What they are; not `device`.
    pub role: Role,
    /// Names or ids of facilities; required for facility operators and stations, refused for the others.
    #[serde(default)]
    pub facilities: Vec<String>,
    /// For a station: public key of its vouchers, SubjectPublicKeyInfo PEM, P-256.
    #[serde(default)]
    pub voucher_key_pem: Option<String>,
}

/// An API token to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Name or id of the operator.
    pub operator: String,
    /// Lifetime in days, 1 to 366; 90 when absent.
    #[serde(default)]
    pub lifetime_days: Option<u32>,
}

/// A fresh token: the only time it is shown.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewToken {
    /// Identifier, not secret.
    pub id: TokenId,
    /// Whose it is.
    pub operator: OperatorId,
    /// `kft_` and 52 characters of base32 (256 random bits).
    pub token: ShownOnce,
    /// Last moment of validity.
    pub expires: UnixMillis,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Identifier.
    pub id: TokenId,
    /// Whose it is.
    pub operator: OperatorId,
    /// When it was made.
    pub created: UnixMillis,
    /// Last moment of validity.
    pub expires: UnixMillis,
    /// Whether it was withdrawn.
    pub withdrawn: bool,
}

/// Who is calling, as the server sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAmI {
    /// Name of the operator.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Facilities in scope; empty means the fleet.
    pub facilities: Vec<FacilityId>,
    /// How they proved it.
    pub credential: Credential,
    /// Serial of the certificate, where that is how.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate: Option<SerialNumber>,
}

/// How somebody proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    /// A TLS client certificate issued here.
    Certificate,
    /// An API token.
    Token,
    /// The session of a break-glass credential.
    BreakGlass,
    /// A one-time enrolment code.
    Code,
    /// A station's voucher.
    Voucher,
    /// The server itself (background work).
    Server,
}
