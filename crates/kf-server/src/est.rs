//! EST (RFC 7030 with RFC 8951 and RFC 9908), translated into the use cases of the fleet.

mod multipart;
mod transfer;

use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, StatusCode};
use hyper::body::Incoming;
use kf_fleet::{EnrolOutcome, EstLabel, ServerKey};

use crate::app::App;
use crate::failure::Failure;
use crate::peer::Peer;
use crate::reply::{Reply, empty, reply, with_header};
use crate::surface::EstOperation;
use crate::{authorization, body};
use transfer::Wrapping;

const CERTS_ONLY: &str = "application/pkcs7-mime; smime-type=certs-only";
const CSR_ATTRIBUTES: &str = "application/csrattrs";
const PKCS10: &str = "application/pkcs10";

/// One EST exchange.
pub(crate) struct Exchange<'a> {
    pub(crate) app: &'a App,
    pub(crate) peer: &'a Peer,
    pub(crate) label: EstLabel<'a>,
    pub(crate) headers: &'a HeaderMap,
}

impl Exchange<'_> {
    /// Answers an operation.
    pub(crate) async fn answer(&self, operation: EstOperation, method: &Method, body: Incoming) -> Reply {
        let expected = match operation {
            EstOperation::CaCerts | EstOperation::CsrAttributes => Method::GET,
            _ => Method::POST,
        };
        if *method != expected {
            let allow = if expected == Method::GET { "GET" } else { "POST" };
            return Failure::method_not_allowed(allow).into_text();
        }
        let answered = match operation {
            EstOperation::CaCerts => self.ca_certificates().await,
            EstOperation::CsrAttributes => self.csr_attributes().await,
            EstOperation::SimpleEnroll => self.simple_enroll(body).await,
            EstOperation::SimpleReenroll => self.simple_reenroll(body).await,
            EstOperation::ServerKeygen => self.server_keygen(body).await,
            // RFC 7030 section 4.3 makes full CMC optional.
            EstOperation::FullCmc => {
                Err(Failure::new(StatusCode::NOT_IMPLEMENTED, "not-implemented", "full CMC is not offered")
                    .remedy("use simpleenroll"))
            }
        };
        answered.unwrap_or_else(Failure::into_text)
    }

    async fn ca_certificates(&self) -> Result<Reply, Failure> {
        let certificates = self.app.fleet.est_ca_certificates(self.label).await?;
        Ok(self.certs_only(&certificates))
    }

    async fn csr_attributes(&self) -> Result<Reply, Failure> {
        let attributes = self.app.fleet.est_csr_attributes(self.label).await?;
        Ok(reply(StatusCode::OK, CSR_ATTRIBUTES, transfer::encode(&attributes, self.wrapping())))
    }

    async fn simple_enroll(&self, body: Incoming) -> Result<Reply, Failure> {
        let credential = authorization::enrolment(self.headers, self.peer.certificate.is_some())?;
        let request = self.certification_request(body).await?;
        let client = self.peer.as_tls_client();
        let outcome = self.app.fleet.est_simple_enroll(self.label, client, credential, &request).await?;
        Ok(self.outcome(outcome))
    }

    async fn simple_reenroll(&self, body: Incoming) -> Result<Reply, Failure> {
        let request = self.certification_request(body).await?;
        let outcome = self.app.fleet.est_simple_reenroll(self.label, self.peer.as_tls_client(), &request).await?;
        Ok(self.outcome(outcome))
    }

    async fn server_keygen(&self, body: Incoming) -> Result<Reply, Failure> {
        let credential = authorization::enrolment(self.headers, self.peer.certificate.is_some())?;
        let request = self.certification_request(body).await?;
        let client = self.peer.as_tls_client();
        let ServerKey { key_pkcs8, chain } =
            self.app.fleet.est_server_keygen(self.label, client, credential, &request).await?;
        let certificate: Vec<&[u8]> = chain.first().map(Vec::as_slice).into_iter().collect();
        let certificates = kf_pki::cms::certs_only(&certificate);
        Ok(multipart::key_and_certificates(&key_pkcs8, &certificates, self.wrapping()))
    }

    /// The body of an enrolment. A client that declares another media type is told so before its body is read.
    async fn certification_request(&self, body: Incoming) -> Result<bytes::Bytes, Failure> {
        if !body::has_media_type(self.headers, PKCS10) {
            return Err(Failure::unsupported_media_type(PKCS10));
        }
        let limits = &self.app.limits;
        body::read(self.headers, body, limits.est_octets, limits.body).await
    }

    fn outcome(&self, outcome: EnrolOutcome) -> Reply {
        match outcome {
            // Only the certificate that was issued; its issuers are at cacerts (RFC 7030 section 4.2.3).
            EnrolOutcome::Issued(chain) => self.certs_only(chain.get(..1).unwrap_or_default()),
            // RFC 7030 section 4.2.3.
            EnrolOutcome::Waiting { retry_after_seconds } => {
                with_header(empty(StatusCode::ACCEPTED), RETRY_AFTER, &retry_after_seconds.to_string())
            }
        }
    }

    fn certs_only(&self, certificates: &[Vec<u8>]) -> Reply {
        let certificates: Vec<&[u8]> = certificates.iter().map(Vec::as_slice).collect();
        let message = kf_pki::cms::certs_only(&certificates);
        reply(StatusCode::OK, CERTS_ONLY, transfer::encode(&message, self.wrapping()))
    }

    /// libest decodes line by line and fails on one long line; strongSwan fails on line breaks. So the client's name
    /// decides, or the product line's policy.
    fn wrapping(&self) -> Wrapping {
        let agent = self.headers.get(USER_AGENT).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let is_libest = agent.get(..6).is_some_and(|name| name.eq_ignore_ascii_case(b"libest"));
        if is_libest || self.app.fleet.est_wraps_base64(self.label) { Wrapping::Columns64 } else { Wrapping::None }
    }
}
