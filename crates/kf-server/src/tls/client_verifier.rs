//! Client certificates in the handshake. An expired one passes, flagged, because renewal inside the grace window and
//! bootstrap by an old IDevID are decided later, by policy; one that leads to no anchor of ours is refused here.

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use kf_fleet::{ClientCertificate, Fleet};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Above this many CAs no hints are sent: they would outgrow the buffers of small clients, and an empty list means
/// "any" (RFC 8446 section 4.2.4).
const MAX_HINTS: usize = 32;
/// The most intermediates a client may send.
const MAX_INTERMEDIATES: usize = 8;

type Anchors = Arc<Vec<Vec<u8>>>;

/// The subjects of the CAs, parsed once per change of the CAs.
#[derive(Default)]
pub(super) struct Hints(RwLock<Option<(Anchors, Arc<[DistinguishedName]>)>>);

impl Hints {
    /// The hints for the CAs as they are now.
    pub(super) fn current(&self, fleet: &Fleet) -> Arc<[DistinguishedName]> {
        let anchors = fleet.client_anchors();
        if let Some((of, hints)) = self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref()
            && *of == anchors
        {
            return Arc::clone(hints);
        }
        let hints = subjects(&anchors);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((anchors, Arc::clone(&hints)));
        hints
    }
}

fn subjects(anchors: &[Vec<u8>]) -> Arc<[DistinguishedName]> {
    if anchors.len() > MAX_HINTS {
        return Arc::new([]);
    }
    anchors
        .iter()
        .filter_map(|der| {
            let der = CertificateDer::from(der.as_slice());
            let anchor = webpki::anchor_from_trusted_cert(&der).ok()?;
            Some(DistinguishedName::in_sequence(anchor.subject.as_ref()))
        })
        .collect()
}

/// The verifier of one connection.
pub(super) struct ClientVerifier {
    fleet: Arc<Fleet>,
    hints: Arc<[DistinguishedName]>,
    algorithms: WebPkiSupportedAlgorithms,
    verified: Arc<OnceLock<ClientCertificate>>,
}

impl ClientVerifier {
    pub(super) fn new(
        fleet: Arc<Fleet>,
        hints: Arc<[DistinguishedName]>,
        algorithms: WebPkiSupportedAlgorithms,
        verified: Arc<OnceLock<ClientCertificate>>,
    ) -> Self {
        Self { fleet, hints, algorithms, verified }
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("hints", &self.hints.len()).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The fleet has its own clock, which tests move.
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        let intermediates: Vec<&[u8]> = intermediates.iter().map(AsRef::as_ref).collect();
        let certificate = self
            .fleet
            .verify_client_path(end_entity, &intermediates)
            .map_err(|_refused| Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        // A second certificate on one connection cannot happen without renegotiation, which rustls does not have.
        self.verified
            .set(certificate)
            .map_err(|_second| Error::General("more than one client certificate in a handshake".into()))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
