//! A CRL as a relying party reads it: signature verified under its issuer.

use der::{Decode, Encode};
use kf_key::{SerialNumber, UnixMillis};
use x509_cert::crl::CertificateList;

use crate::issuer::Issuer;

/// The most octets of a CRL that is read.
const MAX_CRL_OCTETS: usize = 64 << 20;

/// A CRL whose signature verified.
#[derive(Debug)]
pub struct VerifiedCrl {
    number: u64,
    this_update: UnixMillis,
    next_update: UnixMillis,
    serials: std::collections::BTreeSet<SerialNumber>,
}

impl VerifiedCrl {
    /// Reads a CRL and verifies its signature.
    ///
    /// # Errors
    /// A short reason.
    pub fn from_der(octets: &[u8], issuer: &Issuer) -> Result<Self, &'static str> {
        if octets.len() > MAX_CRL_OCTETS {
            return Err("the CRL is too large");
        }
        let list = <CertificateList>::from_der(octets).map_err(|_der| "not a CRL")?;
        let signed = list.tbs_cert_list.to_der().map_err(|_der| "not a CRL")?;
        let signature = list.signature.as_bytes().ok_or("the CRL's signature is not octets")?;
        kf_crypto::verify(issuer.algorithm, &issuer.public_key, &signed, signature)
            .map_err(|_opaque| "the CRL's signature does not verify")?;
        let number = list
            .tbs_cert_list
            .crl_extensions
            .iter()
            .flatten()
            .find(|extension| extension.extn_id == const_oid::db::rfc5280::ID_CE_CRL_NUMBER)
            .and_then(|extension| u64::from_der(extension.extn_value.as_bytes()).ok())
            .ok_or("the CRL has no number")?;
        let millis = |time: x509_cert::time::Time| UnixMillis::from_seconds(time.to_unix_duration().as_secs());
        let serials = list.tbs_cert_list.revoked_certificates.iter().flatten();
        Ok(Self {
            number,
            this_update: millis(list.tbs_cert_list.this_update),
            next_update: list.tbs_cert_list.next_update.map(millis).ok_or("the CRL has no nextUpdate")?,
            serials: serials
                .filter_map(|entry| SerialNumber::from_der_contents(entry.serial_number.as_bytes()))
                .collect(),
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

    /// nextUpdate.
    #[must_use]
    pub const fn next_update(&self) -> UnixMillis {
        self.next_update
    }

    /// Whether the certificate is on it.
    #[must_use]
    pub fn revokes(&self, serial: SerialNumber) -> bool {
        self.serials.contains(&serial)
    }
}
