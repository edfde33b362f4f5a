//! Why a call failed, grouped by who must act.

use std::error::Error;
use std::io;

use kf_api::Problem;
use rustls::AlertDescription;

/// A call that did not bring the answer asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The caller: an address that is none.
    #[error("the address {url} is not usable: {reason}")]
    Address {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The caller: a setting that cannot work.
    #[error("the client setting `{setting}` is not usable: {reason}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The caller: a password or token was about to travel unprotected.
    #[error("a password or token is sent over https only: write https:// in the address")]
    SecretOverPlainHttp,
    /// Nobody answers there.
    #[error("{address} cannot be reached: is the server running, and is the address right?")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The TLS handshake failed on our side, for example because the server's certificate does not lead to an anchor.
    #[error("no TLS session with {address}")]
    Tls {
        /// Host and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server refused the TLS session, usually because of the client certificate.
    #[error("the server refused the TLS session: {0:?}")]
    Refused(AlertDescription),
    /// The call took longer than its deadline.
    #[error("no complete answer within {millis} ms")]
    Deadline {
        /// The deadline.
        millis: u128,
    },
    /// The body of the answer is larger than the limit.
    #[error("the answer is larger than {limit_octets} octets")]
    BodyTooLarge {
        /// The limit.
        limit_octets: usize,
    },
    /// The peer does not speak HTTP as it should, or broke off.
    #[error("the HTTP exchange broke off")]
    Exchange {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server said what is wrong, and what to do.
    #[error("{}{}", .0.title, remedy_of(.0))]
    Problem(Problem),
    /// Another status than success, without problem details.
    #[error("the server answered {status}: {excerpt}")]
    Status {
        /// The status.
        status: u16,
        /// The start of the body, printable characters only, at most 200.
        excerpt: String,
    },
    /// The answer is not what was expected of this resource.
    #[error("the answer is not {expected}")]
    Answer {
        /// What was expected.
        expected: &'static str,
        /// Why it is not.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

fn remedy_of(problem: &Problem) -> String {
    problem.remedy.as_ref().map(|remedy| format!(": {remedy}")).unwrap_or_default()
}

impl ClientError {
    /// The status of the answer, where there was one.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(crate) fn exchange(source: impl Error + Send + Sync + 'static) -> Self {
        match alert_in(&source) {
            Some(alert) => Self::Refused(alert),
            None => Self::Exchange { source: Box::new(source) },
        }
    }
}

/// The TLS alert that a peer sent, if that is what lies at the bottom of `error`. With TLS 1.3 a refused client
/// certificate shows only at the first read after the handshake (RFC 8446 section 4.4.2.4), wrapped by whoever read.
#[must_use]
pub fn alert_in(error: &(dyn Error + 'static)) -> Option<AlertDescription> {
    const MAX_DEPTH: usize = 16;
    let mut current = Some(error);
    for _ in 0..MAX_DEPTH {
        let error = current?;
        if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref() {
            return Some(*alert);
        }
        // io::Error::source() skips the error it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        current = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
