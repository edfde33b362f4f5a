//! The life of a device in the registry.

use core::fmt;

/// Where a device stands in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum DeviceState {
    /// Known, never enrolled by this owner.
    Registered,
    /// Has been given an LDevID.
    Active,
    /// Out of service for a known reason: certificates on hold, no enrolment.
    Suspended,
    /// Under suspicion: certificates on hold, sessions cut, no enrolment.
    Quarantined,
    /// Left this owner for good: LDevIDs revoked, re-enrolment barred.
    Decommissioned,
}

/// A change of device state that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalDeviceTransition {
    /// The state the device is in.
    pub from: DeviceState,
    /// The state asked for.
    pub to: DeviceState,
}

impl fmt::Display for IllegalDeviceTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a device that is {} cannot become {}", self.from, self.to)
    }
}

impl core::error::Error for IllegalDeviceTransition {}

impl DeviceState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Registered, Self::Active, Self::Suspended, Self::Quarantined, Self::Decommissioned];

    /// The name used in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Quarantined => "quarantined",
            Self::Decommissioned => "decommissioned",
        }
    }

    /// Whether a device in this state may be given certificates.
    #[must_use]
    pub const fn may_enrol(self) -> bool {
        matches!(self, Self::Registered | Self::Active)
    }

    /// The one transition function of devices.
    ///
    /// # Errors
    /// [`IllegalDeviceTransition`] for every pair that is not a step of a device's life; `Decommissioned` is final.
    pub const fn transition(self, to: Self) -> Result<Self, IllegalDeviceTransition> {
        use DeviceState::{Active, Decommissioned, Quarantined, Registered, Suspended};
        match (self, to) {
            (Registered, Active | Suspended | Quarantined | Decommissioned)
            | (Active, Suspended | Quarantined | Decommissioned)
            | (Suspended, Registered | Active | Quarantined | Decommissioned)
            | (Quarantined, Registered | Active | Suspended | Decommissioned) => Ok(to),
            (from, to) => Err(IllegalDeviceTransition { from, to }),
        }
    }
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for DeviceState {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == text)
            .ok_or("expected registered, active, suspended, quarantined or decommissioned")
    }
}

/// How a device says its private key is protected; recorded as evidence, never trusted as proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum KeyProtection {
    /// Nothing is known.
    #[default]
    Unknown,
    /// In a file or flash, in clear.
    Plain,
    /// In a file or flash, wrapped.
    Wrapped,
    /// In a TPM.
    Tpm,
    /// In a secure element.
    SecureElement,
    /// In a PKCS#11 token.
    Token,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decommissioned_device_never_comes_back() {
        for to in DeviceState::ALL {
            assert!(DeviceState::Decommissioned.transition(to).is_err(), "{to}");
        }
    }

    #[test]
    fn no_state_leads_to_itself() {
        for state in DeviceState::ALL {
            assert!(state.transition(state).is_err(), "{state}");
        }
    }
}
