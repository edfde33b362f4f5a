//! The client: async, cheap to clone, many requests in flight on one socket.
use std::sync::Arc;

use kf_backend::{KeyBackend, KeyHandle};
use kf_key::{KeyAlgorithm, KeyId, SecretBytes};
use kf_pki::certificate::{CheckedTbs, IssuedCertificate};
use kf_pki::crl::CheckedCrl;

use crate::{GeneratedKey, KeyFacts, KeyPurpose, RateCeilings, SignerCapabilities, SignerCommand, SignerError};

/// Talks to the signer. Clones share one connection.
#[derive(Clone, Debug)]
pub struct SignerClient {}

/// How the signer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerHealth {
    /// Keys loaded in this life of the process.
    pub keys_loaded: usize,
    /// Signatures made in this life of the process, per key.
    pub signatures: Vec<(KeyId, u64)>,
    /// How often the process was restarted since the client started it.
    pub restarts: u64,
}

impl SignerClient {
    /// Starts the signer and waits until it has unsealed the root or logged in to the token.
    ///
    /// # Errors
    /// [`SignerError::Start`].
    pub async fn spawn(command: SignerCommand) -> Result<Self, SignerError> {
        let _ = command;
        todo!()
    }

    /// The same request path over a socket pair to threads of this process: for tests and benchmarks.
    ///
    /// # Errors
    /// [`SignerError::Start`].
    pub fn in_process(backend: Arc<dyn KeyBackend>, ceilings: RateCeilings) -> Result<Self, SignerError> {
        let _ = (backend, ceilings);
        todo!()
    }

    /// Generates a signature key. It is known for this life of the client; register it after a restart.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn generate_key(
        &self,
        key: KeyId,
        purpose: KeyPurpose,
        algorithm: KeyAlgorithm,
    ) -> Result<GeneratedKey, SignerError> {
        let _ = (key, purpose, algorithm);
        todo!()
    }

    /// Tells the client of a key from the registry; it is loaded when first used, and again after a restart.
    /// Registering again replaces the facts.
    pub fn register_key(&self, key: KeyId, handle: KeyHandle, facts: KeyFacts) {
        let _ = (key, handle, facts);
        todo!()
    }

    /// Signs the self-signed certificate of a root whose key is `key`.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn sign_root(&self, key: KeyId, checked: CheckedTbs) -> Result<IssuedCertificate, SignerError> {
        let _ = (key, checked);
        todo!()
    }

    /// Signs a checked certificate.
    ///
    /// # Errors
    /// [`SignerError`]. The permission is spent either way.
    pub async fn sign_certificate(&self, key: KeyId, checked: CheckedTbs) -> Result<IssuedCertificate, SignerError> {
        let _ = (key, checked);
        todo!()
    }

    /// Signs a checked CRL; returns it whole, DER.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn sign_crl(&self, key: KeyId, checked: CheckedCrl) -> Result<Vec<u8>, SignerError> {
        let _ = (key, checked);
        todo!()
    }

    /// Signs the note `origin`, `size`, `root` (C2SP tlog-checkpoint); returns the 64 octets of Ed25519.
    ///
    /// # Errors
    /// [`SignerError`]; a smaller size than before, or another root at the same size, is refused.
    pub async fn sign_checkpoint(
        &self,
        key: KeyId,
        origin: &str,
        size: u64,
        root: [u8; 32],
    ) -> Result<[u8; 64], SignerError> {
        let _ = (key, origin, size, root);
        todo!()
    }

    /// Wraps a secret of at most 64 KiB under a key derived from the root, bound to `context`.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn wrap(&self, context: &[u8], secret: &SecretBytes) -> Result<Vec<u8>, SignerError> {
        let _ = (context, secret);
        todo!()
    }

    /// Unwraps what [`SignerClient::wrap`] made.
    ///
    /// # Errors
    /// [`SignerError::Wrapped`] for another root or context.
    pub async fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<SecretBytes, SignerError> {
        let _ = (context, wrapped);
        todo!()
    }

    /// Destroys a key: in the token when it is there; the caller destroys the handle.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn destroy_key(&self, key: KeyId) -> Result<(), SignerError> {
        let _ = key;
        todo!()
    }

    /// Asks the signer and its back end whether they work.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn health(&self) -> Result<SignerHealth, SignerError> {
        todo!()
    }

    /// What the back end declared at start.
    #[must_use]
    pub fn capabilities(&self) -> Arc<SignerCapabilities> {
        todo!()
    }

    /// Lets the signer finish what it has and waits until its process ended.
    pub async fn shutdown(&self) {
        todo!()
    }
}
