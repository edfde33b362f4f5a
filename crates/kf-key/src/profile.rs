//! Certificate profiles.

use core::fmt;
use core::str::FromStr;

/// What a certificate is for. Each profile fixes extensions, key usages, lifetime limits and where names come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum CertificateProfile {
    /// The fleet root: self-signed, path length unconstrained, offline in spirit.
    Root,
    /// An issuing CA of a product line or facility, path length 0.
    IssuingCa,
    /// IEEE 802.1AR initial device identifier: no expiry, hardwareModuleName (RFC 4108).
    #[cfg_attr(feature = "serde", serde(rename = "idevid"))]
    IDevId,
    /// IEEE 802.1AR local device identifier: the owner's, renewable.
    #[cfg_attr(feature = "serde", serde(rename = "ldevid"))]
    LDevId,
    /// A TLS server.
    TlsServer,
    /// A delegated OCSP responder (RFC 6960 section 4.2.2.2), short-lived, id-pkix-ocsp-nocheck.
    OcspSigner,
    /// A person or machine that operates the fleet (TLS client).
    Operator,
    /// One root certified by another, path length unconstrained: NewWithOld and OldWithNew (RFC 9810 section 4.4).
    LinkCa,
}

/// A profile name that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownProfile;

impl fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected root, issuing-ca, idevid, ldevid, tls-server, ocsp-signer, operator or link-ca")
    }
}

impl core::error::Error for UnknownProfile {}

impl CertificateProfile {
    /// Every profile.
    pub const ALL: [Self; 8] = [
        Self::Root,
        Self::IssuingCa,
        Self::IDevId,
        Self::LDevId,
        Self::TlsServer,
        Self::OcspSigner,
        Self::Operator,
        Self::LinkCa,
    ];

    /// The name used in configuration, requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::IssuingCa => "issuing-ca",
            Self::IDevId => "idevid",
            Self::LDevId => "ldevid",
            Self::TlsServer => "tls-server",
            Self::OcspSigner => "ocsp-signer",
            Self::Operator => "operator",
            Self::LinkCa => "link-ca",
        }
    }

    /// Whether the subject is a certification authority.
    #[must_use]
    pub const fn is_authority(self) -> bool {
        matches!(self, Self::Root | Self::IssuingCa | Self::LinkCa)
    }
}

impl fmt::Display for CertificateProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CertificateProfile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, UnknownProfile> {
        Self::ALL.into_iter().find(|profile| profile.name() == text).ok_or(UnknownProfile)
    }
}
