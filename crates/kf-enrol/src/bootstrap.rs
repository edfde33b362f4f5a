//! A device's first LDevID: EST `simpleenroll` (RFC 7030 section 4.2.1), proved by IDevID, one-time code or voucher.

use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_api::enrolment::Code;
use kf_api::operator::{Operator, Role};
use kf_api::product_line::{Approval, EnrolmentPolicy};
use kf_api::vendor::{Vendor, VendorDevice};
use kf_key::{CertificateProfile, CertificateStatus, ProductLineId, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::request::RequestedKey;

use crate::Refusal;
use crate::endorsement::Endorsed;
use crate::voucher::Voucher;

/// What proves that the client is the device.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// The TLS client certificate is an IDevID issued here.
    IDevId {
        /// The certificate, its path already validated.
        presented: &'a PresentedCertificate,
        /// The registry's record of the certificate with this serial number.
        registered: &'a Certificate,
    },
    /// The TLS client certificate is a manufacturer's, who is trusted for this device.
    VendorIDevId {
        /// The certificate, its path to the manufacturer's CA already validated.
        presented: &'a PresentedCertificate,
        /// SHA-256 of its DER.
        certificate: [u8; 32],
        /// The manufacturer, as it stands now.
        vendor: &'a Vendor,
        /// The device's line in the list.
        registered: &'a VendorDevice,
    },
    /// The one-time code whose hash matched.
    Code {
        /// The code.
        code: &'a Code,
        /// SHA-256 of the SubjectPublicKeyInfo it was used with, once it was.
        used_with: Option<[u8; 32]>,
    },
    /// A voucher whose signature verified under the station's key.
    Voucher {
        /// The voucher.
        voucher: &'a Voucher,
        /// The station that signed it, as it stands now.
        station: &'a Operator,
    },
}

/// Everything a bootstrap depends on.
#[derive(Clone, Copy, Debug)]
pub struct Bootstrap<'a> {
    /// The device that is claimed, as it stands now.
    pub device: &'a Device,
    /// The proof.
    pub proof: Proof<'a>,
    /// The product line of the EST label, if the client used one.
    pub label: Option<ProductLineId>,
    /// The key a certificate is asked for; its proof of possession has been verified.
    pub key: &'a RequestedKey,
    /// The policy of the device's product line.
    pub policy: &'a EnrolmentPolicy,
    /// What is known of the key and the device's TPM.
    pub endorsed: Endorsed<'a>,
    /// The present moment.
    pub now: UnixMillis,
}

/// A bootstrap that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootstrapGrant {
    /// At once, or after a person approved.
    pub approval: Approval,
    /// The code was used before with this same key: answer with the certificate of that time.
    pub retry: bool,
}

/// Decides a bootstrap. A grant for a code or voucher holds only if the store then uses it up in the transaction that
/// records the certificate.
///
/// # Errors
/// [`Refusal`], the first that holds. The proof is judged first, so that who proved nothing learns nothing about the
/// device.
pub fn decide(bootstrap: &Bootstrap<'_>) -> Result<BootstrapGrant, Refusal> {
    let Bootstrap { device, proof, label, key, policy, .. } = bootstrap;
    let retry = check_proof(bootstrap)?;
    let (allowed, method) = match proof {
        Proof::IDevId { .. } | Proof::VendorIDevId { .. } => (policy.bootstrap_by_idevid, "an IDevID"),
        Proof::Code { .. } => (policy.bootstrap_by_code, "a one-time code"),
        Proof::Voucher { .. } => (policy.bootstrap_by_voucher, "a voucher"),
    };
    if !allowed {
        return Err(Refusal::MethodNotAllowed(method));
    }
    if !device.state.may_enrol() {
        return Err(Refusal::DeviceState(device.state));
    }
    if label.is_some_and(|label| label != device.product_line) {
        return Err(Refusal::OtherLine);
    }
    if !policy.allowed_algorithms.contains(&key.algorithm) {
        return Err(Refusal::Algorithm(key.algorithm));
    }
    bootstrap.endorsed.decide()?;
    Ok(BootstrapGrant { approval: policy.approval, retry })
}

/// Whether the proof proves the device; says whether it is the retry of a code.
fn check_proof(bootstrap: &Bootstrap<'_>) -> Result<bool, Refusal> {
    match bootstrap.proof {
        Proof::IDevId { presented, registered } => check_idevid(bootstrap, presented, registered).map(|()| false),
        Proof::VendorIDevId { presented, certificate, vendor, registered } => {
            check_vendor(bootstrap, presented, &certificate, vendor, registered).map(|()| false)
        }
        Proof::Code { code, used_with } => check_code(bootstrap, code, used_with),
        Proof::Voucher { voucher, station } => check_voucher(bootstrap, voucher, station).map(|()| false),
    }
}

fn check_idevid(
    bootstrap: &Bootstrap<'_>,
    presented: &PresentedCertificate,
    registered: &Certificate,
) -> Result<(), Refusal> {
    let same_certificate = presented.serial == Some(registered.serial)
        && hex::encode(presented.spki_sha256).eq_ignore_ascii_case(&registered.spki_sha256);
    if !same_certificate {
        return Err(Refusal::OtherDevice);
    }
    if registered.profile != CertificateProfile::IDevId {
        return Err(Refusal::NotBootstrapping(registered.profile));
    }
    if registered.device != Some(bootstrap.device.id) {
        return Err(Refusal::OtherDevice);
    }
    match registered.status {
        CertificateStatus::Good => {}
        status @ (CertificateStatus::Held | CertificateStatus::Revoked) => return Err(Refusal::NotGood(status)),
    }
    check_times(bootstrap, presented)
}

/// A manufacturer's IDevID: the one that is known of the device, or its first.
fn check_vendor(
    bootstrap: &Bootstrap<'_>,
    presented: &PresentedCertificate,
    certificate: &[u8; 32],
    vendor: &Vendor,
    registered: &VendorDevice,
) -> Result<(), Refusal> {
    let is_known = registered.certificate_sha256.as_ref().is_none_or(|known| *known == hex::encode(certificate));
    if registered.device != bootstrap.device.id || registered.vendor != vendor.id || !is_known {
        return Err(Refusal::OtherDevice);
    }
    if vendor.withdrawn.is_some() {
        return Err(Refusal::VendorWithdrawn);
    }
    check_times(bootstrap, presented)
}

fn check_times(bootstrap: &Bootstrap<'_>, presented: &PresentedCertificate) -> Result<(), Refusal> {
    if bootstrap.now < presented.not_before {
        return Err(Refusal::NotYetValid);
    }
    if bootstrap.now > presented.not_after && !bootstrap.policy.accept_expired_idevid {
        return Err(Refusal::ExpiredIDevId);
    }
    Ok(())
}

/// A code is accepted until its last moment, once; and again with the key it was used with, so that an answer lost on
/// the way costs a retry and no new code.
fn check_code(bootstrap: &Bootstrap<'_>, code: &Code, used_with: Option<[u8; 32]>) -> Result<bool, Refusal> {
    let is_bound_to_another =
        code.key_sha256.as_ref().is_some_and(|bound| *bound != hex::encode(bootstrap.key.spki_sha256));
    if code.device != bootstrap.device.id || code.withdrawn || bootstrap.now > code.expires || is_bound_to_another {
        return Err(Refusal::Secret);
    }
    match (code.used, used_with) {
        (None, None) => Ok(false),
        (Some(_), Some(key)) if key == bootstrap.key.spki_sha256 => Ok(true),
        _ => Err(Refusal::Secret),
    }
}

/// A voucher names device and key, and its station reaches the device's facility now, not only when it signed.
fn check_voucher(bootstrap: &Bootstrap<'_>, voucher: &Voucher, station: &Operator) -> Result<(), Refusal> {
    let names_this = voucher.device == bootstrap.device.name && voucher.spki_sha256 == bootstrap.key.spki_sha256;
    let station_may = voucher.station == station.id
        && station.role == Role::Station
        && station.enabled
        && station.facilities.contains(&bootstrap.device.facility);
    let in_time = bootstrap.now <= voucher.expires;
    if names_this && station_may && in_time { Ok(()) } else { Err(Refusal::Secret) }
}

#[cfg(test)]
mod tests;
