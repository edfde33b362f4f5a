//! What does not grow with the fleet: looking up, listing, starting.

use std::sync::Arc;
use std::time::Instant;

use kf_fleet::DataDir;
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::load::{Call, Connections, send_all};
use crate::measure::{Effort, alternate, micros, resident_octets};
use crate::network::default_issuer;
use crate::populated_store::{Places, PopulatedStore};
use crate::real_server::{RealFleet, RealServer};
use crate::scratch_fleet::{FACILITY, LINE};
use crate::trivial_server::runtime;

/// Devices of the small fleet.
const SMALL: u32 = 1_000;
/// Devices shown over HTTPS in a round.
const SHOWN: usize = 500;

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let (mut stores, mut octets, mut fleets) = (Vec::new(), Vec::new(), Vec::new());
    let sizes = [SMALL, effort.large / 10, effort.large];
    for count in sizes {
        let fleet = RealFleet::create()?;
        let server = fleet.serve()?;
        server.prepare(&runtime)?;
        let places = places(&server, &runtime)?;
        drop(server);
        stores.push(PopulatedStore::fill(&runtime, &fleet.directory().database(), places, count)?);
        octets.push(database_octets(&fleet.directory())? / f64::from(count));
        fleets.push(fleet);
    }
    let [small, tenth, large] = &stores[..] else { return Ok(Vec::new()) };
    let (look_ups, pages) = (1_000 * effort.scale, 50 * effort.scale);
    // A page that is looked at for the first time since the start is mapped first, which the kernel does once.
    let first = [small, tenth, large].into_iter().zip(sizes).map(|(store, count)| store.look_up(count));
    let first = first.collect::<Result<Vec<_>, _>>()?;
    let look_ups = alternate(
        effort.rounds,
        &mut [&mut || small.look_up(look_ups), &mut || tenth.look_up(look_ups), &mut || large.look_up(look_ups)],
    )?;
    let lists = alternate(
        effort.rounds,
        &mut [&mut || small.list(pages), &mut || tenth.list(pages), &mut || large.list(pages)],
    )?;
    for store in stores {
        store.close(&runtime);
    }
    let name = |what: &str| format!("{what} among {}", effort.large);
    let per_device = octets.last().copied().unwrap_or(0.0);
    let mut figures = by_size("device, certificate and status", sizes, &look_ups);
    let first = first.last().copied().unwrap_or(0.0);
    let what = name("device, certificate and status, the first time after a start");
    figures.push(Figure::value(what, micros(first), "us CPU", Aim::None));
    figures.extend(by_size("page of 100 devices", sizes, &lists));
    figures.extend([Figure::value("registry on disk", per_device, "octets/device", Aim::None)
        .with_note("device, one certificate of 700 octets, two log entries, indexes")]);
    if let [small, _, large] = &fleets[..] {
        figures.extend(served(effort, &runtime, small, large)?);
    }
    Ok(figures)
}

/// What a running server costs by the size of its fleet.
fn served(effort: &Effort, runtime: &Runtime, small: &RealFleet, large: &RealFleet) -> Result<Vec<Figure>, BenchError> {
    let (small, large) = (small.serve()?, large.serve()?);
    let resident = resident_octets(large.process())?;
    let megabytes = f64::from(u32::try_from(resident >> 10).unwrap_or(u32::MAX)) / 1_024.0;
    // Other devices in every round: none finds in the processor's cache what the round before it looked at. A page of the registry that
    // is looked at for the first time since the start is mapped first, which the kernel does once; that is measured apart.
    let everybody = || (0_u64..).take(SHOWN * (effort.rounds + 1));
    let (_, first) = (show(runtime, &small, SMALL, everybody())?, show(runtime, &large, effort.large, everybody())?);
    let (mut few, mut many) = (everybody(), everybody());
    let shown = alternate(
        effort.rounds,
        &mut [&mut || show(runtime, &small, SMALL, few.by_ref().take(SHOWN)), &mut || {
            show(runtime, &large, effort.large, many.by_ref().take(SHOWN))
        }],
    )?;
    let [among_few, among_many] = shown[..] else { return Ok(Vec::new()) };
    let name = |what: &str| format!("{what} among {}", effort.large);
    let (shown, ratio) = (name("device show over HTTPS"), among_many / among_few);
    let first_time = name("device show over HTTPS, each the first time after a start");
    Ok(vec![
        Figure::value(first_time, micros(first), "us", Aim::None),
        Figure::ratio(shown, micros(among_many), "us", ratio, "at the smallest", Aim::AtMost(1.2))
            .with_note("what an operator waits for: token checked, device, certificates, log entries, answer, TLS"),
        Figure::value("start at 1,000, until ready", small.start_seconds, "s", Aim::None),
        Figure::value(name("start, until ready"), large.start_seconds, "s", Aim::AtMost(5.0))
            .with_note("keyfleet serve with its signer: Argon2id, registry, log, CAs, CRLs"),
        Figure::value(name("resident memory after start"), megabytes, "MiB", Aim::AtMost(96.0)),
    ])
}

/// Seconds until a running server has shown one of `among` devices to its owner, over a kept connection. Not its CPU time, in which
/// what it does in the background after a start counts as well.
fn show(
    runtime: &Runtime,
    server: &RealServer,
    among: u32,
    numbers: impl Iterator<Item = u64>,
) -> Result<f64, BenchError> {
    let calls: Vec<Call> = numbers
        .map(|number| {
            let place = number * 7_919 % u64::from(among);
            Call { target: server.https.clone(), request: server.get_request(&format!("/v1/devices/device-{place}")) }
        })
        .collect();
    let count = u32::try_from(calls.len()).unwrap_or(u32::MAX);
    let begun = Instant::now();
    runtime.block_on(send_all(Arc::new(calls), 1, Connections::Kept))?;
    Ok(begun.elapsed().as_secs_f64() / f64::from(count))
}

/// One figure per size; the largest is held against the smallest, although that one lies in the processor's cache. The
/// size between tells how much of the difference that is.
fn by_size(what: &str, sizes: [u32; 3], costs: &[f64]) -> Vec<Figure> {
    let [smallest, _, _] = costs else { return Vec::new() };
    let figure = |(place, (size, cost)): (usize, (u32, &f64))| {
        let name = format!("{what} among {size}");
        match place {
            2 => Figure::ratio(name, micros(*cost), "us CPU", cost / smallest, "at the smallest", Aim::AtMost(1.5)),
            _ => Figure::value(name, micros(*cost), "us CPU", Aim::None),
        }
    };
    sizes.into_iter().zip(costs).enumerate().map(figure).collect()
}

pub(crate) fn places(server: &RealServer, runtime: &Runtime) -> Result<Places, BenchError> {
    let authority = default_issuer(server, runtime)?.authority;
    let facility: kf_api::facility::Facility = read(server.get(runtime, &format!("/v1/facilities/{FACILITY}"))?)?;
    let line: kf_api::product_line::ProductLine = read(server.get(runtime, &format!("/v1/product-lines/{LINE}"))?)?;
    Ok(Places { facility: facility.id, line: line.id, authority, now: kf_fleet::Clock::now(&kf_fleet::SystemClock) })
}

fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, BenchError> {
    serde_json::from_value(value).map_err(BenchError::failed("reading an answer"))
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
