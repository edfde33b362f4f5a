//! Batches of factory stations: authorising one, ending one, and its books.

mod authorise;
mod enrol;
mod import;

use kf_access::{Action, Control, Permit, Principal, Stake, Target, authorize};
use kf_api::batch::{Batch, BatchFilter, BatchOutcome, BatchState, CancelBatch, NewBatch, Reconciliation, StationPins};
use kf_api::operator::Role;
use kf_api::proposal::ProposedAct;
use kf_api::revocation::RevokeOutcome;
use kf_api::{Page, PageRequest};
use kf_key::{AuthorityId, BatchId, OperatorId, RevocationReason};
use kf_store::batch::{Cancellation, StoredBatch};

use crate::entry::Entry;
use crate::fence::Line;
use crate::naming::check_why;
use crate::proposal::Consent;
use crate::revocation::nothing_done;
use crate::{Fleet, FleetError};

impl Fleet {
    /// Authorises a batch, or proposes it where it is larger than one person may.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] naming the field, also for a station request that is stale or not the station's;
    /// [`FleetError::Conflict`] for a name, a device name or a station request that was used; [`FleetError::Denied`].
    pub async fn batch_create(&self, who: &Principal, new: NewBatch) -> Result<BatchOutcome, FleetError> {
        check_why(&new.why)?;
        let received = self.now();
        let plan = self.plan_batch(who, &new, received)?;
        let (devices, facility) = (u64::from(new.count), plan.facility);
        let sketch = self.sketch_batch(&plan, received)?;
        if new.dry_run {
            return Ok(BatchOutcome { done: false, proposal: None, batch: sketch });
        }
        let needs_two = devices > self.config.batch_dual_control_above;
        let control = if needs_two { self.dual_control().always(received) } else { Control::Single };
        let why = new.why.clone();
        let act = ProposedAct::CreateBatch { batch: Box::new(new.clone()), received, why: why.clone() };
        if let Some(waiting) = self.propose(who, act, control, (devices, 0), Some(facility)).await? {
            return Ok(BatchOutcome { done: false, proposal: waiting.proposal, batch: sketch });
        }
        let batch = self.carry_out_batch(who, &new, received, &why, &Consent::NotNeeded).await?;
        Ok(BatchOutcome { done: true, proposal: None, batch })
    }

    /// Batches that the caller may see, newest first; a station sees its own.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn batch_list(&self, who: &Principal, filter: BatchFilter) -> Result<Page<Batch>, FleetError> {
        let permit = authorize(who, Action::BatchRead, Target::Visible)?;
        let page = PageRequest { after: filter.after, limit: filter.limit };
        Ok(self.store.batches(own_station(who)?, permit.visibility(), &page)?)
    }

    /// One batch.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn batch_show(&self, who: &Principal, batch: &str) -> Result<Batch, FleetError> {
        Ok(self.batch_for(who, batch, Action::BatchRead)?.0.batch)
    }

    /// The signed quota of a batch: what is carried to the station. Where a later key than the first signed it, the links to that
    /// key follow (RFC 8742), so that a station which pins an earlier one believes it.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn batch_quota(&self, who: &Principal, batch: &str) -> Result<Vec<u8>, FleetError> {
        let quota = self.batch_for(who, batch, Action::BatchRead)?.0.quota;
        let links = self.links_of_quota(&quota)?;
        Ok([quota, links].concat())
    }

    /// The books of a batch.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn batch_reconcile(&self, who: &Principal, batch: &str) -> Result<Reconciliation, FleetError> {
        let (stored, _) = self.batch_for(who, batch, Action::BatchRead)?;
        Ok(self.store.reconcile_batch(stored.batch)?)
    }

    /// What a station pins when it is set up: the key that signs quotas.
    ///
    /// # Errors
    /// [`FleetError::Denied`], [`FleetError::Signer`].
    pub async fn station_pins(&self, who: &Principal) -> Result<StationPins, FleetError> {
        authorize(who, Action::BatchRead, Target::Visible)?;
        let (_, key) = self.batch_key().await?;
        let spki = key.spki();
        Ok(StationPins {
            batch_key_pem: kf_pki::pem::encode("PUBLIC KEY", &spki),
            batch_key_sha256: hex::encode(kf_crypto::sha256(&spki)),
        })
    }

    /// Ends a batch: its CA and every certificate of its devices are revoked, and the devices decommissioned.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] when it has ended, [`FleetError::Denied`].
    pub async fn batch_cancel(
        &self,
        who: &Principal,
        batch: &str,
        request: CancelBatch,
    ) -> Result<RevokeOutcome, FleetError> {
        check_why(&request.why)?;
        if request.compromised && request.keep_made {
            return Err(FleetError::invalid(
                "keep_made",
                "what a compromised station made cannot be kept",
                "leave one of the two out",
            ));
        }
        let (stored, _) = self.batch_for(who, batch, Action::BatchCancel)?;
        let cancellation = self.cancellation(&stored, &request);
        let (certificates, devices) = self.store.count_batch_cancellation(&cancellation)?;
        if request.dry_run {
            return Ok(RevokeOutcome { certificates, devices, ..nothing_done() });
        }
        // Stopping is easy: what nobody has made yet, or a stolen station that can still make devices, waits for no second person.
        // Once the quota has ended there is nothing to stop, and what is left is an end for every device.
        let can_be_made = self.now() <= stored.batch.expires;
        let permanent = certificates > 1 && !(request.compromised && can_be_made);
        let stake = Stake { permanent, devices, crosses_facilities: false, kills_authority: false };
        let why = request.why.clone();
        let act = ProposedAct::CancelBatch { batch: stored.batch.id.to_string(), request: request.clone(), why };
        let facility = Some(stored.batch.facility);
        if let Some(waiting) = self.propose_if_needed(who, act, stake, certificates, facility).await? {
            return Ok(waiting);
        }
        self.carry_out_cancellation(who, batch, &request, &request.why, &Consent::NotNeeded).await
    }

    fn cancellation(&self, stored: &StoredBatch, request: &CancelBatch) -> Cancellation {
        let (to, reason) = if request.compromised {
            (BatchState::Compromised, RevocationReason::KeyCompromise)
        } else {
            (BatchState::Cancelled, RevocationReason::CessationOfOperation)
        };
        Cancellation { batch: stored.batch.id, to, keep_made: request.keep_made, reason, at: self.now() }
    }

    pub(crate) async fn carry_out_cancellation(
        &self,
        who: &Principal,
        batch: &str,
        request: &CancelBatch,
        why: &str,
        consent: &Consent,
    ) -> Result<RevokeOutcome, FleetError> {
        let (stored, _) = self.batch_for(who, batch, Action::BatchCancel)?;
        let cancellation = self.cancellation(&stored, request);
        let entry = self
            .evidence(Entry::done(who, "batch.cancel", self.now()))
            .about(stored.batch.id)
            .about(stored.batch.station)
            .about(format!("cert:{}", stored.batch.authority_serial))
            .at_facility(Some(stored.batch.facility))
            .because(why)
            .with("to", cancellation.to.name())
            .with("keep_made", cancellation.keep_made)
            .with("reason", cancellation.reason);
        let logged = self.store.cancel_batch(cancellation, consent.with(entry.build())).await?;
        let (batch, state, at) = (cancellation.batch, cancellation.to, cancellation.at);
        self.tell_witness([Line::BatchEnded { batch, state, at }]);
        self.after_status_changes(logged, false).await
    }

    /// A batch by name or id, if the caller may do this to it. A station has business with its own batches only.
    pub(crate) fn batch_for(
        &self,
        who: &Principal,
        reference: &str,
        action: Action,
    ) -> Result<(StoredBatch, Permit), FleetError> {
        let visibility = who.visibility();
        let found = match reference.parse::<BatchId>() {
            Ok(id) => self.store.batch(id, &visibility)?,
            Err(_not_an_id) => self.store.batch_by_name(reference, &visibility)?,
        };
        let own = own_station(who)?;
        let found = found.filter(|stored| own.is_none_or(|own| own == stored.batch.station));
        let stored = found.ok_or(FleetError::NotFound("batch"))?;
        let permit = authorize(who, action, Target::Facility(stored.batch.facility))?;
        Ok((stored, permit))
    }

    /// The certificate of a batch CA, for the address in what it issued.
    pub(crate) fn batch_authority_certificate(&self, authority: AuthorityId) -> Option<Vec<u8>> {
        let stored = self.store.batch_by_authority(authority).ok().flatten()?;
        let found = self.store.certificate(stored.batch.authority_serial, &kf_access::Visibility::Fleet).ok().flatten();
        found.map(|found| found.der)
    }
}

/// The station that is calling; `None` for anybody else.
fn own_station(who: &Principal) -> Result<Option<OperatorId>, FleetError> {
    if who.role != Role::Station {
        return Ok(None);
    }
    who.id.parse().map(Some).map_err(|_not_an_operator| FleetError::Bug("a station that is no operator"))
}
