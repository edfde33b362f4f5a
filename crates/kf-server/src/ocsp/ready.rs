//! Answers by the path they were asked with, ready to be sent: a fleet's brokers ask the same few paths again and again.

#[expect(clippy::disallowed_types, reason = "paths share a long beginning, which a tree compares at every step")]
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::Full;
use kf_fleet::{Fleet, Standing};
use kf_key::UnixMillis;

use crate::reply::Reply;

/// The most answers kept; one more, and it begins anew.
const MAX_ANSWERS: usize = 16_384;
/// The longest path that is kept, in octets: requests for one certificate take 110 to 160.
const MAX_PATH_OCTETS: usize = 512;

/// An answer with all of its headers but the one that counts down.
struct Ready {
    standing: Standing,
    cache_until: UnixMillis,
    body: Bytes,
    headers: HeaderMap,
}

/// Answers by path, as it was sent.
#[derive(Default)]
#[expect(clippy::disallowed_types, reason = "never walked through, so that its order reaches nothing")]
pub(crate) struct ReadyAnswers(RwLock<HashMap<Box<str>, Ready>>);

impl ReadyAnswers {
    /// The answer to `path`, if it still stands.
    pub(super) fn find(&self, fleet: &Fleet, path: &str) -> Option<Reply> {
        let (body, mut headers, until) = {
            let answers = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let ready = answers.get(path).filter(|ready| fleet.stands(ready.standing))?;
            (ready.body.clone(), ready.headers.clone(), ready.cache_until)
        };
        headers.insert(CACHE_CONTROL, cache_control(fleet, until));
        let mut reply = Response::new(Full::new(body));
        *reply.headers_mut() = headers;
        Some(reply)
    }

    /// Keeps the answer to `path` with the headers of `reply`, while `standing` holds.
    pub(super) fn keep(&self, path: &str, standing: Standing, cache_until: UnixMillis, body: Bytes, reply: &Reply) {
        if path.len() > MAX_PATH_OCTETS {
            return;
        }
        let ready = Ready { standing, cache_until, body, headers: reply.headers().clone() };
        let mut answers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MAX_ANSWERS && !answers.contains_key(path) {
            answers.clear();
        }
        answers.insert(path.into(), ready);
    }
}

/// `Cache-Control` of an answer that may be cached until then (RFC 5019 section 6.2).
pub(super) fn cache_control(fleet: &Fleet, until: UnixMillis) -> HeaderValue {
    let seconds = until.since(fleet.clock().now()) / 1_000;
    let text = format!("max-age={seconds}, public, no-transform, must-revalidate");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("no-store"))
}
