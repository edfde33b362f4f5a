//! Delegated OCSP responders (RFC 6960 section 4.2.2.2): one per CA, its key made here, in memory only, its certificate
//! for a day, renewed at half of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kf_crypto::PrivateKey;
use kf_key::{AuthorityId, CertificateProfile, KeyAlgorithm, UnixMillis};
use kf_pki::certificate::Subject;
use kf_pki::ocsp::Responder;
use kf_store::certificate::Basis;
use tokio::sync::Mutex;

use crate::authority::Known;
use crate::issuance::Order;
use crate::tls::requested_key;
use crate::{Fleet, FleetError};

const LIFETIME: u64 = UnixMillis::DAY;

/// P-256, which every client verifies; below a CA whose signatures outlive elliptic curves, an answer must do so too.
pub(crate) const fn responder_algorithm(authority: KeyAlgorithm) -> KeyAlgorithm {
    if authority.is_post_quantum() { authority } else { KeyAlgorithm::P256 }
}

struct Current {
    responder: Arc<Responder>,
    renew_at: UnixMillis,
    ends: UnixMillis,
}

/// The responders in use. The lock is held while one is renewed, so that a crowd of requests makes one.
#[derive(Default)]
pub(crate) struct Responders(Mutex<BTreeMap<AuthorityId, Current>>);

impl Fleet {
    /// The responder of a CA, renewed when it is due. A renewal that fails leaves the old one in use until it ends.
    pub(super) async fn responder(&self, known: &Arc<Known>) -> Result<Arc<Responder>, FleetError> {
        let mut responders = self.responders.0.lock().await;
        let current = responders.get(&known.record.id);
        if let Some(current) = current.filter(|current| self.now() < current.renew_at) {
            return Ok(Arc::clone(&current.responder));
        }
        let usable = current.filter(|current| self.now() < current.ends).map(|current| Arc::clone(&current.responder));
        match self.new_responder(known).await {
            Ok(fresh) => {
                let responder = Arc::clone(&fresh.responder);
                responders.insert(known.record.id, fresh);
                Ok(responder)
            }
            Err(error) => usable.ok_or(error),
        }
    }

    async fn new_responder(&self, known: &Arc<Known>) -> Result<Current, FleetError> {
        let key = PrivateKey::generate(responder_algorithm(known.record.algorithm))?;
        let order = Order {
            who: &Self::server_principal(),
            authority: known,
            profile: CertificateProfile::OcspSigner,
            subject: Subject::OcspSigner { common_name: format!("{} OCSP", known.record.name) },
            key: requested_key(&key)?,
            lifetime: Some(LIFETIME),
            device: None,
            operator: None,
            facility: None,
            basis: Basis::Own,
            why: "delegated OCSP responder",
        };
        let issued = self.issue(order).await?;
        let ends = issued.certificate.not_after;
        let renew_at = self.now().plus(ends.since(self.now()) / 2);
        Ok(Current { responder: Arc::new(Responder { certificate: issued.der, key }), renew_at, ends })
    }
}
