//! Certificates that others hand in, and the signer's own look at what it is asked to sign.

use kf_key::{CertificateProfile, KeyAlgorithm, SerialNumber, UnixMillis};

use super::CertificateFacts;
use super::parsed::{Certificate, Tbs};
use crate::asn1::{is_canonical, oid, only, tag};
use crate::name;
use crate::public_key::SignatureScheme;

/// KeyUsage bits keyCertSign (5) and cRLSign (6).
const SIGNING_BITS: u8 = 0b0000_0110;

/// A certificate that somebody presents, parsed but not trusted.
#[derive(Clone, Debug)]
pub struct PresentedCertificate {
    /// Serial number, if it is one that we could have issued.
    pub serial: Option<SerialNumber>,
    /// Issuer Name, DER.
    pub issuer: Vec<u8>,
    /// AuthorityKeyIdentifier keyIdentifier, if present.
    pub authority_key_identifier: Option<Vec<u8>>,
    /// Subject Name, DER.
    pub subject: Vec<u8>,
    /// subjectAltName extension value, DER, if present.
    pub subject_alt_name: Option<Vec<u8>>,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// First moment of validity.
    pub not_before: UnixMillis,
    /// Last moment of validity.
    pub not_after: UnixMillis,
}

impl PresentedCertificate {
    /// Parses a certificate of at most 16 KiB.
    ///
    /// # Errors
    /// `None` when it is not one.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let tbs = Certificate::from_der(der)?.tbs;
        Some(Self {
            serial: SerialNumber::from_der_contents(tbs.serial),
            issuer: tbs.issuer.to_vec(),
            authority_key_identifier: tbs.extensions.authority_key_identifier().map(<[u8]>::to_vec),
            subject: tbs.subject.to_vec(),
            subject_alt_name: tbs.extensions.get(&oid::SUBJECT_ALT_NAME).map(|extension| extension.value.to_vec()),
            spki_sha256: kf_crypto::sha256(tbs.spki),
            spki: tbs.spki.to_vec(),
            not_before: tbs.not_before,
            not_after: tbs.not_after,
        })
    }
}

/// Checks that DER is the TBSCertificate of an end entity or CA named as issued by `issuer_name`, with a serial number
/// of our form: what the signer re-checks before it signs, independent of who asks. `may_be_authority` is true for keys
/// whose policy lets them sign CA certificates (the root).
///
/// # Errors
/// A short reason, for the alarm.
pub fn recheck_tbs_certificate(tbs: &[u8], issuer_name: &[u8], may_be_authority: bool) -> Result<(), &'static str> {
    if !is_canonical(tbs) {
        return Err("not DER");
    }
    let parsed = only(tbs, tag::SEQUENCE).and_then(|element| Tbs::of(&element)).ok_or("not a TBSCertificate")?;
    if SerialNumber::from_der_contents(parsed.serial).is_none() {
        return Err("serial number not of our form");
    }
    if parsed.issuer != issuer_name {
        return Err("named as issued by somebody else");
    }
    let usage = parsed.extensions.key_usage().ok_or("no keyUsage")?;
    let authority = parsed.extensions.authority().ok_or("broken basicConstraints")?;
    // Either of the two makes some verifier take it for a CA.
    let is_authority = authority.is_authority || usage & SIGNING_BITS != 0 || parsed.subject == parsed.issuer;
    if is_authority && !may_be_authority {
        return Err("a CA certificate, which this key may not sign");
    }
    if parsed.extensions.authority_key_identifier().is_none() {
        return Err("no authorityKeyIdentifier");
    }
    Ok(())
}

/// The facts of a TBSCertificate that was recorded before its signature, for the revocation of an orphan. `None` when it
/// is none of ours.
#[must_use]
pub fn facts_of_tbs(tbs: &[u8]) -> Option<CertificateFacts> {
    let parsed = only(tbs, tag::SEQUENCE).and_then(|element| Tbs::of(&element))?;
    Some(CertificateFacts {
        serial: SerialNumber::from_der_contents(parsed.serial)?,
        profile: profile_of(&parsed)?,
        subject: name::to_rfc4514(parsed.subject)?,
        spki_sha256: kf_crypto::sha256(parsed.spki),
        not_before: parsed.not_before,
        not_after: parsed.not_after,
        signature_algorithm: signature_algorithm(&parsed)?,
    })
}

/// DER of the attribute type serialNumber (X.520).
const SERIAL_NUMBER_TYPE: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x05];

/// Tells our profiles apart by what only they contain.
fn profile_of(tbs: &Tbs<'_>) -> Option<CertificateProfile> {
    let authority = tbs.extensions.authority()?;
    if authority.is_authority {
        return Some(match authority.path_length {
            _ if tbs.subject == tbs.issuer => CertificateProfile::Root,
            // A CA that may have CAs below it, and is not its own issuer, is a root that another one vouches for.
            None => CertificateProfile::LinkCa,
            Some(_) => CertificateProfile::IssuingCa,
        });
    }
    if tbs.extensions.has_purpose(&oid::SERVER_AUTH) {
        return Some(CertificateProfile::TlsServer);
    }
    if tbs.extensions.has_purpose(&oid::OCSP_SIGNING) {
        return Some(CertificateProfile::OcspSigner);
    }
    if !tbs.extensions.has_purpose(&oid::CLIENT_AUTH) {
        return None;
    }
    if tbs.extensions.get(&oid::SUBJECT_ALT_NAME).is_some() {
        return Some(CertificateProfile::IDevId);
    }
    // Only devices have a serialNumber in their subject, and no name of ours can hold these octets.
    let has_serial_number = tbs.subject.windows(SERIAL_NUMBER_TYPE.len()).any(|octets| octets == SERIAL_NUMBER_TYPE);
    Some(if has_serial_number { CertificateProfile::LDevId } else { CertificateProfile::Operator })
}

fn signature_algorithm(tbs: &Tbs<'_>) -> Option<KeyAlgorithm> {
    match SignatureScheme::of(&only(tbs.signature_algorithm, tag::SEQUENCE)?)? {
        SignatureScheme::Ecdsa(kf_crypto::SignatureHash::Sha256) => Some(KeyAlgorithm::P256),
        SignatureScheme::Ecdsa(kf_crypto::SignatureHash::Sha384) => Some(KeyAlgorithm::P384),
        SignatureScheme::Ed25519 => Some(KeyAlgorithm::Ed25519),
        SignatureScheme::MlDsa(algorithm) => Some(algorithm),
        SignatureScheme::Ecdsa(kf_crypto::SignatureHash::Sha512) | SignatureScheme::Rsa(_) => None,
    }
}
