//! OCSP requests and answers (RFC 6960, RFC 5019, nonce RFC 9654).

use kf_crypto::PrivateKey;
use kf_key::{RevocationReason, SerialNumber, UnixMillis};

use crate::issuer::Issuer;

/// The most octets of a request.
pub const MAX_REQUEST_OCTETS: usize = 4 * 1024;
/// The most certificates in one request.
pub const MAX_CERT_IDS: usize = 16;

/// The CertID of a request, kept as sent because the answer repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertId {
    /// CertID, DER, as sent.
    pub der: Vec<u8>,
    /// Hash of the issuer's Name.
    pub issuer_name_hash: Vec<u8>,
    /// Hash of the issuer's public key bits.
    pub issuer_key_hash: Vec<u8>,
    /// The serial number, if it is one that we could have issued.
    pub serial: Option<SerialNumber>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspRequest {
    /// What is asked about, at least one.
    pub cert_ids: Vec<CertId>,
    /// The nonce, 1 to 128 octets (RFC 9654), as the contents of the extension's OCTET STRING.
    pub nonce: Option<Vec<u8>>,
}

/// OCSPResponseStatus of an answer without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcspFailure {
    /// 1
    MalformedRequest,
    /// 2
    InternalError,
    /// 3
    TryLater,
    /// 6
    Unauthorized,
}

/// What is known about one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertStatus {
    /// Issued by us and neither revoked nor held.
    Good,
    /// Revoked or held.
    Revoked {
        /// When.
        at: UnixMillis,
        /// Why.
        reason: RevocationReason,
    },
    /// Never issued: answered as `revoked` with reason certificateHold at the epoch and the extended-revoke extension
    /// (RFC 6960 section 2.2).
    NeverIssued,
    /// Not our issuer.
    Unknown,
}

/// A delegated responder: its certificate and key.
#[derive(Debug)]
pub struct Responder {
    /// Its certificate, DER, included in answers.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: PrivateKey,
}

impl OcspRequest {
    /// Parses a request. Signatures on requests are ignored (RFC 6960 section 4.1.2: optional).
    ///
    /// # Errors
    /// [`OcspFailure::MalformedRequest`].
    pub fn from_der(der: &[u8]) -> Result<Self, OcspFailure> {
        let _ = der;
        todo!()
    }
}

impl CertId {
    /// Whether the CertID names this issuer, by SHA-1 or SHA-256. Precompute with [`IssuerHashes`].
    #[must_use]
    pub fn names(&self, hashes: &IssuerHashes) -> bool {
        let _ = hashes;
        todo!()
    }
}

/// The hashes under which clients ask for an issuer.
#[derive(Clone, Debug)]
pub struct IssuerHashes {
    /// SHA-1 of name and of key.
    pub sha1: ([u8; 20], [u8; 20]),
    /// SHA-256 of name and of key.
    pub sha256: ([u8; 32], [u8; 32]),
}

impl IssuerHashes {
    /// Hashes of an issuer.
    #[must_use]
    pub fn of(issuer: &Issuer) -> Self {
        let _ = issuer;
        todo!()
    }
}

/// A signed answer, DER OCSPResponse. `answers` pairs each CertID as asked with its status.
///
/// # Errors
/// [`OcspFailure::InternalError`] when signing fails.
pub fn respond(
    responder: &Responder,
    answers: &[(&CertId, CertStatus)],
    nonce: Option<&[u8]>,
    produced_at: UnixMillis,
    next_update: UnixMillis,
) -> Result<Vec<u8>, OcspFailure> {
    let _ = (responder, answers, nonce, produced_at, next_update);
    todo!()
}

/// An answer without a body.
#[must_use]
pub fn failure(failure: OcspFailure) -> Vec<u8> {
    let _ = failure;
    todo!()
}

/// A request for one certificate, for the demo, the agent and tests; SHA-256 CertID.
#[must_use]
pub fn make_request(issuer: &Issuer, serial: SerialNumber, nonce: Option<&[u8]>) -> Vec<u8> {
    let _ = (issuer, serial, nonce);
    todo!()
}

/// What an answer says about one serial number, its signature verified under `issuer` or a responder that `issuer`
/// delegated to (EKU OCSPSigning, valid at `now`), its nonce compared.
///
/// # Errors
/// A short reason.
pub fn verify_response(
    der: &[u8],
    issuer: &Issuer,
    serial: SerialNumber,
    nonce: Option<&[u8]>,
    now: UnixMillis,
) -> Result<CertStatus, &'static str> {
    let _ = (der, issuer, serial, nonce, now);
    todo!()
}
