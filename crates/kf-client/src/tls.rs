//! TLS settings: TLS 1.2 and 1.3, the provider given explicitly.

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::kx_group;
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

/// What a group of key exchange sends, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyShare {
    /// Its name.
    pub group: &'static str,
    /// The client's share.
    pub client: usize,
    /// The server's share.
    pub server: usize,
}

/// The shares of the hybrid group that TLS prefers here and of the classic one that it falls back to, measured by agreeing
/// once in each. Empty when the random source fails.
#[must_use]
pub fn key_shares() -> Vec<KeyShare> {
    let groups = [("X25519", kx_group::X25519), ("X25519MLKEM768", kx_group::X25519MLKEM768)];
    let measured = groups.into_iter().filter_map(|(group, kx)| {
        let client = kx.start().ok()?;
        let server = kx.start_and_complete(client.pub_key()).ok()?;
        Some(KeyShare { group, client: client.pub_key().len(), server: server.pub_key.len() })
    });
    measured.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_share_is_the_classic_one_and_that_of_ml_kem_768() {
        // FIPS 203 table 3: an encapsulation key of 1,184 octets and a ciphertext of 1,088.
        let classic = KeyShare { group: "X25519", client: 32, server: 32 };
        let hybrid = KeyShare { group: "X25519MLKEM768", client: 32 + 1_184, server: 32 + 1_088 };
        assert_eq!(key_shares(), [classic, hybrid]);
    }
}
