//! Revocation reasons and the status of a certificate (RFC 5280 section 5.3.1, RFC 6960 section 2.2).

use core::fmt;
use core::str::FromStr;

/// A CRLReason of RFC 5280 section 5.3.1; value 7 does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
pub enum RevocationReason {
    /// No reason given; left out of CRL entries.
    Unspecified,
    /// The subject's private key is known or suspected to be compromised.
    KeyCompromise,
    /// The issuer's private key is known or suspected to be compromised.
    #[cfg_attr(feature = "serde", serde(rename = "cACompromise"))]
    CaCompromise,
    /// The subject's name or other facts changed.
    AffiliationChanged,
    /// Replaced by another certificate.
    Superseded,
    /// No longer needed.
    CessationOfOperation,
    /// On hold: may be released again.
    CertificateHold,
    /// Released from hold; only in delta CRLs.
    #[cfg_attr(feature = "serde", serde(rename = "removeFromCRL"))]
    RemoveFromCrl,
    /// A privilege stated in the certificate was withdrawn.
    PrivilegeWithdrawn,
    /// The attribute authority's key is compromised.
    #[cfg_attr(feature = "serde", serde(rename = "aACompromise"))]
    AaCompromise,
}

/// A revocation reason that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownReason;

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "expected unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, \
             cessationOfOperation, certificateHold, removeFromCRL, privilegeWithdrawn or aACompromise",
        )
    }
}

impl core::error::Error for UnknownReason {}

impl RevocationReason {
    /// Every reason, in the order of its code.
    pub const ALL: [Self; 10] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::CertificateHold,
        Self::RemoveFromCrl,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
    ];

    /// The standard's own name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::CertificateHold => "certificateHold",
            Self::RemoveFromCrl => "removeFromCRL",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "aACompromise",
        }
    }

    /// The ENUMERATED value in DER.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::CertificateHold => 6,
            Self::RemoveFromCrl => 8,
            Self::PrivilegeWithdrawn => 9,
            Self::AaCompromise => 10,
        }
    }

    /// The reason with this ENUMERATED value, if there is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// Whether a revocation for this reason can be undone. Everything but a hold is permanent.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        !matches!(self, Self::CertificateHold | Self::RemoveFromCrl)
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RevocationReason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL.into_iter().find(|reason| reason.name().eq_ignore_ascii_case(text)).ok_or(UnknownReason)
    }
}

/// The revocation status of an issued certificate. Time plays no part: an expired certificate may still be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
pub enum CertificateStatus {
    /// Not revoked and not on hold.
    Good,
    /// On hold; may be released.
    Held,
    /// Revoked for good.
    Revoked,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_its_name_and_its_code() {
        for reason in RevocationReason::ALL {
            assert_eq!(reason.name().parse(), Ok(reason));
            assert_eq!(RevocationReason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(RevocationReason::from_code(7), None);
    }
}
