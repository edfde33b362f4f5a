//! What does not grow with the fleet: looking up, listing, starting.

use kf_fleet::DataDir;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, alternate, micros};
use crate::populated_store::{Places, PopulatedStore};
use crate::scratch_fleet::{FACILITY, LINE, ScratchFleet, fleet_error};
use crate::status::issuer;
use crate::trivial_server::runtime;

/// Devices of the small fleet.
const SMALL: u32 = 1_000;

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let (mut stores, mut octets) = (Vec::new(), Vec::new());
    let mut fleets = Vec::new();
    for count in [SMALL, effort.large] {
        let fleet = ScratchFleet::create(&runtime)?;
        let places = places(&fleet, &runtime)?;
        let closed = fleet.close(&runtime);
        stores.push(PopulatedStore::fill(&runtime, &closed.directory.database(), places, count)?);
        octets.push(database_octets(&closed.directory)? / f64::from(count));
        fleets.push(closed);
    }
    let [small, large] = &stores[..] else { return Ok(Vec::new()) };
    let (look_ups, pages) = (1_000 * effort.scale, 50 * effort.scale);
    let costs = alternate(
        effort.rounds,
        &mut [&mut || small.look_up(look_ups), &mut || large.look_up(look_ups), &mut || small.list(pages), &mut || {
            large.list(pages)
        }],
    )?;
    let [look_up_small, look_up_large, list_small, list_large] = costs[..] else { return Ok(Vec::new()) };
    for store in stores {
        store.close(&runtime);
    }
    let name = |what: &str| format!("{what} among {}", effort.large);
    let ratio = |what: &str, small: f64, large: f64| {
        Figure::ratio(name(what), micros(large), "us CPU", large / small, "at 1,000", Aim::AtMost(1.5))
    };
    let per_device = octets.last().copied().unwrap_or(0.0);
    let mut figures = vec![
        ratio("device, certificate and status", look_up_small, look_up_large),
        ratio("page of 100 devices", list_small, list_large),
        Figure::value("registry on disk", per_device, "octets/device", Aim::None)
            .with_note("device, one certificate of 700 octets, two log entries, indexes"),
    ];
    if let Some(fleet) = fleets.pop() {
        let note = "registry, log, CAs and CRLs; without process and signer";
        let seconds = fleet.open(&runtime)?;
        figures.push(Figure::value(name("opening a fleet"), seconds, "s", Aim::AtMost(5.0)).with_note(note));
    }
    Ok(figures)
}

fn places(fleet: &ScratchFleet, runtime: &tokio::runtime::Runtime) -> Result<Places, BenchError> {
    let authority = issuer(fleet, runtime)?.authority;
    runtime.block_on(async {
        let facility = fleet.fleet.facility_show(&fleet.owner, FACILITY).await.map_err(fleet_error)?.id;
        let line = fleet.fleet.product_line_show(&fleet.owner, LINE).await.map_err(fleet_error)?.id;
        Ok(Places { facility, line, authority, now: fleet.fleet.clock().now() })
    })
}

/// The registry with its write-ahead log.
fn database_octets(directory: &DataDir) -> Result<f64, BenchError> {
    let file = directory.database();
    let mut total = 0.0;
    for ending in ["", "-wal"] {
        let path = format!("{}{ending}", file.display());
        let octets = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        total += f64::from(u32::try_from(octets / 1_024).unwrap_or(u32::MAX)) * 1_024.0;
    }
    Ok(total)
}
