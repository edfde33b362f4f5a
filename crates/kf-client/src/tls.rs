//! TLS settings: TLS 1.2 and 1.3, the provider given explicitly.

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, SignatureScheme};

use crate::ClientError;
use crate::trust::{self, Trust};

/// The provider of every TLS session of this program. Never installed as the process default: a library that asks for
/// the default fails loudly instead of using other settings.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_signer| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

pub(crate) fn client_config(
    trust: &Trust,
    identity: Option<Arc<CertifiedKey>>,
    time: Arc<dyn TimeProvider>,
) -> Result<Arc<ClientConfig>, ClientError> {
    let provider = provider();
    let verifier = trust::verifier(trust, provider.clone())?;
    let builder = ClientConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Setting { setting: "provider", reason: error.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(Always(identity))),
        None => builder.with_no_client_auth(),
    };
    // A resumed session is not checked against the server's revocation lists: we do not ask for one.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
