//! What the client trusts: given certificates, or a root that the server must show and whose SHA-256 is pinned.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::ClientError;

/// The most anchors that are named: a ClientHello has to stay small.
const MAX_NAMES: usize = 4;

/// Whom the client believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchors {
    /// These CA certificates, DER.
    Certificates(Vec<Vec<u8>>),
    /// The root with this SHA-256 of its DER, which the server must send in its chain.
    RootFingerprint([u8; 32]),
}

/// Anchors, or the one exception: the provisional session of EST's bootstrap (RFC 7030 section 4.1.1), which carries no
/// credential and whose answer is checked against a fingerprint. Not reachable from outside this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    Anchored(Anchors),
    Provisional,
}

pub(crate) fn verifier(
    trust: &Trust,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ClientError> {
    match trust {
        Trust::Anchored(Anchors::Certificates(certificates)) => {
            from_roots(certificates.iter().map(Vec::as_slice), provider)
                .map(|(verifier, names)| -> Arc<dyn ServerCertVerifier> { Arc::new(Naming { verifier, names }) })
                .map_err(|reason| ClientError::Setting { setting: "roots", reason })
        }
        Trust::Anchored(Anchors::RootFingerprint(pin)) => Ok(Arc::new(Pinned { pin: Some(*pin), provider })),
        Trust::Provisional => Ok(Arc::new(Pinned { pin: None, provider })),
    }
}

fn from_roots<'a>(
    roots: impl Iterator<Item = &'a [u8]>,
    provider: Arc<CryptoProvider>,
) -> Result<(Arc<WebPkiServerVerifier>, Vec<DistinguishedName>), String> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root)).map_err(|error| format!("not a CA certificate: {error}"))?;
    }
    let mut names = store.subjects();
    names.truncate(MAX_NAMES);
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
    built.map(|verifier| (verifier, names)).map_err(|error| error.to_string())
}

/// Names its anchors in the ClientHello (RFC 8446 section 4.2.4), so that a server whose root is being succeeded shows the
/// chain that leads to the newest of them: that the handshake ends well is then the proof that the client trusts it.
#[derive(Debug)]
struct Naming {
    verifier: Arc<WebPkiServerVerifier>,
    names: Vec<DistinguishedName>,
}

impl ServerCertVerifier for Naming {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.names)
    }
}

/// Accepts a server whose path leads to the one root with this fingerprint; anyone, when there is none.
#[derive(Debug)]
struct Pinned {
    pin: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(pin) = self.pin else { return Ok(ServerCertVerified::assertion()) };
        let root = intermediates
            .iter()
            .find(|certificate| kf_crypto::sha256(certificate) == pin)
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        from_roots(std::iter::once(root.as_ref()), self.provider.clone())
            .map_err(|_unreadable| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?
            .0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
