//! EST's use cases.

use std::net::IpAddr;

use kf_key::SecretBytes;

use crate::{ClientCertificate, Fleet, FleetError};

/// The `<label>` of an EST path: a product line, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EstLabel<'a> {
    /// `/.well-known/est/<operation>`.
    None,
    /// `/.well-known/est/<label>/<operation>` or `/<label>/.well-known/est/<operation>`.
    Line(&'a str),
}

/// What the TLS layer and HTTP say about the client.
#[derive(Clone, Copy, Debug)]
pub struct TlsClient<'a> {
    /// Its certificate, if it presented one.
    pub certificate: Option<&'a ClientCertificate>,
    /// Its address, for rate limits.
    pub address: IpAddr,
}

/// How a client proves which device it is.
#[derive(Debug)]
pub enum EnrolCredential {
    /// The TLS client certificate alone.
    Certificate,
    /// HTTP Basic: user name = device name, password = enrolment code or `voucher.` and a station's voucher.
    Basic {
        /// Device name.
        user: String,
        /// Code or voucher.
        password: SecretBytes,
    },
    /// Neither.
    Nothing,
}

/// What came of an enrolment.
#[derive(Debug)]
pub enum EnrolOutcome {
    /// The certificate and the issuing CAs without the root, DER, leaf first.
    Issued(Vec<Vec<u8>>),
    /// Waits for a person: 202 with Retry-After.
    Waiting {
        /// Seconds to wait.
        retry_after_seconds: u32,
    },
}

/// A key made for a device that cannot make its own (RFC 7030 section 4.4), with its certificate.
#[derive(Debug)]
pub struct ServerKey {
    /// Private key, PKCS#8.
    pub key_pkcs8: SecretBytes,
    /// Certificate and issuing CAs, DER, leaf first.
    pub chain: Vec<Vec<u8>>,
}

impl Fleet {
    /// The CA certificates for EST `cacerts`: root and issuing CA of the label, DER.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for an unknown label.
    pub async fn est_ca_certificates(&self, label: EstLabel<'_>) -> Result<Vec<Vec<u8>>, FleetError> {
        let _ = label;
        todo!()
    }

    /// The CsrAttrs of a label, DER.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for an unknown label.
    pub async fn est_csr_attributes(&self, label: EstLabel<'_>) -> Result<Vec<u8>, FleetError> {
        let _ = label;
        todo!()
    }

    /// EST `simpleenroll`: bootstrap by IDevID, enrolment code or voucher. `body` as received (base64, DER or PEM).
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`] without a usable credential, [`FleetError::TooMany`] after failed attempts,
    /// [`FleetError::Invalid`] for a bad request or key, [`FleetError::Denied`] where no credential would help.
    pub async fn est_simple_enroll(
        &self,
        label: EstLabel<'_>,
        client: TlsClient<'_>,
        credential: EnrolCredential,
        body: &[u8],
    ) -> Result<EnrolOutcome, FleetError> {
        let _ = (label, client, credential, body);
        todo!()
    }

    /// EST `simplereenroll`: the TLS client certificate is the one being renewed.
    ///
    /// # Errors
    /// As [`Fleet::est_simple_enroll`].
    pub async fn est_simple_reenroll(
        &self,
        label: EstLabel<'_>,
        client: TlsClient<'_>,
        body: &[u8],
    ) -> Result<EnrolOutcome, FleetError> {
        let _ = (label, client, body);
        todo!()
    }

    /// EST `serverkeygen`; refused unless the line's policy allows it.
    ///
    /// # Errors
    /// As [`Fleet::est_simple_enroll`].
    pub async fn est_server_keygen(
        &self,
        label: EstLabel<'_>,
        client: TlsClient<'_>,
        credential: EnrolCredential,
        body: &[u8],
    ) -> Result<ServerKey, FleetError> {
        let _ = (label, client, credential, body);
        todo!()
    }
}
