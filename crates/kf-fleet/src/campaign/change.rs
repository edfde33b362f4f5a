//! Changing the plan of a campaign that asks nobody, deleting a draft, and rolling back.

use kf_access::Principal;
use kf_api::campaign::{
    Campaign, CampaignActRequest, CampaignEdit, CampaignFilter, CampaignKind, CampaignOutcome, CampaignPlan, Rollback,
};
use kf_api::proposal::ProposedAct;
use kf_key::{CampaignState, FacilityId, MemberState, SuccessionState};
use kf_store::campaign::{Asked, PlanEdit, Revocable};

use super::{campaign_entry, checked, looked_at, not_a_step, outcome};
use crate::naming::check_why;
use crate::proposal::Consent;
use crate::{Fleet, FleetError};

/// Parts that are taken back in one turn, and so in one transaction.
const PARTS_PER_TURN: u32 = 256;

impl Fleet {
    /// Gives a campaign that is a draft, paused or stopped another plan, and a draft another filter. What devices have done stays.
    /// Where two people agreed to the plan, two people agree to the next one.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`]; [`FleetError::Invalid`] naming the number; [`FleetError::Conflict`]
    /// when it asks devices, has ended, or was changed by somebody else meanwhile.
    pub async fn campaign_edit(
        &self,
        who: &Principal,
        campaign: &str,
        edit: CampaignEdit,
    ) -> Result<CampaignOutcome, FleetError> {
        check_why(&edit.why)?;
        let found = self.managed_campaign(who, campaign)?.campaign;
        let plan = edit.plan.applied_to(&found.plan);
        let numbers = checked(plan)?;
        require_editable(&found)?;
        let version = edit.version.unwrap_or(found.version);
        require_version(&found, version)?;
        let filter = edit.filter.applied_to(&found.filter);
        let changed = if filter == found.filter { None } else { Some(self.checked_refilter(who, &found, filter)?) };
        if plan == found.plan && changed.is_none() {
            return Err(FleetError::invalid("plan", "is as it was", "give a number or a filter that is to change"));
        }
        let (filter, facility) = changed.clone().unwrap_or_else(|| (found.filter.clone(), found.facility));
        let edited = Campaign { plan, filter, facility, ..found.clone() };
        let estimate = self.estimate_of(&edited, &numbers).await?;
        let looked = CampaignOutcome { estimate: Some(estimate), ..looked_at(edited) };
        if edit.dry_run {
            return Ok(CampaignOutcome { load: Some(self.load_of(&found, &numbers, &estimate)?), ..looked });
        }
        // A draft is agreed to when it starts, in the version that it has then.
        if found.state != CampaignState::Draft {
            let act =
                ProposedAct::EditCampaign { campaign: found.id.to_string(), version, plan, why: edit.why.clone() };
            let control = self.campaign_control(&found, estimate.devices);
            if let Some(waiting) = self.propose(who, act, control, (estimate.devices, 0), found.facility).await? {
                return Ok(CampaignOutcome { proposal: waiting.proposal, ..looked });
            }
        }
        let id = found.id.to_string();
        let done = self.carry_out_edit(who, &id, (version, plan, changed), &edit.why, &Consent::NotNeeded).await?;
        Ok(CampaignOutcome { estimate: Some(estimate), ..done })
    }

    /// Another filter of a draft, with the facility that it is about. What has begun has been agreed to, and has a canary drawn from
    /// those that matched.
    fn checked_refilter(
        &self,
        who: &Principal,
        campaign: &Campaign,
        filter: CampaignFilter,
    ) -> Result<(CampaignFilter, Option<FacilityId>), FleetError> {
        if campaign.state != CampaignState::Draft {
            return Err(FleetError::conflict(
                "filter",
                format!("`{}` has begun: whom it is about stays", campaign.name),
                "give it up with `keyfleet campaign abort`, and make another one",
            ));
        }
        let facility = self.checked_filter(who, &filter)?;
        Ok((filter, facility))
    }

    /// Changes a plan, and the filter of a draft, when nobody else's consent is needed any more.
    pub(crate) async fn carry_out_edit(
        &self,
        who: &Principal,
        campaign: &str,
        (version, plan, filter): (u32, CampaignPlan, Option<(CampaignFilter, Option<FacilityId>)>),
        why: &str,
        consent: &Consent,
    ) -> Result<CampaignOutcome, FleetError> {
        let found = self.managed_campaign(who, campaign)?.campaign;
        checked(plan)?;
        require_editable(&found)?;
        require_version(&found, version)?;
        let text = |plan: &CampaignPlan| serde_json::to_string(plan).unwrap_or_default();
        let mut entry = self
            .evidence(campaign_entry(who, "campaign.edit", &found, self.now()))
            .because(why)
            .with("version", version.saturating_add(1))
            .with("before", text(&found.plan))
            .with("plan", text(&plan));
        if let Some((filter, _)) = &filter {
            let text = |filter: &CampaignFilter| serde_json::to_string(filter).unwrap_or_default();
            entry = entry.with("filter_before", text(&found.filter)).with("filter", text(filter));
        }
        let edit = PlanEdit { id: found.id, seen: found.state, version, plan, filter };
        let logged = self.store.edit_campaign(edit, consent.with(entry.build())).await?;
        Ok(outcome(logged.value, logged.index))
    }

    /// Removes a draft; its name is free again. A campaign that has begun is given up and kept.
    pub(super) async fn delete_campaign(
        &self,
        who: &Principal,
        campaign: &Campaign,
        request: CampaignActRequest,
    ) -> Result<CampaignOutcome, FleetError> {
        if campaign.state != CampaignState::Draft {
            return Err(FleetError::conflict(
                "campaign",
                format!("`{}` is {}: what has asked devices is kept", campaign.name, campaign.state.name()),
                "give it up with `keyfleet campaign abort`; it stays listed",
            ));
        }
        if request.dry_run {
            return Ok(looked_at(campaign.clone()));
        }
        let entry = self
            .evidence(campaign_entry(who, "campaign.delete", campaign, self.now()))
            .because(&request.why)
            .with("kind", campaign.kind.name());
        let logged = self.store.delete_campaign(campaign.id, entry.build()).await?;
        Ok(outcome(campaign.clone(), logged.index))
    }

    /// Rolls a campaign back, or proposes it where one person may not: what was agreed to by two is undone by two. Giving up
    /// is one person's.
    pub(super) async fn roll_back_or_propose(
        &self,
        who: &Principal,
        campaign: &Campaign,
        request: CampaignActRequest,
    ) -> Result<CampaignOutcome, FleetError> {
        self.require_revocable(campaign)?;
        self.write_told(campaign.id).await?;
        let rollback = self.rollback_of(campaign)?;
        let looked = CampaignOutcome { rollback: Some(rollback.clone()), ..looked_at(campaign.clone()) };
        if request.dry_run {
            return Ok(looked);
        }
        let act = ProposedAct::RollBackCampaign { campaign: campaign.id.to_string(), why: request.why.clone() };
        let devices = rollback.taken_back.saturating_add(rollback.may_still_act);
        let control = self.campaign_control(campaign, devices);
        if let Some(waiting) = self.propose(who, act, control, (devices, 0), campaign.facility).await? {
            return Ok(CampaignOutcome { proposal: waiting.proposal, ..looked });
        }
        let id = campaign.id.to_string();
        let done = self.carry_out_rollback(who, &id, &request.why, &Consent::NotNeeded).await?;
        Ok(CampaignOutcome { rollback: Some(rollback), ..done })
    }

    /// Rolls a campaign back when nobody else's consent is needed any more. From here on nobody is asked; the background takes
    /// back part by part.
    pub(crate) async fn carry_out_rollback(
        &self,
        who: &Principal,
        campaign: &str,
        why: &str,
        consent: &Consent,
    ) -> Result<CampaignOutcome, FleetError> {
        let found = self.managed_campaign(who, campaign)?.campaign;
        self.require_revocable(&found)?;
        let act = kf_api::campaign::CampaignAct::RollBack;
        let request = CampaignActRequest { act, allow_empty: false, why: why.to_owned(), dry_run: false };
        self.change_campaign(who, &found, CampaignState::RolledBack, request, consent).await
    }

    /// Refuses, with the reason and what to do instead, where there is nothing that could be taken back.
    fn require_revocable(&self, campaign: &Campaign) -> Result<(), FleetError> {
        let (because, next) = what_stays(campaign.kind);
        match campaign.state {
            CampaignState::Draft => Err(FleetError::conflict(
                "campaign",
                format!("`{}` is a draft: it has asked nobody", campaign.name),
                "remove it with `keyfleet campaign delete`",
            )),
            CampaignState::Completed => {
                Err(FleetError::conflict("campaign", format!("`{}` is completed, and {because}", campaign.name), next))
            }
            CampaignState::RolledBack => Err(not_a_step(campaign, "rolled back again")),
            _ if campaign.kind == CampaignKind::TrustAnchor && self.has_switched() => Err(FleetError::conflict(
                "campaign",
                format!("`{}`: the new root issues already, and a device without it would be stranded", campaign.name),
                "go on with the roll-over; `keyfleet campaign abort` stops asking",
            )),
            _ => Ok(()),
        }
    }

    /// Whether there is no root any more that could be left out: it issues, or the change is over.
    fn has_switched(&self) -> bool {
        let authorities = self.authorities();
        let open = authorities.lineage.open_root();
        open.is_none_or(|handover| handover.succession.state != SuccessionState::Prepared)
    }

    /// What rolling back comes to now.
    fn rollback_of(&self, campaign: &Campaign) -> Result<Rollback, FleetError> {
        let counts = self.store.campaign_counts(campaign.id)?;
        let of = |state| counts.iter().filter(|count| count.state == state).map(|count| count.devices).sum::<u64>();
        let outstanding = self.store.outstanding(campaign.id)?;
        let (because, next) = what_stays(campaign.kind);
        Ok(Rollback {
            never_asked: of(MemberState::Waiting),
            taken_back: outstanding.revocable,
            may_still_act: outstanding.fetched,
            stay: of(MemberState::Done).saturating_add(outstanding.trusting),
            because: because.to_owned(),
            next: next.to_owned(),
        })
    }

    /// One step of rolling back: the next parts. Whether there were any.
    pub(super) async fn take_parts_back(&self, campaign: &Campaign) -> Result<bool, FleetError> {
        self.told.close(campaign.id);
        self.write_told(campaign.id).await?;
        let now = self.now();
        let revocable = self.store.revocable_members(campaign.id, PARTS_PER_TURN)?;
        if revocable.is_empty() {
            return Ok(false);
        }
        let who = Self::server_principal();
        let part = |one: Revocable| {
            let entry = |act| campaign_entry(&who, act, campaign, now).about(one.device).because(&campaign.reason);
            let entry = match one.asked {
                Asked::Epoch(epoch) => entry("epoch.withdraw").with("device_epoch", epoch),
                Asked::Order(order) => entry("order.cancel").about(order),
                Asked::News => entry("campaign.withdraw"),
            };
            (one, entry.build())
        };
        self.store.take_back(campaign.id, revocable.into_iter().map(part).collect(), now).await?;
        Ok(true)
    }
}

/// Why what a device has done stays, and what can be done about it.
const fn what_stays(kind: CampaignKind) -> (&'static str, &'static str) {
    match kind {
        CampaignKind::DeviceKey => (
            "a device that holds its new key has given up the one before: a key epoch never goes back",
            "have the keys replaced once more: `keyfleet epoch advance --device`, or another campaign",
        ),
        CampaignKind::Certificate => (
            "a device destroys its old private key when the new certificate is proved, so there is nothing to go back to",
            "have new keys made by another campaign; of the algorithm before with --algorithm",
        ),
        CampaignKind::TrustAnchor => (
            "a device that took the new root up trusts both, and finds its server by either",
            "leave it: nothing is issued from the new root before `keyfleet authority switch`",
        ),
        CampaignKind::Storage => (
            "a device destroys its old storage key when everything lies under the new one",
            "leave it: the data are what they were; have the keys replaced once more by another campaign",
        ),
    }
}

fn require_editable(campaign: &Campaign) -> Result<(), FleetError> {
    match campaign.state {
        state if state.is_editable() => Ok(()),
        CampaignState::Running => Err(FleetError::conflict(
            "campaign",
            format!("`{}` is running", campaign.name),
            "pause it first: `keyfleet campaign pause`",
        )),
        _ => Err(not_a_step(campaign, "changed")),
    }
}

fn require_version(campaign: &Campaign, version: u32) -> Result<(), FleetError> {
    if campaign.version == version {
        return Ok(());
    }
    Err(FleetError::conflict(
        "version",
        format!("`{}` has version {} by now, not {version}", campaign.name, campaign.version),
        "look at it with `keyfleet campaign show`, and change what is still wanted",
    ))
}
