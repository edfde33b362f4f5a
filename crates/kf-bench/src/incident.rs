//! The loss of a facility of 100,000 devices, three tenths of which are away: rehearsed on a copy, as `keyfleet drill` does; and a stop of
//! issuance under load.

mod stop;

use std::sync::Arc;

use kf_fleet::{DrillOptions, SystemClock};

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::fleet_size::places;
use crate::measure::Effort;
use crate::populated_store::PopulatedStore;
use crate::real_server::RealFleet;
use crate::scratch_fleet::fleet_error;
use crate::trivial_server::runtime;

/// Devices of the facility; an effort that is quick makes a tenth.
const DEVICES: u32 = 100_000;
/// How many of a hundred devices are away.
const AWAY_PERCENT: u32 = 30;
/// Devices that come back one by one.
const SAMPLE: u32 = 1_000;

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let count = DEVICES.min(effort.large / 10);
    let fleet = RealFleet::create()?;
    let server = fleet.serve()?;
    server.prepare(&runtime)?;
    let places = places(&server, &runtime)?;
    drop(server);
    let store = PopulatedStore::fill(&runtime, &fleet.directory().database(), places, count)?;
    store.sight(100 - AWAY_PERCENT);
    store.close(&runtime);
    let scratch = tempfile::tempdir().map_err(BenchError::failed("a scratch folder"))?;
    let options = DrillOptions { subjects: Vec::new(), sample: SAMPLE };
    let directory = fleet.directory();
    let drill = kf_fleet::drill(&directory, scratch.path(), Arc::new(SystemClock), options);
    let report = runtime.block_on(drill).map_err(fleet_error)?;
    if let Some(check) = report.checks.iter().find(|check| !check.holds) {
        return Err(BenchError::Failed { what: "the drill", why: format!("{}: {}", check.what, check.found) });
    }
    let seconds = |millis: u64| f64::from(u32::try_from(millis).unwrap_or(u32::MAX)) / 1_000.0;
    let mut figures: Vec<Figure> = report
        .timings
        .iter()
        .map(|timing| {
            let aim = timing.limit_millis.map_or(Aim::None, |limit| Aim::AtMost(seconds(limit)));
            Figure::value(format!("{}, {count} devices", timing.what), seconds(timing.millis), "s", aim)
        })
        .collect();
    let back = f64::from(u32::try_from(report.sample).unwrap_or(u32::MAX));
    figures.push(Figure::value(
        "devices of the sample that came back",
        back,
        "devices",
        Aim::AtLeast(f64::from(SAMPLE)),
    ));
    figures.push(stop::measure(effort, &runtime)?);
    Ok(figures)
}
