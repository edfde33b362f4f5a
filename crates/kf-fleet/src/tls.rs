//! What the TLS listener needs: the server's own identity, and what a client certificate means.

use std::sync::Arc;

use kf_crypto::PrivateKey;
use kf_key::{AuthorityId, CertificateProfile, KeyAlgorithm, SecretBytes, SerialNumber, UnixMillis, VendorId};
use kf_pki::certificate::{PresentedCertificate, Subject};
use kf_pki::chain::{Currency, verify_client};
use kf_pki::request::RequestedKey;
use kf_store::certificate::Basis;

use crate::authority::Known;
use crate::issuance::Order;
use crate::{Fleet, FleetError};

/// Lifetime of the server's own certificates; renewed at half of it.
const IDENTITY_LIFETIME: u64 = 7 * UnixMillis::DAY;

/// The server's certificate and key. The key is made at start, lives in memory only and is replaced with the
/// certificate before it expires.
#[derive(Debug)]
pub struct ServerIdentity {
    /// Certificate and issuing CAs, leaf first, DER.
    pub chain: Vec<Vec<u8>>,
    /// Private key, PKCS#8.
    pub key_pkcs8: SecretBytes,
    /// When the next one is due.
    pub renew_at: UnixMillis,
    /// The current OCSP answer for the leaf, to be stapled.
    pub ocsp_staple: Option<Vec<u8>>,
}

/// An identity that the TLS listener shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityPlan {
    /// The issuing CA.
    authority: AuthorityId,
    /// The root that a client has to name to be shown it; `None`: it is for everybody else.
    pub only_for: Option<ProvedRoot>,
    /// Link certificates at the end of its chain.
    links: usize,
}

/// A root that takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedRoot {
    /// Its identifier.
    pub root: AuthorityId,
    /// Its Name, DER, as clients name it (RFC 8446 section 4.2.4).
    pub name: Vec<u8>,
}

/// A client certificate whose path was validated in the handshake. Status and registry are asked at each request, so
/// that a revocation takes effect on connections that are already open.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// Leaf, DER.
    pub der: Arc<[u8]>,
    /// Its serial number, when it is one of ours.
    pub serial: Option<SerialNumber>,
    /// Whether it had expired at the handshake.
    pub currency: Currency,
    /// The manufacturer whose CA it leads to, where it leads to none of ours.
    pub vendor: Option<VendorId>,
}

impl Fleet {
    /// A fresh identity for the TLS listener.
    ///
    /// # Errors
    /// [`FleetError::Signer`], [`FleetError::Store`].
    pub async fn server_identity(&self) -> Result<ServerIdentity, FleetError> {
        let plan = self.identity_plans().into_iter().next().ok_or(FleetError::Bug("no default issuing CA"))?;
        self.identity_of(&plan).await
    }

    /// The identities that the TLS listener shows as the CAs are now: first the one for everybody, then one for clients that
    /// name the root which takes over, whose chain nothing but that root explains.
    #[must_use]
    pub fn identity_plans(&self) -> Vec<IdentityPlan> {
        let authorities = self.authorities();
        let Some(today) = authorities.default_issuing() else { return Vec::new() };
        let everybody = IdentityPlan { authority: today.record.id, only_for: None, links: self.links_shown() };
        let proving = authorities.lineage.open_root().and_then(|handover| {
            let root = authorities.get(handover.succession.successor)?;
            let is_below = |known: &&Arc<Known>| known.record.issuer == Some(root.record.id);
            let issuing =
                Some(today).filter(is_below).or_else(|| authorities.twin(today.record.id).filter(is_below))?;
            let only_for = Some(ProvedRoot { root: root.record.id, name: root.issuer.name.to_vec() });
            Some(IdentityPlan { authority: issuing.record.id, only_for, links: 0 })
        });
        std::iter::once(everybody).chain(proving).collect()
    }

    /// A fresh identity as planned.
    ///
    /// # Errors
    /// [`FleetError::Signer`], [`FleetError::Store`].
    pub async fn identity_of(&self, plan: &IdentityPlan) -> Result<ServerIdentity, FleetError> {
        let authorities = self.authorities();
        let authority = authorities.get(plan.authority).ok_or(FleetError::NotFound("authority"))?;
        let subject = Subject::Server { dns_names: self.config.listen.names.clone() };
        let why = "the server's own TLS identity";
        let mut identity = self.own_identity_below(authority, CertificateProfile::TlsServer, subject, why).await?;
        if plan.only_for.is_some() {
            let links: Vec<&Vec<u8>> =
                authorities.lineage.all().filter_map(|handover| handover.new_with_old.as_ref()).collect();
            identity.chain.retain(|der| !links.contains(&der));
        }
        Ok(identity)
    }

    /// Changes whenever the CAs do, and with them perhaps the identities of the listener.
    #[must_use]
    pub fn authorities_changed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.authorities_changed.subscribe()
    }

    /// How many roots are handed out: the chain for everybody has a link while it is two.
    fn links_shown(&self) -> usize {
        self.authorities().anchors().len().saturating_sub(1)
    }

    /// A client identity with which the server itself signs in to a broker as `name`.
    ///
    /// # Errors
    /// [`FleetError::Signer`], [`FleetError::Store`].
    pub async fn broker_identity(&self, name: &str) -> Result<ServerIdentity, FleetError> {
        let subject = Subject::Operator { organization: self.config.fleet.clone(), name: name.to_owned() };
        self.own_identity(CertificateProfile::Operator, subject, "the server's identity at a broker").await
    }

    /// An identity for a TLS server of the fleet's own, such as the demo's broker.
    ///
    /// # Errors
    /// [`FleetError::Signer`], [`FleetError::Store`].
    pub async fn tls_server_identity(&self, names: Vec<String>) -> Result<ServerIdentity, FleetError> {
        self.own_identity(CertificateProfile::TlsServer, Subject::Server { dns_names: names }, "a broker's identity")
            .await
    }

    async fn own_identity(
        &self,
        profile: CertificateProfile,
        subject: Subject,
        why: &str,
    ) -> Result<ServerIdentity, FleetError> {
        let authorities = self.authorities();
        let authority = authorities.default_issuing().ok_or(FleetError::Bug("no default issuing CA"))?;
        self.own_identity_below(authority, profile, subject, why).await
    }

    async fn own_identity_below(
        &self,
        authority: &Arc<Known>,
        profile: CertificateProfile,
        subject: Subject,
        why: &str,
    ) -> Result<ServerIdentity, FleetError> {
        let authorities = self.authorities();
        let key = PrivateKey::generate(KeyAlgorithm::P256)?;
        let order = Order {
            who: &Self::server_principal(),
            authority,
            profile,
            subject,
            key: requested_key(&key)?,
            lifetime: Some(IDENTITY_LIFETIME),
            device: None,
            operator: None,
            facility: None,
            basis: Basis::Own,
            why,
        };
        let issued = self.issue(order).await?;
        let life = issued.certificate.not_after.since(self.now());
        let request = kf_pki::ocsp::make_request(&authority.issuer, issued.certificate.serial, None);
        let staple = self.ocsp(&request).await;
        let mut chain = vec![issued.der];
        chain.extend(authorities.chain_without_root(authority.record.id));
        Ok(ServerIdentity {
            chain,
            key_pkcs8: key.to_pkcs8()?,
            renew_at: self.now().plus(life / 2),
            ocsp_staple: staple.cache_until.map(|_| staple.der.to_vec()),
        })
    }

    /// The CA certificates that client certificates may lead to, DER: every CA that is not revoked.
    #[must_use]
    pub fn client_anchors(&self) -> Arc<Vec<Vec<u8>>> {
        let authorities = self.authorities();
        Arc::new(authorities.live().map(|known| known.issuer.certificate.to_vec()).collect())
    }

    /// Validates a presented client certificate's path for the handshake: to the root, with the intermediates that the
    /// client sends and those that we know.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`].
    pub fn verify_client_path(&self, leaf: &[u8], intermediates: &[&[u8]]) -> Result<ClientCertificate, FleetError> {
        let authorities = self.authorities();
        // A root that was succeeded is believed until everything below it has expired.
        let roots: Vec<&[u8]> = authorities.roots().map(|known| &*known.issuer.certificate).collect();
        let known: Vec<&[u8]> = authorities.live().map(|known| &*known.issuer.certificate).collect();
        let all: Vec<&[u8]> = intermediates.iter().copied().take(4).chain(known).collect();
        let Ok(currency) = verify_client(leaf, &all, &roots, self.now()) else {
            return self.verify_batch_path(leaf).or_else(|_not_ours| self.verify_vendor_path(leaf, intermediates));
        };
        let serial = PresentedCertificate::from_der(leaf).and_then(|presented| presented.serial);
        Ok(ClientCertificate { der: Arc::from(leaf), serial, currency, vendor: None })
    }
}

/// The public half of a key that we made ourselves.
pub(crate) fn requested_key(key: &PrivateKey) -> Result<RequestedKey, FleetError> {
    RequestedKey::from_spki(&key.spki()).map_err(|_refused| FleetError::Bug("a key of our own"))
}
