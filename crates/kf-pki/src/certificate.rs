//! Check, then permit, then sign: the only way to a certificate leads through [`CheckedTbs`].

mod as_issued;
mod extensions;
mod link;
mod parsed;
mod presented;
mod profile;

pub use as_issued::{NotAsIssued, as_issued};
pub use link::check_link;
pub use presented::{PresentedCertificate, facts_of_tbs, recheck_tbs_certificate};
pub use profile::max_lifetime_days;

pub(crate) use extensions::{write as write_extension, write_authority_key_identifier, write_distribution_point_name};
pub(crate) use parsed::{Certificate, Extension, Extensions};

use kf_key::{CertificateProfile, DeviceId, KeyAlgorithm, SerialNumber, UnixMillis};

use crate::asn1::{Writer, tag};
use crate::issuer::Issuer;
use crate::name;
use crate::public_key::{bits_of_spki, signed, write_signature_algorithm};
use crate::request::RequestedKey;

/// Whom a certificate names. Every value comes from the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Root or issuing CA.
    Authority {
        /// Common name.
        common_name: String,
        /// Organisation: the fleet's name.
        organization: String,
    },
    /// A device: CN = name, serialNumber = the 32 hexadecimal digits of its id (a PrintableString holds no underscore);
    /// an IDevID also SAN hardwareModuleName (RFC 4108): hwType from the product line, hwSerialNum = its id's 16 octets.
    Device {
        /// Organisation: the fleet's name.
        organization: String,
        /// Identifier.
        device: DeviceId,
        /// Name.
        name: String,
        /// Product line, as organizational unit.
        product_line: String,
    },
    /// A TLS server: SAN dNSName and iPAddress.
    Server {
        /// Names and addresses, at least one.
        dns_names: Vec<String>,
    },
    /// An operator: CN = name.
    Operator {
        /// Organisation: the fleet's name.
        organization: String,
        /// Name.
        name: String,
    },
    /// The delegated OCSP responder of a CA.
    OcspSigner {
        /// Common name.
        common_name: String,
    },
}

/// What is to be certified.
#[derive(Clone, Debug)]
pub struct IssuanceRequest {
    /// Profile.
    pub profile: CertificateProfile,
    /// Names, from the registry.
    pub subject: Subject,
    /// The key; must have passed [`crate::weak_key::check_key`].
    pub key: RequestedKey,
    /// A fresh serial number.
    pub serial: SerialNumber,
    /// First moment of validity.
    pub not_before: UnixMillis,
    /// Last moment of validity; `None` means none (RFC 5280 section 4.1.2.5: 99991231235959Z), IDevID only.
    pub not_after: Option<UnixMillis>,
}

/// Why a certificate is not issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueRefusal {
    /// A lifetime outside the profile's limits.
    #[error("the lifetime asked for lies outside the limits of profile {0}")]
    Lifetime(CertificateProfile),
    /// It would outlive its issuer.
    #[error("the certificate would outlive its issuer")]
    OutlivesIssuer,
    /// Names that do not fit the profile.
    #[error("the {field} does not fit the profile")]
    Name {
        /// Which name.
        field: &'static str,
    },
    /// The key does not fit the profile.
    #[error("a {0} key does not fit the profile")]
    Key(KeyAlgorithm),
    /// The issuer's path length allows no CA below it.
    #[error("this CA may not issue CA certificates")]
    PathLength,
    /// The profile is not issued this way: a root by [`check_root`], a link by [`check_link`], anything else by
    /// [`check_issuance`].
    #[error("profile {0} is not issued this way")]
    Profile(CertificateProfile),
    /// DER encoding failed: a bug of ours.
    #[error("the certificate could not be encoded; please report this")]
    Encoding,
}

/// The permission to sign one certificate: a TBSCertificate that passed every check of its profile. Made by
/// [`check_issuance`], [`check_root`] and [`check_link`] only, not Clone, spent by [`CheckedTbs::complete`].
///
/// ```compile_fail,E0382
/// fn twice(checked: kf_pki::certificate::CheckedTbs) {
///     let first = checked.complete(&[]);
///     let second = checked.complete(&[]);
/// }
/// ```
#[derive(Debug)]
pub struct CheckedTbs {
    tbs: Vec<u8>,
    facts: CertificateFacts,
}

/// What the registry keeps of an issued certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Serial number.
    pub serial: SerialNumber,
    /// Profile.
    pub profile: CertificateProfile,
    /// Subject, RFC 4514.
    pub subject: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// First moment of validity.
    pub not_before: UnixMillis,
    /// Last moment of validity; 9999-12-31T23:59:59Z when there is none.
    pub not_after: UnixMillis,
    /// Algorithm of the issuer's signature.
    pub signature_algorithm: KeyAlgorithm,
}

/// A signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Certificate, DER.
    pub der: Vec<u8>,
    /// Its facts.
    pub facts: CertificateFacts,
}

/// Checks a request against its profile and builds what is to be signed.
///
/// # Errors
/// [`IssueRefusal`].
pub fn check_issuance(issuer: &Issuer, request: IssuanceRequest) -> Result<CheckedTbs, IssueRefusal> {
    if matches!(request.profile, CertificateProfile::Root | CertificateProfile::LinkCa) {
        return Err(IssueRefusal::Profile(request.profile));
    }
    build(Some(issuer), request)
}

/// Builds a self-signed root; `request.profile` must be `Root`.
///
/// # Errors
/// [`IssueRefusal`].
pub fn check_root(request: IssuanceRequest) -> Result<CheckedTbs, IssueRefusal> {
    if request.profile != CertificateProfile::Root {
        return Err(IssueRefusal::Profile(request.profile));
    }
    build(None, request)
}

fn build(issuer: Option<&Issuer>, request: IssuanceRequest) -> Result<CheckedTbs, IssueRefusal> {
    let validity = profile::check(issuer, &request)?;
    let IssuanceRequest { profile, subject, key, serial, not_before: _, not_after: _ } = request;
    let name = profile::subject_name(&subject);
    assemble(issuer, &Fields { profile, subject: &subject, name: &name, serial }, &key, validity)
}

/// What makes one certificate differ from the next, beside its key and its time.
struct Fields<'a> {
    profile: CertificateProfile,
    /// For the extensions.
    subject: &'a Subject,
    /// The subject Name, DER.
    name: &'a [u8],
    serial: SerialNumber,
}

/// Builds what is to be signed out of what has been checked.
fn assemble(
    issuer: Option<&Issuer>,
    fields: &Fields<'_>,
    key: &RequestedKey,
    validity: profile::Validity,
) -> Result<CheckedTbs, IssueRefusal> {
    let Fields { profile, subject, name: subject_name, serial } = *fields;
    let subject_key_identifier = kf_crypto::sha1(bits_of_spki(&key.spki).ok_or(IssueRefusal::Encoding)?);
    let (signature_algorithm, issuer_name, authority_key_identifier) = match issuer {
        Some(issuer) => (issuer.algorithm, issuer.name.as_ref(), &issuer.key_identifier),
        None => (key.algorithm, subject_name, &subject_key_identifier),
    };
    let extensions = extensions::Extensions {
        profile,
        subject,
        subject_is_empty: subject_name.len() <= 2,
        subject_key_identifier: &subject_key_identifier,
        authority_key_identifier,
        issuer,
        shard: issuer.map_or(0, |issuer| serial.shard(issuer.shard_count)),
    };
    let tbs = Writer::build(1024, |w| {
        w.sequence(|w| {
            // RFC 5280 section 4.1.2.1: version v3(2).
            w.nested(tag::context_constructed(0), |w| w.unsigned(2));
            w.primitive(tag::INTEGER, serial.as_bytes());
            write_signature_algorithm(w, signature_algorithm);
            w.raw(issuer_name);
            w.sequence(|w| {
                w.time(validity.not_before);
                w.time(validity.not_after);
            });
            w.raw(subject_name);
            w.raw(&key.spki);
            w.nested(tag::context_constructed(3), |w| extensions.write(w));
        });
    });
    let facts = CertificateFacts {
        serial,
        profile,
        subject: name::to_rfc4514(subject_name).ok_or(IssueRefusal::Encoding)?,
        spki_sha256: kf_crypto::sha256(&key.spki),
        not_before: validity.not_before,
        not_after: validity.not_after,
        signature_algorithm,
    };
    Ok(CheckedTbs { tbs, facts })
}

impl CheckedTbs {
    /// The octets to be signed.
    #[must_use]
    pub fn tbs(&self) -> &[u8] {
        &self.tbs
    }

    /// The facts of the certificate that this will become.
    #[must_use]
    pub const fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// Spends the permission: joins what was checked with its signature. The signature is not verified here.
    ///
    /// # Errors
    /// [`IssueRefusal::Encoding`].
    pub fn complete(self, signature: &[u8]) -> Result<IssuedCertificate, IssueRefusal> {
        let Self { tbs, facts } = self;
        if signature.is_empty() {
            return Err(IssueRefusal::Encoding);
        }
        let der = signed(&tbs, facts.signature_algorithm, signature);
        Ok(IssuedCertificate { der, facts })
    }
}
