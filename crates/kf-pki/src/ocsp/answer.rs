//! Answers: BasicOCSPResponse (RFC 6960 section 4.2.1).

use kf_key::{RevocationReason, UnixMillis};

use super::{CertId, CertStatus, OcspFailure, Responder};
use crate::asn1::{Writer, oid, tag};
use crate::certificate::write_extension;
use crate::public_key::write_signature_algorithm;

/// A signed answer, DER OCSPResponse. `answers` pairs each CertID as asked with its status; `nonce` is what
/// [`super::OcspRequest::nonce`] held. The responder names itself by key; its certificate travels with the answer.
///
/// # Errors
/// [`OcspFailure::InternalError`] when signing fails, when there is nothing to answer, or when nextUpdate does not lie
/// after `produced_at`.
pub fn respond(
    responder: &Responder,
    answers: &[(&CertId, CertStatus)],
    nonce: Option<&[u8]>,
    produced_at: UnixMillis,
    next_update: UnixMillis,
) -> Result<Vec<u8>, OcspFailure> {
    if answers.is_empty() || next_update.seconds() <= produced_at.seconds() {
        return Err(OcspFailure::InternalError);
    }
    let data = Writer::build(512, |w| {
        w.sequence(|w| {
            w.nested(tag::context_constructed(2), |w| {
                w.octet_string(&kf_crypto::sha1(responder.key.public_key()));
            });
            w.generalized_time(produced_at);
            w.sequence(|w| {
                for (cert_id, status) in answers {
                    write_single(w, cert_id, *status, (produced_at, next_update));
                }
            });
            let says_never_issued = answers.iter().any(|(_, status)| *status == CertStatus::NeverIssued);
            write_response_extensions(w, nonce, says_never_issued);
        });
    });
    let signature = responder.key.sign(&data).map_err(|kf_crypto::CryptoError| OcspFailure::InternalError)?;
    let basic = Writer::build(data.len() + responder.certificate.len() + 160, |w| {
        w.sequence(|w| {
            w.raw(&data);
            write_signature_algorithm(w, responder.key.algorithm());
            w.bit_string(&signature);
            w.nested(tag::context_constructed(0), |w| w.sequence(|w| w.raw(&responder.certificate)));
        });
    });
    Ok(Writer::build(basic.len() + 48, |w| {
        w.sequence(|w| {
            // successful(0)
            w.primitive(tag::ENUMERATED, &[0]);
            w.nested(tag::context_constructed(0), |w| {
                w.sequence(|w| {
                    w.oid(&oid::OCSP_BASIC);
                    w.octet_string(&basic);
                });
            });
        });
    }))
}

fn write_single(w: &mut Writer, cert_id: &CertId, status: CertStatus, (this, next): (UnixMillis, UnixMillis)) {
    w.sequence(|w| {
        w.raw(&cert_id.der);
        match status {
            CertStatus::Good => w.primitive(tag::context(0), &[]),
            CertStatus::Revoked { at, reason } => write_revoked(w, at, reason),
            // RFC 6960 section 2.2: certificateHold at the epoch.
            CertStatus::NeverIssued => write_revoked(w, UnixMillis(0), RevocationReason::CertificateHold),
            CertStatus::Unknown => w.primitive(tag::context(2), &[]),
        }
        w.generalized_time(this);
        w.nested(tag::context_constructed(0), |w| w.generalized_time(next));
    });
}

fn write_revoked(w: &mut Writer, at: UnixMillis, reason: RevocationReason) {
    w.nested(tag::context_constructed(1), |w| {
        w.generalized_time(at);
        if reason != RevocationReason::Unspecified {
            w.nested(tag::context_constructed(0), |w| w.primitive(tag::ENUMERATED, &[reason.code()]));
        }
    });
}

fn write_response_extensions(w: &mut Writer, nonce: Option<&[u8]>, says_never_issued: bool) {
    if nonce.is_none() && !says_never_issued {
        return;
    }
    w.nested(tag::context_constructed(1), |w| {
        w.sequence(|w| {
            if let Some(nonce) = nonce {
                write_extension(w, &oid::OCSP_NONCE, false, |w| w.raw(nonce));
            }
            if says_never_issued {
                // RFC 6960 section 4.4.8.
                write_extension(w, &oid::OCSP_EXTENDED_REVOKE, false, Writer::null);
            }
        });
    });
}

/// An answer without a body.
#[must_use]
pub fn failure(failure: OcspFailure) -> Vec<u8> {
    let status = match failure {
        OcspFailure::MalformedRequest => 1,
        OcspFailure::InternalError => 2,
        OcspFailure::TryLater => 3,
        OcspFailure::Unauthorized => 6,
    };
    vec![tag::SEQUENCE, 3, tag::ENUMERATED, 1, status]
}
