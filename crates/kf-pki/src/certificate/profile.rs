//! What each profile allows: whom it names, how long it lasts, which keys it takes.

use kf_key::{CertificateProfile, UnixMillis};

use super::{IssuanceRequest, IssueRefusal, Subject};
use crate::asn1::{NO_EXPIRY, oid};
use crate::issuer::Issuer;
use crate::name::{self, Attribute};

/// The most names of a TLS server.
const MAX_SERVER_NAMES: usize = 64;

/// The longest lifetime that a profile allows, in days; `None` when it need not end (IDevID, IEEE 802.1AR section 8.7).
///
/// These are ceilings against mistakes, not defaults: a product line's policy chooses within them.
#[must_use]
pub const fn max_lifetime_days(profile: CertificateProfile) -> Option<u64> {
    match profile {
        CertificateProfile::Root | CertificateProfile::LinkCa => Some(40 * 366),
        CertificateProfile::IssuingCa => Some(25 * 366),
        CertificateProfile::IDevId => None,
        CertificateProfile::LDevId => Some(10 * 366),
        CertificateProfile::TlsServer => Some(825),
        CertificateProfile::OcspSigner => Some(90),
        CertificateProfile::Operator => Some(3 * 366),
    }
}

/// The validity in whole seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validity {
    pub(super) not_before: UnixMillis,
    pub(super) not_after: UnixMillis,
}

/// Checks everything about a request that its profile fixes; `issuer` is `None` for a self-signed root.
pub(super) fn check(issuer: Option<&Issuer>, request: &IssuanceRequest) -> Result<Validity, IssueRefusal> {
    check_subject(request.profile, &request.subject)?;
    check_key(request)?;
    if let Some(issuer) = issuer {
        if request.profile.is_authority() && !issuer.may_issue_authorities {
            return Err(IssueRefusal::PathLength);
        }
        if !is_uri_text(&issuer.base_url) {
            return Err(IssueRefusal::Name { field: "public base address" });
        }
    }
    check_validity(issuer, request)
}

fn check_validity(issuer: Option<&Issuer>, request: &IssuanceRequest) -> Result<Validity, IssueRefusal> {
    let refusal = IssueRefusal::Lifetime(request.profile);
    let not_before = UnixMillis::from_seconds(request.not_before.seconds());
    let maximum = max_lifetime_days(request.profile).map(|days| days * UnixMillis::DAY);
    let Some(not_after) = request.not_after else {
        // An IDevID without expiry outlives every CA, by design of IEEE 802.1AR.
        let may_be_endless = request.profile == CertificateProfile::IDevId && not_before < NO_EXPIRY;
        return if may_be_endless { Ok(Validity { not_before, not_after: NO_EXPIRY }) } else { Err(refusal) };
    };
    let not_after = UnixMillis::from_seconds(not_after.seconds());
    let is_too_long = maximum.is_some_and(|maximum| not_after.since(not_before) > maximum);
    if not_after <= not_before || not_after > NO_EXPIRY || is_too_long {
        return Err(refusal);
    }
    if issuer.is_some_and(|issuer| not_after > issuer.not_after) {
        return Err(IssueRefusal::OutlivesIssuer);
    }
    Ok(Validity { not_before, not_after })
}

/// The validity of a link certificate, which ends with the roots that it joins.
pub(super) fn link_validity(not_before: UnixMillis, not_after: UnixMillis) -> Result<Validity, IssueRefusal> {
    let not_before = UnixMillis::from_seconds(not_before.seconds());
    let not_after = UnixMillis::from_seconds(not_after.seconds());
    if not_after <= not_before || not_after > NO_EXPIRY {
        return Err(IssueRefusal::Lifetime(CertificateProfile::LinkCa));
    }
    Ok(Validity { not_before, not_after })
}

fn check_key(request: &IssuanceRequest) -> Result<(), IssueRefusal> {
    let algorithm = request.key.algorithm;
    let signs_for_us = request.profile.is_authority() || request.profile == CertificateProfile::OcspSigner;
    if signs_for_us && !algorithm.may_sign_certificates() {
        return Err(IssueRefusal::Key(algorithm));
    }
    let is_consistent =
        crate::public_key::PublicKey::from_spki(&request.key.spki).is_ok_and(|key| key.algorithm == algorithm);
    if is_consistent { Ok(()) } else { Err(IssueRefusal::Key(algorithm)) }
}

fn check_subject(profile: CertificateProfile, subject: &Subject) -> Result<(), IssueRefusal> {
    let texts: Vec<(&'static str, &str)> = match (profile, subject) {
        (
            CertificateProfile::Root | CertificateProfile::IssuingCa,
            Subject::Authority { common_name, organization },
        ) => vec![("common name", common_name), ("organization", organization)],
        (
            CertificateProfile::IDevId | CertificateProfile::LDevId,
            Subject::Device { organization, device: _, name, product_line },
        ) => vec![("organization", organization), ("device name", name), ("product line", product_line)],
        (CertificateProfile::TlsServer, Subject::Server { dns_names }) => return check_server_names(dns_names),
        (CertificateProfile::Operator, Subject::Operator { organization, name }) => {
            vec![("organization", organization), ("operator name", name)]
        }
        (CertificateProfile::OcspSigner, Subject::OcspSigner { common_name }) => vec![("common name", common_name)],
        _ => return Err(IssueRefusal::Name { field: "kind of subject" }),
    };
    match texts.iter().find(|(_, text)| !name::is_attribute_text(text)) {
        Some((field, _)) => Err(IssueRefusal::Name { field }),
        None => Ok(()),
    }
}

fn check_server_names(names: &[String]) -> Result<(), IssueRefusal> {
    let is_valid = |name: &String| name.parse::<core::net::IpAddr>().is_ok() || is_dns_name(name);
    if (1..=MAX_SERVER_NAMES).contains(&names.len()) && names.iter().all(is_valid) {
        Ok(())
    } else {
        Err(IssueRefusal::Name { field: "server name" })
    }
}

/// A preferred name (RFC 1034 section 3.5), the leftmost label possibly `*`.
fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
    };
    let labels = name.strip_prefix("*.").unwrap_or(name);
    // An all-numeric last label would read as a broken address.
    let last_is_numeric =
        labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|octet| octet.is_ascii_digit()));
    name.len() <= 253 && !last_is_numeric && labels.split('.').all(is_label)
}

/// What an IA5String holds and a URI may contain without escaping.
fn is_uri_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= 1024 && text.bytes().all(|octet| octet.is_ascii_graphic())
}

/// The subject Name.
pub(super) fn subject_name(subject: &Subject) -> Vec<u8> {
    let device_number;
    let attributes = match subject {
        Subject::Authority { common_name, organization } => {
            vec![(&oid::ORGANIZATION, organization.as_str()), (&oid::COMMON_NAME, common_name)]
        }
        Subject::Device { organization, device, name, product_line } => {
            device_number = hexadecimal(device.as_bytes());
            vec![
                (&oid::ORGANIZATION, organization.as_str()),
                (&oid::ORGANIZATIONAL_UNIT, product_line),
                (&oid::COMMON_NAME, name),
                (&oid::SERIAL_NUMBER, &device_number),
            ]
        }
        // RFC 9525 section 2: clients match the subjectAltName; the common name is for people.
        Subject::Server { dns_names } => dns_names
            .iter()
            .find(|name| name.len() <= name::MAX_ATTRIBUTE_CHARACTERS)
            .map(|name| (&oid::COMMON_NAME, name.as_str()))
            .into_iter()
            .collect(),
        Subject::Operator { organization, name } => {
            vec![(&oid::ORGANIZATION, organization.as_str()), (&oid::COMMON_NAME, name)]
        }
        Subject::OcspSigner { common_name } => vec![(&oid::COMMON_NAME, common_name.as_str())],
    };
    let attributes: Vec<_> = attributes.into_iter().map(|(oid, text)| Attribute { oid, text }).collect();
    name::encode(&attributes)
}

fn hexadecimal(octets: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 0x0f)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names_are_host_names() {
        for good in ["localhost", "pki.example", "*.fleet.example", "a-1.b"] {
            assert!(is_dns_name(good), "{good}");
        }
        for bad in
            ["", ".", "a..b", "-a.b", "a-.b", "a b", "ä.example", "a.*.b", "*.", "1.2.3.4", "a_b.c", &"a".repeat(64)]
        {
            assert!(!is_dns_name(bad), "{bad}");
        }
    }
}
