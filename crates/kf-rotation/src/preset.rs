//! Presets: what a standard really demands of cryptoperiods, which is often less than is said of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::class::KeyClass;
use crate::period::Period;
use crate::policy::{Change, Kind, Rule};

/// A set of demands that a policy claims to satisfy; what it does not satisfy is a contradiction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Preset {
    /// The recommendations of SP 800-57 Part 1; nothing beyond them.
    #[default]
    #[serde(rename = "nist")]
    Nist,
    /// PCI DSS v4.0.1.
    #[serde(rename = "pci-dss")]
    PciDss,
    /// HIPAA Security Rule.
    #[serde(rename = "hipaa")]
    Hipaa,
    /// CNSA 2.0.
    #[serde(rename = "cnsa-2.0")]
    Cnsa2,
    /// A rule of the house: credentials and session keys change every 90 days.
    #[serde(rename = "90-days")]
    NinetyDays,
}

/// What the rule of 90 days covers: what an intruder would use at once, and what a program can replace by itself.
const CREDENTIALS: [KeyClass; 6] = [
    KeyClass::ApplicationKey,
    KeyClass::DataEncryptionKey,
    KeyClass::OcspResponderKey,
    KeyClass::TlsServerKey,
    KeyClass::LDevIdKey,
    KeyClass::OperatorKey,
];

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 5] = [Self::Nist, Self::PciDss, Self::Hipaa, Self::Cnsa2, Self::NinetyDays];

    /// The name in policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nist => "nist",
            Self::PciDss => "pci-dss",
            Self::Hipaa => "hipaa",
            Self::Cnsa2 => "cnsa-2.0",
            Self::NinetyDays => "90-days",
        }
    }

    /// What the standard demands, in one paragraph, and what it does not.
    #[must_use]
    pub const fn statement(self) -> &'static str {
        match self {
            Self::Nist => {
                "SP 800-57 Part 1 Rev 5 section 5.3.6 recommends cryptoperiods by type of key, as orders of magnitude \
                 that follow from risk. They are no legal maxima; a policy that goes beyond them says why."
            }
            Self::PciDss => {
                "PCI DSS v4.0.1 requirement 3.7.4 demands that a cryptoperiod is defined for each type of key and that \
                 keys are changed at its end. It names no length: a fixed interval is not in the standard. Here every \
                 class has a cryptoperiod but the IDevID, which protects no card data, so any policy satisfies it."
            }
            Self::Hipaa => {
                "The HIPAA Security Rule has no clause on rotation. Encryption is an addressable specification (45 CFR \
                 164.312(a)(2)(iv) and (e)(2)(ii)). What this preset adds is nothing; the policy is yours to justify."
            }
            Self::Cnsa2 => {
                "CNSA 2.0 is about algorithms: ML-KEM-1024, ML-DSA-87, AES-256, SHA-384 or SHA-512, LMS or XMSS for \
                 firmware. It sets no cryptoperiods. Whether keys have these algorithms is a matter of the inventory."
            }
            Self::NinetyDays => {
                "A rule of the house and not of a standard: credentials, certificates and keys of sessions and data \
                 serve at most 90 days. It does not cover what devices cannot replace by themselves."
            }
        }
    }

    /// The algorithms that the standard allows, by their names in the inventory; `None` where it names none. CNSA 2.0 has
    /// AES-256 and nothing else of what is in use here: HMAC-SHA-256 is not HMAC-SHA-384.
    #[must_use]
    pub const fn algorithms(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Cnsa2 => Some(&["aes-256-gcm", "ml-dsa-87", "ml-kem-1024"]),
            Self::Nist | Self::PciDss | Self::Hipaa | Self::NinetyDays => None,
        }
    }

    /// Shortens the default rules to what the preset asks for, except where the policy speaks itself.
    pub(crate) fn tighten(self, rules: &mut BTreeMap<KeyClass, Rule>, spoken: &BTreeMap<KeyClass, Change>) {
        for (class, rule) in rules {
            let speaks = spoken.get(class).is_some_and(|change| change.originator.is_some());
            if let Some(most) = self.most(*class)
                && !speaks
            {
                rule.originator = Some(rule.originator.map_or(most, |period| period.min(most)));
            }
        }
    }

    /// What of the preset a rule breaks.
    pub(crate) fn broken_by(self, class: KeyClass, rule: &Rule) -> Option<Kind> {
        let most = self.most(class)?;
        rule.originator.is_none_or(|period| period > most).then_some(Kind::BeyondPreset(most))
    }

    fn most(self, class: KeyClass) -> Option<Period> {
        (self == Self::NinetyDays && CREDENTIALS.contains(&class)).then(|| Period::days(90))
    }
}
