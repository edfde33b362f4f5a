//! Request bodies: whole, limited in size, and there before a deadline.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::failure::Failure;

/// How much of a body that is too large is read and dropped, so that a client that sends before it listens hears why.
const DROPPED_OCTETS: usize = 4 * 1024 * 1024;

/// Reads a whole body of at most `limit` octets. A declared length beyond it is refused; what a client would still send
/// is dropped up to 4 MiB, a larger one is cut off.
///
/// # Errors
/// 413 for a larger body, 408 for one that does not end before `deadline`, 400 for one that breaks off.
pub(crate) async fn read<B>(headers: &HeaderMap, body: B, limit: usize, deadline: Duration) -> Result<Bytes, Failure>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let declared = declared.map(|octets| usize::try_from(octets).unwrap_or(usize::MAX));
    if declared.is_some_and(|octets| octets > limit) {
        if declared.is_some_and(|octets| octets <= DROPPED_OCTETS) {
            drop_body(body, deadline).await;
        }
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

async fn drop_body<B>(mut body: B, deadline: Duration)
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let drained = async { while matches!(body.frame().await, Some(Ok(_))) {} };
    // Whether it came to its end or not, the answer is the same.
    let _in_time = tokio::time::timeout(deadline, drained).await;
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
