//! An identity that can be used: a chain and the key that belongs to it.

use std::sync::Arc;

use kf_client::TlsKey;
use kf_device::enrolment::machine::Validity;
use kf_device::enrolment::schedule;
use kf_pki::certificate::PresentedCertificate;

use crate::event::CertificateSeen;

/// A certificate chain with its key.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// DER, leaf first.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: Arc<dyn TlsKey>,
    pub(crate) validity: Validity,
    /// Of the leaf.
    pub(crate) sha256: [u8; 32],
}

impl Identity {
    /// Pairs a chain with a key; `None` when the leaf cannot be read or holds another key.
    pub(crate) fn pair(chain: Vec<Vec<u8>>, key: Arc<dyn TlsKey>) -> Option<Self> {
        let leaf = chain.first()?;
        let presented = PresentedCertificate::from_der(leaf)?;
        if presented.spki != key.spki() {
            return None;
        }
        let sha256 = kf_crypto::sha256(leaf);
        let (not_before, not_after) = (presented.not_before, presented.not_after);
        // The certificate itself is the random number: spread over a fleet, and the same after every restart.
        let renew_at = schedule::renew_at(not_before, not_after, random_of(&sha256));
        Some(Self { chain, key, validity: Validity { not_before, not_after, renew_at }, sha256 })
    }

    pub(crate) fn fingerprint(&self) -> String {
        self.sha256.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    pub(crate) fn seen(&self) -> CertificateSeen {
        let Validity { not_before, not_after, renew_at } = self.validity;
        CertificateSeen { sha256: self.fingerprint(), not_before, not_after, renew_at }
    }

    pub(crate) fn chain_pem(&self) -> String {
        self.chain.iter().map(|der| kf_pki::pem::certificate(der)).collect()
    }
}

fn random_of(sha256: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *sha256;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
