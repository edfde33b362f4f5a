//! Request bodies: whole, limited in size, and there before a deadline.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::failure::Failure;

/// Reads a whole body of at most `limit` octets. A declared length beyond it is refused before an octet is read.
///
/// # Errors
/// 413 for a larger body, 408 for one that does not end before `deadline`, 400 for one that breaks off.
pub(crate) async fn read<B>(headers: &HeaderMap, body: B, limit: usize, deadline: Duration) -> Result<Bytes, Failure>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|octets| usize::try_from(octets).map_or(true, |octets| octets > limit)) {
        return Err(Failure::too_large(limit));
    }
    match tokio::time::timeout(deadline, Limited::new(body, limit).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::too_large(limit)),
        Ok(Err(_)) => Err(Failure::invalid("body", "it breaks off", "send the whole body")),
        Err(_) => Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time")
            .field("body")
            .remedy("send the whole body without pausing")),
    }
}

/// Whether the media type of a request is `expected`, parameters aside; an absent one passes, because minimal clients
/// send none.
pub(crate) fn has_media_type(headers: &HeaderMap, expected: &str) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_none_or(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(expected))
        })
    })
}
