//! OCSP over HTTP (RFC 6960 appendix A, RFC 5019): the HTTP status is 200 whatever the answer says.

mod ready;

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use kf_fleet::OcspAnswer;
use kf_pki::ocsp::MAX_REQUEST_OCTETS;

use crate::app::App;
use crate::body;
use crate::conditional::{Validator, expires};
use crate::reply::{Reply, reply, shared, with_header};

pub(crate) use ready::ReadyAnswers;

const MEDIA_TYPE: &str = "application/ocsp-response";
/// Clients differ about padding in URLs.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// GET `/ocsp/<base64>`.
pub(crate) async fn get(app: &App, encoded: &str, headers: &HeaderMap) -> Reply {
    let is_conditional = headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE);
    if !is_conditional && let Some(reply) = app.ready_answers.find(&app.fleet, encoded) {
        return reply;
    }
    // What cannot be read is asked as an empty request: the fleet answers malformedRequest.
    let request = request_of(encoded).unwrap_or_default();
    let answer = app.fleet.ocsp(&request).await;
    let body = shared(Arc::clone(&answer.der));
    let reply = cached(app, &answer, body.clone(), headers);
    if !is_conditional && let (Some(standing), Some(until)) = (answer.standing, answer.cache_until) {
        app.ready_answers.keep(encoded, standing, until, body, &reply);
    }
    reply
}

/// POST `/ocsp`. The media type is not looked at: clients send several, and the body says what it is.
pub(crate) async fn post(app: &App, headers: &HeaderMap, request: Incoming) -> Reply {
    match body::read(headers, request, app.limits.ocsp_octets, app.limits.body).await {
        Ok(request) => {
            let answer = app.fleet.ocsp(&request).await;
            with_header(reply(StatusCode::OK, MEDIA_TYPE, shared(answer.der)), http::header::CACHE_CONTROL, "no-store")
        }
        Err(failure) if failure.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            reply(StatusCode::OK, MEDIA_TYPE, kf_pki::ocsp::failure(kf_pki::ocsp::OcspFailure::MalformedRequest))
        }
        Err(failure) => failure.into_problem(),
    }
}

/// The DER in a GET path. Clients escape `+`, `/` and `=`, or do not, or double the slash after `/ocsp`; no base64 of a
/// SEQUENCE begins with a slash, so leading ones go. A space is a `+` that something in between took for form encoding.
fn request_of(encoded: &str) -> Option<Vec<u8>> {
    if encoded.len() > 4 * MAX_REQUEST_OCTETS {
        return None;
    }
    let text = percent_decoded(encoded.trim_start_matches('/').as_bytes())?;
    let text: Vec<u8> = text.into_iter().map(|octet| if octet == b' ' { b'+' } else { octet }).collect();
    let request = BASE64.decode(text.strip_prefix(b"/").unwrap_or(&text)).ok()?;
    (request.len() <= MAX_REQUEST_OCTETS).then_some(request)
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(octet) = rest.next() {
        if *octet == b'%' {
            decoded.push((digit(*rest.next()?)? << 4) | digit(*rest.next()?)?);
        } else {
            decoded.push(*octet);
        }
    }
    Some(decoded)
}

fn digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// The headers of RFC 5019 section 6.2, for an answer that may be cached.
fn cached(app: &App, answer: &OcspAnswer, body: Bytes, headers: &HeaderMap) -> Reply {
    let reply = reply(StatusCode::OK, MEDIA_TYPE, body);
    let Some(until) = answer.cache_until else {
        return with_header(reply, http::header::CACHE_CONTROL, "no-store");
    };
    let validator = Validator { etag: format!("\"{:016x}\"", answer.tag), modified: answer.this_update };
    expires(validator.stamp(headers, reply, ready::cache_control(&app.fleet, until)), until)
}

#[cfg(test)]
mod tests;
