//! The classes of keys that a policy speaks of.

use core::fmt;
use core::str::FromStr;

use kf_key::KeyType;
use serde::{Deserialize, Serialize};

use crate::period::Period;

/// A class of keys: what `docs/key-policy.md` has a row for, as far as it is ever replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyClass {
    /// The root of the symmetric hierarchy.
    FleetRootKey,
    /// One per facility and epoch.
    FacilityKey,
    /// One per batch, below a facility key; held by a station.
    BatchKey,
    /// One per device and epoch, below a facility key.
    DeviceKey,
    /// Wraps data at rest on a device, below its device key.
    StorageKey,
    /// Below a device key, one per session and service; both ends derive it.
    ApplicationKey,
    /// Wraps rows of the registry, below the root.
    WrappingKey,
    /// A named key of the service that encrypts for others.
    DataEncryptionKey,
    /// Signature key of a root CA.
    RootAuthorityKey,
    /// Signature key of an issuing CA.
    IssuingAuthorityKey,
    /// Signature key of a delegated OCSP responder.
    OcspResponderKey,
    /// Authentication key of the server's TLS listeners.
    TlsServerKey,
    /// Signature key of the log's checkpoints.
    LogKey,
    /// Authenticates the server in key exchanges with devices.
    DeliveryKey,
    /// Signs orders to devices.
    OrderKey,
    /// Signs the quotas of factory stations.
    BatchAuthorisationKey,
    /// The key of an IDevID (IEEE 802.1AR).
    #[serde(rename = "idevid-key")]
    IDevIdKey,
    /// The key of an LDevID (IEEE 802.1AR).
    #[serde(rename = "ldevid-key")]
    LDevIdKey,
    /// The key of an operator's certificate.
    OperatorKey,
}

/// A class name that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no class of keys has this name; `keyfleet policy check` lists them")]
pub struct UnknownClass;

impl KeyClass {
    /// Every class; a class stands after the one above it in the hierarchy.
    pub const ALL: [Self; 19] = [
        Self::FleetRootKey,
        Self::FacilityKey,
        Self::BatchKey,
        Self::DeviceKey,
        Self::StorageKey,
        Self::ApplicationKey,
        Self::WrappingKey,
        Self::DataEncryptionKey,
        Self::RootAuthorityKey,
        Self::IssuingAuthorityKey,
        Self::OcspResponderKey,
        Self::TlsServerKey,
        Self::LogKey,
        Self::DeliveryKey,
        Self::OrderKey,
        Self::BatchAuthorisationKey,
        Self::IDevIdKey,
        Self::LDevIdKey,
        Self::OperatorKey,
    ];

    /// The name in policies, requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FleetRootKey => "fleet-root-key",
            Self::FacilityKey => "facility-key",
            Self::BatchKey => "batch-key",
            Self::DeviceKey => "device-key",
            Self::StorageKey => "storage-key",
            Self::ApplicationKey => "application-key",
            Self::WrappingKey => "wrapping-key",
            Self::DataEncryptionKey => "data-encryption-key",
            Self::RootAuthorityKey => "root-authority-key",
            Self::IssuingAuthorityKey => "issuing-authority-key",
            Self::OcspResponderKey => "ocsp-responder-key",
            Self::TlsServerKey => "tls-server-key",
            Self::LogKey => "log-key",
            Self::DeliveryKey => "delivery-key",
            Self::OrderKey => "order-key",
            Self::BatchAuthorisationKey => "batch-authorisation-key",
            Self::IDevIdKey => "idevid-key",
            Self::LDevIdKey => "ldevid-key",
            Self::OperatorKey => "operator-key",
        }
    }

    /// Its type in SP 800-57 Part 1 section 5.1.1.
    #[must_use]
    pub const fn key_type(self) -> KeyType {
        match self {
            Self::FleetRootKey | Self::FacilityKey | Self::BatchKey | Self::DeviceKey => KeyType::SymmetricMaster,
            Self::StorageKey | Self::WrappingKey => KeyType::SymmetricKeyWrapping,
            Self::ApplicationKey | Self::DataEncryptionKey => KeyType::SymmetricDataEncryption,
            Self::RootAuthorityKey
            | Self::IssuingAuthorityKey
            | Self::OcspResponderKey
            | Self::LogKey
            | Self::DeliveryKey
            | Self::OrderKey
            | Self::BatchAuthorisationKey => KeyType::PrivateSignature,
            Self::TlsServerKey | Self::IDevIdKey | Self::LDevIdKey | Self::OperatorKey => {
                KeyType::PrivateAuthentication
            }
        }
    }

    /// The class that it cannot outlive: the key that it is derived from or certified by. A key that is only wrapped goes
    /// on under a new wrapping, so the wrapping key's period does not bind it.
    #[must_use]
    pub const fn parent(self) -> Option<Self> {
        match self {
            Self::FleetRootKey | Self::RootAuthorityKey => None,
            Self::FacilityKey | Self::WrappingKey => Some(Self::FleetRootKey),
            Self::BatchKey | Self::DeviceKey => Some(Self::FacilityKey),
            Self::StorageKey | Self::ApplicationKey => Some(Self::DeviceKey),
            Self::IssuingAuthorityKey => Some(Self::RootAuthorityKey),
            // An IDevID has no expiry (IEEE 802.1AR), so no policy can put it inside its CA's life.
            Self::DataEncryptionKey
            | Self::LogKey
            | Self::DeliveryKey
            | Self::OrderKey
            | Self::BatchAuthorisationKey
            | Self::IDevIdKey => None,
            Self::OcspResponderKey | Self::TlsServerKey | Self::LDevIdKey | Self::OperatorKey => {
                Some(Self::IssuingAuthorityKey)
            }
        }
    }

    /// Whether the key seals with an AEAD: then a limit of uses applies, and a recipient goes on using it, to decrypt or
    /// unwrap, after its originator has stopped (SP 800-57 Part 1 section 5.3.4). What a signature key signed is verified
    /// with its public half, whose period is its certificate's; a key-derivation key stays active until nobody holds a
    /// key below it.
    #[must_use]
    pub const fn seals(self) -> bool {
        matches!(self.key_type(), KeyType::SymmetricDataEncryption | KeyType::SymmetricKeyWrapping)
    }

    /// Whether uses are counted, so that a limit of them can be kept: what seals, and the server's signature keys.
    #[must_use]
    pub const fn counts_uses(self) -> bool {
        self.seals()
            || matches!(
                self,
                Self::RootAuthorityKey
                    | Self::IssuingAuthorityKey
                    | Self::LogKey
                    | Self::DeliveryKey
                    | Self::OrderKey
                    | Self::BatchAuthorisationKey
            )
    }

    /// The longest originator-usage period that SP 800-57 Part 1 section 5.3.6, table 1, recommends for its type. It is
    /// guidance by order of magnitude, not a legal maximum: a policy may go beyond it with a written exception.
    #[must_use]
    pub const fn recommended_originator(self) -> Period {
        match self.key_type() {
            KeyType::SymmetricMaster => Period::years(1),
            KeyType::PrivateSignature => Period::years(3),
            _ => Period::years(2),
        }
    }
}

impl fmt::Display for KeyClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeyClass {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        Self::ALL.into_iter().find(|class| class.name() == text).ok_or(UnknownClass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_own_name_and_stands_after_the_class_above_it() {
        for (index, class) in KeyClass::ALL.into_iter().enumerate() {
            assert_eq!(class.name().parse(), Ok(class));
            let above = class.parent().map(|parent| KeyClass::ALL.iter().position(|other| *other == parent));
            assert!(above.is_none_or(|place| place.is_some_and(|place| place < index)), "{class}");
        }
        assert_eq!("tls".parse::<KeyClass>(), Err(UnknownClass));
    }
}
