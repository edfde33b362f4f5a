//! Which surface a path belongs to. Parsed from the path as sent: nothing here is percent-decoded, so that no two
//! spellings of a path mean the same thing to one layer and different things to another.

use kf_fleet::EstLabel;

/// The most octets of an EST label, which is the name of a product line.
const MAX_LABEL_OCTETS: usize = 64;
const EST_ROOT: &str = "/.well-known/est";

/// A surface and what the path says beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface<'p> {
    /// `/ocsp` (POST) or `/ocsp/<base64>` (GET).
    Ocsp(&'p str),
    /// `/crl/<ca>/<shard or full>.crl`.
    Crl(&'p str),
    /// `/ca/<ca>.cer`.
    AuthorityCertificate(&'p str),
    /// `/livez`.
    Live,
    /// `/readyz`.
    Ready,
    /// An EST operation; `None` is one that does not exist.
    Est(EstLabel<'p>, Option<EstOperation>),
    /// `/v1/…` and `/metrics`: answered by the router of the API.
    Api,
    /// Anything else.
    Nothing,
}

/// The operations of EST (RFC 7030 section 3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EstOperation {
    CaCerts,
    CsrAttributes,
    SimpleEnroll,
    SimpleReenroll,
    ServerKeygen,
    FullCmc,
}

impl EstOperation {
    /// Every operation and its path segment.
    pub(crate) const ALL: [(&'static str, Self); 6] = [
        ("cacerts", Self::CaCerts),
        ("csrattrs", Self::CsrAttributes),
        ("simpleenroll", Self::SimpleEnroll),
        ("simplereenroll", Self::SimpleReenroll),
        ("serverkeygen", Self::ServerKeygen),
        ("fullcmc", Self::FullCmc),
    ];

    fn named(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(name, operation)| (name == segment).then_some(operation))
    }
}

impl<'p> Surface<'p> {
    /// The surface of a path.
    pub(crate) fn of(path: &'p str) -> Self {
        match path {
            "/livez" => return Self::Live,
            "/readyz" => return Self::Ready,
            "/metrics" | "/v1" => return Self::Api,
            "/ocsp" => return Self::Ocsp(""),
            _ => {}
        }
        if let Some(encoded) = path.strip_prefix("/ocsp/") {
            Self::Ocsp(encoded)
        } else if let Some(rest) = path.strip_prefix("/crl/") {
            Self::Crl(rest)
        } else if let Some(rest) = path.strip_prefix("/ca/") {
            Self::AuthorityCertificate(rest)
        } else if path.starts_with("/v1/") {
            Self::Api
        } else {
            Self::est(path).unwrap_or(Self::Nothing)
        }
    }

    /// `/.well-known/est/<op>`, `/.well-known/est/<label>/<op>` (RFC 7030 section 3.2.2), and
    /// `/<label>/.well-known/est/<op>`, which strongSwan makes of a URL with a path.
    fn est(path: &'p str) -> Option<Self> {
        let (label, rest) = path.split_once(EST_ROOT)?;
        let rest = rest.strip_prefix('/')?;
        let (label, operation) = match (label.strip_prefix('/'), rest.split_once('/')) {
            (None, None) if label.is_empty() => (EstLabel::None, rest),
            (None, Some((label, operation))) => (EstLabel::Line(label), operation),
            (Some(label), None) => (EstLabel::Line(label), rest),
            _ => return None,
        };
        if let EstLabel::Line(name) = label
            && !is_label(name)
        {
            return None;
        }
        Some(Self::Est(label, EstOperation::named(operation)))
    }

    /// Whether plain HTTP may carry it: only what is signed in itself, and the sign of life.
    pub(crate) const fn may_be_plain(self) -> bool {
        match self {
            Self::Ocsp(_) | Self::Crl(_) | Self::AuthorityCertificate(_) | Self::Live | Self::Nothing => true,
            Self::Ready | Self::Est(..) | Self::Api => false,
        }
    }

    /// Every name that [`Surface::name`] gives.
    pub(crate) const NAMES: [&'static str; 12] = [
        "ocsp",
        "crl",
        "ca",
        "health",
        "est-cacerts",
        "est-csrattrs",
        "est-simpleenroll",
        "est-simplereenroll",
        "est-serverkeygen",
        "est",
        "api",
        "nothing",
    ];

    /// Its name in metrics and the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ocsp(_) => "ocsp",
            Self::Crl(_) => "crl",
            Self::AuthorityCertificate(_) => "ca",
            Self::Live | Self::Ready => "health",
            Self::Est(_, Some(EstOperation::CaCerts)) => "est-cacerts",
            Self::Est(_, Some(EstOperation::CsrAttributes)) => "est-csrattrs",
            Self::Est(_, Some(EstOperation::SimpleEnroll)) => "est-simpleenroll",
            Self::Est(_, Some(EstOperation::SimpleReenroll)) => "est-simplereenroll",
            Self::Est(_, Some(EstOperation::ServerKeygen)) => "est-serverkeygen",
            Self::Est(_, Some(EstOperation::FullCmc) | None) => "est",
            Self::Api => "api",
            Self::Nothing => "nothing",
        }
    }
}

/// The alphabet of product-line names.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_LABEL_OCTETS
        && text.bytes().all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests;
