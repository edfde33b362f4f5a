//! Link certificates: one root certified by another, so that who knows one of them finds the way to what the other issues.

use kf_key::{CertificateProfile, SerialNumber, UnixMillis};

use super::{Certificate, CheckedTbs, Fields, IssueRefusal, Subject, assemble, profile};
use crate::issuer::Issuer;
use crate::request::RequestedKey;

/// Builds the certificate of root `of` by root `issuer`: NewWithOld when `of` is the successor, OldWithNew when it is the
/// predecessor (RFC 9810 section 4.4; the names differ here from generation to generation, so that no name stands for two
/// keys). It ends with the first of the two.
///
/// # Errors
/// [`IssueRefusal::PathLength`] unless both are roots, [`IssueRefusal::Name`] for a root and itself,
/// [`IssueRefusal::Lifetime`] when one of them has ended.
pub fn check_link(
    issuer: &Issuer,
    of: &Issuer,
    serial: SerialNumber,
    not_before: UnixMillis,
) -> Result<CheckedTbs, IssueRefusal> {
    if !issuer.may_issue_authorities || !of.may_issue_authorities {
        return Err(IssueRefusal::PathLength);
    }
    if issuer.name == of.name || issuer.public_key == of.public_key {
        return Err(IssueRefusal::Name { field: "subject of a link certificate" });
    }
    let certified = Certificate::from_der(&of.certificate).ok_or(IssueRefusal::Encoding)?.tbs;
    let key = RequestedKey::from_spki(certified.spki).map_err(|_refused| IssueRefusal::Key(of.algorithm))?;
    let validity =
        profile::link_validity(not_before.max(certified.not_before), issuer.not_after.min(certified.not_after))?;
    // Its extensions take no name from the subject.
    let subject = Subject::Authority { common_name: String::new(), organization: String::new() };
    let fields = Fields { profile: CertificateProfile::LinkCa, subject: &subject, name: certified.subject, serial };
    assemble(Some(issuer), &fields, &key, validity)
}
