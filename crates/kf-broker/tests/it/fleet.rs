//! A small fleet: a CA, devices, CRLs in the connectors' form.

use std::sync::Arc;
use std::time::Duration;

use kf_broker::{PublishedCrl, TlsIdentity};
use kf_crypto::PrivateKey;
use kf_key::{AuthorityId, KeyAlgorithm, SecretBytes, UnixMillis};
use kf_testkit::{ForeignAuthority, IssuedIdentity};
use rustls::ClientConfig;

/// More than any step takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn crl(authority: &ForeignAuthority, revoked: &[u64]) -> PublishedCrl {
    let id = AuthorityId::from_parts(UnixMillis(1), [7; 10]);
    PublishedCrl { authority: id, pem: authority.crl_pem(revoked) }
}

pub(crate) fn key(issued: &IssuedIdentity) -> PrivateKey {
    PrivateKey::from_pkcs8(KeyAlgorithm::P256, &SecretBytes::from_vec(issued.pkcs8.clone())).unwrap()
}

pub(crate) fn identity(authority: &ForeignAuthority, issued: &IssuedIdentity) -> TlsIdentity {
    TlsIdentity { roots: vec![authority.root_der()], chain: issued.chain.clone(), key: key(issued) }
}

pub(crate) fn client_tls(authority: &ForeignAuthority, issued: &IssuedIdentity) -> Arc<ClientConfig> {
    identity(authority, issued).client_config().unwrap()
}
