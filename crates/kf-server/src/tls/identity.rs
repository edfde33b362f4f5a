//! The server's own certificate: swapped before it expires, with a fresh OCSP staple, without touching open
//! connections.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kf_fleet::{Fleet, FleetError, ServerIdentity};
use kf_key::{AuthorityId, SerialNumber, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::issuer::Issuer;
use kf_pki::ocsp::{CertStatus, make_request, verify_response};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

/// The identity in use.
pub(super) struct Identity {
    key: RwLock<Arc<CertifiedKey>>,
    due: RwLock<Due>,
}

/// What has to be done next, and what is needed for it.
#[derive(Clone)]
struct Due {
    renew_at: UnixMillis,
    staple_at: UnixMillis,
    staple_of: Option<(Arc<Issuer>, SerialNumber)>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Identity {
    pub(super) async fn first(fleet: &Fleet) -> Result<Arc<Self>, FleetError> {
        let (key, due) = fetch(fleet).await?;
        Ok(Arc::new(Self { key: RwLock::new(Arc::new(key)), due: RwLock::new(due) }))
    }

    /// Looks every so often whether identity or staple are due and renews them, until `stop`.
    pub(super) async fn keep_current(&self, fleet: &Fleet, every: Duration, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(every) => {}
            }
            let due = self.due.read().unwrap_or_else(PoisonError::into_inner).clone();
            let now = fleet.clock().now();
            if now >= due.renew_at {
                match fetch(fleet).await {
                    Ok((key, due)) => {
                        self.replace(key, due);
                        tracing::info!("the server's certificate was renewed");
                    }
                    Err(error) => tracing::error!(%error, "the server's certificate could not be renewed"),
                }
            } else if now >= due.staple_at {
                self.refresh_staple(fleet, due).await;
            }
        }
    }

    async fn refresh_staple(&self, fleet: &Fleet, due: Due) {
        let current = Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner));
        let mut key = CertifiedKey::clone(&current);
        key.ocsp = staple(fleet, &due).await;
        let staple_at = next_staple(fleet, key.ocsp.is_some());
        self.replace(key, Due { staple_at, ..due });
    }

    fn replace(&self, key: CertifiedKey, due: Due) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
        *self.due.write().unwrap_or_else(PoisonError::into_inner) = due;
    }
}

/// A fresh identity from the fleet, key and certificate compared.
async fn fetch(fleet: &Fleet) -> Result<(CertifiedKey, Due), FleetError> {
    let ServerIdentity { chain, key_pkcs8, renew_at, ocsp_staple } = fleet.server_identity().await?;
    // Exposed to the TLS library's own key type; the PKCS#8 form is wiped when this function ends.
    let key = any_supported_type(&PrivateKeyDer::Pkcs8(key_pkcs8.expose().into()))
        .map_err(|_refused| FleetError::Bug("the TLS library refused the server's key"))?;
    let mut due = Due { renew_at, staple_at: UnixMillis(0), staple_of: staple_subject(&chain) };
    let mut certified = CertifiedKey::new(chain.into_iter().map(CertificateDer::from).collect(), key);
    certified
        .keys_match()
        .map_err(|_refused| FleetError::Bug("the server's key and certificate do not belong together"))?;
    certified.ocsp = match ocsp_staple {
        Some(answer) => Some(answer),
        None => staple(fleet, &due).await,
    };
    due.staple_at = next_staple(fleet, certified.ocsp.is_some());
    Ok((certified, due))
}

/// Half the lifetime of an answer from now, or soon when there is none.
fn next_staple(fleet: &Fleet, have_one: bool) -> UnixMillis {
    let seconds = if have_one { fleet.config().ocsp_lifetime_seconds / 2 } else { 60 };
    fleet.clock().now().plus(seconds.saturating_mul(UnixMillis::SECOND))
}

fn staple_subject(chain: &[Vec<u8>]) -> Option<(Arc<Issuer>, SerialNumber)> {
    let [leaf, issuer, ..] = chain else { return None };
    let serial = PresentedCertificate::from_der(leaf)?.serial?;
    // Only names and keys of the issuer are used here, never its addresses.
    let issuer = Issuer::from_certificate(AuthorityId::from_bytes([0; 16]), issuer, 1, "").ok()?;
    Some((Arc::new(issuer), serial))
}

/// An answer that says `good`; any other is not stapled, because clients would hang up on it.
async fn staple(fleet: &Fleet, due: &Due) -> Option<Vec<u8>> {
    let (issuer, serial) = due.staple_of.as_ref()?;
    let answer = fleet.ocsp(&make_request(issuer, *serial, None)).await.der;
    let status = verify_response(&answer, issuer, *serial, None, fleet.clock().now());
    matches!(status, Ok(CertStatus::Good)).then(|| answer.to_vec())
}
