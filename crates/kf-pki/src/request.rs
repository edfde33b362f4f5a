//! Certification requests (PKCS#10, RFC 2986), however they arrive.

use kf_key::KeyAlgorithm;

/// The most octets of a request body: an RSA-4096 request with generous attributes is below 4 KiB.
pub const MAX_REQUEST_OCTETS: usize = 16 * 1024;

/// Why a request is refused, named by field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Larger than [`MAX_REQUEST_OCTETS`].
    #[error("the request is larger than {MAX_REQUEST_OCTETS} octets")]
    TooLarge,
    /// Neither PEM, base64 nor DER of a CertificationRequest.
    #[error("the request is not a PKCS#10 certification request in DER, base64 or PEM")]
    Malformed,
    /// The signature does not prove possession of the private key.
    #[error("the request's signature does not verify under its own public key")]
    ProofOfPossession,
    /// A key or signature algorithm that is not accepted here.
    #[error("the request's {0} is not supported")]
    Unsupported(&'static str),
}

/// A public key taken from a request whose signature verified, or from a verified certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedKey {
    /// Algorithm and size.
    pub algorithm: KeyAlgorithm,
    /// SubjectPublicKeyInfo, DER, canonical.
    pub spki: Vec<u8>,
    /// SHA-256 of `spki`.
    pub spki_sha256: [u8; 32],
}

/// A certification request whose proof of possession verified.
#[derive(Clone, Debug)]
pub struct CertificationRequest {
    /// The key it asks a certificate for.
    pub key: RequestedKey,
    /// The subject Name it carries, DER. Not used for names; compared on re-enrolment (RFC 7030 section 4.2.2).
    pub subject: Vec<u8>,
    /// The GeneralNames of a subjectAltName it asks for, DER of the extension value.
    pub subject_alt_name: Option<Vec<u8>>,
    /// The challengePassword attribute, where RFC 7030 section 3.5 puts the TLS binding.
    pub challenge_password: Option<String>,
    /// The CertificationRequest, DER.
    pub der: Vec<u8>,
}

impl CertificationRequest {
    /// Reads a request from DER, base64 (any white space) or PEM and verifies its signature.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn from_body(body: &[u8]) -> Result<Self, RequestError> {
        let _ = body;
        todo!()
    }

    /// Reads a request from DER and verifies its signature.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        let _ = der;
        todo!()
    }
}

/// Makes a PKCS#10 request signed by `key`, for the agent and for tests. `subject_common_name` empty: empty Name.
///
/// # Errors
/// [`RequestError::Unsupported`] when the key cannot sign.
pub fn make_request(key: &kf_crypto::PrivateKey, subject_common_name: &str) -> Result<Vec<u8>, RequestError> {
    let _ = (key, subject_common_name);
    todo!()
}
