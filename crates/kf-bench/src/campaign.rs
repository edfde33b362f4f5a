//! Renewals that a campaign asks for, beside the same renewals without one; and what an operator feels of it meanwhile.

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
use kf_fleet::{ClientCertificate, Clock, EnrolOutcome, EstLabel, Fleet, SystemClock, TlsClient};
use kf_key::{CampaignState, DeviceId, MemberState, UnixMillis};
use kf_pki::request::make_request;
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, cpu_time, micros};
use crate::scratch_fleet::{FACILITY, IN_FLIGHT, ScratchFleet, fleet_error, in_flight, issue_request};
use crate::trivial_server::runtime;

/// Renewals in a campaign; an effort that is quick makes a tenth.
const RENEWALS: u32 = 100_000;
const NAME: &str = "yearly";
/// Devices that are asked within a minute, the most that a plan allows.
const PER_MINUTE: u32 = 60_000;
/// What an operator does while the campaign goes on: so many look-ups, one every so often.
const LOOK_UPS: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(3);

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
    let bare = devices(&scratch, runtime, "bare", count)?;
    let asked = devices(&scratch, runtime, "asked", count)?;

    let before = cpu_time();
    let fleet = Arc::clone(&scratch.fleet);
    let renewals = in_flight(IN_FLIGHT, bare, move |device| {
        let fleet = Arc::clone(&fleet);
        async move { renew(&fleet, &device).await }
    });
    let _renewed = runtime.block_on(renewals)?;
    let bare = (cpu_time() - before).as_secs_f64() / f64::from(count);

    let idle = percentile(look_ups(&scratch, runtime, || true)?)?;
    start(&scratch, runtime, &clock)?;
    let (asked, busy) = follow(&scratch, runtime, &clock, asked)?;
    let asked = asked / f64::from(count);
    Ok(vec![
        Figure::value(format!("renewal, {count} of them"), micros(bare), "us CPU", Aim::None),
        Figure::ratio(
            format!("renewal by a campaign, {count} of them"),
            micros(asked),
            "us CPU",
            asked / bare,
            "renewal",
            Aim::AtMost(1.2),
        )
        .with_note("order signed, fetched, obeyed, answer verified, all in the log"),
        Figure::value("an operator's look-up, idle, 99th percentile", micros(idle), "us", Aim::None),
        Figure::ratio(
            format!("the same beside a campaign at {PER_MINUTE} a minute"),
            micros(busy),
            "us",
            busy / idle,
            "idle",
            Aim::AtMost(2.0),
        ),
    ])
}

/// Devices with a certificate each.
fn devices(scratch: &ScratchFleet, runtime: &Runtime, prefix: &str, count: u32) -> Result<Vec<Renewing>, BenchError> {
    let names = scratch.register(runtime, prefix, count)?;
    let (fleet, owner) = (Arc::clone(&scratch.fleet), scratch.owner.clone());
    runtime.block_on(in_flight(IN_FLIGHT, names, move |name| {
        let (fleet, owner) = (Arc::clone(&fleet), owner.clone());
        async move {
            let request = issue_request(&name)?;
            let issued = fleet.certificate_issue(&owner, request).await.map_err(fleet_error)?;
            let id = issued
                .certificate
                .device
                .ok_or_else(|| BenchError::Failed { what: "a certificate", why: "of no device".to_owned() })?;
            let read = |pem: &str| kf_pki::pem::decode_all("CERTIFICATE", pem).unwrap_or_default();
            let (leaf, above) = (read(&issued.pem).concat(), read(&issued.chain_pem));
            let above: Vec<&[u8]> = above.iter().map(Vec::as_slice).collect();
            let certificate = fleet.verify_client_path(&leaf, &above).map_err(fleet_error)?;
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

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn renew(fleet: &Fleet, device: &Renewing) -> Result<(), BenchError> {
    let client = TlsClient::with_certificate(&device.certificate, HERE);
    match fleet.est_simple_reenroll(EstLabel::None, client, &device.request).await.map_err(fleet_error)? {
        EnrolOutcome::Issued(_) => Ok(()),
        EnrolOutcome::Waiting { .. } => {
            Err(BenchError::Failed { what: "a renewal", why: "it waits for a person".to_owned() })
        }
    }
}

/// Fetches the order, renews, answers.
async fn obey(fleet: &Fleet, device: &Renewing) -> Result<(), BenchError> {
    let client = TlsClient::with_certificate(&device.certificate, HERE);
    let order = fleet.device_order(client).await.map_err(fleet_error)?;
    order.ok_or_else(|| BenchError::Failed { what: "an order", why: "there is none".to_owned() })?;
    renew(fleet, device).await?;
    fleet.device_order_outcome(&device.report).await.map_err(fleet_error)
}

fn start(scratch: &ScratchFleet, runtime: &Runtime, clock: &SteppedClock) -> Result<(), BenchError> {
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
        name_prefix: Some("asked-".to_owned()),
        ..CampaignFilter::default()
    };
    let new = NewCampaign {
        name: NAME.to_owned(),
        kind: CampaignKind::Certificate,
        filter,
        plan,
        algorithm: None,
        why: "measured".to_owned(),
        dry_run: false,
    };
    runtime.block_on(async {
        scratch.fleet.campaign_create(&scratch.owner, new).await.map_err(fleet_error)?;
        let act = CampaignActRequest { act: CampaignAct::Start, why: "measured".to_owned(), dry_run: false };
        scratch.fleet.campaign_act(&scratch.owner, NAME, act).await.map_err(fleet_error)?;
        // One person alone waits a day.
        clock.pass(UnixMillis::DAY + UnixMillis::SECOND);
        scratch.fleet.turn().await;
        Ok(())
    })
}

/// CPU seconds that the campaign took with its renewals, and how long a look-up took beside it.
fn follow(
    scratch: &ScratchFleet,
    runtime: &Runtime,
    clock: &SteppedClock,
    devices: Vec<Renewing>,
) -> Result<(f64, f64), BenchError> {
    let mut waiting: std::collections::BTreeMap<DeviceId, Renewing> =
        devices.into_iter().map(|device| (device.id, device)).collect();
    let (mut spent, mut waits) = (Duration::ZERO, Vec::new());
    loop {
        clock.pass(UnixMillis::SECOND);
        let before = cpu_time();
        runtime.block_on(scratch.fleet.turn());
        spent += cpu_time() - before;
        // Who was asked is learnt outside of what is measured: devices ask anyway.
        let offered = runtime.block_on(offered(scratch))?;
        let asked: Vec<Renewing> = offered.iter().filter_map(|device| waiting.remove(device)).collect();
        let has_asked = !asked.is_empty();
        let before = cpu_time();
        let fleet = Arc::clone(&scratch.fleet);
        let obeyed = runtime.spawn(in_flight(IN_FLIGHT, asked, move |device| {
            let fleet = Arc::clone(&fleet);
            async move { obey(&fleet, &device).await }
        }));
        if has_asked && waits.len() < usize::try_from(LOOK_UPS).unwrap_or(usize::MAX) {
            waits.extend(look_ups(scratch, runtime, || !obeyed.is_finished())?);
        }
        runtime.block_on(obeyed).map_err(BenchError::failed("a task"))??;
        spent += cpu_time() - before;
        let status = scratch.fleet.campaign_show(&scratch.owner, NAME);
        let status = runtime.block_on(status).map_err(fleet_error)?;
        match status.campaign.state {
            CampaignState::Completed if waiting.is_empty() => break,
            CampaignState::Running => {}
            other => return Err(BenchError::Failed { what: "the campaign", why: format!("{other:?}: {status:?}") }),
        }
    }
    Ok((spent.as_secs_f64(), percentile(waits)?))
}

async fn offered(scratch: &ScratchFleet) -> Result<Vec<DeviceId>, BenchError> {
    let mut devices = Vec::new();
    let mut after = None;
    loop {
        let filter = MemberFilter { state: Some(MemberState::Offered), after, limit: Some(1_000) };
        let page = scratch.fleet.campaign_members(&scratch.owner, NAME, filter).await.map_err(fleet_error)?;
        devices.extend(page.items.into_iter().map(|member| member.device));
        after = page.next;
        if after.is_none() {
            return Ok(devices);
        }
    }
}

/// How long an operator's look-ups took, seconds each.
fn look_ups(scratch: &ScratchFleet, runtime: &Runtime, go_on: impl Fn() -> bool) -> Result<Vec<f64>, BenchError> {
    let mut waits = Vec::new();
    for _ in 0..LOOK_UPS {
        if !go_on() {
            break;
        }
        std::thread::park_timeout(PAUSE);
        let begun = Instant::now();
        runtime.block_on(scratch.fleet.device_show(&scratch.owner, "bare-1")).map_err(fleet_error)?;
        waits.push(begun.elapsed().as_secs_f64());
    }
    Ok(waits)
}

fn percentile(mut waits: Vec<f64>) -> Result<f64, BenchError> {
    waits.sort_by(f64::total_cmp);
    let place = waits.len() * 99 / 100;
    waits.get(place).copied().ok_or_else(|| BenchError::Failed { what: "look-ups", why: "none were made".to_owned() })
}
