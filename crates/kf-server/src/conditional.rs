//! HTTP caching of signed objects: validators, conditional requests (RFC 9110 section 13), RFC 5019 section 6.2.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CACHE_CONTROL, ETAG, EXPIRES, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, StatusCode};
use kf_key::UnixMillis;

use crate::reply::{Reply, empty, with_header};

/// What identifies one version of a signed object.
#[derive(Debug)]
pub(crate) struct Validator {
    /// Entity tag with its quotes.
    pub(crate) etag: String,
    /// thisUpdate, where there is one.
    pub(crate) modified: Option<UnixMillis>,
}

impl Validator {
    /// Whether the client holds this version already. If-None-Match goes before If-Modified-Since (RFC 9110 section
    /// 13.2.2).
    pub(crate) fn is_held_by(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(IF_NONE_MATCH) {
            return headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|tags| {
                tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == self.etag)
            });
        }
        let since = headers
            .get(IF_MODIFIED_SINCE)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| httpdate::parse_http_date(text).ok());
        match (since, self.modified) {
            (Some(since), Some(modified)) => moment(modified) <= since,
            _ => false,
        }
    }

    /// Adds validators and `cache_control` to an answer, or turns it into 304.
    pub(crate) fn stamp(&self, headers: &HeaderMap, reply: Reply, cache_control: HeaderValue) -> Reply {
        let reply = if self.is_held_by(headers) { empty(StatusCode::NOT_MODIFIED) } else { reply };
        let mut reply = with_header(reply, ETAG, &self.etag);
        reply.headers_mut().insert(CACHE_CONTROL, cache_control);
        match self.modified {
            Some(modified) => with_header(reply, LAST_MODIFIED, &http_date(modified)),
            None => reply,
        }
    }
}

/// Adds `Expires`.
pub(crate) fn expires(reply: Reply, at: UnixMillis) -> Reply {
    with_header(reply, EXPIRES, &http_date(at))
}

/// Whole seconds, because HTTP dates have no fractions and a validator must equal its own echo.
fn moment(at: UnixMillis) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(at.seconds())).unwrap_or(UNIX_EPOCH)
}

/// HTTP dates end with the year 9999; the formatter panics beyond, so later moments are shown as that.
fn http_date(at: UnixMillis) -> String {
    const LAST: u64 = 253_402_300_799;
    httpdate::fmt_http_date(moment(UnixMillis::from_seconds(at.seconds().min(LAST))))
}

#[cfg(test)]
mod tests;
