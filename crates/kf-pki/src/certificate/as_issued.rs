//! A certificate that somebody else made by our rules: built again from what it says, and compared.

use kf_key::{CertificateProfile, SerialNumber};

use super::{Certificate, CertificateFacts, IssuanceRequest, Subject, check_issuance};
use crate::issuer::Issuer;
use crate::public_key::{PublicKey, signed};
use crate::request::RequestedKey;

/// The certificate is not the one that the rules make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate is not exactly what this CA may issue for this subject and key")]
pub struct NotAsIssued;

/// Whether `der` is, octet for octet, the endless IDevID that [`check_issuance`] makes for `subject`, with the key, the serial
/// number and the first moment that it carries itself, signed by `issuer`. A factory's CA that is stolen can make nothing else
/// that passes here: no other name, usage, lifetime or address.
///
/// # Errors
/// [`NotAsIssued`].
pub fn as_issued(issuer: &Issuer, subject: Subject, der: &[u8]) -> Result<CertificateFacts, NotAsIssued> {
    let parsed = Certificate::from_der(der).ok_or(NotAsIssued)?;
    let request = IssuanceRequest {
        profile: CertificateProfile::IDevId,
        subject,
        key: RequestedKey::from_spki(parsed.tbs.spki).map_err(|_refused| NotAsIssued)?,
        serial: SerialNumber::from_der_contents(parsed.tbs.serial).ok_or(NotAsIssued)?,
        not_before: parsed.tbs.not_before,
        not_after: None,
    };
    let checked = check_issuance(issuer, request).map_err(|_refused| NotAsIssued)?;
    if checked.tbs() != parsed.tbs_der || signed(checked.tbs(), issuer.algorithm, parsed.signature) != der {
        return Err(NotAsIssued);
    }
    let key = PublicKey { algorithm: issuer.algorithm, bits: &issuer.public_key };
    let scheme = parsed.scheme.ok_or(NotAsIssued)?;
    key.verify(scheme, parsed.tbs_der, parsed.signature).map_err(|kf_crypto::CryptoError| NotAsIssued)?;
    Ok(checked.facts().clone())
}
