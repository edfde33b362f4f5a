//! TLS for the HTTPS listener: which versions and groups, the server's own identity, optional client certificates.
//!
//! There is no session resumption: a resumed session would skip the check of the client's path, and devices connect
//! rarely enough that nothing is gained.

mod client_verifier;
mod identity;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kf_fleet::{ClientCertificate, Fleet, FleetError};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use client_verifier::{ClientVerifier, Hints};
use identity::Identity;

/// The TLS side of the HTTPS listener.
pub(crate) struct Tls {
    fleet: Arc<Fleet>,
    provider: Arc<CryptoProvider>,
    identity: Arc<Identity>,
    hints: Hints,
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
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<ClientCertificate>), HandshakeError> {
        let verified = Arc::new(OnceLock::new());
        let config = self.config(Arc::clone(&verified))?;
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        Ok((stream, verified.get().cloned()))
    }

    /// A configuration for one connection: it carries the slot into which the verifier puts what it validated, so that
    /// the result reaches the request without a second validation and without a table shared between connections.
    fn config(&self, verified: Arc<OnceLock<ClientCertificate>>) -> Result<ServerConfig, rustls::Error> {
        let verifier = ClientVerifier::new(
            Arc::clone(&self.fleet),
            self.hints.current(&self.fleet),
            self.provider.signature_verification_algorithms,
            verified,
        );
        let identity = Arc::clone(&self.identity);
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
