//! OCSP: pre-signed answers from memory for the fleet, live ones for nonces.

use std::sync::Arc;

use kf_key::UnixMillis;

use crate::Fleet;

/// An answer and how long HTTP caches may keep it.
#[derive(Clone, Debug)]
pub struct OcspAnswer {
    /// OCSPResponse, DER. Always sent with HTTP status 200.
    pub der: Arc<[u8]>,
    /// nextUpdate of a cacheable answer; `None`: `Cache-Control: no-store`.
    pub cache_until: Option<UnixMillis>,
    /// thisUpdate, for `Last-Modified`.
    pub this_update: Option<UnixMillis>,
}

impl Fleet {
    /// Answers an OCSP request (DER). Never fails: trouble is an OCSPResponseStatus.
    pub async fn ocsp(&self, request: &[u8]) -> OcspAnswer {
        let _ = request;
        todo!()
    }
}
