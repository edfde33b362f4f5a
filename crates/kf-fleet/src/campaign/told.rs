//! Which devices were told to renew, or of a new root. A device that was told may act whatever becomes of the campaign, and a roll back must know it;
//! a commit for each of them would cost a third of what asking them costs. So the registry says, before the first of them is told,
//! that devices are being told; who they were follows with the next turn of the background work, for all of them in one commit.
//! A server that is cut off in between takes everybody who was asked for one that was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kf_key::{CampaignId, DeviceId};
use kf_store::campaign::{MAX_MEMBERS, Place};

use crate::{Fleet, FleetError};

/// Devices that were told and are not written down. Those beyond it are told when they ask the next time.
const MAX_TOLD: usize = 65_536;
/// How often a poll tries to begin a round before it leaves the device to its next poll: each attempt was overtaken by the end of
/// a round.
const ATTEMPTS: usize = 4;

/// Of all campaigns, in memory.
#[derive(Default)]
pub(crate) struct Told {
    rounds: Mutex<BTreeMap<CampaignId, Round>>,
    /// Held by whoever writes down what was told.
    writing: tokio::sync::Mutex<()>,
}

/// A round of telling.
#[derive(Default)]
struct Round {
    /// Its number in this life of the process.
    mark: i64,
    /// Whether the registry says that devices are being told in it.
    is_noted: bool,
    /// The last round of which the registry said so.
    last_noted: i64,
    /// Whether that round has ended and is not written down.
    is_unwritten: bool,
    /// Whether the campaign tells nobody any more: it is being taken back.
    is_over: bool,
    /// Devices that were told in it.
    devices: BTreeSet<DeviceId>,
    /// Those of the round before, as long as they are not written down.
    before: BTreeSet<DeviceId>,
}

/// What came of an attempt to tell a device.
enum Attempt {
    Told,
    /// It is not told now.
    Refused,
    /// The registry has to say first that devices are being told, in this round.
    Unnoted(i64),
}

impl Told {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<CampaignId, Round>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a device as told. `noted`: the round of which the registry says so by now.
    fn tell(&self, campaign: CampaignId, device: DeviceId, noted: Option<i64>) -> Attempt {
        let mut rounds = self.locked();
        let is_full = rounds.values().map(|round| round.devices.len()).sum::<usize>() >= MAX_TOLD;
        let round = rounds.entry(campaign).or_default();
        if noted == Some(round.mark) {
            round.is_noted = true;
            round.last_noted = round.mark;
        }
        match round {
            Round { is_over: true, .. } => Attempt::Refused,
            Round { is_noted: false, mark, .. } => Attempt::Unnoted(*mark),
            _ if is_full => Attempt::Refused,
            round => {
                round.devices.insert(device);
                Attempt::Told
            }
        }
    }

    /// Ends the round under way: the number of the one to be written down, and its devices. Nothing where there is none.
    fn end(&self, campaign: CampaignId) -> Option<(i64, Vec<DeviceId>)> {
        let mut rounds = self.locked();
        let round = rounds.get_mut(&campaign).filter(|round| round.is_noted || round.is_unwritten)?;
        if round.is_noted {
            round.mark = round.mark.wrapping_add(1);
        }
        round.is_noted = false;
        round.is_unwritten = true;
        let mut devices = std::mem::take(&mut round.devices);
        round.before.append(&mut devices);
        Some((round.last_noted, round.before.iter().copied().collect()))
    }

    /// What was ended is written down.
    fn written(&self, campaign: CampaignId) {
        if let Some(round) = self.locked().get_mut(&campaign) {
            round.before.clear();
            round.is_unwritten = false;
        }
    }

    /// Devices that have done what they were told: that they were told says nothing more.
    pub(super) fn forget(&self, campaign: CampaignId, done: &BTreeSet<Place>) {
        if let Some(round) = self.locked().get_mut(&campaign) {
            for place in done {
                round.devices.remove(&place.device());
            }
        }
    }

    fn campaigns(&self) -> Vec<CampaignId> {
        let is_open = |round: &Round| round.is_noted || round.is_unwritten;
        self.locked().iter().filter(|(_, round)| is_open(round)).map(|(campaign, _)| *campaign).collect()
    }

    /// Nobody is told by this campaign any more.
    pub(super) fn close(&self, campaign: CampaignId) {
        self.locked().entry(campaign).or_default().is_over = true;
    }
}

impl Fleet {
    /// Whether a device may be told now, and is noted as told when it may.
    pub(crate) async fn tell(&self, campaign: CampaignId, device: DeviceId) -> Result<bool, FleetError> {
        let mut noted = None;
        for _ in 0..ATTEMPTS {
            match self.told.tell(campaign, device, noted) {
                Attempt::Told => return Ok(true),
                Attempt::Refused => return Ok(false),
                Attempt::Unnoted(mark) if self.store.begin_telling(campaign, mark).await? => noted = Some(mark),
                Attempt::Unnoted(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Writes down which devices of a campaign were told.
    pub(super) async fn write_told(&self, campaign: CampaignId) -> Result<(), FleetError> {
        let _alone = self.told.writing.lock().await;
        let Some((mark, devices)) = self.told.end(campaign) else { return Ok(()) };
        let now = self.now();
        let (rest, last) = devices.split_at(devices.len().saturating_sub(1) / MAX_MEMBERS * MAX_MEMBERS);
        for some in rest.chunks(MAX_MEMBERS) {
            self.store.note_all_told(campaign, None, some.to_vec(), now).await?;
        }
        self.store.note_all_told(campaign, Some(mark), last.to_vec(), now).await?;
        self.told.written(campaign);
        Ok(())
    }

    /// The same of every campaign.
    pub(crate) async fn write_all_told(&self) -> Result<(), FleetError> {
        for campaign in self.told.campaigns() {
            self.write_told(campaign).await?;
        }
        Ok(())
    }
}
