//! Check, permit, sign, commit, answer: the one order in which a certificate comes to be.

use std::sync::Arc;

use kf_access::Principal;
use kf_api::certificate::Certificate;
use kf_key::{CertificateProfile, CertificateStatus, DeviceId, FacilityId, OperatorId, SerialNumber, UnixMillis};
use kf_pki::certificate::{CertificateFacts, CheckedTbs, IssuanceRequest, IssueRefusal, Subject, check_issuance};
use kf_pki::request::RequestedKey;
use kf_pki::weak_key::check_key;
use kf_store::certificate::{Basis, DeviceIssuance, Issuance as Record, IssuanceOutcome, KeyHolder, PreImage};

use crate::authority::Known;
use crate::entry::Entry;
use crate::{Fleet, FleetError};

/// How far notBefore lies in the past, so that a device whose clock is a little slow accepts its certificate.
pub(crate) const BACKDATE: u64 = 5 * 60 * UnixMillis::SECOND;

/// A certificate that somebody is entitled to, with everything taken from the registry but the key.
pub(crate) struct Order<'a> {
    pub(crate) who: &'a Principal,
    pub(crate) authority: &'a Arc<Known>,
    pub(crate) profile: CertificateProfile,
    pub(crate) subject: Subject,
    pub(crate) key: RequestedKey,
    /// Milliseconds from now; `None`: no end (IDevID).
    pub(crate) lifetime: Option<u64>,
    pub(crate) device: Option<(DeviceId, DeviceIssuance)>,
    pub(crate) operator: Option<OperatorId>,
    pub(crate) facility: Option<FacilityId>,
    pub(crate) basis: Basis,
    pub(crate) why: &'a str,
}

/// A certificate that is durable and may leave.
pub(crate) struct Issued {
    pub(crate) certificate: Certificate,
    pub(crate) der: Vec<u8>,
}

impl Fleet {
    /// Refuses keys that are weak, known to others, blocked, or another subject's. Without `may_hold` the last question
    /// is left to the store, which knows the subject's name.
    pub(crate) fn check_requested_key(
        &self,
        key: &RequestedKey,
        may_hold: Option<&KeyHolder>,
    ) -> Result<(), FleetError> {
        let standing = self.store.key_standing(&key.spki_sha256)?;
        if let Err(weak) = check_key(key, |_spki_sha256| standing.is_blocked) {
            return Err(FleetError::invalid("csr.public_key", weak.to_string(), "generate a fresh key and ask again"));
        }
        match (may_hold, standing.holder) {
            (Some(may_hold), Some(holder)) if holder != *may_hold => Err(key_of_another()),
            _ => Ok(()),
        }
    }

    /// Checks an order and builds what is to be signed.
    pub(crate) fn check_order(&self, order: &Order<'_>) -> Result<CheckedTbs, FleetError> {
        let now = self.now();
        let issuer = &order.authority.issuer;
        let request = IssuanceRequest {
            profile: order.profile,
            subject: order.subject.clone(),
            key: order.key.clone(),
            serial: SerialNumber::from_parts(now, kf_crypto::random_array()?),
            not_before: now.minus(BACKDATE),
            not_after: order.lifetime.map(|lifetime| now.plus(lifetime).min(issuer.not_after)),
        };
        check_issuance(issuer, request).map_err(refusal)
    }

    /// Issues: nothing signed leaves before certificate, registry and log entry are durable together.
    pub(crate) async fn issue(&self, order: Order<'_>) -> Result<Issued, FleetError> {
        let checked = self.check_order(&order)?;
        let certificate = record_of(checked.facts(), &order);
        if self.signer.capabilities().needs_preimage_record {
            let (authority, at) = (order.authority.record.id, self.now());
            let pre_image = PreImage { serial: certificate.serial, authority, tbs: checked.tbs().to_vec(), at };
            self.store.record_tbs(pre_image, &order.basis).await?;
        }
        let coming = self.store.announce_issuance();
        let signed = self.signer.sign_certificate(order.authority.signing_key()?, checked).await?;
        let entry = issuance_entry(&order, &certificate, self.now());
        let record = Record {
            certificate: certificate.clone(),
            der: signed.der.clone(),
            device: order.device.map(|(_, issuance)| issuance),
            basis: order.basis,
            at: self.now(),
        };
        match coming.record(record, entry).await? {
            IssuanceOutcome::Recorded { superseded, .. } => {
                self.enter_status_changes(&superseded);
                metrics::counter!("keyfleet_certificates_issued_total", "profile" => order.profile.name()).increment(1);
                Ok(Issued { certificate, der: signed.der })
            }
            IssuanceOutcome::Before(stored) => Ok(Issued { certificate: stored.certificate, der: stored.der }),
        }
    }
}

/// The refusal of a key that somebody else holds; does not say who.
pub(crate) fn key_of_another() -> FleetError {
    FleetError::conflict(
        "csr.public_key",
        "this public key is bound to another subject",
        "every device needs a key of its own: generate one on the device",
    )
}

fn refusal(refusal: IssueRefusal) -> FleetError {
    match refusal {
        IssueRefusal::Lifetime(_) => {
            FleetError::invalid("lifetime_hours", refusal.to_string(), "ask for a lifetime inside the limits")
        }
        IssueRefusal::OutlivesIssuer => FleetError::conflict(
            "authority",
            refusal.to_string(),
            "renew the issuing CA, or ask for a shorter lifetime",
        ),
        IssueRefusal::Name { field } => {
            FleetError::invalid(field, refusal.to_string(), "correct the name in the registry")
        }
        IssueRefusal::Key(_) => {
            FleetError::invalid("csr.public_key", refusal.to_string(), "use P-256, P-384 or Ed25519")
        }
        _ => FleetError::Bug("certificate encoding"),
    }
}

/// The row that the registry will keep.
pub(crate) fn record_of(facts: &CertificateFacts, order: &Order<'_>) -> Certificate {
    Certificate {
        serial: facts.serial,
        authority: order.authority.record.id,
        profile: facts.profile,
        device: order.device.map(|(id, _)| id),
        operator: order.operator,
        facility: order.facility,
        subject: facts.subject.clone(),
        spki_sha256: hex::encode(facts.spki_sha256),
        not_before: facts.not_before,
        not_after: facts.not_after,
        status: CertificateStatus::Good,
        revoked: None,
        reason: None,
    }
}

fn issuance_entry(order: &Order<'_>, certificate: &Certificate, at: UnixMillis) -> kf_log::AuditEntry {
    let mut entry = Entry::done(order.who, "certificate.issue", at)
        .about(format!("cert:{}", certificate.serial))
        .about(format!("spki:{}", certificate.spki_sha256))
        .at_facility(order.facility)
        .because(order.why)
        .with("profile", certificate.profile)
        .with("authority", certificate.authority);
    if let Some(device) = certificate.device {
        entry = entry.about(device);
    }
    if let Some(operator) = certificate.operator {
        entry = entry.about(operator);
    }
    entry.build()
}
