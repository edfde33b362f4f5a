//! Requests and answers of EST (RFC 7030, RFC 8951).

use core::fmt;

use kf_exchange::PublicKey;
use kf_key::UnixMillis;

use super::base64;
use super::machine::{Credential, Outcome};
use crate::certificate::{Certificate, CertificateError, CertsOnly};
use crate::storage::{Flash, Integrity, StorageError, Store};
use crate::trust::Anchors;

/// The most octets of a path.
pub const MAX_PATH_OCTETS: usize = 96;
/// The most octets of the label between `/est/` and the operation.
const MAX_LABEL_OCTETS: usize = 48;
/// The most octets of the value of an Authorization header.
pub const MAX_AUTHORIZATION_OCTETS: usize = 256;
/// The most octets of a name and a code together.
const MAX_NAME_AND_CODE_OCTETS: usize = 180;

/// Where the service is: the optional label of RFC 7030 section 3.2.2, such as a product line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service<'a> {
    label: Option<&'a str>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The certificates of the authorities (section 4.1).
    CaCerts,
    /// The first certificate of this owner (section 4.2.1).
    SimpleEnroll,
    /// The next one, authenticated by the one in use (section 4.2.2).
    SimpleReenroll,
}

impl Operation {
    /// What an enrolment by this credential asks for.
    #[must_use]
    pub const fn of(credential: Credential) -> Self {
        match credential {
            Credential::Certificate => Self::SimpleReenroll,
            Credential::Code | Credential::IDevId => Self::SimpleEnroll,
        }
    }

    /// Its method.
    #[must_use]
    pub const fn method(self) -> Method {
        match self {
            Self::CaCerts => Method::Get,
            Self::SimpleEnroll | Self::SimpleReenroll => Method::Post,
        }
    }

    /// The content type of its body; none for a GET.
    #[must_use]
    pub const fn content_type(self) -> Option<&'static str> {
        match self {
            Self::CaCerts => None,
            Self::SimpleEnroll | Self::SimpleReenroll => Some("application/pkcs10"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::CaCerts => "cacerts",
            Self::SimpleEnroll => "simpleenroll",
            Self::SimpleReenroll => "simplereenroll",
        }
    }
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of RFC 9110")]
pub enum Method {
    Get,
    Post,
}

impl Method {
    /// As it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// The path of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    octets: [u8; MAX_PATH_OCTETS],
    length: usize,
}

impl Path {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.octets.get(..self.length).and_then(|octets| core::str::from_utf8(octets).ok()).unwrap_or_default()
    }
}

impl<'a> Service<'a> {
    /// The service of a label; `None` for the label: the server's default.
    ///
    /// # Errors
    /// [`EstError::Label`].
    pub fn new(label: Option<&'a str>) -> Result<Self, EstError> {
        let is_allowed = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
        let is_label = |label: &str| {
            !label.is_empty() && label.len() <= MAX_LABEL_OCTETS && label.bytes().all(is_allowed) && label != ".."
        };
        if label.is_none_or(is_label) { Ok(Self { label }) } else { Err(EstError::Label) }
    }

    /// The path of an operation.
    #[must_use]
    pub fn path(&self, operation: Operation) -> Path {
        let mut path = Path { octets: [0; MAX_PATH_OCTETS], length: 0 };
        let label = self.label.map_or(["", ""], |label| [label, "/"]);
        for part in ["/.well-known/est/"].into_iter().chain(label).chain([operation.name()]) {
            // The longest label and the longest name fit.
            if let Some(place) = path.octets.get_mut(path.length..path.length + part.len()) {
                place.copy_from_slice(part.as_bytes());
                path.length += part.len();
            }
        }
        path
    }
}

/// Writes the body of an enrolment to `out`: the request in base64 without line breaks (RFC 8951 section 3.1).
///
/// # Errors
/// [`EstError::Buffer`].
pub fn body<'a>(request: &[u8], out: &'a mut [u8]) -> Result<&'a [u8], EstError> {
    base64::encode(request.iter().copied(), out).ok_or(EstError::Buffer)
}

/// Writes the value of an Authorization header to `out`: HTTP Basic (RFC 7617) with the device's name and its one-time
/// code. The code is secret: wipe `out` when it was sent.
///
/// # Errors
/// [`EstError::Buffer`] when it does not fit, or the name has a colon.
pub fn basic_authorization<'a>(
    name: &str,
    code: &[u8],
    out: &'a mut [u8; MAX_AUTHORIZATION_OCTETS],
) -> Result<&'a str, EstError> {
    if name.contains(':') || name.len().saturating_add(code.len()) > MAX_NAME_AND_CODE_OCTETS {
        return Err(EstError::Buffer);
    }
    const SCHEME: &[u8; 6] = b"Basic ";
    let (scheme, rest) = out.split_at_mut(SCHEME.len());
    scheme.copy_from_slice(SCHEME);
    let length =
        base64::encode(name.bytes().chain([b':']).chain(code.iter().copied()), rest).ok_or(EstError::Buffer)?.len();
    out.get(..SCHEME.len() + length).and_then(|text| core::str::from_utf8(text).ok()).ok_or(EstError::Buffer)
}

/// An answer as the transport brings it back. The body is decoded in place.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The status code.
    pub status: u16,
    /// Retry-After in seconds, if there was one.
    pub retry_after_seconds: Option<u32>,
    /// The body.
    pub body: &'a mut [u8],
}

/// Why a request was not made or an answer not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EstError {
    /// The label has other characters than letters, digits, `-`, `_` and `.`, or more than 48.
    Label,
    /// The buffer is too small, or the name or code too long.
    Buffer,
    /// The answer is not a certs-only message in base64.
    Malformed,
    /// The answer brings no certificate for the key that was asked for, or none that is anchored.
    Certificate(CertificateError),
    /// Another status than 200.
    Status(u16),
}

impl fmt::Display for EstError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Label => "the label of the service is not allowed",
            Self::Buffer => "the buffer is too small, or the name or code too long",
            Self::Malformed => "the answer is not a certs-only message in base64",
            Self::Certificate(_) => "the answer brings no certificate that can be taken",
            Self::Status(_) => "the server did not grant the request",
        })
    }
}

impl core::error::Error for EstError {}

/// How long to wait when the server did not say.
const DEFAULT_RETRY_AFTER_SECONDS: u32 = 60;

/// What an answer means to the [`machine`](super::machine); `None` for 200, which has to be read.
#[must_use]
pub fn outcome_of(credential: Credential, status: u16, retry_after_seconds: Option<u32>) -> Option<Outcome> {
    let millis = |seconds: u32| u64::from(seconds).saturating_mul(1_000);
    match status {
        200 => None,
        202 => {
            Some(Outcome::Pending { retry_after: millis(retry_after_seconds.unwrap_or(DEFAULT_RETRY_AFTER_SECONDS)) })
        }
        401 | 403 => Some(Outcome::Refused(credential)),
        // The request itself is at fault: the same one would be refused for ever.
        400 | 409 | 413 | 422 => Some(Outcome::RequestRefused),
        _ => Some(Outcome::Failed { retry_after: retry_after_seconds.map_or(0, millis) }),
    }
}

fn certificates(answer: Answer<'_>) -> Result<CertsOnly<'_>, EstError> {
    if answer.status != 200 {
        return Err(EstError::Status(answer.status));
    }
    let der = base64::decode_in_place(answer.body).ok_or(EstError::Malformed)?;
    CertsOnly::from_der(der).map_err(|_malformed| EstError::Malformed)
}

/// The answer to `cacerts`, of which a root that is held is part. Nothing else of it is trusted for being there.
#[derive(Clone, Debug)]
pub struct Authorities<'a> {
    anchors: Anchors,
    certificates: CertsOnly<'a>,
}

impl<'a> Authorities<'a> {
    /// Reads the answer. `anchors`: the [`Anchor`](crate::certificate::Anchor) that was pinned, or the roots that are held.
    ///
    /// # Errors
    /// [`EstError::Certificate`] when none of them is in it.
    pub fn read(answer: Answer<'a>, anchors: impl Into<Anchors>) -> Result<Self, EstError> {
        let (certificates, anchors) = (certificates(answer)?, anchors.into());
        if certificates.clone().any(|certificate| anchors.has(certificate.fingerprint())) {
            Ok(Self { anchors, certificates })
        } else {
            Err(EstError::Certificate(CertificateError::NotAnchored))
        }
    }

    /// Holds, durably, the roots in the answer that one that is held vouches for ([`Anchors::take_up`]), and believes them here as
    /// well; how many are new.
    ///
    /// # Errors
    /// [`StorageError`], with everything as it was.
    pub fn take_up<F: Flash, I: Integrity>(
        &mut self,
        store: &mut Store<F, I>,
        now: Option<UnixMillis>,
    ) -> Result<usize, StorageError<F::Error>> {
        self.anchors.take_up(store, &self.certificates, now)
    }

    /// Everything that was offered.
    #[must_use]
    pub const fn offered(&self) -> &CertsOnly<'a> {
        &self.certificates
    }
}

/// The certificate for `key` in the answer to an enrolment, if signatures lead from it to the pinned root.
///
/// # Errors
/// [`EstError`].
pub fn issued<'a>(
    answer: Answer<'a>,
    key: &PublicKey,
    authorities: &Authorities<'_>,
) -> Result<Certificate<'a>, EstError> {
    let mut found = certificates(answer)?;
    let certificate = found
        .find(|certificate| certificate.require_key(key).is_ok())
        .ok_or(EstError::Certificate(CertificateError::OtherKey))?;
    authorities.anchors.require(&certificate, authorities.certificates.clone()).map_err(EstError::Certificate)?;
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_rfc_7030() {
        let path = |label, operation| {
            Service::new(label).map(|service| std::string::String::from(service.path(operation).as_str()))
        };
        assert_eq!(path(None, Operation::CaCerts).unwrap(), "/.well-known/est/cacerts");
        assert_eq!(path(Some("pumps"), Operation::SimpleEnroll).unwrap(), "/.well-known/est/pumps/simpleenroll");
        let long = "a".repeat(MAX_LABEL_OCTETS);
        let whole = path(Some(&long), Operation::SimpleReenroll).unwrap();
        assert!(whole.ends_with("a/simplereenroll") && whole.len() <= MAX_PATH_OCTETS);
        for label in ["", "..", "a/b", "a b", "a%2f", &"a".repeat(MAX_LABEL_OCTETS + 1)] {
            assert_eq!(Service::new(Some(label)), Err(EstError::Label), "{label}");
        }
    }

    #[test]
    fn the_authorization_is_that_of_rfc_7617() {
        let mut out = [0; MAX_AUTHORIZATION_OCTETS];
        assert_eq!(basic_authorization("Aladdin", b"open sesame", &mut out), Ok("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(basic_authorization("a:b", b"code", &mut out), Err(EstError::Buffer));
        assert_eq!(basic_authorization("name", &[b'c'; 177], &mut out), Err(EstError::Buffer));
        assert!(basic_authorization("name", &[b'c'; 176], &mut out).is_ok());
    }

    #[test]
    fn statuses_mean_what_the_machine_needs() {
        let of = |status, retry| outcome_of(Credential::Code, status, retry);
        assert_eq!(of(200, None), None);
        assert_eq!(of(202, Some(5)), Some(Outcome::Pending { retry_after: 5_000 }));
        assert_eq!(of(202, None), Some(Outcome::Pending { retry_after: 60_000 }));
        for status in [401, 403] {
            assert_eq!(of(status, None), Some(Outcome::Refused(Credential::Code)));
        }
        for status in [400, 409, 413, 422] {
            assert_eq!(of(status, None), Some(Outcome::RequestRefused));
        }
        for status in [0, 302, 404, 429, 500, 503] {
            assert_eq!(of(status, Some(7)), Some(Outcome::Failed { retry_after: 7_000 }));
        }
    }
}
