//! The relying party's side of a CRL: signature, scope and time (RFC 5280 section 6.3).
//!
//! The scope is checked here because several programs do not: certtool and strongSwan take a list whose critical
//! issuingDistributionPoint names another shard, and so call a revoked certificate good.

use std::collections::BTreeMap;

use kf_key::{RevocationReason, SerialNumber, UnixMillis};

use super::{CrlScope, TbsCertList, issuing_distribution_point};
use crate::asn1::{Element, is_canonical, oid, only, tag, time_of};
use crate::certificate::Extensions;
use crate::issuer::Issuer;
use crate::public_key::{PublicKey, SignatureScheme};

/// The most octets of a list that is read: a million entries are below it.
const MAX_CRL_OCTETS: usize = 64 * 1024 * 1024;
/// How far the issuer's clock may be ahead of ours.
const CLOCK_SKEW: u64 = 300 * UnixMillis::SECOND;

/// A list that its issuer signed for this scope and that is current.
#[derive(Clone, Debug)]
pub struct VerifiedCrl {
    number: u64,
    this_update: UnixMillis,
    next_update: UnixMillis,
    revoked: BTreeMap<SerialNumber, (UnixMillis, RevocationReason)>,
}

impl VerifiedCrl {
    /// Reads a DER CRL of at most 64 MiB: signed by `issuer`, covering exactly `scope`, current at `now`, without a
    /// critical extension that is not understood.
    ///
    /// # Errors
    /// A short reason.
    pub fn from_der(der: &[u8], issuer: &Issuer, scope: CrlScope, now: UnixMillis) -> Result<Self, &'static str> {
        if der.len() > MAX_CRL_OCTETS || !is_canonical(der) {
            return Err("not a CRL");
        }
        let (tbs, scheme, signature) = parts(der).ok_or("not a CRL")?;
        let key = PublicKey { algorithm: issuer.algorithm, bits: &issuer.public_key };
        let scheme = scheme.ok_or("signed with an algorithm that is not accepted")?;
        key.verify(scheme, tbs, signature).map_err(|kf_crypto::CryptoError| "the signature is not the issuer's")?;
        let list = TbsCertList::from_der(tbs).ok_or("not a CRL")?;
        if list.issuer != issuer.name.as_ref() {
            return Err("named as issued by somebody else");
        }
        check_scope(&list.extensions, issuer, scope)?;
        if list.this_update > now.plus(CLOCK_SKEW) || list.next_update < now {
            return Err("the CRL is not of now");
        }
        let number =
            list.extensions.get(&oid::CRL_NUMBER).and_then(|found| number(found.value)).ok_or("no cRLNumber")?;
        let revoked = list.entries.map_or_else(|| Some(BTreeMap::new()), |entries| read_entries(&entries));
        Ok(Self {
            number,
            this_update: list.this_update,
            next_update: list.next_update,
            revoked: revoked.ok_or("an entry is broken")?,
        })
    }

    /// cRLNumber.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// thisUpdate.
    #[must_use]
    pub const fn this_update(&self) -> UnixMillis {
        self.this_update
    }

    /// nextUpdate: after it the list says nothing.
    #[must_use]
    pub const fn next_update(&self) -> UnixMillis {
        self.next_update
    }

    /// Whether the certificate is on it, revoked or held.
    #[must_use]
    pub fn revokes(&self, serial: SerialNumber) -> bool {
        self.revoked.contains_key(&serial)
    }

    /// When and why a certificate was revoked or put on hold; `None` when the list does not name it.
    #[must_use]
    pub fn revocation(&self, serial: &SerialNumber) -> Option<(UnixMillis, RevocationReason)> {
        self.revoked.get(serial).copied()
    }

    /// How many certificates it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.revoked.len()
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revoked.is_empty()
    }
}

fn parts(der: &[u8]) -> Option<(&[u8], Option<SignatureScheme>, &[u8])> {
    let mut fields = only(der, tag::SEQUENCE)?.elements();
    let tbs = fields.expect(tag::SEQUENCE)?;
    let algorithm = fields.expect(tag::SEQUENCE)?;
    let signature = fields.bit_string()?;
    fields.end().map(|()| (tbs.der, SignatureScheme::of(&algorithm), signature))
}

fn check_scope(extensions: &Extensions<'_>, issuer: &Issuer, scope: CrlScope) -> Result<(), &'static str> {
    let point = extensions.get(&oid::ISSUING_DISTRIBUTION_POINT);
    let is_in_scope = match (scope, point) {
        (CrlScope::Full, None) => true,
        (CrlScope::Shard(shard), Some(point)) => point.value == issuing_distribution_point(issuer, shard),
        (CrlScope::Full, Some(_)) | (CrlScope::Shard(_), None) => false,
    };
    if !is_in_scope {
        return Err("the CRL covers other certificates");
    }
    let is_understood = |extension: &[u8]| extension == oid::ISSUING_DISTRIBUTION_POINT.as_bytes();
    if extensions.iter().any(|extension| extension.is_critical && !is_understood(extension.oid)) {
        return Err("a critical extension is not understood");
    }
    Ok(())
}

fn number(value: &[u8]) -> Option<u64> {
    let octets = only(value, tag::INTEGER)?.value;
    let significant = octets.strip_prefix(&[0]).unwrap_or(octets);
    let is_positive = octets.first().is_some_and(|first| *first < 0x80);
    (is_positive && significant.len() <= 8)
        .then(|| significant.iter().fold(0, |number, octet| (number << 8) | u64::from(*octet)))
}

fn read_entries(entries: &Element<'_>) -> Option<BTreeMap<SerialNumber, (UnixMillis, RevocationReason)>> {
    let mut elements = entries.elements();
    let mut revoked = BTreeMap::new();
    while !elements.is_empty() {
        let mut fields = elements.expect(tag::SEQUENCE)?.elements();
        let serial = fields.expect(tag::INTEGER)?.value;
        let at = time_of(&fields.any()?)?;
        let reason = match fields.optional(tag::SEQUENCE) {
            Some(extensions) => reason(&Extensions::of(extensions.elements())?)?,
            None => RevocationReason::Unspecified,
        };
        fields.end()?;
        // A number that we could not have issued cannot be asked for either.
        if let Some(serial) = SerialNumber::from_der_contents(serial) {
            revoked.insert(serial, (at, reason));
        }
    }
    Some(revoked)
}

fn reason(extensions: &Extensions<'_>) -> Option<RevocationReason> {
    if extensions.iter().any(|extension| extension.is_critical) {
        return None;
    }
    match extensions.get(&oid::CRL_REASON) {
        Some(extension) => {
            let code = only(extension.value, tag::ENUMERATED)?.value;
            <[u8; 1]>::try_from(code).ok().and_then(|[code]| RevocationReason::from_code(code))
        }
        None => Some(RevocationReason::Unspecified),
    }
}
