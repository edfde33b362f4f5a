//! Campaigns: making, starting, stopping and looking at them. What happens in between is in `turn`.

mod change;
mod estimate;
mod renewal;
mod size;
mod storage;
mod told;
mod turn;

use kf_access::{Action, Control, Principal, Stake, Target, Visibility, authorize};
use kf_api::campaign::{
    Campaign, CampaignAct, CampaignActRequest, CampaignFilter, CampaignKind, CampaignMember, CampaignOutcome,
    CampaignPlan, CampaignProgress, CampaignStatus, MemberFilter, NewCampaign,
};
use kf_api::proposal::ProposedAct;
use kf_api::{Page, PageRequest};
use kf_key::{CampaignId, CampaignState, FacilityId, KeyAlgorithm, MemberState, UnixMillis};
use kf_rotation::campaign::{CampaignFacts, Decision, Plan, PlanNumbers, Tally, decide};
use kf_store::campaign::{CampaignChange, Count, StoredCampaign};
use kf_store::device::DeviceQuery;

use crate::entry::Entry;
use crate::naming::{check_name, check_why};
use crate::proposal::Consent;
use crate::{Fleet, FleetError};

pub(crate) use renewal::Proofs;
pub(crate) use told::Told;
pub(crate) use turn::Observed;

/// Where a campaign stood when somebody agreed to what is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) state: CampaignState,
    pub(crate) wave: u32,
    pub(crate) version: u32,
    /// Whether it was agreed to as well that it may be about nobody.
    pub(crate) allow_empty: bool,
}

/// A plan within the limits.
pub(crate) fn checked(plan: CampaignPlan) -> Result<Plan, FleetError> {
    let CampaignPlan { canary, wave, per_minute, jitter_seconds, soak_seconds, patience_seconds, .. } = plan;
    let CampaignPlan { max_failed_percent, min_done_percent, .. } = plan;
    Plan::checked(PlanNumbers {
        canary,
        wave,
        per_minute,
        jitter_seconds,
        soak_seconds,
        patience_seconds,
        max_failed_percent,
        min_done_percent,
    })
    .map_err(|error| {
        let kf_rotation::campaign::PlanError { field, least, most } = error;
        FleetError::invalid(field, format!("is not {least} to {most}"), format!("use {least} to {most}"))
    })
}

impl Fleet {
    /// Makes a campaign, as a draft: nothing is asked of any device.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] naming the field, [`FleetError::Conflict`] for a name in use, [`FleetError::NotFound`],
    /// [`FleetError::Denied`].
    pub async fn campaign_create(&self, who: &Principal, new: NewCampaign) -> Result<CampaignOutcome, FleetError> {
        check_name("name", &new.name)?;
        check_why(&new.why)?;
        let plan = checked(new.plan)?;
        let facility = self.checked_filter(who, &new.filter)?;
        if new.kind == CampaignKind::TrustAnchor {
            self.require_open_root()?;
        }
        check_algorithm(new.kind, new.algorithm)?;
        let now = self.now();
        let campaign = Campaign {
            id: CampaignId::from_parts(now, kf_crypto::random_array()?),
            name: new.name,
            kind: new.kind,
            state: CampaignState::Draft,
            reason: String::new(),
            filter: new.filter,
            plan: new.plan,
            algorithm: new.algorithm,
            why: new.why,
            facility,
            version: 1,
            created: now,
            started: None,
            ended: None,
            wave: 0,
            begins: None,
        };
        let estimate = Some(self.estimate_of(&campaign, &plan).await?);
        if new.dry_run {
            let devices = estimate.map_or(0, |estimate| estimate.devices);
            let sizes = match campaign.kind {
                CampaignKind::Certificate => self.algorithm_sizes(devices)?,
                CampaignKind::DeviceKey | CampaignKind::TrustAnchor | CampaignKind::Storage => Vec::new(),
            };
            let load = match &estimate {
                Some(estimate) => Some(self.load_of(&campaign, &plan, estimate)?),
                None => None,
            };
            return Ok(CampaignOutcome { estimate, load, sizes, ..looked_at(campaign) });
        }
        let entry = campaign_entry(who, "campaign.create", &campaign, now)
            .because(&campaign.why)
            .with("kind", campaign.kind.name())
            .with("algorithm", campaign.algorithm.map_or("as before", KeyAlgorithm::name))
            .with("plan", serde_json::to_string(&campaign.plan).unwrap_or_default());
        let logged = self.store.insert_campaign(campaign.clone(), entry.build()).await?;
        Ok(CampaignOutcome { estimate, ..outcome(campaign, logged.index) })
    }

    /// The facility of a filter whose devices the caller may have change something.
    fn checked_filter(&self, who: &Principal, filter: &CampaignFilter) -> Result<Option<FacilityId>, FleetError> {
        let facility = match &filter.facility {
            Some(reference) => Some(self.find_facility(reference, &who.visibility())?.id),
            None => None,
        };
        authorize(who, Action::CampaignManage, facility.map_or(Target::Fleet, Target::Facility))?;
        if let Some(reference) = &filter.product_line {
            self.find_product_line(reference)?;
        }
        Ok(facility)
    }

    /// Campaigns that the caller may see, newest first.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn campaign_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Campaign>, FleetError> {
        let permit = authorize(who, Action::CampaignRead, Target::Visible)?;
        Ok(self.store.campaigns(permit.visibility(), &page)?)
    }

    /// A campaign with its progress.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn campaign_show(&self, who: &Principal, campaign: &str) -> Result<CampaignStatus, FleetError> {
        let permit = authorize(who, Action::CampaignRead, Target::Visible)?;
        let stored = self.find_campaign(campaign, permit.visibility())?;
        let progress = self.campaign_progress(&stored)?;
        Ok(CampaignStatus { campaign: stored.campaign, progress })
    }

    /// The devices of a campaign.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn campaign_members(
        &self,
        who: &Principal,
        campaign: &str,
        filter: MemberFilter,
    ) -> Result<Page<CampaignMember>, FleetError> {
        let permit = authorize(who, Action::CampaignRead, Target::Visible)?;
        let stored = self.find_campaign(campaign, permit.visibility())?;
        let page = PageRequest { after: filter.after, limit: filter.limit };
        Ok(self.store.members(stored.campaign.id, filter.state, permit.visibility(), &page)?)
    }

    /// Starts, pauses, resumes, gives up, rolls back or deletes a campaign.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Conflict`] when it is no step of its life.
    pub async fn campaign_act(
        &self,
        who: &Principal,
        campaign: &str,
        request: CampaignActRequest,
    ) -> Result<CampaignOutcome, FleetError> {
        check_why(&request.why)?;
        let stored = self.managed_campaign(who, campaign)?;
        let found = &stored.campaign;
        match request.act {
            CampaignAct::Start if found.state != CampaignState::Draft => Err(not_a_step(found, "started")),
            CampaignAct::Start => self.begin_or_propose(who, found, request).await,
            // What it stopped for, or waits at, was part of what was agreed to: going past it is agreed to again.
            CampaignAct::Resume if matches!(found.state, CampaignState::Stopped | CampaignState::Running) => {
                if found.state == CampaignState::Running && !self.waits_at_gate(&stored)? {
                    return Err(not_a_step(found, "resumed"));
                }
                self.begin_or_propose(who, found, request).await
            }
            CampaignAct::Resume if found.state != CampaignState::Paused => Err(not_a_step(found, "resumed")),
            CampaignAct::Resume => {
                self.change_campaign(who, found, CampaignState::Running, request, &Consent::NotNeeded).await
            }
            CampaignAct::Pause => {
                self.change_campaign(who, found, CampaignState::Paused, request, &Consent::NotNeeded).await
            }
            CampaignAct::Abort => {
                self.change_campaign(who, found, CampaignState::Aborted, request, &Consent::NotNeeded).await
            }
            CampaignAct::RollBack => self.roll_back_or_propose(who, found, request).await,
            CampaignAct::Delete => self.delete_campaign(who, found, request).await,
        }
    }

    /// Begins a campaign, or proposes it where one person may not.
    async fn begin_or_propose(
        &self,
        who: &Principal,
        campaign: &Campaign,
        request: CampaignActRequest,
    ) -> Result<CampaignOutcome, FleetError> {
        let plan = checked(campaign.plan)?;
        let estimate = self.estimate_of(campaign, &plan).await?;
        if !request.allow_empty {
            require_somebody(campaign, estimate.devices)?;
        }
        let outcome = CampaignOutcome { estimate: Some(estimate), ..looked_at(campaign.clone()) };
        if request.dry_run {
            return Ok(CampaignOutcome { load: Some(self.load_of(campaign, &plan, &estimate)?), ..outcome });
        }
        let seen = Seen {
            state: campaign.state,
            wave: campaign.wave,
            version: campaign.version,
            allow_empty: request.allow_empty,
        };
        let act = ProposedAct::StartCampaign {
            campaign: campaign.id.to_string(),
            state: seen.state,
            wave: seen.wave,
            version: seen.version,
            allow_empty: seen.allow_empty,
            why: request.why.clone(),
        };
        let control = self.campaign_control(campaign, estimate.devices);
        if let Some(waiting) = self.propose(who, act, control, (estimate.devices, 0), campaign.facility).await? {
            return Ok(CampaignOutcome { proposal: waiting.proposal, ..outcome });
        }
        let begun =
            self.carry_out_campaign(who, &campaign.id.to_string(), seen, &request.why, &Consent::NotNeeded).await?;
        Ok(CampaignOutcome { estimate: Some(estimate), ..begun })
    }

    /// An order is never one person's act, nor are orders to many; a new device key is as a new epoch of the device.
    fn campaign_control(&self, campaign: &Campaign, devices: u64) -> Control {
        let now = self.now();
        match campaign.kind {
            CampaignKind::Certificate => self.dual_control().always(now),
            CampaignKind::DeviceKey | CampaignKind::TrustAnchor | CampaignKind::Storage => {
                let crosses_facilities = campaign.facility.is_none();
                let stake = Stake { permanent: true, devices, crosses_facilities, kills_authority: false };
                self.dual_control().control(stake, now)
            }
        }
    }

    /// Begins a campaign, or lets it go on past what stopped it, when nobody else's consent is needed any more.
    pub(crate) async fn carry_out_campaign(
        &self,
        who: &Principal,
        campaign: &str,
        seen: Seen,
        why: &str,
        consent: &Consent,
    ) -> Result<CampaignOutcome, FleetError> {
        let found = self.managed_campaign(who, campaign)?.campaign;
        // Consent to begin is no consent to go past a gate later on, nor that of one wave to go past the next, nor that of one
        // plan to another.
        if (found.state, found.wave, found.version) != (seen.state, seen.wave, seen.version) {
            return Err(FleetError::conflict(
                "campaign",
                format!(
                    "`{}` is {} in wave {} of version {}, and stood elsewhere when this was proposed",
                    found.name,
                    found.state.name(),
                    found.wave,
                    found.version
                ),
                "look at it with `keyfleet campaign show`, and propose again what is still wanted",
            ));
        }
        if found.state == CampaignState::Running {
            let entry = self.evidence(campaign_entry(who, "campaign.open-gate", &found, self.now())).because(why);
            let logged = self.store.open_gate(found.id, consent.with(entry.with("wave", found.wave).build())).await?;
            return Ok(outcome(logged.value, logged.index));
        }
        if found.state == CampaignState::Draft && !seen.allow_empty {
            // The devices may have gone while somebody thought about it.
            require_somebody(&found, self.estimate_of(&found, &checked(found.plan)?).await?.devices)?;
        }
        let request = CampaignActRequest {
            act: CampaignAct::Start,
            allow_empty: seen.allow_empty,
            why: why.to_owned(),
            dry_run: false,
        };
        self.change_campaign(who, &found, CampaignState::Running, request, consent).await
    }

    async fn change_campaign(
        &self,
        who: &Principal,
        campaign: &Campaign,
        to: CampaignState,
        request: CampaignActRequest,
        consent: &Consent,
    ) -> Result<CampaignOutcome, FleetError> {
        if campaign.state.transition(to).is_err() {
            return Err(not_a_step(campaign, to.name()));
        }
        if request.dry_run {
            return Ok(looked_at(Campaign { state: to, ..campaign.clone() }));
        }
        let now = self.now();
        let act = match (campaign.state, to) {
            (CampaignState::Draft, CampaignState::Running) => "campaign.start",
            (_, CampaignState::Running) => "campaign.resume",
            (_, CampaignState::Paused) => "campaign.pause",
            (_, CampaignState::RolledBack) => "campaign.roll-back",
            _ => "campaign.abort",
        };
        let entry = self.evidence(campaign_entry(who, act, campaign, now)).because(&request.why);
        let change = CampaignChange { id: campaign.id, seen: campaign.state, to, reason: request.why, at: now };
        let logged = self.store.change_campaign(change, consent.with(entry.build())).await?;
        self.wake.notify_one();
        Ok(outcome(logged.value, logged.index))
    }

    /// A campaign that the caller may change.
    pub(crate) fn managed_campaign(&self, who: &Principal, campaign: &str) -> Result<StoredCampaign, FleetError> {
        let stored = self.find_campaign(campaign, &who.visibility())?;
        let target = stored.campaign.facility.map_or(Target::Fleet, Target::Facility);
        authorize(who, Action::CampaignManage, target)?;
        Ok(stored)
    }

    fn find_campaign(&self, reference: &str, visibility: &Visibility) -> Result<StoredCampaign, FleetError> {
        let found = match reference.parse::<CampaignId>() {
            Ok(id) => self.store.campaign(id, visibility)?,
            Err(_not_an_id) => self.store.campaign_by_name(reference, visibility)?,
        };
        found.ok_or(FleetError::NotFound("campaign"))
    }

    /// The devices that a campaign is about, one page of them.
    fn campaign_query(&self, campaign: &Campaign, after: Option<String>) -> Result<DeviceQuery, FleetError> {
        let product_line = match &campaign.filter.product_line {
            Some(reference) => Some(self.find_product_line(reference)?.id),
            None => None,
        };
        Ok(DeviceQuery {
            facility: campaign.facility,
            product_line,
            state: None,
            batch: campaign.filter.batch.clone(),
            name_prefix: campaign.filter.name_prefix.clone(),
            page: PageRequest { after, limit: Some(kf_api::page::MAX_LIMIT) },
        })
    }

    fn campaign_progress(&self, stored: &StoredCampaign) -> Result<CampaignProgress, FleetError> {
        let campaign = &stored.campaign;
        let plan = checked(campaign.plan)?;
        let counts = self.store.campaign_counts(campaign.id)?;
        let of = |state| counts.iter().filter(|count| count.state == state).map(|count| count.devices).sum::<u64>();
        let now = self.now();
        let (silent, _) = self.store.silent_members(campaign.id, None, plan.silent_since(now))?;
        let waits_for = match (campaign.state, stored.chosen) {
            (CampaignState::Running, false) => "choosing".to_owned(),
            (CampaignState::Running, true) => match self.campaign_decision(stored)? {
                Decision::Wait { pause, .. } => pause.name().to_owned(),
                _ => String::new(),
            },
            _ => String::new(),
        };
        Ok(CampaignProgress {
            devices: counts.iter().map(|count| count.devices).sum(),
            waiting: of(MemberState::Waiting),
            offered: of(MemberState::Offered),
            silent,
            done: of(MemberState::Done),
            failed: of(MemberState::Failed),
            skipped: of(MemberState::Skipped),
            taken_back: of(MemberState::TakenBack),
            too_old: self.store.unaware_members(campaign.id)?,
            waits_for,
            unheard: self.store.unheard_members(campaign.id, now)?,
        })
    }

    fn waits_at_gate(&self, stored: &StoredCampaign) -> Result<bool, FleetError> {
        let decision = self.campaign_decision(stored)?;
        Ok(matches!(decision, Decision::Wait { pause: kf_rotation::campaign::Pause::Gate, .. }))
    }

    /// What a running campaign does next.
    fn campaign_decision(&self, stored: &StoredCampaign) -> Result<Decision, FleetError> {
        let campaign = &stored.campaign;
        let plan = checked(campaign.plan)?;
        let now = self.now();
        let counts = self.store.campaign_counts(campaign.id)?;
        let (silent, oldest_open) =
            self.store.silent_members(campaign.id, Some(campaign.wave), plan.silent_since(now))?;
        let total = |state| counts.iter().filter(|count| count.state == state).map(|count| count.devices).sum();
        let facts = CampaignFacts {
            wave: campaign.wave,
            begins: campaign.begins.unwrap_or(now),
            tally: tally_of(&counts, campaign.wave, silent),
            forgiven: stored.forgiven,
            gate_open: stored.gate_open,
            waiting: total(MemberState::Waiting),
            open: total(MemberState::Offered),
            last_release: stored.last_release,
            oldest_open,
        };
        Ok(decide(&plan, &facts, now))
    }
}

/// Refuses to begin a campaign about nobody: a filter with a slip of the pen would be "completed" at once.
fn require_somebody(campaign: &Campaign, devices: u64) -> Result<(), FleetError> {
    if devices > 0 || campaign.state != CampaignState::Draft {
        return Ok(());
    }
    Err(FleetError::conflict(
        "filter",
        format!("`{}` is about nobody: no device that may enrol matches {}", campaign.name, campaign.filter),
        "change the filter with `keyfleet campaign edit`; if it is meant, start it with --allow-empty",
    ))
}

/// An algorithm is for identity keys that devices make.
fn check_algorithm(kind: CampaignKind, algorithm: Option<KeyAlgorithm>) -> Result<(), FleetError> {
    match algorithm {
        None => Ok(()),
        Some(_) if kind != CampaignKind::Certificate => Err(FleetError::invalid(
            "algorithm",
            format!("a {} campaign makes no identity keys", kind.name()),
            "use kind `certificate`",
        )),
        Some(algorithm) if !algorithm.may_sign_certificates() => Err(FleetError::invalid(
            "algorithm",
            format!("no device of ours makes {algorithm} keys"),
            "use p-256, p-384, ed25519, ml-dsa-44, ml-dsa-65 or ml-dsa-87",
        )),
        Some(_) => Ok(()),
    }
}

fn tally_of(counts: &[Count], wave: u32, silent: u64) -> Tally {
    let of =
        |state| counts.iter().find(|count| count.wave == wave && count.state == state).map_or(0, |count| count.devices);
    Tally {
        offered: of(MemberState::Offered),
        silent,
        done: of(MemberState::Done),
        failed: of(MemberState::Failed),
        skipped: of(MemberState::Skipped),
    }
}

/// The entry of an act on a campaign.
pub(crate) fn campaign_entry(who: &Principal, act: &str, campaign: &Campaign, at: UnixMillis) -> Entry {
    Entry::done(who, act, at).about(campaign.id).at_facility(campaign.facility).with("name", &campaign.name)
}

/// Nothing was done.
const fn looked_at(campaign: Campaign) -> CampaignOutcome {
    CampaignOutcome {
        done: false,
        proposal: None,
        campaign,
        estimate: None,
        load: None,
        sizes: Vec::new(),
        rollback: None,
        log_index: None,
    }
}

fn outcome(campaign: Campaign, log_index: u64) -> CampaignOutcome {
    CampaignOutcome { done: true, log_index: Some(log_index), ..looked_at(campaign) }
}

fn not_a_step(campaign: &Campaign, what: &str) -> FleetError {
    FleetError::conflict(
        "campaign",
        format!("`{}` is {}: it cannot be {what}", campaign.name, campaign.state.name()),
        "look with `keyfleet campaign show`; one that has ended is made anew",
    )
}
