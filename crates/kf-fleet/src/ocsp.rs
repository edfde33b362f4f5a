//! OCSP: pre-signed answers from memory for the fleet, live ones for nonces.

mod cache;
mod responders;

use std::sync::Arc;

use kf_key::{SerialNumber, UnixMillis};
use kf_pki::ocsp::{CertId, CertStatus, OcspFailure, OcspRequest, failure, respond};
use kf_store::certificate::StatusAnswer;

pub(crate) use cache::AnswerCache;
use cache::Kept;
pub(crate) use responders::{Responders, responder_algorithm};

use crate::Fleet;
use crate::authority::Known;

/// An answer and how long HTTP caches may keep it.
#[derive(Clone, Debug)]
pub struct OcspAnswer {
    /// OCSPResponse, DER. Always sent with HTTP status 200.
    pub der: Arc<[u8]>,
    /// nextUpdate of a cacheable answer; `None`: `Cache-Control: no-store`.
    pub cache_until: Option<UnixMillis>,
    /// thisUpdate, for `Last-Modified`.
    pub this_update: Option<UnixMillis>,
    /// Of a cacheable answer: tells one version of it from another.
    pub tag: u64,
    /// Of an answer that was kept: for how long the same request may be given it again.
    pub standing: Option<Standing>,
}

/// For how long an answer holds: see [`Fleet::stands`].
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Status changes before the look-up that the answer rests on.
    changes: u64,
    from: UnixMillis,
    until: UnixMillis,
}

impl OcspAnswer {
    fn failure(status: OcspFailure) -> Self {
        Self { der: Arc::from(failure(status)), cache_until: None, this_update: None, tag: 0, standing: None }
    }

    fn cacheable(kept: Kept, changes: u64) -> Self {
        let standing = Standing { changes, from: kept.this_update, until: kept.half() };
        Self {
            der: kept.der,
            cache_until: Some(kept.next_update),
            this_update: Some(kept.this_update),
            tag: kept.tag,
            standing: Some(standing),
        }
    }
}

impl Fleet {
    /// Answers an OCSP request (DER). Never fails: trouble is an OCSPResponseStatus.
    pub async fn ocsp(&self, request: &[u8]) -> OcspAnswer {
        let request = match OcspRequest::from_der(request) {
            Ok(request) => request,
            Err(status) => return OcspAnswer::failure(status),
        };
        let simple = match (request.cert_ids.as_slice(), &request.nonce) {
            ([only], None) => only.serial.map(|serial| (serial, only)),
            _ => None,
        };
        if let Some((serial, cert_id)) = simple
            && let Some((kept, changes)) = self.answers.find(serial, &cert_id.der, self.now())
        {
            return OcspAnswer::cacheable(kept, changes);
        }
        self.ocsp_live(&request, simple).await.unwrap_or_else(OcspAnswer::failure)
    }

    /// Whether an answer given earlier may be given again to the same request: no status of any certificate changed
    /// since, and it is in the first half of its validity. One atomic read, so that who keeps answers by the octets of
    /// the request need not parse it again.
    #[must_use]
    pub fn stands(&self, standing: Standing) -> bool {
        let now = self.now();
        self.answers.changes() == standing.changes && now >= standing.from && now < standing.until
    }

    async fn ocsp_live(
        &self,
        request: &OcspRequest,
        simple: Option<(SerialNumber, &CertId)>,
    ) -> Result<OcspAnswer, OcspFailure> {
        let changes = self.answers.changes();
        let authorities = self.authorities();
        // One responder answers for one issuer: the first that is ours. Certificates of others are unknown to it.
        let issuer = request
            .cert_ids
            .iter()
            .find_map(|cert_id| authorities.live().find(|known| cert_id.names(&known.hashes)))
            .ok_or(OcspFailure::Unauthorized)?;
        let mut answers = Vec::with_capacity(request.cert_ids.len());
        for cert_id in &request.cert_ids {
            answers.push((cert_id, self.cert_status(issuer, cert_id)?));
        }
        let responder = self.responder(issuer).await.map_err(|error| {
            if issuer.record.key_destroyed.is_some() {
                // RFC 5019 section 2.2.3: it is not able to answer for this CA; the last CRL does.
                return OcspFailure::Unauthorized;
            }
            tracing::error!(error = %error, "no OCSP responder");
            OcspFailure::TryLater
        })?;
        let this_update = UnixMillis::from_seconds(self.now().seconds());
        let next_update = this_update.plus(self.config.ocsp_lifetime_seconds.saturating_mul(UnixMillis::SECOND));
        let der: Arc<[u8]> =
            Arc::from(respond(&responder, &answers, request.nonce.as_deref(), this_update, next_update)?);
        let Some((serial, cert_id)) = simple else {
            return Ok(OcspAnswer { der, cache_until: None, this_update: None, tag: 0, standing: None });
        };
        let [a, b, c, d, e, f, g, h, ..] = kf_crypto::sha256(&der);
        let kept = Kept { der, tag: u64::from_be_bytes([a, b, c, d, e, f, g, h]), this_update, next_update };
        self.answers.keep(serial, cert_id.der.clone(), changes, kept.clone());
        Ok(OcspAnswer::cacheable(kept, changes))
    }

    fn cert_status(&self, issuer: &Known, cert_id: &CertId) -> Result<CertStatus, OcspFailure> {
        if !cert_id.names(&issuer.hashes) {
            return Ok(CertStatus::Unknown);
        }
        let Some(serial) = cert_id.serial else { return Ok(CertStatus::NeverIssued) };
        let answer = self.store.status(issuer.record.id, serial).map_err(|error| {
            tracing::error!(error = %error, "OCSP look-up failed");
            OcspFailure::TryLater
        })?;
        Ok(match answer {
            StatusAnswer::Good => CertStatus::Good,
            StatusAnswer::NeverIssued => CertStatus::NeverIssued,
            StatusAnswer::Revoked { at, reason } => CertStatus::Revoked { at, reason },
        })
    }
}
