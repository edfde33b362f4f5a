//! TLS for the HTTPS listener: which versions and groups, the server's own identity, optional client certificates.
//!
//! There is no session resumption: a resumed session would skip the check of the client's path, and devices connect
//! rarely enough that nothing is gained.

mod client_verifier;
mod identity;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kf_fleet::{ClientCertificate, Fleet, FleetError};
use kf_key::AuthorityId;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::{NamedGroup, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use client_verifier::{ClientVerifier, Hints};
use identity::{ForOneClient, Identity};

/// The TLS side of the HTTPS listener.
pub(crate) struct Tls {
    fleet: Arc<Fleet>,
    provider: Arc<CryptoProvider>,
    identity: Arc<Identity>,
    hints: Hints,
}

/// A handshake that ended well.
pub(crate) struct Accepted {
    pub(crate) stream: TlsStream<TcpStream>,
    /// The client certificate that was validated in it.
    pub(crate) certificate: Option<ClientCertificate>,
    /// The root that alone explains the chain which the client accepted, where it is one that takes over.
    pub(crate) proved: Option<AuthorityId>,
}

/// The name of the group that the keys of a connection were agreed in: one of few, for a metric.
pub(crate) fn group_of(stream: &TlsStream<TcpStream>) -> &'static str {
    match stream.get_ref().1.negotiated_key_exchange_group().map(|group| group.name()) {
        Some(NamedGroup::X25519MLKEM768) => "X25519MLKEM768",
        Some(NamedGroup::X25519) => "X25519",
        Some(NamedGroup::secp256r1) => "secp256r1",
        Some(NamedGroup::secp384r1) => "secp384r1",
        Some(_) => "other",
        None => "none",
    }
}

/// Why a handshake did not end in a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The peer's fault: wrong protocol, no common parameters, an untrusted certificate.
    #[error("handshake: {0}")]
    Peer(#[from] std::io::Error),
    /// The configuration was refused.
    #[error("configuration: {0}")]
    Configuration(#[from] rustls::Error),
}

impl Tls {
    /// # Errors
    /// [`FleetError`] when the fleet has no identity for the server.
    pub(crate) async fn new(fleet: Arc<Fleet>) -> Result<Arc<Self>, FleetError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let identity = Identity::first(&fleet).await?;
        Ok(Arc::new(Self { fleet, provider, identity, hints: Hints::default() }))
    }

    /// Replaces the identity before it expires and keeps its OCSP staple fresh, until `stop`.
    pub(crate) async fn keep_current(self: Arc<Self>, every: Duration, stop: watch::Receiver<bool>) {
        self.identity.keep_current(&self.fleet, every, stop).await;
    }

    /// Does the handshake. The certificate in the result is the one that was validated in it.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<Accepted, HandshakeError> {
        let verified = Arc::new(OnceLock::new());
        let shown = Arc::new(OnceLock::new());
        let config = self.config(Arc::clone(&verified), Arc::clone(&shown))?;
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        Ok(Accepted { stream, certificate: verified.get().cloned(), proved: shown.get().copied() })
    }

    /// A configuration for one connection: it carries the slot into which the verifier puts what it validated, so that
    /// the result reaches the request without a second validation and without a table shared between connections.
    fn config(
        &self,
        verified: Arc<OnceLock<ClientCertificate>>,
        shown: Arc<OnceLock<AuthorityId>>,
    ) -> Result<ServerConfig, rustls::Error> {
        let verifier = ClientVerifier::new(
            Arc::clone(&self.fleet),
            self.hints.current(&self.fleet),
            self.provider.signature_verification_algorithms,
            verified,
        );
        let identity = Arc::new(ForOneClient { identity: Arc::clone(&self.identity), shown });
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(identity);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // curl asked to speak HTTP/1.0 offers exactly that.
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;
    use rustls::crypto::aws_lc_rs;

    #[test]
    fn the_hybrid_post_quantum_group_is_preferred_and_p256_is_there_for_small_clients() {
        let groups: Vec<_> = aws_lc_rs::default_provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups.first(), Some(&NamedGroup::X25519MLKEM768), "{groups:?}");
        assert!(groups.contains(&NamedGroup::secp256r1), "{groups:?}");
    }
}
