//! Why an enrolment is refused.

use kf_key::{CertificateProfile, CertificateStatus, DeviceState, KeyAlgorithm};

/// Who must act, which also decides the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalClass {
    /// The request is wrong; a corrected one may succeed (400).
    Request,
    /// The credential is not accepted; another one may be (401).
    Credential,
    /// No credential would help; an operator must act first (403).
    Forbidden,
}

/// Why an enrolment is refused. Display says what is wrong; [`Refusal::field`] and [`Refusal::remedy`] say where and
/// what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Only an LDevID renews itself.
    #[error("a certificate of profile {0} does not renew itself")]
    NotRenewable(CertificateProfile),
    /// Only an IDevID bootstraps.
    #[error("a certificate of profile {0} does not bootstrap a device")]
    NotBootstrapping(CertificateProfile),
    /// The certificate is on hold or revoked.
    #[error("the client certificate is {}", status_word(*.0))]
    NotGood(CertificateStatus),
    /// The certificate is not the one that the registry holds under its serial number, or names another device.
    #[error("the client certificate does not belong to this device")]
    OtherDevice,
    /// The certificate's first moment lies ahead.
    #[error("the client certificate is not yet valid")]
    NotYetValid,
    /// The certificate expired longer ago than the policy's grace.
    #[error("the client certificate expired more than {grace_hours} hours ago")]
    GraceOver {
        /// The grace that the policy gives.
        grace_hours: u32,
    },
    /// The IDevID has expired and the policy does not accept that.
    #[error("the IDevID has expired")]
    ExpiredIDevId,
    /// The trust in the maker of the IDevID was withdrawn.
    #[error("the maker of the IDevID is no longer trusted")]
    VendorWithdrawn,
    /// The device may not enrol as it stands.
    #[error("the device is {0}")]
    DeviceState(DeviceState),
    /// The EST label is that of another product line.
    #[error("the EST label is not that of the device's product line")]
    OtherLine,
    /// The product line does not take this kind of bootstrap.
    #[error("the product line does not let {0} bootstrap a device")]
    MethodNotAllowed(&'static str),
    /// The product line does not take keys of this algorithm.
    #[error("the product line does not take {0} keys")]
    Algorithm(KeyAlgorithm),
    /// The request's subject is neither empty nor the certificate's.
    #[error("the request's subject differs from the certificate's")]
    SubjectDiffers,
    /// The request's subjectAltName is neither absent nor the certificate's.
    #[error("the request's subjectAltName differs from the certificate's")]
    SubjectAltNameDiffers,
    /// Code or voucher unknown, expired, withdrawn, used with another key, or for another device or key. One variant on
    /// purpose: which of them it was helps only who guesses.
    #[error("the enrolment code or voucher is not accepted")]
    Secret,
    /// The line demands a key in a TPM, and this one was not proven to be in the device's.
    #[error("the key is not proven to live in the device's TPM")]
    KeyNotEndorsed,
    /// The public area is not that of a key that a TPM made and keeps.
    #[error("the public area is not acceptable: {0}")]
    PublicArea(&'static str),
    /// The endorsement key is not believed to be the device's.
    #[error("the endorsement key is not acceptable: {0}")]
    EndorsementKey(&'static str),
}

const fn status_word(status: CertificateStatus) -> &'static str {
    match status {
        CertificateStatus::Good => "good",
        CertificateStatus::Held => "on hold",
        CertificateStatus::Revoked => "revoked",
    }
}

impl Refusal {
    /// Who must act.
    #[must_use]
    pub const fn class(self) -> RefusalClass {
        match self {
            Self::Algorithm(_)
            | Self::SubjectDiffers
            | Self::SubjectAltNameDiffers
            | Self::OtherLine
            | Self::PublicArea(_) => RefusalClass::Request,
            Self::Secret | Self::NotBootstrapping(_) | Self::OtherDevice => RefusalClass::Credential,
            Self::NotRenewable(_)
            | Self::NotGood(_)
            | Self::NotYetValid
            | Self::GraceOver { .. }
            | Self::ExpiredIDevId
            | Self::VendorWithdrawn
            | Self::DeviceState(_)
            | Self::MethodNotAllowed(_)
            | Self::KeyNotEndorsed
            | Self::EndorsementKey(_) => RefusalClass::Forbidden,
        }
    }

    /// The part of the request that is wrong.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::NotRenewable(_)
            | Self::NotBootstrapping(_)
            | Self::NotGood(_)
            | Self::OtherDevice
            | Self::NotYetValid
            | Self::GraceOver { .. }
            | Self::ExpiredIDevId
            | Self::VendorWithdrawn => "client certificate",
            Self::DeviceState(_) => "device",
            Self::OtherLine => "label",
            Self::MethodNotAllowed(_) | Self::Secret => "credential",
            Self::Algorithm(_) | Self::KeyNotEndorsed => "public key",
            Self::PublicArea(_) => "public_area",
            Self::EndorsementKey(_) => "endorsement_certificate",
            Self::SubjectDiffers => "subject",
            Self::SubjectAltNameDiffers => "subjectAltName",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NotRenewable(CertificateProfile::IDevId) => {
                "use simpleenroll: an IDevID bootstraps, it does not renew"
            }
            Self::NotRenewable(_) => "present the LDevID that is to be renewed as TLS client certificate",
            Self::NotBootstrapping(CertificateProfile::LDevId) => {
                "use simplereenroll: an LDevID renews, it does not bootstrap"
            }
            Self::NotBootstrapping(_) => "present the device's IDevID, a one-time code or a station's voucher",
            Self::NotGood(CertificateStatus::Held) => "have an operator resume the device, then try again",
            Self::NotGood(_) => "bootstrap again with the IDevID, a one-time code or a station's voucher",
            Self::OtherDevice => "use the certificate that was issued to this device",
            Self::NotYetValid => "set the device's clock, then try again",
            Self::GraceOver { .. } => "bootstrap again with the IDevID, a one-time code or a station's voucher",
            Self::ExpiredIDevId => "have an operator make a one-time code for the device",
            Self::VendorWithdrawn => "have an operator make a one-time code for the device",
            Self::DeviceState(DeviceState::Decommissioned) => {
                "this device has left the fleet for good; register another"
            }
            Self::DeviceState(_) => "have an operator resume the device, then try again",
            Self::OtherLine => "use the EST label of the device's product line, or none",
            Self::MethodNotAllowed(_) => "bootstrap in another way, or have the product line's policy changed",
            Self::Algorithm(_) => "make a key of an algorithm that the CSR attributes (csrattrs) name",
            Self::SubjectDiffers => "leave the subject empty, or repeat the certificate's exactly",
            Self::SubjectAltNameDiffers => "leave subjectAltName out, or repeat the certificate's exactly",
            Self::KeyNotEndorsed => {
                "prove the key at /v1/device/endorsement first: keyfleet-agent does with `--key tpm`"
            }
            Self::PublicArea(_) => "make a P-256 signature key in the TPM with fixedTPM and fixedParent",
            Self::EndorsementKey(_) => {
                "register the SHA-256 of the TPM's endorsement key with the device, or name its maker's CA in the policy"
            }
            Self::Secret => "check device name and code for typing errors, or have a new code made",
        }
    }
}
