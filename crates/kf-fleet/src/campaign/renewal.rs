//! New certificates that a campaign asks for by a word beside the answer to a poll. The renewal is the answer; that the device
//! asks with the new certificate is the proof. Who does not know the word gets an order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kf_access::Visibility;
use kf_api::campaign::{Campaign, CampaignKind};
use kf_api::device::Device;
use kf_api::order::OrderAct;
use kf_key::{CampaignId, CampaignState, DeviceState};
use kf_signer::SignerError;
use kf_store::campaign::{AskedPart, Place};

use super::campaign_entry;
use super::turn::ORDER_HOURS;
use crate::entry::Entry;
use crate::news::Proved;
use crate::{Fleet, FleetError};

/// Devices that are asked in one transaction with one log entry, which names them: short, so that whoever waits for the writer
/// meanwhile hardly feels it.
const ASKED_AT_ONCE: usize = 200;
/// Proofs that wait to be counted. Those beyond it are proved again when the device asks the next time.
const MAX_PROOFS: usize = 65_536;

/// Devices that have shown a certificate that a campaign asked for, and are not counted yet. In memory: every later poll of the
/// device proves it again.
#[derive(Default)]
pub(crate) struct Proofs(Mutex<BTreeMap<CampaignId, BTreeSet<Place>>>);

impl Proofs {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<CampaignId, BTreeSet<Place>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, campaign: CampaignId, device: Place) {
        let mut proofs = self.locked();
        if proofs.values().map(BTreeSet::len).sum::<usize>() < MAX_PROOFS {
            proofs.entry(campaign).or_default().insert(device);
        }
    }

    /// The next ones, in the order in which they were asked: what is written of them lies together.
    pub(super) fn of(&self, campaign: CampaignId, most: usize) -> BTreeSet<Place> {
        self.locked().get(&campaign).into_iter().flatten().take(most).copied().collect()
    }

    /// They are counted, or not asked any more.
    pub(super) fn forget(&self, campaign: CampaignId, devices: &BTreeSet<Place>) {
        let mut proofs = self.locked();
        let Some(of_campaign) = proofs.get_mut(&campaign) else { return };
        for device in devices {
            of_campaign.remove(device);
        }
        if of_campaign.is_empty() {
            proofs.remove(&campaign);
        }
    }
}

/// How a device that polls is asked to renew.
#[derive(Default)]
pub(crate) struct AskedToRenew {
    /// The campaign that it is told of.
    pub(crate) told_by: Option<CampaignId>,
    /// It was given an order.
    pub(crate) is_ordered: bool,
}

/// Whether a campaign asks by a word. An order is for changes of algorithm, which a device may decline by its signature.
const fn asks_by_word(campaign: &Campaign) -> bool {
    matches!((campaign.kind, campaign.algorithm), (CampaignKind::Certificate, None))
}

impl Fleet {
    /// Whether devices of this campaign are asked when they poll. Through a broker an order reaches them at once, and there it has
    /// to be signed: the broker stands in between.
    pub(super) fn asks_at_poll(&self, campaign: &Campaign) -> bool {
        asks_by_word(campaign) && self.attached_brokers().is_empty()
    }

    /// Takes the next devices into the wave. Nothing is signed for them.
    pub(super) async fn ask_renewals(&self, campaign: &Campaign, count: u32) -> Result<(), FleetError> {
        let waiting = self.store.waiting_states(campaign.id, count)?;
        let (able, others): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, state)| *state == Some(DeviceState::Active));
        for devices in able.chunks(ASKED_AT_ONCE) {
            let devices: Vec<Place> = devices.iter().map(|(place, _)| *place).collect();
            let named: Vec<String> = devices.iter().map(|place| place.device().to_string()).collect();
            let entry = campaign_entry(&Self::server_principal(), "campaign.ask", campaign, self.now())
                .because(&campaign.why)
                .with("wave", campaign.wave)
                .with("devices", named.join(" "));
            self.store.ask_renewals(campaign.id, campaign.wave, devices, self.now(), entry.build()).await?;
        }
        let skip = |(place, state): (Place, Option<DeviceState>)| {
            let is_known = state.is_some_and(DeviceState::may_enrol);
            self.skip_member(campaign, place.device(), if is_known { "has no certificate" } else { "barred" })
        };
        let skipped: Vec<_> = others.into_iter().map(skip).collect();
        if !skipped.is_empty() {
            self.store.release_members(campaign.id, campaign.wave, skipped, self.now()).await?;
        }
        Ok(())
    }

    /// The campaign that asks a device for a new certificate, where it is to be told. What it has proved is noted on the way.
    pub(crate) async fn renewal_of(
        &self,
        proved: &Proved,
        asked: &[AskedPart],
        is_aware: bool,
    ) -> Result<AskedToRenew, FleetError> {
        let device = &proved.device;
        let mut asking = None;
        for part in asked.iter().filter(|part| part.is_by_word) {
            if part.is_answered {
                self.proofs.note(part.campaign, part.place);
            } else if part.state == CampaignState::Running && asking.is_none() {
                asking = Some(part);
            }
        }
        let Some(part) = asking.filter(|_| device.state.may_enrol()) else { return Ok(AskedToRenew::default()) };
        if !is_aware {
            return Ok(AskedToRenew { told_by: None, is_ordered: self.order_renewal(part.campaign, device).await? });
        }
        let is_told = part.is_told || self.tell(part.campaign, device.id).await?;
        Ok(AskedToRenew { told_by: is_told.then_some(part.campaign), is_ordered: false })
    }

    /// Gives a device whose program does not know the word an order instead; whether it did.
    async fn order_renewal(&self, campaign: CampaignId, device: &Device) -> Result<bool, FleetError> {
        let Some(stored) = self.store.campaign(campaign, &Visibility::Fleet)? else { return Ok(false) };
        let why = &stored.campaign.why;
        let (order, message) = match self.signed_order(device, OrderAct::Rotate, ORDER_HOURS, why).await {
            Ok(signed) => signed,
            // The signer has its ceiling; the device is asked when it polls the next time.
            Err(FleetError::Signer(SignerError::Rate { .. })) => return Ok(false),
            Err(error) => return Err(error),
        };
        let entry = Entry::done(&Self::server_principal(), "order.create", self.now())
            .about(order.id)
            .about(device.id)
            .about(campaign)
            .at_facility(Some(device.facility))
            .because(why)
            .with("act", order.act.name())
            .with("counter", order.counter);
        Ok(self.store.order_renewal(campaign, order, message, entry.build()).await?)
    }
}
