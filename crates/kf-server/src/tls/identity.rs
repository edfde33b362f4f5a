//! The server's own certificate: swapped before it expires, with a fresh OCSP staple, without touching open
//! connections.

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use kf_fleet::{Fleet, FleetError, IdentityPlan, ServerIdentity};
use kf_key::{AuthorityId, SerialNumber, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::issuer::Issuer;
use kf_pki::ocsp::{CertStatus, make_request, verify_response};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

/// The identities in use: the one for everybody, and while a root takes over the one that proves it.
pub(super) struct Identity {
    held: RwLock<Arc<Vec<Held>>>,
}

/// One identity.
#[derive(Clone)]
struct Held {
    plan: IdentityPlan,
    key: Arc<CertifiedKey>,
    due: Due,
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

/// The identities as one connection is shown them; which root was to be proved is found afterwards in `shown`.
#[derive(Debug)]
pub(super) struct ForOneClient {
    pub(super) identity: Arc<Identity>,
    pub(super) shown: Arc<OnceLock<AuthorityId>>,
}

impl ResolvesServerCert for ForOneClient {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let held = self.identity.held();
        let named = client_hello.certificate_authorities().unwrap_or_default();
        let proving = held.iter().find_map(|one| {
            let root = one.plan.only_for.as_ref()?;
            named.iter().any(|name| name.as_ref() == root.name.as_slice()).then_some((one, root.root))
        });
        match proving {
            Some((one, root)) => {
                // A second ClientHello of the same handshake names the same roots.
                let _first_stays = self.shown.set(root);
                Some(Arc::clone(&one.key))
            }
            None => held.first().map(|one| Arc::clone(&one.key)),
        }
    }
}

impl Identity {
    pub(super) async fn first(fleet: &Fleet) -> Result<Arc<Self>, FleetError> {
        let mut held = Vec::new();
        for plan in fleet.identity_plans() {
            held.push(fetch(fleet, plan).await?);
        }
        if held.is_empty() {
            return Err(FleetError::Bug("no identity for the TLS listener"));
        }
        Ok(Arc::new(Self { held: RwLock::new(Arc::new(held)) }))
    }

    fn held(&self) -> Arc<Vec<Held>> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks every so often, and whenever the CAs change, whether an identity or a staple is due and renews it, until `stop`.
    pub(super) async fn keep_current(&self, fleet: &Fleet, every: Duration, mut stop: watch::Receiver<bool>) {
        let mut changed = fleet.authorities_changed();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(every) => {}
                Ok(()) = changed.changed() => {}
            }
            self.renew(fleet).await;
        }
    }

    /// Keeps what is planned and not due, and makes the rest anew.
    async fn renew(&self, fleet: &Fleet) {
        let (before, now) = (self.held(), fleet.clock().now());
        let mut held = Vec::new();
        for plan in fleet.identity_plans() {
            let kept = before.iter().find(|one| one.plan == plan).cloned();
            match kept {
                Some(one) if now < one.due.renew_at && now < one.due.staple_at => held.push(one),
                Some(one) if now < one.due.renew_at => held.push(with_fresh_staple(fleet, one).await),
                _ => match fetch(fleet, plan).await {
                    Ok(one) => {
                        tracing::info!("the server's certificate was renewed");
                        held.push(one);
                    }
                    Err(error) => {
                        tracing::error!(%error, "the server's certificate could not be renewed");
                        held.extend(kept);
                    }
                },
            }
        }
        // Whatever fails, there is an identity for everybody.
        if held.first().is_none_or(|one| one.plan.only_for.is_some()) {
            held.splice(0..0, before.first().cloned());
        }
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(held);
    }
}

async fn with_fresh_staple(fleet: &Fleet, one: Held) -> Held {
    let mut key = CertifiedKey::clone(&one.key);
    key.ocsp = staple(fleet, &one.due).await;
    let staple_at = next_staple(fleet, key.ocsp.is_some());
    Held { key: Arc::new(key), due: Due { staple_at, ..one.due }, plan: one.plan }
}

/// A fresh identity from the fleet, key and certificate compared.
async fn fetch(fleet: &Fleet, plan: IdentityPlan) -> Result<Held, FleetError> {
    let ServerIdentity { chain, key_pkcs8, renew_at, ocsp_staple } = fleet.identity_of(&plan).await?;
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
    Ok(Held { plan, key: Arc::new(certified), due })
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
