//! Renewals that a campaign asks for, beside the same renewals without one; and what an operator feels of it meanwhile.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kf_api::campaign::{
    CampaignAct, CampaignActRequest, CampaignFilter, CampaignKind, CampaignPlan, MemberFilter, NewCampaign,
};
use kf_crypto::PrivateKey;
use kf_exchange::P256IdentityKey;
use kf_exchange::order::{OrderAct, OrderOutcome, OrderReport};
use kf_fleet::{ClientCertificate, Clock, EnrolOutcome, EstLabel, Fleet, Knows, SystemClock, TlsClient};
use kf_key::{CampaignState, DeviceId, MemberState, UnixMillis};
use kf_pki::request::make_request;
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, cpu_time, micros, waited_for_processor};
use crate::scratch_fleet::{FACILITY, IN_FLIGHT, ScratchFleet, fleet_error, in_flight, issue_request};
use crate::trivial_server::runtime;

/// Renewals in a campaign; a quick effort makes a twentieth.
const RENEWALS: u32 = 100_000;
/// Devices whose programs know orders only, as a part of those.
const OLDER: u32 = 10;
/// Devices that are asked within a minute, the most that a plan allows.
const PER_MINUTE: u32 = 60_000;
/// Renewals between two turns of the background work, where nobody asks for them.
const PER_TURN: usize = 1_000;
/// What an operator does while the campaign goes on: so many look-ups at least, one every so often. After each slice in which devices
/// come follow as many look-ups in which none does, so that both are of the same minute of the machine.
const LOOK_UPS: usize = 2_000;
const LOOK_UPS_QUICK: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(3);
/// Devices that come within a minute while an operator looks up, in groups of a few: all that a plan lets be asked, and fewer of a
/// quick effort, which is made to be run without optimisation.
const ARRIVE_PER_MINUTE: u32 = 60_000;
const ARRIVE_PER_MINUTE_QUICK: u32 = 12_000;
const ARRIVE_TOGETHER: u64 = 4;

/// The system's clock, which can be put forward: a plan's minutes need not be waited for.
#[derive(Debug, Default)]
pub(crate) struct SteppedClock(AtomicU64);

impl Clock for SteppedClock {
    fn now(&self) -> UnixMillis {
        SystemClock.now().plus(self.0.load(Ordering::Relaxed))
    }
}

impl SteppedClock {
    fn pass(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

/// A device with everything that it would compute itself already computed.
struct Renewing {
    id: DeviceId,
    certificate: ClientCertificate,
    /// The request for its next certificate.
    request: Vec<u8>,
    /// Its answer to its first order, signed with the next key.
    report: Vec<u8>,
}

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = &runtime()?;
    let count = RENEWALS.min(effort.large / 10);
    let clock = Arc::new(SteppedClock::default());
    let scratch = ScratchFleet::with_clock(runtime, Arc::<SteppedClock>::clone(&clock))?;
    let is_full = effort.large >= 10 * RENEWALS;
    let per_minute = if is_full { ARRIVE_PER_MINUTE } else { ARRIVE_PER_MINUTE_QUICK };
    let look_ups = if is_full { LOOK_UPS } else { LOOK_UPS_QUICK };
    let place = Place { scratch: &scratch, runtime, clock: &clock, per_minute, look_ups };
    let bare = in_no_order(place.devices("bare", count)?);
    let asked = place.devices("asked", count)?;
    let older = place.devices("older", count / OLDER)?;

    let by_order = place.campaign("older", older, false)?;
    // Half of them before and half after what is held against them: a machine that becomes slower meanwhile is slower for both.
    let (before, after) = halves(bare);
    let before = place.renew_bare(before)?;
    let by_word = place.campaign("asked", asked, true)?;
    let bare = f64::midpoint(before, place.renew_bare(after)?);
    let (idle, busy) = (Percentiles::of(&by_word.idle)?, Percentiles::of(&by_word.busy)?);
    Ok(vec![
        Figure::value(format!("renewal, {count} of them in no order"), micros(bare), "us CPU", Aim::None),
        Figure::ratio(
            format!("renewal by a campaign, {count} of them"),
            micros(by_word.seconds),
            "us CPU",
            by_word.seconds / bare,
            "renewal",
            Aim::AtMost(1.2),
        )
        .with_note("chosen, asked at its poll, renewed, proved at its next poll, counted, all in the log"),
        Figure::ratio(
            "the same of a device that knows orders only",
            micros(by_order.seconds),
            "us CPU",
            by_order.seconds / bare,
            "renewal",
            Aim::None,
        )
        .with_note("order signed and fetched, renewed, answer verified"),
        Figure::value("an operator's look-up, idle, 99th percentile", micros(idle.whole), "us", Aim::None).with_note(
            format!("median {:.0}; without waiting for a processor {:.0}", micros(idle.median), micros(idle.own)),
        ),
        Figure::ratio(
            format!("the same beside a campaign, devices coming at {per_minute} a minute"),
            micros(busy.whole),
            "us",
            busy.whole / idle.whole,
            "idle",
            Aim::AtMost(2.0),
        )
        .with_note(format!("median {:.0}, of {} look-ups", micros(busy.median), by_word.busy.len())),
        Figure::ratio(
            "of it, without waiting for a processor",
            micros(busy.own),
            "us",
            busy.own / idle.own,
            "idle",
            Aim::AtMost(2.0),
        ),
    ])
}

/// Where it happens.
struct Place<'a> {
    scratch: &'a ScratchFleet,
    runtime: &'a Runtime,
    clock: &'a SteppedClock,
    /// Devices that come within a minute while an operator looks up.
    per_minute: u32,
    /// Look-ups beside them.
    look_ups: usize,
}

/// What one look-up took.
#[derive(Clone, Copy)]
struct LookUp {
    /// Seconds.
    whole: f64,
    /// Seconds of it in which it was ready to run and no processor was free.
    waited: f64,
}

/// Of look-ups, seconds.
struct Percentiles {
    median: f64,
    /// The 99th percentile.
    whole: f64,
    /// The 99th percentile of what they took without waiting for a processor.
    own: f64,
}

impl Percentiles {
    fn of(look_ups: &[LookUp]) -> Result<Self, BenchError> {
        let at = |hundredths: usize, of: fn(&LookUp) -> f64| {
            let mut sorted: Vec<f64> = look_ups.iter().map(of).collect();
            sorted.sort_by(f64::total_cmp);
            let found = sorted.get(sorted.len() * hundredths / 100).copied();
            found.ok_or_else(|| BenchError::Failed { what: "look-ups", why: "none were made".to_owned() })
        };
        Ok(Self {
            median: at(50, |one| one.whole)?,
            whole: at(99, |one| one.whole)?,
            own: at(99, |one| one.whole - one.waited)?,
        })
    }
}

/// What a campaign took.
struct Took {
    /// CPU seconds of one renewal, where no operator looked anything up meanwhile.
    seconds: f64,
    /// Look-ups while devices came.
    busy: Vec<LookUp>,
    /// Look-ups between those.
    idle: Vec<LookUp>,
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Renews; the certificates that came.
async fn renew(fleet: &Fleet, device: &Renewing) -> Result<Vec<Vec<u8>>, BenchError> {
    let client = TlsClient::with_certificate(&device.certificate, HERE);
    match fleet.est_simple_reenroll(EstLabel::None, client, &device.request).await.map_err(fleet_error)? {
        EnrolOutcome::Issued(chain) => Ok(chain),
        EnrolOutcome::Waiting { .. } => {
            Err(BenchError::Failed { what: "a renewal", why: "it waits for a person".to_owned() })
        }
    }
}

const BY_WORD: Knows<'_> = Knows { reset: false, renewal: true, storage: false, order_key: None, roots: None };

/// Polls, and renews when it is asked; the certificates that came.
async fn obey_word(fleet: &Fleet, device: &Renewing) -> Result<Vec<Vec<u8>>, BenchError> {
    let client = TlsClient::with_certificate(&device.certificate, HERE);
    let news = fleet.device_news(client, BY_WORD).await.map_err(fleet_error)?;
    news.renewal.ok_or_else(|| BenchError::Failed { what: "a question", why: "there is none".to_owned() })?;
    renew(fleet, device).await
}

/// Fetches its order, renews, answers.
async fn obey_order(fleet: &Fleet, device: &Renewing) -> Result<Vec<Vec<u8>>, BenchError> {
    let client = TlsClient::with_certificate(&device.certificate, HERE);
    let order = fleet.device_news(client, Knows::default()).await.map_err(fleet_error)?.order;
    order.ok_or_else(|| BenchError::Failed { what: "an order", why: "there is none".to_owned() })?;
    let chain = renew(fleet, device).await?;
    fleet.device_order_outcome(&device.report).await.map_err(fleet_error)?;
    Ok(chain)
}

/// A certificate as the handshake hands it on.
fn verified(fleet: &Fleet, chain: &[Vec<u8>]) -> Result<ClientCertificate, BenchError> {
    let (leaf, above) =
        chain.split_first().ok_or(BenchError::Failed { what: "a chain", why: "is empty".to_owned() })?;
    let above: Vec<&[u8]> = above.iter().map(Vec::as_slice).collect();
    fleet.verify_client_path(leaf, &above).map_err(fleet_error)
}

impl Place<'_> {
    /// Devices with a certificate each.
    fn devices(&self, prefix: &str, count: u32) -> Result<Vec<Renewing>, BenchError> {
        let names = self.scratch.register(self.runtime, prefix, count)?;
        let (fleet, owner) = (Arc::clone(&self.scratch.fleet), self.scratch.owner.clone());
        self.runtime.block_on(in_flight(IN_FLIGHT, names, move |name| {
            let (fleet, owner) = (Arc::clone(&fleet), owner.clone());
            async move {
                let request = issue_request(&name)?;
                let issued = fleet.certificate_issue(&owner, request).await.map_err(fleet_error)?;
                let id = issued
                    .certificate
                    .device
                    .ok_or_else(|| BenchError::Failed { what: "a certificate", why: "of no device".to_owned() })?;
                let read = |pem: &str| kf_pki::pem::decode_all("CERTIFICATE", pem).unwrap_or_default();
                let certificate = verified(&fleet, &[read(&issued.pem), read(&issued.chain_pem)].concat())?;
                let scalar = kf_crypto::random_secret().map_err(BenchError::failed("a device's key"))?;
                let next = PrivateKey::p256_from_scalar(&scalar).map_err(BenchError::failed("a device's key"))?;
                let signer = P256IdentityKey::from_secret(&scalar).map_err(BenchError::failed("a device's key"))?;
                let report = OrderReport {
                    act: OrderAct::Rotate,
                    device: id,
                    counter: 1,
                    outcome: OrderOutcome::Done,
                    at: fleet.clock().now(),
                };
                let report = report.sign(&signer).map_err(BenchError::failed("an answer"))?.as_bytes().to_vec();
                let request = make_request(&next, "").map_err(BenchError::failed("a request"))?;
                Ok(Renewing { id, certificate, request, report })
            }
        }))
    }

    /// CPU seconds of one renewal that nobody asked for, with its part of the background work.
    fn renew_bare(&self, devices: Vec<Renewing>) -> Result<f64, BenchError> {
        let count = devices.len();
        let mut devices = devices.into_iter();
        let before = cpu_time();
        loop {
            let some: Vec<Renewing> = devices.by_ref().take(PER_TURN).collect();
            if some.is_empty() {
                break;
            }
            let fleet = Arc::clone(&self.scratch.fleet);
            let renewals = in_flight(IN_FLIGHT, some, move |device| {
                let fleet = Arc::clone(&fleet);
                async move { renew(&fleet, &device).await }
            });
            let _renewed = self.runtime.block_on(renewals)?;
            self.clock.pass(UnixMillis::SECOND);
            self.runtime.block_on(self.scratch.fleet.turn());
        }
        Ok((cpu_time() - before).as_secs_f64() / measured(count))
    }

    fn start(&self, name: &str) -> Result<(), BenchError> {
        let plan = CampaignPlan {
            canary: 1,
            wave: 1_000_000,
            per_minute: PER_MINUTE,
            jitter_seconds: 0,
            soak_seconds: 0,
            patience_seconds: 86_400,
            max_failed_percent: 0,
            min_done_percent: 0,
        };
        let filter = CampaignFilter {
            facility: Some(FACILITY.to_owned()),
            name_prefix: Some(format!("{name}-")),
            ..CampaignFilter::default()
        };
        let new = NewCampaign {
            name: name.to_owned(),
            kind: CampaignKind::Certificate,
            filter,
            plan,
            algorithm: None,
            why: "measured".to_owned(),
            dry_run: false,
        };
        let scratch = self.scratch;
        self.runtime.block_on(async {
            scratch.fleet.campaign_create(&scratch.owner, new).await.map_err(fleet_error)?;
            let act = CampaignActRequest {
                act: CampaignAct::Start,
                allow_empty: false,
                why: "measured".to_owned(),
                dry_run: false,
            };
            scratch.fleet.campaign_act(&scratch.owner, name, act).await.map_err(fleet_error)?;
            // One person alone waits a day.
            self.clock.pass(UnixMillis::DAY + UnixMillis::SECOND);
            scratch.fleet.turn().await;
            Ok(())
        })
    }

    /// A campaign from its first turn to its last. `by_word`: the devices know what they are asked at their polls, and an
    /// operator looks things up while the first of them come at the pace of the plan.
    fn campaign(&self, name: &str, devices: Vec<Renewing>, by_word: bool) -> Result<Took, BenchError> {
        self.start(name)?;
        let count = devices.len();
        let mut waiting: BTreeMap<DeviceId, Renewing> = devices.into_iter().map(|device| (device.id, device)).collect();
        let (mut turns, mut acts, mut beside) = (Duration::ZERO, Duration::ZERO, 0);
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        loop {
            self.clock.pass(UnixMillis::SECOND);
            let before = cpu_time();
            self.runtime.block_on(self.scratch.fleet.turn());
            turns += cpu_time() - before;
            // Who was asked is learnt outside of what is measured: the devices poll anyway.
            let offered = self.runtime.block_on(self.offered(name))?;
            let asked: Vec<Renewing> = offered.iter().filter_map(|device| waiting.remove(device)).collect();
            let is_looked_at = by_word && !asked.is_empty() && busy.len() < self.look_ups;
            beside += if is_looked_at { asked.len() } else { 0 };
            let before = cpu_time();
            let pace = is_looked_at.then(|| Duration::from_secs(60 * ARRIVE_TOGETHER) / self.per_minute);
            let acting = self.runtime.spawn(act(Arc::clone(&self.scratch.fleet), asked, by_word, pace));
            if is_looked_at {
                busy.extend(self.look_ups(|_| !acting.is_finished())?);
            }
            let chains = self.runtime.block_on(acting).map_err(BenchError::failed("a task"))??;
            let acted = cpu_time() - before;
            let renewed: Vec<ClientCertificate> =
                chains.iter().map(|chain| verified(&self.scratch.fleet, chain)).collect::<Result<_, _>>()?;
            let before = cpu_time();
            if by_word {
                self.runtime.block_on(prove(Arc::clone(&self.scratch.fleet), renewed))?;
            }
            if !is_looked_at {
                acts += acted + (cpu_time() - before);
            }
            if is_looked_at {
                let more = busy.len().saturating_sub(idle.len());
                idle.extend(self.look_ups(|made| made < more)?);
            }
            let status = self.scratch.fleet.campaign_show(&self.scratch.owner, name);
            let status = self.runtime.block_on(status).map_err(fleet_error)?;
            match status.campaign.state {
                CampaignState::Completed if waiting.is_empty() => break,
                CampaignState::Running => {}
                other => {
                    return Err(BenchError::Failed { what: "the campaign", why: format!("{other:?}: {status:?}") });
                }
            }
        }
        let acts = acts.as_secs_f64() / measured(count.saturating_sub(beside));
        Ok(Took { seconds: turns.as_secs_f64() / measured(count) + acts, busy, idle })
    }

    async fn offered(&self, name: &str) -> Result<Vec<DeviceId>, BenchError> {
        let mut devices = Vec::new();
        let mut after = None;
        loop {
            let filter = MemberFilter { state: Some(MemberState::Offered), after, limit: Some(1_000) };
            let page = self.scratch.fleet.campaign_members(&self.scratch.owner, name, filter).await;
            let page = page.map_err(fleet_error)?;
            devices.extend(page.items.into_iter().map(|member| member.device));
            after = page.next;
            if after.is_none() {
                return Ok(devices);
            }
        }
    }

    /// Looks a device up again and again; `go_on` is told how often that was done.
    fn look_ups(&self, go_on: impl Fn(usize) -> bool) -> Result<Vec<LookUp>, BenchError> {
        let mut made = Vec::new();
        while go_on(made.len()) {
            std::thread::park_timeout(PAUSE);
            let waited = waited_for_processor()?;
            let begun = Instant::now();
            let shown = self.scratch.fleet.device_show(&self.scratch.owner, "bare-1");
            self.runtime.block_on(shown).map_err(fleet_error)?;
            let whole = begun.elapsed().as_secs_f64();
            made.push(LookUp { whole, waited: (waited_for_processor()? - waited).as_secs_f64() });
        }
        Ok(made)
    }
}

/// Has devices act, a few together at a pace where there is one; the chains that they got.
async fn act(
    fleet: Arc<Fleet>,
    devices: Vec<Renewing>,
    by_word: bool,
    pace: Option<Duration>,
) -> Result<Vec<Vec<Vec<u8>>>, BenchError> {
    let together = pace.map_or(devices.len(), |_| usize::try_from(ARRIVE_TOGETHER).unwrap_or(1)).max(1);
    let mut devices = devices.into_iter();
    let mut arrival = tokio::time::interval(pace.unwrap_or(Duration::from_millis(1)));
    let mut chains = Vec::new();
    loop {
        let some: Vec<Renewing> = devices.by_ref().take(together).collect();
        if some.is_empty() {
            return Ok(chains);
        }
        arrival.tick().await;
        let fleet = Arc::clone(&fleet);
        let acted = in_flight(IN_FLIGHT, some, move |device| {
            let fleet = Arc::clone(&fleet);
            async move { if by_word { obey_word(&fleet, &device).await } else { obey_order(&fleet, &device).await } }
        });
        chains.extend(acted.await?);
    }
}

/// Devices poll with their new certificates.
async fn prove(fleet: Arc<Fleet>, renewed: Vec<ClientCertificate>) -> Result<(), BenchError> {
    let polls = in_flight(IN_FLIGHT, renewed, move |certificate| {
        let fleet = Arc::clone(&fleet);
        async move {
            let client = TlsClient::with_certificate(&certificate, HERE);
            match fleet.device_news(client, BY_WORD).await.map_err(fleet_error)?.renewal {
                None => Ok(()),
                Some(again) => Err(BenchError::Failed { what: "a proof", why: format!("asked again: {again}") }),
            }
        }
    });
    polls.await.map(drop)
}

/// As a campaign releases them. In the order of registration neighbours change the same pages, and nobody's certificates end in it.
fn in_no_order(mut devices: Vec<Renewing>) -> Vec<Renewing> {
    devices.sort_by_cached_key(|device| kf_crypto::sha256(device.id.as_bytes()));
    devices
}

fn halves(mut devices: Vec<Renewing>) -> (Vec<Renewing>, Vec<Renewing>) {
    let after = devices.split_off(devices.len() / 2);
    (devices, after)
}

/// A number of renewals to divide by.
fn measured(count: usize) -> f64 {
    f64::from(u32::try_from(count.max(1)).unwrap_or(u32::MAX))
}
