//! The client's key as TLS uses it: signing only, so that the key may live where its bytes cannot be had.

use std::fmt::Debug;
use std::sync::Arc;

use kf_crypto::{CryptoError, PrivateKey};
use kf_key::KeyAlgorithm;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

use crate::ClientError;

/// A key that can sign for TLS: a [`PrivateKey`] in memory, or one in a token, TPM or secure element.
pub trait TlsKey: Debug + Send + Sync {
    /// P-256, P-384, Ed25519 or ML-DSA.
    fn algorithm(&self) -> KeyAlgorithm;

    /// SubjectPublicKeyInfo, DER.
    fn spki(&self) -> Vec<u8>;

    /// Signs `message` (hashing it as the algorithm says); ECDSA signatures are DER.
    ///
    /// # Errors
    /// [`CryptoError`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoError>;
}

impl TlsKey for PrivateKey {
    fn algorithm(&self) -> KeyAlgorithm {
        Self::algorithm(self)
    }

    fn spki(&self) -> Vec<u8> {
        Self::spki(self)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        Self::sign(self, message)
    }
}

const fn scheme_of(algorithm: KeyAlgorithm) -> Option<SignatureScheme> {
    match algorithm {
        KeyAlgorithm::P256 => Some(SignatureScheme::ECDSA_NISTP256_SHA256),
        KeyAlgorithm::P384 => Some(SignatureScheme::ECDSA_NISTP384_SHA384),
        KeyAlgorithm::Ed25519 => Some(SignatureScheme::ED25519),
        KeyAlgorithm::MlDsa44 => Some(SignatureScheme::ML_DSA_44),
        KeyAlgorithm::MlDsa65 => Some(SignatureScheme::ML_DSA_65),
        KeyAlgorithm::MlDsa87 => Some(SignatureScheme::ML_DSA_87),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => None,
    }
}

#[derive(Clone, Debug)]
struct Adapter {
    key: Arc<dyn TlsKey>,
    scheme: SignatureScheme,
    spki: Arc<[u8]>,
}

impl SigningKey for Adapter {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer: Box<dyn Signer> = Box::new(self.clone());
        offered.contains(&self.scheme).then_some(signer)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.spki.as_ref()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.scheme {
            SignatureScheme::ED25519 => SignatureAlgorithm::ED25519,
            // TLS 1.2 has no code for it: the scheme alone decides, in TLS 1.3.
            SignatureScheme::ML_DSA_44 | SignatureScheme::ML_DSA_65 | SignatureScheme::ML_DSA_87 => {
                SignatureAlgorithm::Unknown(0)
            }
            _ => SignatureAlgorithm::ECDSA,
        }
    }
}

impl Signer for Adapter {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.key.sign(message).map_err(|CryptoError| rustls::Error::General("the client key did not sign".into()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// Pairs a chain (leaf first) with its key.
///
/// # Errors
/// [`ClientError::Setting`] when the chain is empty, the leaf holds another key, or the algorithm cannot sign TLS.
pub(crate) fn certified_key(chain: Vec<Vec<u8>>, key: Arc<dyn TlsKey>) -> Result<CertifiedKey, ClientError> {
    let refuse = |reason: &str| ClientError::Setting { setting: "identity", reason: reason.to_owned() };
    let scheme = scheme_of(key.algorithm()).ok_or_else(|| refuse("an RSA key does not sign here"))?;
    if chain.is_empty() {
        return Err(refuse("the certificate chain is empty"));
    }
    let spki: Arc<[u8]> = key.spki().into();
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let certified = CertifiedKey::new(chain, Arc::new(Adapter { key, scheme, spki }));
    // A chain and a key that do not belong together would fail at the peer, with a message that helps nobody.
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(refuse("the certificate holds another public key")),
        Err(_unreadable) => Err(refuse("the first certificate cannot be read")),
    }
}
