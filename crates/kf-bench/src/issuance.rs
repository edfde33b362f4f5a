//! From a certification request to a durable certificate, in process: checks, policy, signature, registry and log.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use kf_fleet::{EnrolCredential, EnrolOutcome, EstLabel, TlsClient};
use kf_key::SecretBytes;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, alternate, cpu_per_operation, cpu_time_of_threads, median, micros};
use crate::primitives::Bare;
use crate::scratch_fleet::{IN_FLIGHT, LINE, ScratchFleet, fleet_error, in_flight, issue_request, request};
use crate::trivial_server::runtime;

/// Requests in flight of the second figure: groups are fuller.
const MANY: usize = 256;
/// The threads that a certificate passes through beside those that check and build it.
const STAGES: [(&str, &str); 2] =
    [("signer", "  of which the signer"), ("store-writer", "  of which the registry's writer")];

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let fleet = ScratchFleet::create(&runtime)?;
    let bare = Bare::new()?;
    let count = 500 * effort.scale;
    let rounds = std::cell::Cell::new(0_u32);
    let mut stages: Vec<[f64; STAGES.len()]> = Vec::new();
    let prefix = || {
        rounds.set(rounds.get() + 1);
        format!("round-{}", rounds.get())
    };
    let costs = alternate(
        effort.rounds,
        &mut [
            &mut || bare.sign_and_verify(count),
            &mut || {
                let (cost, of_stages) = issue(&fleet, &runtime, IN_FLIGHT, &prefix(), count)?;
                stages.push(of_stages);
                Ok(cost)
            },
            &mut || issue(&fleet, &runtime, MANY, &prefix(), count).map(|(cost, _)| cost),
            &mut || enrol_by_code(&fleet, &runtime, &prefix(), count),
        ],
    )?;
    let [unit, issue, issue_many, enrol] = costs[..] else { return Ok(Vec::new()) };
    let note = "every certificate on disk with its log entry before it is returned";
    let in_units =
        |name: String, cost: f64, aim: Aim| Figure::ratio(name, micros(cost), "us CPU", cost / unit, "U", aim);
    let mut figures =
        vec![in_units(format!("durable issuance, {IN_FLIGHT} in flight"), issue, Aim::AtMost(1.6)).with_note(note)];
    for (place, (_, name)) in STAGES.iter().enumerate() {
        let samples = stages.iter().filter_map(|of_stages| of_stages.get(place)).copied().collect();
        figures.push(in_units((*name).to_owned(), median(samples), Aim::None));
    }
    figures.extend([
        in_units(format!("durable issuance, {MANY} in flight"), issue_many, Aim::AtMost(1.6)),
        in_units(format!("durable enrolment by code, {IN_FLIGHT} in flight"), enrol, Aim::None),
    ]);
    Ok(figures)
}

/// CPU seconds per certificate, in all and of the stages.
fn issue(
    fleet: &ScratchFleet,
    runtime: &tokio::runtime::Runtime,
    lanes: usize,
    prefix: &str,
    count: u32,
) -> Result<(f64, [f64; STAGES.len()]), BenchError> {
    let devices = fleet.register(runtime, prefix, count)?;
    let requests = devices.iter().map(|device| issue_request(device)).collect::<Result<_, _>>()?;
    let spent = || STAGES.map(|(thread, _)| cpu_time_of_threads(thread).as_secs_f64() / f64::from(count));
    let before = spent();
    let cost = cpu_per_operation(count, || fleet.issue(runtime, lanes, requests).map(drop))?;
    let mut stages = spent();
    stages.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
    Ok((cost, stages))
}

fn enrol_by_code(
    fleet: &ScratchFleet,
    runtime: &tokio::runtime::Runtime,
    prefix: &str,
    count: u32,
) -> Result<f64, BenchError> {
    let devices = fleet.register(runtime, prefix, count)?;
    let codes = fleet.codes(runtime, &devices)?;
    let requests = (0..count).map(|_| request("")).collect::<Result<Vec<_>, _>>()?;
    let attempts: Vec<_> = devices.into_iter().zip(codes).zip(requests).collect();
    cpu_per_operation(count, || {
        let fleet = Arc::clone(&fleet.fleet);
        let all = in_flight(IN_FLIGHT, attempts, move |((user, password), body): ((String, SecretBytes), Vec<u8>)| {
            let fleet = Arc::clone(&fleet);
            async move {
                let client = TlsClient { certificate: None, address: IpAddr::V4(Ipv4Addr::LOCALHOST) };
                let credential = EnrolCredential::Basic { user, password };
                let outcome = fleet.est_simple_enroll(EstLabel::Line(LINE), client, credential, &body).await;
                match outcome.map_err(fleet_error)? {
                    EnrolOutcome::Issued(_) => Ok(()),
                    EnrolOutcome::Waiting { .. } => {
                        Err(BenchError::Failed { what: "an enrolment", why: "it waits for a person".to_owned() })
                    }
                }
            }
        });
        runtime.block_on(all).map(drop)
    })
}
