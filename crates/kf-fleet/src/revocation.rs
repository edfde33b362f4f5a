//! Revocation, hold and release, and the acts on devices that bring them about.

use std::time::Duration;

use kf_access::{Action, Permit, Principal, Stake, Target, Visibility, authorize};
use kf_api::PageRequest;
use kf_api::proposal::ProposedAct;
use kf_api::revocation::{BrokerReport, RevocationTarget, RevokeOutcome, RevokeRequest};
use kf_key::{CertificateStatus, FacilityId, RevocationReason};
use kf_store::Logged;
use kf_store::device::DeviceQuery;
use kf_store::revocation::{Profiles, Revocation, Revoked, Selection, StatusChange};

use crate::entry::Entry;
use crate::naming::check_why;
use crate::proposal::Consent;
use crate::{Fleet, FleetError};

/// How long a broker is watched for a session that should be gone.
const BROKER_DEADLINE: Duration = Duration::from_secs(5);
/// The most devices whose sessions one act cuts and verifies one by one before it answers.
pub(crate) const MAX_CUTS: usize = 256;

/// A revocation whose target was found and allowed.
pub(crate) struct Resolved {
    pub(crate) revocation: Revocation,
    pub(crate) facility: Option<FacilityId>,
    pub(crate) visibility: Visibility,
    pub(crate) is_authority: bool,
}

impl Fleet {
    /// Revokes, holds or releases. Effective in OCSP when this returns, in the CRL within a second. What is permanent
    /// at scale becomes a proposal.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`], [`FleetError::Denied`].
    pub async fn revoke(&self, who: &Principal, request: RevokeRequest) -> Result<RevokeOutcome, FleetError> {
        check_why(&request.why)?;
        let resolved = self.resolve_revocation(who, &request.target, request.reason)?;
        let (certificates, devices) = self.store.count_revocation(&resolved.revocation, &resolved.visibility)?;
        if request.dry_run {
            return Ok(RevokeOutcome { certificates, devices, ..nothing_done() });
        }
        let stake = Stake {
            permanent: request.reason.is_permanent(),
            devices,
            crosses_facilities: request.reason.is_permanent() && self.spans_facilities(&resolved)?,
            kills_authority: resolved.is_authority && request.reason.is_permanent(),
        };
        let act = ProposedAct::Revoke { target: request.target, reason: request.reason, why: request.why.clone() };
        if let Some(waiting) = self.propose_if_needed(who, act, stake, certificates, resolved.facility).await? {
            return Ok(waiting);
        }
        self.carry_out_revocation(who, resolved, (&request.why, request.verify), &Consent::NotNeeded).await
    }

    /// Whether a batch has devices in more than one facility. The first thousand are looked at: a larger batch needs a
    /// second person for its size alone, unless somebody raised that limit above a thousand.
    fn spans_facilities(&self, resolved: &Resolved) -> Result<bool, FleetError> {
        let Selection::Batch(batch) = &resolved.revocation.selection else { return Ok(false) };
        let page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        let query = DeviceQuery { batch: Some(batch.clone()), page, ..DeviceQuery::default() };
        let devices = self.store.devices(&query, &resolved.visibility)?.items;
        let facilities: std::collections::BTreeSet<_> = devices.iter().map(|device| device.facility).collect();
        Ok(facilities.len() > 1)
    }

    /// Finds the target of a revocation and asks whether the caller may.
    pub(crate) fn resolve_revocation(
        &self,
        who: &Principal,
        target: &RevocationTarget,
        reason: RevocationReason,
    ) -> Result<Resolved, FleetError> {
        let action = match reason {
            RevocationReason::CertificateHold => Action::CertificateHold,
            RevocationReason::RemoveFromCrl => Action::CertificateRelease,
            _ => Action::CertificateRevoke,
        };
        let visibility = who.visibility();
        let (selection, permit, facility) = self.select(who, target, action, &visibility)?;
        let profiles = match target {
            RevocationTarget::Authority(_) => Profiles::All,
            _ => Profiles::LDevIdOnly,
        };
        Ok(Resolved {
            revocation: Revocation { selection, profiles, reason, at: self.now() },
            facility,
            visibility: permit.visibility().clone(),
            is_authority: matches!(target, RevocationTarget::Authority(_)),
        })
    }

    fn select(
        &self,
        who: &Principal,
        target: &RevocationTarget,
        action: Action,
        visibility: &Visibility,
    ) -> Result<(Selection, Permit, Option<FacilityId>), FleetError> {
        let scope = |facility: Option<FacilityId>| facility.map_or(Target::Fleet, Target::Facility);
        match target {
            RevocationTarget::Certificate(serial) => {
                let found = self.store.certificate(*serial, visibility)?.ok_or(FleetError::NotFound("certificate"))?;
                let facility = found.certificate.facility;
                let action = if found.certificate.profile.is_authority() { Action::AuthorityRevoke } else { action };
                Ok((Selection::Certificate(*serial), authorize(who, action, scope(facility))?, facility))
            }
            RevocationTarget::Device(reference) => {
                let device = self.find_device(reference, visibility)?;
                let permit = authorize(who, action, Target::Facility(device.facility))?;
                Ok((Selection::Device(device.id), permit, Some(device.facility)))
            }
            RevocationTarget::Batch(batch) => {
                // A batch may span facilities; the store never leaves what the caller sees.
                Ok((Selection::Batch(batch.clone()), authorize(who, action, Target::Visible)?, None))
            }
            RevocationTarget::Facility(reference) => {
                let facility = self.find_facility(reference, visibility)?.id;
                Ok((Selection::Facility(facility), authorize(who, action, Target::Facility(facility))?, Some(facility)))
            }
            RevocationTarget::Authority(reference) => {
                let permit = authorize(who, Action::AuthorityRevoke, Target::Fleet)?;
                Ok((Selection::Authority(self.find_authority(reference)?.record.id), permit, None))
            }
        }
    }

    /// Carries out a revocation that was allowed and, where needed, approved.
    pub(crate) async fn carry_out_revocation(
        &self,
        who: &Principal,
        resolved: Resolved,
        (why, verify): (&str, bool),
        consent: &Consent,
    ) -> Result<RevokeOutcome, FleetError> {
        let Resolved { revocation, facility, visibility, is_authority } = resolved;
        let act = match revocation.reason {
            RevocationReason::CertificateHold => "certificate.hold",
            RevocationReason::RemoveFromCrl => "certificate.release",
            _ => "certificate.revoke",
        };
        let entry = self
            .evidence(Entry::done(who, act, self.now()))
            .about(selection_text(&revocation.selection))
            .at_facility(facility)
            .because(why)
            .with("reason", revocation.reason);
        let kills = is_authority && revocation.reason.is_permanent();
        let audit = consent.with(entry.build());
        let logged = match revocation.selection {
            Selection::Authority(authority) if kills => {
                self.store.revoke_authority(authority, revocation.reason, revocation.at, audit).await?
            }
            _ => self.store.revoke(revocation, visibility, audit).await?,
        };
        let outcome = self.after_status_changes(logged, verify).await;
        if kills {
            self.reload_authorities()?;
        }
        outcome
    }

    /// Makes changes of status visible in CRL and OCSP, tells the brokers, and answers.
    pub(crate) async fn after_status_changes(
        &self,
        logged: Logged<Revoked>,
        verify: bool,
    ) -> Result<RevokeOutcome, FleetError> {
        self.enter_revoked(&logged.value)?;
        metrics::counter!("keyfleet_status_changes_total").increment(logged.value.certificates);
        let brokers = if verify {
            self.sign_due_crls().await;
            let changes = &logged.value.changes;
            let (first, rest) = changes.split_at(changes.len().min(MAX_CUTS));
            self.broker_queue.push(rest);
            let mut reports = self.enforce_at_brokers(first, 0).await?;
            if !rest.is_empty() {
                for report in &mut reports {
                    report.verified = false;
                    let more = format!("{} further sessions are being cut in the background", rest.len());
                    report.failure.get_or_insert(more);
                }
            }
            reports
        } else {
            self.broker_queue.push(&logged.value.changes);
            Vec::new()
        };
        Ok(RevokeOutcome {
            done: true,
            proposal: None,
            certificates: logged.value.certificates,
            devices: logged.value.devices,
            log_index: Some(logged.index),
            brokers,
        })
    }

    /// Publishes the CRLs to every broker, cuts the sessions of devices that lost a certificate, lets back in those that
    /// were released, and reports what the brokers did.
    pub(crate) async fn tell_brokers(&self, changes: &[StatusChange]) -> Vec<BrokerReport> {
        let brokers = self.attached_brokers();
        if brokers.is_empty() {
            return Vec::new();
        }
        let crls = match self.broker_crls().await {
            Ok(crls) => crls,
            Err(error) => {
                tracing::error!(error = %error, "no CRL for the brokers");
                return brokers.iter().map(|broker| unreached(broker.name(), &error)).collect();
            }
        };
        let (cut, back) = self.sessions_touched(changes);
        let names: Vec<&str> = cut.iter().map(String::as_str).collect();
        let mut reports = Vec::with_capacity(brokers.len());
        for broker in brokers {
            let mut report = broker.enforce(&crls, &names, BROKER_DEADLINE).await;
            for Back { name, lost_one } in &back {
                let outcome = if *lost_one {
                    // The session may be the lost certificate's: it ends, and only the good one comes back.
                    broker.restart_sessions(name).await.map(|_cut| ())
                } else {
                    broker.readmit(name).await
                };
                if let Err(error) = outcome {
                    report.session_cut &= !lost_one;
                    report.verified &= !lost_one;
                    report.failure.get_or_insert_with(|| format!("readmit {name}: {error}"));
                }
            }
            reports.push(report);
        }
        reports
    }

    /// Names of devices that have no good LDevID left, and those that have one, still or again.
    fn sessions_touched(&self, changes: &[StatusChange]) -> (Vec<String>, Vec<Back>) {
        let devices: std::collections::BTreeSet<_> = changes.iter().filter_map(|change| change.device).collect();
        let (mut cut, mut back) = (Vec::new(), Vec::new());
        for id in devices.into_iter().take(MAX_CUTS) {
            let Ok(Some(device)) = self.store.device(id, &Visibility::Fleet) else { continue };
            let certificates = self.store.certificates_of_device(id, &Visibility::Fleet).unwrap_or_default();
            let good = certificates.iter().any(|certificate| {
                certificate.profile == kf_key::CertificateProfile::LDevId
                    && certificate.status == CertificateStatus::Good
                    && certificate.not_after > self.now()
            });
            if good {
                let lost_one = changes.iter().any(|change| change.device == Some(id) && change.revoked.is_some());
                back.push(Back { name: device.name, lost_one });
            } else {
                cut.push(device.name);
            }
        }
        (cut, back)
    }

    /// Marks an entry where one person alone runs the fleet.
    pub(crate) fn evidence(&self, entry: Entry) -> Entry {
        if self.config.single_control { entry.with("control", "single") } else { entry }
    }
}

/// A device that may connect.
struct Back {
    name: String,
    /// Whether one of its certificates was revoked or held by the change at hand.
    lost_one: bool,
}

/// An outcome in which nothing happened yet.
pub(crate) const fn nothing_done() -> RevokeOutcome {
    RevokeOutcome { done: false, proposal: None, certificates: 0, devices: 0, log_index: None, brokers: Vec::new() }
}

fn unreached(broker: &str, error: &FleetError) -> BrokerReport {
    BrokerReport {
        broker: broker.to_owned(),
        crl_published: false,
        reloaded: false,
        session_cut: false,
        verified: false,
        failure: Some(error.to_string()),
    }
}

fn selection_text(selection: &Selection) -> String {
    match selection {
        Selection::Certificate(serial) => format!("cert:{serial}"),
        Selection::Device(device) => device.to_string(),
        Selection::Batch(batch) => format!("batch:{batch}"),
        Selection::Facility(facility) => facility.to_string(),
        Selection::Authority(authority) => authority.to_string(),
    }
}
