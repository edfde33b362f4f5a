//! Enrolment over Secure Transport, the client's side (RFC 7030 with the corrections of RFC 8951).

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::ClientError;
use crate::client::{Client, Response};

/// The most octets of an EST answer.
pub const MAX_ANSWER_OCTETS: usize = 1024 * 1024;
/// How long to wait when the server says nothing about it.
pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(60);
/// The longest wait that is believed.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Where a server offers EST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    base: String,
}

/// What an enrolment brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// Certificates, DER: the new one first, then the CA certificates of the server.
    Issued(Vec<Vec<u8>>),
    /// Accepted, not decided: ask again with the same request (RFC 7030 section 4.2.3).
    Pending {
        /// How long to wait.
        retry_after: Duration,
    },
}

/// Why an EST call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EstError {
    /// The server refused: [`ClientError::status`] tells how.
    #[error("the EST server refused")]
    Refused {
        /// Its words.
        #[source]
        refusal: Box<ClientError>,
        /// When it wants to be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// There was no answer, or one that cannot be used.
    #[error(transparent)]
    Call(#[from] ClientError),
}

impl EstError {
    /// The status of the refusal.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { refusal, .. } => refusal.status(),
            Self::Call(_) => None,
        }
    }

    /// When to ask again, if the server said so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Call(_) => None,
        }
    }
}

impl Service {
    /// `server` is `https://host[:port]`; `label` picks the product line (RFC 7030 section 3.2.2).
    ///
    /// # Errors
    /// [`ClientError::Setting`] for a label with other characters than letters, digits, `-`, `.`, `_`, and for a server
    /// address that is not https.
    pub fn new(server: &str, label: Option<&str>) -> Result<Self, ClientError> {
        if !server.starts_with("https://") {
            let reason = "EST runs over https only (RFC 7030 section 3.3)".to_owned();
            return Err(ClientError::Setting { setting: "server", reason });
        }
        let server = server.trim_end_matches('/');
        let base = match label {
            None => format!("{server}/.well-known/est"),
            Some(label) => {
                let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                if label.is_empty() || label.len() > 64 || label.starts_with('.') || !label.chars().all(fits) {
                    let reason = "a label is 1 to 64 letters, digits, `-`, `.` or `_`".to_owned();
                    return Err(ClientError::Setting { setting: "label", reason });
                }
                format!("{server}/.well-known/est/{label}")
            }
        };
        Ok(Self { base })
    }

    /// Address of an operation, for example `cacerts`.
    #[must_use]
    pub fn url(&self, operation: &str) -> String {
        format!("{}/{operation}", self.base)
    }
}

/// The CA certificates, DER (RFC 7030 section 4.1).
///
/// # Errors
/// [`EstError`].
pub async fn cacerts(client: &Client, service: &Service) -> Result<Vec<Vec<u8>>, EstError> {
    let accept = HeaderValue::from_static("application/pkcs7-mime");
    let answer = client.request(Method::GET, &service.url("cacerts"), &[(ACCEPT, accept)], Bytes::new()).await?;
    certificates(&accepted(answer)?)
}

/// The CSR attributes, DER of CsrAttrs; `None` when the server has none (RFC 7030 section 4.5.2).
///
/// # Errors
/// [`EstError`].
pub async fn csrattrs(client: &Client, service: &Service) -> Result<Option<Vec<u8>>, EstError> {
    let answer = client.request(Method::GET, &service.url("csrattrs"), &[], Bytes::new()).await?;
    if matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_FOUND) {
        return Ok(None);
    }
    Ok(Some(unarmour(&accepted(answer)?)?))
}

/// Asks for a first certificate (RFC 7030 section 4.2.1). The client authenticates by HTTP Basic or by its IDevID.
///
/// # Errors
/// [`EstError`].
pub async fn simple_enroll(client: &Client, service: &Service, request_der: &[u8]) -> Result<Enrolment, EstError> {
    enrol(client, service, "simpleenroll", request_der).await
}

/// Renews the certificate that the client authenticates with (RFC 7030 section 4.2.2).
///
/// # Errors
/// [`EstError`].
pub async fn simple_reenroll(client: &Client, service: &Service, request_der: &[u8]) -> Result<Enrolment, EstError> {
    enrol(client, service, "simplereenroll", request_der).await
}

async fn enrol(client: &Client, service: &Service, operation: &str, request_der: &[u8]) -> Result<Enrolment, EstError> {
    let content_type = HeaderValue::from_static("application/pkcs10");
    // One line of base64, no Content-Transfer-Encoding (RFC 8951 section 3.1).
    let body = BASE64_STANDARD.encode(request_der);
    let answer = client.request(Method::POST, &service.url(operation), &[(CONTENT_TYPE, content_type)], body).await?;
    if answer.status == StatusCode::ACCEPTED {
        let retry_after = retry_after(&answer.headers).unwrap_or(DEFAULT_RETRY_AFTER);
        return Ok(Enrolment::Pending { retry_after });
    }
    let mut issued = certificates(&accepted(answer)?)?;
    // The answer holds the new certificate alone (RFC 7030 section 4.2.3); who issued it is told by `cacerts`. Without
    // that the certificate is as good, so a failure there loses nothing.
    if let Ok(issuers) = cacerts(client, service).await {
        let missing: Vec<_> = issuers.into_iter().filter(|issuer| !issued.contains(issuer)).collect();
        issued.extend(missing);
    }
    Ok(Enrolment::Issued(issued))
}

fn accepted(answer: Response) -> Result<Response, EstError> {
    let retry_after = retry_after(&answer.headers);
    let answer = answer.success().map_err(|refusal| EstError::Refused { refusal: Box::new(refusal), retry_after })?;
    if answer.body.len() > MAX_ANSWER_OCTETS {
        return Err(EstError::Call(ClientError::BodyTooLarge { limit_octets: MAX_ANSWER_OCTETS }));
    }
    Ok(answer)
}

fn certificates(answer: &Response) -> Result<Vec<Vec<u8>>, EstError> {
    let der = unarmour(answer)?;
    match kf_pki::cms::certificates_of(&der) {
        Some(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(EstError::Call(ClientError::Answer { expected: "a certs-only CMS with a certificate", source: None })),
    }
}

/// Base64 in one line or in many (RFC 8951 section 3.1 lets white space pass).
fn unarmour(answer: &Response) -> Result<Vec<u8>, EstError> {
    let text: Vec<u8> = answer.body.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(text).map_err(|error| {
        EstError::Call(ClientError::Answer { expected: "base64 (RFC 8951)", source: Some(Box::new(error)) })
    })
}

/// Retry-After in seconds or as a date against the answer's own Date, so that our clock does not matter; 1 s to a week.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_not_seconds) => {
            let at = httpdate::parse_http_date(text).ok()?;
            let now = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
            at.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.clamp(Duration::from_secs(1), MAX_RETRY_AFTER))
}

/// Fetches the CA certificates from a server that is *not yet trusted* and returns the root whose SHA-256 the caller
/// knows (RFC 7030 section 4.1.1: the bootstrap distribution, with the check out of band). Sends no credential.
/// For servers that leave the root out of their TLS chain, where [`crate::Anchors::RootFingerprint`] alone cannot work.
///
/// # Errors
/// [`EstError`]; [`ClientError::Answer`] when no certificate has this fingerprint.
pub async fn root_by_fingerprint(service: &Service, sha256: [u8; 32], deadline: Duration) -> Result<Vec<u8>, EstError> {
    let client = Client::builder().provisional().body_limit(MAX_ANSWER_OCTETS).deadline(deadline).build()?;
    let found = cacerts(&client, service).await?.into_iter().find(|der| kf_crypto::sha256(der) == sha256);
    found.ok_or_else(|| {
        let expected = "a list of CA certificates that holds the root with the expected fingerprint";
        EstError::Call(ClientError::Answer { expected, source: None })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_kept_in_bounds() {
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "30")])), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "0")])), Some(Duration::from_secs(1)));
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "99999999999")])), Some(MAX_RETRY_AFTER));
        let date = [(DATE, "Sun, 06 Nov 1994 08:49:37 GMT"), (RETRY_AFTER, "Sun, 06 Nov 1994 08:50:37 GMT")];
        assert_eq!(retry_after(&headers(&date)), Some(Duration::from_secs(60)));
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "soon")])), None);
        assert_eq!(retry_after(&headers(&[])), None);
    }

    #[test]
    fn a_label_cannot_leave_its_place_in_the_path() {
        assert_eq!(
            Service::new("https://h:1/", Some("meters")).unwrap().url("cacerts"),
            "https://h:1/.well-known/est/meters/cacerts"
        );
        assert_eq!(Service::new("https://h", None).unwrap().url("cacerts"), "https://h/.well-known/est/cacerts");
        for label in ["", "..", "a/b", "a?b", "a b", "ä"] {
            assert!(Service::new("https://h", Some(label)).is_err(), "{label}");
        }
        assert!(Service::new("http://h", None).is_err());
    }
}
