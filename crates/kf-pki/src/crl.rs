//! Certificate revocation lists: sharded with a critical issuingDistributionPoint, and full (RFC 5280 section 5).

use kf_key::{KeyAlgorithm, RevocationReason, SerialNumber, UnixMillis};

use crate::issuer::Issuer;

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
        todo!()
    }
}

impl EncodedEntry {
    /// The DER.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }
}

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
    let _ = (issuer, scope, number, this_update, next_update, entries.len());
    todo!()
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
        let _ = (signature, self.algorithm);
        todo!()
    }
}

/// As [`crate::certificate::recheck_tbs_certificate`], for a TBSCertList.
///
/// # Errors
/// A short reason, for the alarm.
pub fn recheck_tbs_cert_list(tbs: &[u8], issuer_name: &[u8]) -> Result<(), &'static str> {
    let _ = (tbs, issuer_name);
    todo!()
}
