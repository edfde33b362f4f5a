//! The one place where errors become HTTP: status, problem type, what the caller reads. Causes inside the server go to
//! the log, never into the answer.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use kf_api::Problem;
use kf_fleet::FleetError;

use crate::reply::{Reply, reply, with_header};

/// The most characters of a caller's own text that an answer repeats.
const MAX_ECHO: usize = 300;

/// Why a request is refused, ready to be sent in either of two shapes: a problem document or, for EST, plain text.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    title: String,
    field: Option<String>,
    remedy: Option<String>,
    retry_after_seconds: Option<u32>,
    allow: Option<&'static str>,
}

impl Failure {
    /// A refusal with a code and a sentence.
    pub(crate) fn new(status: StatusCode, code: &'static str, title: impl Into<String>) -> Self {
        let title = title.into();
        Self { status, code, title, field: None, remedy: None, retry_after_seconds: None, allow: None }
    }

    /// A wrong field of the request.
    pub(crate) fn invalid(field: &str, problem: &str, remedy: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", shortened(problem)).field(field).remedy(remedy)
    }

    /// Nothing is here, or nothing that the caller may know of.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "there is nothing at this address")
    }

    /// A credential is missing, or not accepted.
    pub(crate) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "authentication is missing or not accepted")
            .remedy("present a valid credential: an API token or operator certificate, or what the device enrols with")
    }

    /// The right place, the wrong method.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let mut failure = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "this address does not answer to this method",
        );
        failure.allow = (!allow.is_empty()).then_some(allow);
        failure
    }

    /// A body of the wrong kind.
    pub(crate) fn unsupported_media_type(expected: &str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "the body's media type is not accepted here")
            .field("Content-Type")
            .remedy(&format!("send `Content-Type: {expected}`"))
    }

    /// A body larger than `limit` octets.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", format!("the body is larger than {limit} octets"))
            .field("body")
    }

    /// Something that must not travel without TLS.
    pub(crate) fn needs_https() -> Self {
        Self::new(StatusCode::FORBIDDEN, "https-required", "this is not answered over plain HTTP").remedy("use HTTPS")
    }

    /// A fault of the server, whose cause is in the log.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server failed; nothing more is known here")
            .remedy("look for this request in the server's log, and report what it says")
    }

    /// Names the field that is wrong.
    pub(crate) fn field(mut self, field: &str) -> Self {
        self.field = Some(shortened(field));
        self
    }

    /// Says what to do next.
    pub(crate) fn remedy(mut self, remedy: &str) -> Self {
        self.remedy = Some(shortened(remedy));
        self
    }

    /// When to come back.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The HTTP status.
    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    /// As `application/problem+json` (RFC 9457).
    pub(crate) fn into_problem(self) -> Reply {
        let problem = Problem {
            kind: format!("urn:keyfleet:problem:{}", self.code),
            status: self.status.as_u16(),
            title: self.title.clone(),
            field: self.field.clone(),
            remedy: self.remedy.clone(),
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        self.with_headers(reply(self.status, "application/problem+json", body), "Bearer realm=\"keyfleet\"")
    }

    /// As one line of `text/plain` for EST (RFC 7030 section 4.2.3), short enough that head and body fit the first read
    /// of a small client.
    pub(crate) fn into_text(self) -> Reply {
        let field = self.field.as_deref().map(|field| format!("{field}: ")).unwrap_or_default();
        let remedy = self.remedy.as_deref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        let body = format!("{field}{}{remedy}\r\n", self.title);
        // RFC 7030 section 3.2.3: a client without a usable certificate is invited to HTTP Basic.
        self.with_headers(reply(self.status, "text/plain; charset=utf-8", body), "Basic realm=\"est\"")
    }

    fn with_headers(&self, mut reply: Reply, challenge: &str) -> Reply {
        if self.status == StatusCode::UNAUTHORIZED {
            reply = with_header(reply, WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after_seconds {
            // A number, not a date: small clients read no dates.
            reply = with_header(reply, RETRY_AFTER, &seconds.to_string());
        }
        if let Some(allow) = self.allow {
            reply = with_header(reply, ALLOW, allow);
        }
        reply
    }
}

impl From<FleetError> for Failure {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::Invalid { field, problem, remedy } => Self::invalid(&field, &problem, &remedy),
            FleetError::Unauthenticated => Self::unauthenticated(),
            FleetError::Denied(denied) => Self::new(StatusCode::FORBIDDEN, "denied", denied.to_string())
                .remedy("ask somebody whose role and scope allow it"),
            FleetError::Forbidden { field, problem, remedy } => {
                Self::new(StatusCode::FORBIDDEN, "forbidden", shortened(&problem)).field(&field).remedy(&remedy)
            }
            FleetError::NotFound(what) => {
                Self::new(StatusCode::NOT_FOUND, "not-found", format!("there is no {what} here"))
            }
            FleetError::Conflict { field, problem, remedy } => {
                Self::new(StatusCode::CONFLICT, "conflict", shortened(&problem)).field(&field).remedy(&remedy)
            }
            FleetError::TooMany { retry_after_seconds } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", "too many attempts")
                    .retry_after(retry_after_seconds)
                    .remedy("wait as long as Retry-After says")
            }
            FleetError::IssuanceStopped(why) => {
                unavailable("issuance-stopped", format!("issuance is stopped: {}", shortened(&why)))
                    .remedy("an operator starts it again with `keyfleet issuance start`")
            }
            FleetError::StoreFull => {
                unavailable("store-full", "the store is full: reads and revocation go on, issuance does not")
                    .remedy("make room on the server's disk")
            }
            FleetError::Fenced(why) => unavailable("fenced", format!("the server is fenced: {}", shortened(&why)))
                .remedy("run `keyfleet doctor` on the server"),
            FleetError::Signer(_) => {
                log_cause(&error);
                unavailable("signer", "the signer is not available").remedy("try again later").retry_after(30)
            }
            FleetError::Store(_) | FleetError::Local { .. } | FleetError::Bug(_) => {
                log_cause(&error);
                Self::internal()
            }
        }
    }
}

fn unavailable(code: &'static str, title: impl Into<String>) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, code, title)
}

/// The chain of causes, to the log.
fn log_cause(error: &FleetError) {
    let mut causes = String::new();
    let mut next = std::error::Error::source(error);
    // Chains are short; the limit guards against one that is not.
    for _ in 0..8 {
        let Some(cause) = next else { break };
        causes.push_str(": ");
        causes.push_str(&cause.to_string());
        next = cause.source();
    }
    tracing::error!(error = %error, causes, "a request failed inside the server");
}

/// At most [`MAX_ECHO`] characters, control characters replaced.
fn shortened(text: &str) -> String {
    text.chars().take(MAX_ECHO).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.into_problem().map(axum::body::Body::new)
    }
}

#[cfg(test)]
mod tests;
