//! From a certification request to a durable certificate, in process: checks, policy, signature, registry and log.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use kf_fleet::{EnrolCredential, EnrolOutcome, EstLabel, TlsClient};

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, alternate, cpu_per_operation, micros};
use crate::primitives::Bare;
use crate::scratch_fleet::{IN_FLIGHT, LINE, ScratchFleet, fleet_error, in_flight, issue_request, request};
use crate::trivial_server::runtime;

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let fleet = ScratchFleet::create(&runtime)?;
    let bare = Bare::new()?;
    let count = 500 * effort.scale;
    let (mut issued, mut enrolled) = (0_u32, 0_u32);
    let costs = alternate(
        effort.rounds,
        &mut [
            &mut || bare.sign_and_verify(count),
            &mut || {
                issued += 1;
                let devices = fleet.register(&runtime, &format!("issue-{issued}"), count)?;
                let requests = devices.iter().map(|device| issue_request(device)).collect::<Result<_, _>>()?;
                cpu_per_operation(count, || fleet.issue(&runtime, requests).map(drop))
            },
            &mut || {
                enrolled += 1;
                enrol_by_code(&fleet, &runtime, &format!("enrol-{enrolled}"), count)
            },
        ],
    )?;
    let [unit, issue, enrol] = costs[..] else { return Ok(Vec::new()) };
    let note = format!("{IN_FLIGHT} in flight; every certificate on disk with its log entry before it is returned");
    Ok(vec![
        Figure::ratio("durable issuance", micros(issue), "us CPU", issue / unit, "U", Aim::AtMost(1.6)).with_note(note),
        Figure::ratio("durable enrolment by code", micros(enrol), "us CPU", enrol / unit, "U", Aim::None),
    ])
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
        let all = in_flight(attempts, |((user, password), body)| {
            let fleet = Arc::clone(&fleet.fleet);
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
