//! What the TLS listener needs: the server's own identity, and what a client certificate means.

use std::sync::Arc;

use kf_key::{SerialNumber, UnixMillis};
use kf_pki::chain::Currency;

use crate::Fleet;
use crate::FleetError;

/// The server's certificate and key. The key is made at start, lives in memory only and is replaced with the
/// certificate before it expires.
#[derive(Debug)]
pub struct ServerIdentity {
    /// Certificate and issuing CAs, leaf first, DER.
    pub chain: Vec<Vec<u8>>,
    /// Private key, PKCS#8.
    pub key_pkcs8: kf_key::SecretBytes,
    /// When the next one is due.
    pub renew_at: UnixMillis,
    /// The current OCSP answer for the leaf, to be stapled.
    pub ocsp_staple: Option<Vec<u8>>,
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
}

impl Fleet {
    /// A fresh identity for the TLS listener.
    ///
    /// # Errors
    /// [`FleetError::Signer`], [`FleetError::Store`].
    pub async fn server_identity(&self) -> Result<ServerIdentity, FleetError> {
        todo!()
    }

    /// The CA certificates that client certificates may lead to, DER. Changes when a CA is created or revoked.
    #[must_use]
    pub fn client_anchors(&self) -> Arc<Vec<Vec<u8>>> {
        todo!()
    }

    /// Validates a presented client certificate's path for the handshake (`kf_pki::chain::verify_client`).
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`].
    pub fn verify_client_path(&self, leaf: &[u8], intermediates: &[&[u8]]) -> Result<ClientCertificate, FleetError> {
        let _ = (leaf, intermediates);
        todo!()
    }
}
