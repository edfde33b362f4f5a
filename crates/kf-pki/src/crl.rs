//! Certificate revocation lists: sharded with a critical issuingDistributionPoint, and full (RFC 5280 section 5).

mod verified;

pub use verified::VerifiedCrl;

use kf_key::{KeyAlgorithm, RevocationReason, SerialNumber, UnixMillis};

use crate::asn1::{Element, NO_EXPIRY, Writer, is_canonical, oid, only, tag, time_of};
use crate::certificate::{Extensions, write_authority_key_identifier, write_distribution_point_name, write_extension};
use crate::issuer::Issuer;
use crate::public_key::{signed, write_signature_algorithm};

/// A usual entry: 20 octets of serial number, a UTCTime, a reason.
const ENTRY_OCTETS: usize = 54;

/// One revoked or held certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrlEntry {
    /// Serial number.
    pub serial: SerialNumber,
    /// When.
    pub revoked: UnixMillis,
    /// Why; `unspecified` is left out of the encoding (RFC 5280 section 5.3.1).
    pub reason: RevocationReason,
}

/// The DER of one revokedCertificates element, kept so that an unchanged entry is never encoded twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEntry(Box<[u8]>);

impl CrlEntry {
    /// Encodes the entry.
    #[must_use]
    pub fn encode(&self) -> EncodedEntry {
        let der = Writer::build(ENTRY_OCTETS, |w| {
            w.sequence(|w| {
                w.primitive(tag::INTEGER, self.serial.as_bytes());
                w.time(self.revoked);
                if has_reason_code(self.reason) {
                    w.sequence(|w| {
                        write_extension(w, &oid::CRL_REASON, false, |w| {
                            w.primitive(tag::ENUMERATED, &[self.reason.code()]);
                        });
                    });
                }
            });
        });
        EncodedEntry(der.into_boxed_slice())
    }
}

/// `unspecified` is left out, and `removeFromCRL` belongs in delta CRLs only, which there are none of.
const fn has_reason_code(reason: RevocationReason) -> bool {
    !matches!(reason, RevocationReason::Unspecified | RevocationReason::RemoveFromCrl)
}

impl EncodedEntry {
    /// The DER.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }
}

/// The nextUpdate of a last list, after which there is none: 99991231235959Z, the value that RFC 5280 section 4.1.2.5 gives to what
/// has no end, and that ETSI EN 319 411-1 asks for in the last CRL of a CA.
pub const NO_NEXT_UPDATE: UnixMillis = NO_EXPIRY;

/// What a CRL covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrlScope {
    /// Everything the CA issued; no issuingDistributionPoint.
    Full,
    /// One shard of the end-entity certificates: critical IDP with exactly the certificates' address.
    Shard(u16),
}

/// A TBSCertList that passed its checks; spent by [`CheckedCrl::complete`].
#[derive(Debug)]
pub struct CheckedCrl {
    tbs: Vec<u8>,
    algorithm: KeyAlgorithm,
}

/// Builds a CRL to be signed. `number` is the cRLNumber, which only grows; entries in any order.
///
/// # Errors
/// A short reason: nextUpdate not after thisUpdate, or a shard outside the CA's count.
pub fn check_crl<'a>(
    issuer: &Issuer,
    scope: CrlScope,
    number: u64,
    this_update: UnixMillis,
    next_update: UnixMillis,
    entries: impl ExactSizeIterator<Item = &'a EncodedEntry>,
) -> Result<CheckedCrl, &'static str> {
    if next_update.seconds() <= this_update.seconds() {
        return Err("nextUpdate is not after thisUpdate");
    }
    if matches!(scope, CrlScope::Shard(shard) if shard >= issuer.shard_count.max(1)) {
        return Err("the CA has no such shard");
    }
    let tbs = Writer::build(512 + entries.len() * ENTRY_OCTETS, |w| {
        w.sequence(|w| {
            // RFC 5280 section 5.1.2.1: version v2(1).
            w.unsigned(1);
            write_signature_algorithm(w, issuer.algorithm);
            w.raw(&issuer.name);
            w.time(this_update);
            w.time(next_update);
            // RFC 5280 section 5.1.2.6: absent, not empty, when nothing is revoked.
            if entries.len() > 0 {
                w.sequence(|w| entries.for_each(|entry| w.raw(entry.as_der())));
            }
            w.nested(tag::context_constructed(0), |w| write_extensions(w, issuer, scope, number));
        });
    });
    Ok(CheckedCrl { tbs, algorithm: issuer.algorithm })
}

fn write_extensions(w: &mut Writer, issuer: &Issuer, scope: CrlScope, number: u64) {
    w.sequence(|w| {
        write_authority_key_identifier(w, &issuer.key_identifier);
        write_extension(w, &oid::CRL_NUMBER, false, |w| w.unsigned(number));
        if let CrlScope::Shard(shard) = scope {
            let point = issuing_distribution_point(issuer, shard);
            write_extension(w, &oid::ISSUING_DISTRIBUTION_POINT, true, |w| w.raw(&point));
        }
    });
}

/// The IssuingDistributionPoint of a shard (RFC 5280 section 5.2.5), which is critical; its name is octet for octet the
/// one in the certificates.
fn issuing_distribution_point(issuer: &Issuer, shard: u16) -> Vec<u8> {
    Writer::build(128, |w| {
        w.sequence(|w| {
            write_distribution_point_name(w, &issuer.shard_url(shard));
            // onlyContainsUserCerts: CA certificates are in the full CRL.
            w.primitive(tag::context(1), &[0xff]);
        });
    })
}

impl CheckedCrl {
    /// The octets to be signed.
    #[must_use]
    pub fn tbs(&self) -> &[u8] {
        &self.tbs
    }

    /// Spends the permission: the signed CRL, DER.
    #[must_use]
    pub fn complete(self, signature: &[u8]) -> Vec<u8> {
        signed(&self.tbs, self.algorithm, signature)
    }
}

/// As [`crate::certificate::recheck_tbs_certificate`], for a TBSCertList.
///
/// # Errors
/// A short reason, for the alarm.
pub fn recheck_tbs_cert_list(tbs: &[u8], issuer_name: &[u8]) -> Result<(), &'static str> {
    if !is_canonical(tbs) {
        return Err("not DER");
    }
    let list = TbsCertList::from_der(tbs).ok_or("not a TBSCertList")?;
    if list.issuer != issuer_name {
        return Err("named as issued by somebody else");
    }
    if list.next_update <= list.this_update {
        return Err("nextUpdate is not after thisUpdate");
    }
    if list.extensions.get(&oid::CRL_NUMBER).is_none() {
        return Err("no cRLNumber");
    }
    if list.extensions.authority_key_identifier().is_none() {
        return Err("no authorityKeyIdentifier");
    }
    Ok(())
}

struct TbsCertList<'a> {
    issuer: &'a [u8],
    this_update: UnixMillis,
    next_update: UnixMillis,
    entries: Option<Element<'a>>,
    extensions: Extensions<'a>,
}

impl<'a> TbsCertList<'a> {
    fn from_der(der: &'a [u8]) -> Option<Self> {
        let mut fields = only(der, tag::SEQUENCE)?.elements();
        fields.expect(tag::INTEGER).filter(|version| version.value == [1])?;
        let _signature_algorithm = fields.expect(tag::SEQUENCE)?;
        let issuer = fields.expect(tag::SEQUENCE)?.der;
        let (this_update, next_update) = (time_of(&fields.any()?)?, time_of(&fields.any()?)?);
        let entries = fields.optional(tag::SEQUENCE);
        let wrapper = fields.expect(tag::context_constructed(0))?;
        fields.end()?;
        let extensions = Extensions::of(only(wrapper.value, tag::SEQUENCE)?.elements())?;
        Some(Self { issuer, this_update, next_update, entries, extensions })
    }
}
