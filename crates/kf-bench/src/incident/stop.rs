//! The stop of issuance while the server is as busy as it can be: from the call until the last certificate was given out.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kf_api::status::IssuanceSwitch;
use kf_fleet::FleetError;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::Effort;
use crate::scratch_fleet::{ScratchFleet, fleet_error, in_flight, issue_request};

/// Requests in flight.
const LANES: usize = 256;
/// From the call until nothing is issued any more, in seconds.
const MOST_SECONDS: f64 = 1.0;

pub(super) fn measure(effort: &Effort, runtime: &Runtime) -> Result<Figure, BenchError> {
    let count = 2_000 * effort.scale;
    let fleet = ScratchFleet::create(runtime)?;
    let devices = fleet.register(runtime, "busy", count)?;
    let requests: Vec<_> = devices.iter().map(|device| issue_request(device)).collect::<Result<_, _>>()?;
    let load = Arc::new(Load::default());
    let (issuing, owner) = (Arc::clone(&fleet.fleet), fleet.owner.clone());
    let counting = Arc::clone(&load);
    let all = in_flight(LANES, requests, move |request| {
        let (fleet, owner, load) = (Arc::clone(&issuing), owner.clone(), Arc::clone(&counting));
        async move {
            match fleet.certificate_issue(&owner, request).await {
                Ok(_) => load.issued(count / 4),
                Err(FleetError::IssuanceStopped(_)) => drop(load.refused.fetch_add(1, Ordering::Relaxed)),
                Err(error) => return Err(fleet_error(error)),
            }
            Ok(())
        }
    });
    let stop = async {
        load.is_busy.notified().await;
        let asked = Instant::now();
        let switch = IssuanceSwitch { run: false, why: "benchmark".to_owned(), facility: None };
        fleet.fleet.issuance_switch(&fleet.owner, switch).await.map_err(fleet_error)?;
        Ok::<_, BenchError>((asked, asked.elapsed()))
    };
    let (_, (asked, answered)) = runtime.block_on(async { tokio::try_join!(all, stop) })?;
    let last = load.last.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(asked);
    let seconds = last.saturating_duration_since(asked).max(answered).as_secs_f64();
    let refused = load.refused.load(Ordering::Relaxed);
    if refused < count / 4 {
        return Err(BenchError::Failed { what: "stopping issuance", why: format!("only {refused} were refused") });
    }
    let name = format!("stop of issuance, {LANES} requests in flight");
    Ok(Figure::value(name, seconds, "s", Aim::AtMost(MOST_SECONDS))
        .with_note(format!("until the last certificate was given out; {refused} of {count} requests were refused")))
}

#[derive(Default)]
struct Load {
    issued: AtomicU32,
    refused: AtomicU32,
    last: Mutex<Option<Instant>>,
    is_busy: Notify,
}

impl Load {
    /// One more certificate; the stop is asked for when there are `busy`.
    fn issued(&self, busy: u32) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if self.issued.fetch_add(1, Ordering::Relaxed) + 1 == busy {
            self.is_busy.notify_one();
        }
    }
}
