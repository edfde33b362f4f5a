//! What happens in campaigns by itself: one durable step of each in every turn of the background work. A server that is
//! stopped between two steps goes on with the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use kf_access::Visibility;
use kf_api::campaign::{Campaign, CampaignKind};
use kf_api::device::Device;
use kf_api::order::{OrderAct, OrderState};
use kf_key::{CampaignId, CampaignState, DeviceId, DeviceState, KeyAlgorithm, MemberState};
use kf_pki::request::RequestedKey;
use kf_rotation::campaign::Decision;
use kf_rotation::migration::{Answer, DeviceFacts, Keeps, comes_to, may_ask};
use kf_signer::SignerError;
use kf_store::campaign::{CampaignChange, Ended, Evidence, MAX_MEMBERS, OpenMember, Place, Release, StoredCampaign};

use super::{campaign_entry, checked};
use crate::entry::Entry;
use crate::{Fleet, FleetError};

/// The most campaigns that go on at a time.
const MAX_LIVE: u32 = 32;
/// Pages of devices that are chosen in one turn.
const PAGES_PER_TURN: usize = 8;
/// Orders that are withdrawn in one turn.
const ORDERS_PER_TURN: u32 = 256;
/// How long a device has to obey an order of a campaign: a device may sleep for months.
pub(super) const ORDER_HOURS: u32 = 8_760;

/// How far the answers of each campaign have been looked through, in this life of the process.
#[derive(Default)]
pub(crate) struct Observed(Mutex<BTreeMap<CampaignId, Place>>);

impl Observed {
    fn after(&self, campaign: CampaignId) -> Option<Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&campaign).copied()
    }

    fn set(&self, campaign: CampaignId, after: Option<Place>) {
        let mut observed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match after {
            Some(after) => drop(observed.insert(campaign, after)),
            None => drop(observed.remove(&campaign)),
        }
    }
}

impl Fleet {
    /// One step of every campaign in which something may happen.
    pub(crate) async fn turn_campaigns(&self) -> Result<(), FleetError> {
        for stored in self.store.live_campaigns(MAX_LIVE)? {
            let name = stored.campaign.name.clone();
            if let Err(error) = self.turn_campaign(stored).await {
                tracing::error!(campaign = name, %error, "a campaign did not go on");
            }
        }
        // After what was done was counted: of those nobody asks any more whether they were told.
        self.write_all_told().await
    }

    async fn turn_campaign(&self, stored: StoredCampaign) -> Result<(), FleetError> {
        if stored.campaign.state == CampaignState::Aborted {
            return self.withdraw_campaign_orders(&stored.campaign).await;
        }
        if stored.campaign.state == CampaignState::RolledBack {
            // What was done before counts as done; then what nobody has come for, then what somebody has.
            if self.observe_members(&stored.campaign).await? || self.take_parts_back(&stored.campaign).await? {
                return Ok(());
            }
            return self.withdraw_campaign_orders(&stored.campaign).await;
        }
        // Answers count whether it runs or is paused.
        if self.observe_members(&stored.campaign).await? || stored.campaign.state != CampaignState::Running {
            return Ok(());
        }
        if !stored.chosen {
            return self.choose_members(stored).await;
        }
        if stored.campaign.wave == 0 {
            return self.begin_wave(&stored.campaign).await;
        }
        match self.campaign_decision(&stored)? {
            Decision::Release { count } => self.ask_devices(&stored.campaign, count).await,
            Decision::NextWave => self.begin_wave(&stored.campaign).await,
            Decision::Stop { failed, of } => {
                let reason = format!("{failed} of {of} devices of wave {} failed", stored.campaign.wave);
                tracing::error!(campaign = stored.campaign.name, reason, "a campaign stopped itself");
                self.end_campaign(&stored.campaign, CampaignState::Stopped, "campaign.stop", reason).await
            }
            Decision::Complete => {
                let campaign = &stored.campaign;
                self.end_campaign(campaign, CampaignState::Completed, "campaign.complete", String::new()).await
            }
            _ => Ok(()),
        }
    }

    async fn end_campaign(
        &self,
        campaign: &Campaign,
        to: CampaignState,
        act: &str,
        reason: String,
    ) -> Result<(), FleetError> {
        let now = self.now();
        let entry = campaign_entry(&Self::server_principal(), act, campaign, now).because(&reason);
        let change = CampaignChange { id: campaign.id, seen: campaign.state, to, reason, at: now };
        self.store.change_campaign(change, entry.build()).await?;
        Ok(())
    }

    /// Looks through the next devices that were asked, and writes down what has come of them. Whether something was
    /// written.
    async fn observe_members(&self, campaign: &Campaign) -> Result<bool, FleetError> {
        // Proof goes before everything else: a device that did it and was barred since has done it.
        let proved: BTreeSet<Place> = self.proofs.of(campaign.id, MAX_MEMBERS);
        let open = if proved.len() < MAX_MEMBERS { self.next_open_members(campaign)? } else { Vec::new() };
        let mut ended: Vec<Ended> =
            proved.iter().map(|place| Ended { place: *place, to: MemberState::Done, declined: false }).collect();
        let room = MAX_MEMBERS.saturating_sub(ended.len());
        ended.extend(open.iter().filter(|one| !proved.contains(&one.place)).filter_map(self::ended).take(room));
        if let Some(algorithm) = campaign.algorithm {
            for one in &mut ended {
                self.judge_algorithm(one, algorithm)?;
            }
        }
        if campaign.state == CampaignState::RolledBack {
            // Orders that were withdrawn after they had been fetched stay visible as open: they may still be obeyed.
            ended.retain(|one| one.to != MemberState::Skipped);
        }
        if ended.is_empty() {
            return Ok(false);
        }
        let now = self.now();
        let entry = campaign_entry(&Self::server_principal(), "campaign.answers", campaign, now);
        let counted = self.store.conclude_members(campaign.id, ended, now, entry.build()).await?;
        self.proofs.forget(campaign.id, &proved);
        self.told.forget(campaign.id, &proved);
        Ok(counted > 0)
    }

    /// The next of the devices that were asked; after the last ones the first again.
    fn next_open_members(&self, campaign: &Campaign) -> Result<Vec<OpenMember>, FleetError> {
        let rows = u32::try_from(MAX_MEMBERS).unwrap_or(u32::MAX);
        let place = (campaign.id, campaign.kind);
        let open = self.store.open_members(place, self.observed.after(campaign.id), rows)?;
        let more = open.last().filter(|_| open.len() >= MAX_MEMBERS).map(|last| last.place);
        self.observed.set(campaign.id, more);
        Ok(open)
    }

    /// Of a change of algorithm: done is who has a certificate for such a key. Who rotated without it, because its program is
    /// older, and who declined, because its hardware cannot, has not failed: it keeps what it has, and is listed.
    fn judge_algorithm(&self, one: &mut Ended, algorithm: KeyAlgorithm) -> Result<(), FleetError> {
        let answer = match one.to {
            MemberState::Done => Answer::Rotated,
            MemberState::Failed if one.declined => Answer::Declined,
            MemberState::Failed => Answer::Failed,
            // It is barred, or its order was withdrawn.
            _ => return Ok(()),
        };
        one.to = comes_to(answer, self.newest_algorithm(one.place.device())?, algorithm);
        Ok(())
    }

    /// The algorithm of the newest key that a device is certified for.
    fn newest_algorithm(&self, device: DeviceId) -> Result<Option<KeyAlgorithm>, FleetError> {
        let spki = self.identity_key(device, |_| true)?;
        Ok(spki.and_then(|spki| RequestedKey::from_spki(&spki).ok()).map(|key| key.algorithm))
    }

    /// Why a device is not asked to change its algorithm, where it is not.
    fn keeps_algorithm(&self, device: &Device, algorithm: KeyAlgorithm) -> Result<Option<Keeps>, FleetError> {
        let line = self.find_product_line(&device.product_line.to_string())?;
        let facts = DeviceFacts {
            newest: self.newest_algorithm(device.id)?,
            allowed: line.policy.allowed_algorithms.contains(&algorithm),
            has_device_key: self.store.delivery(device.id)?.is_some_and(|next| next.salt.is_some()),
        };
        Ok(may_ask(&facts, algorithm).err())
    }

    /// Chooses devices: those that match when their page is read. Their order is drawn from the campaign's identifier, so
    /// that the canary is a sample of the fleet, and the same one after a restart.
    async fn choose_members(&self, mut stored: StoredCampaign) -> Result<(), FleetError> {
        for _ in 0..PAGES_PER_TURN {
            let campaign = &stored.campaign;
            let query = self.campaign_query(campaign, stored.chosen_after.clone())?;
            let page = self.store.devices(&query, &Visibility::Fleet)?;
            let devices = page.items.iter().filter(|device| device.state.may_enrol());
            let members: Vec<_> = devices.map(|device| (device.id, slot(campaign.id, device.id))).collect();
            let entry = campaign_entry(&Self::server_principal(), "campaign.choose", campaign, self.now())
                .with("devices", members.len())
                .build();
            let seen = stored.chosen_after.take();
            self.store.choose_members(campaign.id, seen, members, page.next.clone(), entry).await?;
            if page.next.is_none() {
                break;
            }
            stored.chosen_after = page.next;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn begin_wave(&self, campaign: &Campaign) -> Result<(), FleetError> {
        let now = self.now();
        let random = u64::from_be_bytes(kf_crypto::random_array()?);
        let begins = now.plus(checked(campaign.plan)?.delay(random));
        let entry = campaign_entry(&Self::server_principal(), "campaign.wave", campaign, now)
            .with("wave", campaign.wave.saturating_add(1))
            .with("begins", begins.0);
        self.store.begin_wave(campaign.id, campaign.wave, begins, entry.build()).await?;
        Ok(())
    }

    async fn ask_devices(&self, campaign: &Campaign, count: u32) -> Result<(), FleetError> {
        let most = u32::try_from(MAX_MEMBERS).unwrap_or(u32::MAX);
        if self.asks_at_poll(campaign) {
            return self.ask_renewals(campaign, count.min(most)).await;
        }
        let mut releases = Vec::new();
        for device in self.store.waiting_members(campaign.id, count.min(most))? {
            match self.release_of(campaign, device).await {
                Ok(release) => releases.push(release),
                // The signer has its ceiling; the others have their turn in the next minute.
                Err(FleetError::Signer(SignerError::Rate { .. })) => break,
                Err(error) => return Err(error),
            }
        }
        if releases.is_empty() {
            return Ok(());
        }
        self.store.release_members(campaign.id, campaign.wave, releases, self.now()).await?;
        if campaign.kind == CampaignKind::Certificate {
            // A broker may have the devices at hand.
            self.wake.notify_one();
        }
        Ok(())
    }

    /// What is asked of one device. The registry may have changed since it was chosen.
    async fn release_of(&self, campaign: &Campaign, id: DeviceId) -> Result<Release, FleetError> {
        let found = self.store.device(id, &Visibility::Fleet)?;
        let Some(device) = found.filter(|device| device.state.may_enrol()) else {
            return Ok(self.skip_member(campaign, id, "barred"));
        };
        match campaign.kind {
            CampaignKind::DeviceKey => {
                let next = self.store.delivery(id)?.filter(|next| next.salt.is_some());
                let Some(next) = next else { return Ok(self.skip_member(campaign, id, "was never sent a key")) };
                let seen = next.place.device_epoch;
                let entry = self.member_entry("epoch.advance", campaign, &device);
                let entry = entry.with("device_epoch", seen.saturating_add(1)).build();
                Ok(Release::Epoch { device: id, seen, entry })
            }
            CampaignKind::TrustAnchor if self.require_open_root().is_err() => {
                Ok(self.skip_member(campaign, id, "no root takes over from another"))
            }
            CampaignKind::TrustAnchor => {
                let entry = self.member_entry("trust.offer", campaign, &device).build();
                Ok(Release::News { device: id, entry })
            }
            CampaignKind::Storage if !self.signs_statements(id)? => {
                Ok(self.skip_member(campaign, id, "has no identity key of P-256, which signs statements"))
            }
            CampaignKind::Storage => {
                let entry = self.member_entry("storage.offer", campaign, &device).build();
                Ok(Release::News { device: id, entry })
            }
            CampaignKind::Certificate if device.state != DeviceState::Active => {
                Ok(self.skip_member(campaign, id, "has no certificate"))
            }
            CampaignKind::Certificate => {
                if let Some(algorithm) = campaign.algorithm
                    && let Some(why) = self.keeps_algorithm(&device, algorithm)?
                {
                    return Ok(self.skip_member(campaign, id, &why.to_string()));
                }
                let signed = self.signed_order(&device, OrderAct::Rotate, ORDER_HOURS, &campaign.why).await?;
                let (order, message) = signed;
                let entry = self.member_entry("order.create", campaign, &device).about(order.id);
                let entry = entry.with("act", order.act.name()).with("counter", order.counter).build();
                Ok(Release::Order { order, message, entry })
            }
        }
    }

    fn member_entry(&self, act: &str, campaign: &Campaign, device: &Device) -> Entry {
        Entry::done(&Self::server_principal(), act, self.now())
            .about(device.id)
            .about(campaign.id)
            .at_facility(Some(device.facility))
            .because(&campaign.why)
            .with("wave", campaign.wave)
    }

    pub(super) fn skip_member(&self, campaign: &Campaign, device: DeviceId, why: &str) -> Release {
        let entry = campaign_entry(&Self::server_principal(), "campaign.skip", campaign, self.now());
        Release::Skip { device, entry: entry.about(device).because(why).build() }
    }

    /// Withdraws what a campaign that was given up has left open. A device that has fetched its order may still obey.
    async fn withdraw_campaign_orders(&self, campaign: &Campaign) -> Result<(), FleetError> {
        let orders = self.store.open_campaign_orders(campaign.id, ORDERS_PER_TURN)?;
        let who = Self::server_principal();
        for order in &orders {
            let entry = campaign_entry(&who, "order.cancel", campaign, self.now()).about(*order);
            match self.store.cancel_order(*order, self.now(), entry.build()).await {
                // It was answered in between.
                Ok(_) | Err(kf_store::StoreError::IllegalState { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if orders.is_empty() {
            let entry = campaign_entry(&who, "campaign.settle", campaign, self.now());
            self.store.settle_campaign(campaign.id, entry.build()).await?;
        }
        Ok(())
    }
}

/// What has come of a device that was asked. Proof goes before everything else: a device that did it and was barred since has
/// done it.
fn ended(open: &OpenMember) -> Option<Ended> {
    let to = match open.evidence {
        Evidence::HoldsKey | Evidence::TrustsRoot | Evidence::MovedStorage | Evidence::Order(OrderState::Done) => {
            MemberState::Done
        }
        Evidence::Order(OrderState::Failed | OrderState::Declined) => MemberState::Failed,
        Evidence::Order(OrderState::Cancelled) => MemberState::Skipped,
        Evidence::None | Evidence::Order(OrderState::Open) if !open.state.may_enrol() => MemberState::Skipped,
        Evidence::None | Evidence::Order(OrderState::Open) => return None,
    };
    let declined = open.evidence == Evidence::Order(OrderState::Declined);
    Some(Ended { place: open.place, to, declined })
}

/// The place of a device in the order of release: as good as random, and always the same.
fn slot(campaign: CampaignId, device: DeviceId) -> u64 {
    let digest = kf_crypto::sha256(&[campaign.as_bytes().as_slice(), device.as_bytes()].concat());
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1
}
