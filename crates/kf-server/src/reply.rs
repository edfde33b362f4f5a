//! Answers: few headers, always a length, never chunks, because small clients parse no more than that (strongSwan reads
//! the head from the first 1,024 octets and knows no chunked coding).

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use kf_key::SecretBytes;

/// An answer whose length is known.
pub(crate) type Reply = Response<Full<Bytes>>;

/// An answer with a body.
pub(crate) fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

/// Adds a header whose value is made of visible ASCII by construction; anything else is left out.
pub(crate) fn with_header(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// A body that is lent to the HTTP layer and wiped afterwards.
pub(crate) fn wiped(body: SecretBytes) -> Bytes {
    shared(Wiped(body))
}

struct Wiped(SecretBytes);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        // Exposed to be sent to the one client that asked for it, over TLS.
        self.0.expose()
    }
}

/// A body that shares the memory it is made from, and lets it go with the last use.
pub(crate) fn shared(octets: impl AsRef<[u8]> + Send + 'static) -> Bytes {
    Bytes::from_owner(octets)
}
