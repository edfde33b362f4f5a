//! Renewal and rekey: EST `simplereenroll` (RFC 7030 section 4.2.2). The TLS client certificate is the one renewed, and
//! the only source of identity; the request brings a key and a proof of possession, never a name.

use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_api::product_line::EnrolmentPolicy;
use kf_key::{CertificateProfile, CertificateStatus, ProductLineId, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::request::CertificationRequest;

use crate::endorsement::Endorsed;
use crate::{Refusal, name};

/// Everything a renewal depends on.
#[derive(Clone, Copy, Debug)]
pub struct Renewal<'a> {
    /// The TLS client certificate, its path already validated.
    pub presented: &'a PresentedCertificate,
    /// The registry's record of the certificate with this serial number.
    pub registered: &'a Certificate,
    /// The device that the record names, as it stands now.
    pub device: &'a Device,
    /// The product line of the EST label, if the client used one.
    pub label: Option<ProductLineId>,
    /// The request.
    pub request: &'a CertificationRequest,
    /// The policy of the device's product line.
    pub policy: &'a EnrolmentPolicy,
    /// What is known of the key and the device's TPM.
    pub endorsed: Endorsed<'a>,
    /// The present moment.
    pub now: UnixMillis,
}

/// A renewal that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalGrant {
    /// Whether the request brings a new key. The same key is allowed (RFC 7030 section 4.2.2 knows renew and rekey)
    /// and recorded as such.
    pub rekey: bool,
    /// Whether the certificate had expired and the grace window was used.
    pub in_grace: bool,
}

/// Decides a renewal.
///
/// # Errors
/// [`Refusal`], the first that holds, in this order: certificate, device, time, label, names, key.
pub fn decide(renewal: &Renewal<'_>) -> Result<RenewalGrant, Refusal> {
    check_certificate(renewal)?;
    if !renewal.device.state.may_enrol() {
        return Err(Refusal::DeviceState(renewal.device.state));
    }
    let in_grace = check_time(renewal)?;
    if renewal.label.is_some_and(|label| label != renewal.device.product_line) {
        return Err(Refusal::OtherLine);
    }
    check_names(renewal)?;
    let key = &renewal.request.key;
    if !renewal.policy.allowed_algorithms.contains(&key.algorithm) {
        return Err(Refusal::Algorithm(key.algorithm));
    }
    renewal.endorsed.decide()?;
    Ok(RenewalGrant { rekey: key.spki_sha256 != renewal.presented.spki_sha256, in_grace })
}

/// A device that lost the answer to its renewal asks again, with the same key and the same certificate, and gets the
/// same answer, provided that this answer ends no sooner than the moment given here: half the lifetime of a new one
/// from now, or as late as the issuing CA (`issuer_ends`) allows. Later the request means another renewal.
#[must_use]
pub fn repeatable_until(policy: &EnrolmentPolicy, now: UnixMillis, issuer_ends: UnixMillis) -> UnixMillis {
    let lifetime = u64::from(policy.ldevid_lifetime_hours).saturating_mul(UnixMillis::HOUR);
    now.plus(lifetime / 2).min(issuer_ends)
}

/// The certificate is ours, an LDevID, good, and names this device. The device comes through the record, so that a
/// record and a certificate that differ (a serial number given twice) are never taken for one.
fn check_certificate(renewal: &Renewal<'_>) -> Result<(), Refusal> {
    let Renewal { presented, registered, device, .. } = renewal;
    let same_certificate = presented.serial == Some(registered.serial)
        && hex::encode(presented.spki_sha256).eq_ignore_ascii_case(&registered.spki_sha256);
    if !same_certificate {
        return Err(Refusal::OtherDevice);
    }
    if registered.profile != CertificateProfile::LDevId {
        return Err(Refusal::NotRenewable(registered.profile));
    }
    if registered.device != Some(device.id) {
        return Err(Refusal::OtherDevice);
    }
    match registered.status {
        CertificateStatus::Good => Ok(()),
        status @ (CertificateStatus::Held | CertificateStatus::Revoked) => Err(Refusal::NotGood(status)),
    }
}

/// Inside the validity, or after it inside the policy's grace; both ends included. Says whether the grace was needed.
fn check_time(renewal: &Renewal<'_>) -> Result<bool, Refusal> {
    let Renewal { presented, policy, now, .. } = renewal;
    if *now < presented.not_before {
        return Err(Refusal::NotYetValid);
    }
    if *now <= presented.not_after {
        return Ok(false);
    }
    let grace_hours = policy.renewal_grace_hours;
    let grace = u64::from(grace_hours).saturating_mul(UnixMillis::HOUR);
    if now.since(presented.not_after) <= grace { Ok(true) } else { Err(Refusal::GraceOver { grace_hours }) }
}

/// RFC 7030 section 4.2.2: subject and subjectAltName of the request are those of the certificate. Clients that leave
/// them out ask for the same thing.
fn check_names(renewal: &Renewal<'_>) -> Result<(), Refusal> {
    let Renewal { presented, request, .. } = renewal;
    if !name::is_empty(&request.subject) && !name::same(&request.subject, &presented.subject) {
        return Err(Refusal::SubjectDiffers);
    }
    if request.subject_alt_name.is_some() && request.subject_alt_name != presented.subject_alt_name {
        return Err(Refusal::SubjectAltNameDiffers);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
