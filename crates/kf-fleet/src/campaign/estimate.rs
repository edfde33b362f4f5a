//! What a campaign would take: in all, and as load over time.

use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_api::campaign::{Campaign, CampaignEstimate, CampaignForecast, CampaignKind, CampaignLoad, LoadPoint};
use kf_crypto::PrivateKey;
use kf_key::{CampaignState, KeyAlgorithm, UnixMillis};
use kf_rotation::campaign::load::{Load, Weight, load};
use kf_rotation::campaign::{Plan, estimate};
use tokio::time::Instant;

use super::checked;
use crate::{Fleet, FleetError};

/// How soon a device asks for news, in the estimate: the agent's default for its device key.
const ANSWER_SECONDS: u64 = 86_400;
/// Requests of one device: hello, proof and acknowledgement.
const KEY_REQUESTS: u32 = 3;
/// Requests of one device that is ordered: the order, its receipt, the enrolment, the proof of the new certificate, the outcome,
/// and an exchange.
const ORDER_REQUESTS: u32 = 5 + KEY_REQUESTS;
/// Requests of one device that is asked by a word: the poll that tells it, the enrolment, the proof of the new certificate, an
/// exchange, and the poll that is counted.
const RENEWAL_REQUESTS: u32 = 4 + KEY_REQUESTS;
/// Requests of one device: the poll that tells it, the CA certificates, and the poll that proves.
const TRUST_REQUESTS: u32 = 3;
/// Requests of one device: the poll that tells it, and its statement.
const STORAGE_REQUESTS: u32 = 2;
/// A device that was not heard of for so long counts as asleep in an estimate.
const ASLEEP: u64 = 30 * UnixMillis::DAY;
/// Signatures that are made to measure what one core bears.
const MEASURED: u32 = 32;

impl Fleet {
    /// What one device brings, with a program of today. A connection is one signature of the server's TLS key.
    fn weight(&self, campaign: &Campaign) -> Weight {
        match campaign.kind {
            // One connection, and the exchange.
            CampaignKind::DeviceKey => Weight { requests: KEY_REQUESTS, signatures_to_ask: 0, signatures_to_answer: 2 },
            // Three connections, the certificate and the exchange.
            CampaignKind::Certificate if self.asks_at_poll(campaign) => {
                Weight { requests: RENEWAL_REQUESTS, signatures_to_ask: 0, signatures_to_answer: 5 }
            }
            // The order beside them.
            CampaignKind::Certificate => {
                Weight { requests: ORDER_REQUESTS, signatures_to_ask: 1, signatures_to_answer: 5 }
            }
            // Two connections.
            CampaignKind::Storage => {
                Weight { requests: STORAGE_REQUESTS, signatures_to_ask: 0, signatures_to_answer: 2 }
            }
            // Three connections.
            CampaignKind::TrustAnchor => {
                Weight { requests: TRUST_REQUESTS, signatures_to_ask: 0, signatures_to_answer: 3 }
            }
        }
    }

    /// What a campaign would take from here on: a draft with the devices that match now, one that has begun with those whose
    /// turn has not come.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn campaign_estimate(&self, who: &Principal, campaign: &str) -> Result<CampaignForecast, FleetError> {
        let permit = authorize(who, Action::CampaignRead, Target::Visible)?;
        let campaign = self.find_campaign(campaign, permit.visibility())?.campaign;
        let plan = checked(campaign.plan)?;
        let estimate = match campaign.state {
            CampaignState::Draft => self.estimate_of(&campaign, &plan).await?,
            _ => {
                let since = self.now().minus(ASLEEP);
                let (devices, asleep) = self.store.waiting_and_asleep(campaign.id, since)?;
                estimated(&self.weight(&campaign), &plan, devices, asleep)
            }
        };
        let load = self.load_of(&campaign, &plan, &estimate)?;
        Ok(CampaignForecast { estimate, load })
    }

    /// Counts the devices that match now, page by page, and says what they would take.
    pub(super) async fn estimate_of(&self, campaign: &Campaign, plan: &Plan) -> Result<CampaignEstimate, FleetError> {
        let now = self.now();
        let (mut devices, mut asleep, mut after) = (0, 0, None);
        loop {
            let page = self.store.devices(&self.campaign_query(campaign, after)?, &Visibility::Fleet)?;
            for device in page.items.iter().filter(|device| device.state.may_enrol()) {
                devices += 1;
                asleep += u64::from(device.last_seen.is_none_or(|seen| now.since(seen) > ASLEEP));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
            // Others have their turn: a large fleet has many pages.
            tokio::task::yield_now().await;
        }
        Ok(estimated(&self.weight(campaign), plan, devices, asleep))
    }

    /// The load over time, against what is configured or what this machine bears just now.
    pub(super) fn load_of(
        &self,
        campaign: &Campaign,
        plan: &Plan,
        estimate: &CampaignEstimate,
    ) -> Result<CampaignLoad, FleetError> {
        let found: Load = load(plan, estimate.devices, estimate.asleep, &self.weight(campaign), ANSWER_SECONDS);
        let capacity_requests_per_second = self.config.campaign_requests_per_second.map(f64::from);
        let (signatures, from) = match self.config.campaign_signatures_per_second {
            Some(configured) => (f64::from(configured), "configured"),
            None => (measured_signatures()?, "measured"),
        };
        let fits = found.pushed_signatures_per_second <= signatures
            && capacity_requests_per_second.is_none_or(|most| found.pushed_requests_per_second <= most);
        Ok(CampaignLoad {
            peak_requests_per_second: millionths(found.peak_requests_per_second),
            peak_signatures_per_second: millionths(found.peak_signatures_per_second),
            pushed_requests_per_second: millionths(found.pushed_requests_per_second),
            pushed_signatures_per_second: millionths(found.pushed_signatures_per_second),
            capacity_requests_per_second,
            capacity_signatures_per_second: signatures.round(),
            capacity_from: from.to_owned(),
            fits,
            waits_at_gate: found.waits_at_gate,
            points: found
                .points
                .into_iter()
                .map(|point| LoadPoint {
                    from_seconds: point.from_seconds,
                    seconds: point.seconds,
                    wave: point.wave,
                    requests_per_second: millionths(point.requests_per_second),
                    signatures_per_second: millionths(point.signatures_per_second),
                })
                .collect(),
        })
    }
}

fn estimated(weight: &Weight, plan: &Plan, devices: u64, asleep: u64) -> CampaignEstimate {
    let requests = u64::from(weight.requests);
    let found = estimate(plan, devices, ANSWER_SECONDS);
    CampaignEstimate {
        devices,
        asleep,
        waves: found.waves,
        peak_per_minute: found.peak_per_minute,
        peak_requests_per_minute: found.peak_per_minute.saturating_mul(requests),
        requests: devices.saturating_mul(requests),
        expected_seconds: found.expected_seconds,
        longest_seconds: found.longest_seconds,
    }
}

/// Signatures that one core makes in a second, with a key that is made for it and thrown away.
fn measured_signatures() -> Result<f64, FleetError> {
    let key = PrivateKey::generate(KeyAlgorithm::P256)?;
    let begin = Instant::now();
    for number in 0..MEASURED {
        key.sign(&number.to_be_bytes())?;
    }
    Ok(f64::from(MEASURED) / begin.elapsed().as_secs_f64().max(1e-9))
}

/// Nobody reads more decimals, and a script gets the same ones each time.
fn millionths(number: f64) -> f64 {
    (number * 1_000_000.0).round() / 1_000_000.0
}
