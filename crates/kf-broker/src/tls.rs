//! TLS settings of the connectors, from keys that stay in memory.

use std::sync::Arc;

use der::Decode as _;
use der::asn1::{PrintableStringRef, Utf8StringRef};
use kf_crypto::PrivateKey;
use kf_key::UnixMillis;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};
use x509_cert::Certificate;

use crate::BrokerError;

/// Who a connector is, and whom it believes.
#[derive(Debug)]
pub struct TlsIdentity {
    /// CA certificates, DER, that the other side's certificate must lead to.
    pub roots: Vec<Vec<u8>>,
    /// Its own chain, DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The key of the leaf.
    pub key: PrivateKey,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn refuse(setting: &'static str, error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Configuration { setting, reason: error.to_string() }
}

/// The common name of a certificate's subject.
pub(crate) fn common_name(certificate: &Certificate) -> Option<String> {
    certificate.tbs_certificate().subject().iter().find_map(|attribute| {
        if attribute.oid != der::oid::db::rfc4519::CN {
            return None;
        }
        let utf8 = attribute.value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
        utf8.or_else(|_other| attribute.value.decode_as::<PrintableStringRef<'_>>().map(|text| text.to_string())).ok()
    })
}

impl TlsIdentity {
    fn roots(&self) -> Result<Arc<RootCertStore>, BrokerError> {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store.add(CertificateDer::from(root.as_slice())).map_err(|error| refuse("roots", error))?;
        }
        Ok(Arc::new(store))
    }

    fn certified_key(&self) -> Result<Arc<CertifiedKey>, BrokerError> {
        let pkcs8 = self.key.to_pkcs8().map_err(|error| refuse("key", error))?;
        // Exposed to the TLS provider, which keeps its own copy and clears it on drop.
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.expose()));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(|error| refuse("key", error))?;
        let chain = self.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| refuse("chain", error))?;
        Ok(Arc::new(certified))
    }

    /// Common name of the leaf, and the middle of its validity. `None` when the leaf cannot be read.
    pub(crate) fn name_and_half_life(&self) -> Option<(String, UnixMillis)> {
        let certificate = Certificate::from_der(self.chain.first()?).ok()?;
        let validity = certificate.tbs_certificate().validity();
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        let (from, to) = (seconds(validity.not_before), seconds(validity.not_after));
        let half = from.saturating_add(to.saturating_sub(from) / 2);
        Some((common_name(&certificate)?, UnixMillis::from_seconds(half)))
    }

    /// Settings of a TLS client.
    ///
    /// # Errors
    /// [`BrokerError::Configuration`].
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, BrokerError> {
        self.client_config_for(None)
    }

    /// Settings of a TLS client that expects `server_name` in the server's certificate, whatever address it connects to.
    pub(crate) fn client_config_for(&self, server_name: Option<&str>) -> Result<Arc<ClientConfig>, BrokerError> {
        let certified = self.certified_key()?;
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(|error| refuse("roots", error))?;
        let verifier: Arc<dyn ServerCertVerifier> = match server_name {
            None => verifier,
            Some(name) => {
                let name = ServerName::try_from(name.to_owned()).map_err(|error| refuse("server_name", error))?;
                Arc::new(Named { verifier, name })
            }
        };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse("provider", error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// Settings of a TLS server that admits only clients whose certificate leads to a root and is, by these CRLs, not
    /// revoked. A client whose CA has no CRL here, or an expired one, is refused.
    pub(crate) fn server_config(&self, crls: Vec<Vec<u8>>) -> Result<Arc<ServerConfig>, BrokerError> {
        let crls = crls.into_iter().map(CertificateRevocationListDer::from);
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider())
            .with_crls(crls)
            .only_check_end_entity_revocation()
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| refuse("crls", error))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse("provider", error))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(self.certified_key()?)));
        // A resumed session would skip the CRL.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// Verifies as ever, but against a fixed name: the address of a broker on this host is rarely the name it is known by.
#[derive(Debug)]
struct Named {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _address: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
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
}
