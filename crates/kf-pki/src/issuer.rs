//! A certification authority as issuance sees it.

use std::sync::Arc;

use kf_key::{AuthorityId, KeyAlgorithm, UnixMillis};

use crate::certificate::Certificate;
use crate::public_key::PublicKey;

/// KeyUsage bit keyCertSign (5).
const KEY_CERT_SIGN: u8 = 0b0000_0100;

/// The facts of a CA that go into what it signs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Identifier; part of the CRL addresses.
    pub authority: AuthorityId,
    /// The CA certificate, DER.
    pub certificate: Arc<[u8]>,
    /// Its subject Name, DER.
    pub name: Arc<[u8]>,
    /// Its subjectKeyIdentifier: SHA-1 of the subject public key bits (RFC 5280 section 4.2.1.2 (1)) in every CA
    /// certificate of ours.
    pub key_identifier: [u8; 20],
    /// Raw subject public key bits.
    pub public_key: Arc<[u8]>,
    /// Algorithm of the key.
    pub algorithm: KeyAlgorithm,
    /// Last moment of validity: nothing below may outlive it.
    pub not_after: UnixMillis,
    /// Whether its path length lets it issue CA certificates.
    pub may_issue_authorities: bool,
    /// CRL shards of what it issues; 0 when its key is elsewhere, so that nobody here signs its CRLs and OCSP answers, and no
    /// address of them stands in what it issues.
    pub shard_count: u16,
    /// Base of the public addresses baked into certificates, no trailing slash, for example `http://pki.example`.
    pub base_url: Arc<str>,
}

/// Why a certificate cannot serve as an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a CA certificate of ours")]
pub struct NotAnIssuer;

impl Issuer {
    /// Reads the facts from a CA certificate.
    ///
    /// # Errors
    /// [`NotAnIssuer`] when it cannot be parsed, is no CA, or has a key that does not sign certificates here.
    pub fn from_certificate(
        authority: AuthorityId,
        certificate: &[u8],
        shard_count: u16,
        base_url: &str,
    ) -> Result<Self, NotAnIssuer> {
        let parsed = Certificate::from_der(certificate).ok_or(NotAnIssuer)?;
        let extensions = &parsed.tbs.extensions;
        let constraints = extensions.authority().ok_or(NotAnIssuer)?;
        let signs_certificates = extensions.key_usage().is_some_and(|usage| usage & KEY_CERT_SIGN != 0);
        let key = PublicKey::from_spki(parsed.tbs.spki).map_err(|_refusal| NotAnIssuer)?;
        if !constraints.is_authority || !signs_certificates || !key.algorithm.may_sign_certificates() {
            return Err(NotAnIssuer);
        }
        let key_identifier = extensions
            .subject_key_identifier()
            .and_then(|identifier| identifier.try_into().ok())
            .unwrap_or_else(|| kf_crypto::sha1(key.bits));
        Ok(Self {
            authority,
            certificate: certificate.into(),
            name: parsed.tbs.subject.into(),
            key_identifier,
            public_key: key.bits.into(),
            algorithm: key.algorithm,
            not_after: parsed.tbs.not_after,
            may_issue_authorities: constraints.path_length != Some(0),
            shard_count,
            base_url: base_url.into(),
        })
    }

    /// Address of a CRL shard: `{base_url}/crl/{authority}/{shard}.crl`.
    #[must_use]
    pub fn shard_url(&self, shard: u16) -> String {
        format!("{}/crl/{}/{shard}.crl", self.base_url, self.authority)
    }

    /// Address of the full CRL: `{base_url}/crl/{authority}/full.crl`.
    #[must_use]
    pub fn full_crl_url(&self) -> String {
        format!("{}/crl/{}/full.crl", self.base_url, self.authority)
    }

    /// Address of the CA certificate: `{base_url}/ca/{authority}.cer`.
    #[must_use]
    pub fn certificate_url(&self) -> String {
        format!("{}/ca/{}.cer", self.base_url, self.authority)
    }

    /// Address of the OCSP responder: `{base_url}/ocsp`.
    #[must_use]
    pub fn ocsp_url(&self) -> String {
        format!("{}/ocsp", self.base_url)
    }
}
