//! The factory station: what a device costs it, beside bare cryptography and beside the vendor's generator; whether it keeps eight
//! ports busy; what a large batch takes.
//!
//! Measured is the whole way of a device: key, certificate, image, journal, read-back, search for its secrets, proof of its
//! key, record. What the device itself would compute (opening its flash, signing the challenge) is simulated in this process,
//! and taken off by the clock of its thread.

mod making;
mod port;
mod vendor;

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use kf_key::SecretBytes;
use kf_station::clock::{Clock as _, SystemClock};
use kf_station::fixture::Fixture;
use kf_station::journal::DirectoryFile;
use kf_station::recipe::Recipe;
use kf_station::rehearsal::{Authorised, Order, authorise};
use kf_station::request::station_request;
use kf_station::station::{Setup, Station};
use kf_station::target::{Target, of_recipe};
use kf_station::token::{Generation, SoftwareToken, StationToken};

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{
    Effort, alternate, cpu_per_operation, cpu_time, forget_peak, micros, peak_octets, resident_octets,
};
use making::Making;
use port::{Line, Output, Port};

const STATION: &str = "station";
const PORTS: usize = 8;
/// What a serial port moves at 921,600 baud, eight bits and two around them: 24 KiB in 267 ms.
const OCTETS_PER_SECOND: u64 = 92_160;
const IMAGE_OCTETS: u64 = 24 * 1024;
const RECIPE: &str = r#"
format = 1
sku = "pump-c3-r4"
product_line = "pump"
target = "esp32"
chip = "esp32-c3"
[identity]
algorithm = "p-256"
origin = "station"
protection = "nvs-hmac"
[device_key]
inject = true
[layout]
nvs = { offset = 0x9000, size = 0x6000 }
[[fuse]]
block = 4
purpose = "hmac-up"
"#;

/// A station that is set up once.
struct Bench {
    folder: tempfile::TempDir,
    token: Arc<dyn StationToken>,
    recipe: Recipe,
    target: Arc<dyn Target>,
}

/// What a run took.
struct Run {
    /// CPU seconds of the station per device.
    cpu: f64,
    /// Seconds.
    wall: f64,
    /// Of the time of all ports, how much they were busy; 0 to 1.
    busy: f64,
    journal_octets: u64,
    record_octets: u64,
}

impl Bench {
    fn new() -> Result<Self, BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::io("a folder for a station"))?;
        let passphrase = SecretBytes::from_vec(b"a passphrase of a benchmark".to_vec());
        let token = SoftwareToken::create(&folder.path().join("token"), &passphrase);
        let recipe = Recipe::parse(RECIPE).map_err(BenchError::failed("the recipe"))?;
        let target = of_recipe(&recipe).map_err(BenchError::failed("the target"))?;
        Ok(Self { folder, token: Arc::new(token.map_err(BenchError::failed("a token"))?), recipe, target })
    }

    fn authorise(&self, count: u32) -> Result<Authorised, BenchError> {
        let now = SystemClock.now();
        self.token.draw(Generation::FIRST).map_err(BenchError::failed("the keys of a batch"))?;
        let request = station_request(self.token.as_ref(), Generation::FIRST, STATION, now);
        let order = Order {
            station: STATION,
            product_line: &self.recipe.product_line,
            plan: self.recipe.plan().hash,
            count,
            allows_unsafe: false,
            hours: 24,
            now,
        };
        authorise(&request.map_err(BenchError::failed("a request"))?, &order).map_err(BenchError::failed("a quota"))
    }

    /// Makes so many devices, all of which must pass.
    fn run(&self, count: u32, output: Output, pace: Option<Duration>) -> Result<Run, BenchError> {
        let authorised = self.authorise(count)?;
        let journal = self.folder.path().join("journal");
        let setup = Setup {
            recipe: self.recipe.clone(),
            quota: authorised.quota,
            signed_quota: authorised.signed,
            confirmation: self.recipe.plan().burn_phrase(),
            journal: DirectoryFile::open(&journal).map_err(BenchError::io("a journal"))?,
            token: Arc::clone(&self.token),
            generation: Generation::FIRST,
            target: Arc::clone(&self.target),
            labels: Arc::new(()),
            clock: Arc::new(SystemClock),
            operator: "Ana".to_owned(),
        };
        let (station, _) = Station::open(setup).map_err(BenchError::failed("a station"))?;
        let line = Arc::new(Line::new(count, output, pace));
        let port = |_| -> Box<dyn Fixture> { Box::new(Port::new(Arc::clone(&line), Arc::clone(&self.target))) };
        let (started, cpu) = (Instant::now(), cpu_time());
        station.run((0..PORTS).map(port).collect(), &());
        let closed = station.close_shift(true);
        let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_time() - cpu);
        closed.map_err(|reason| BenchError::Failed { what: "closing a shift", why: reason.words().to_owned() })?;
        if station.counts().good != count {
            return Err(BenchError::Failed { what: "a station", why: format!("{:?}", station.counts()) });
        }
        let seconds = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64();
        let device = seconds(line.device_nanoseconds.load(Ordering::Relaxed));
        let busy = seconds(line.busy_nanoseconds.load(Ordering::Relaxed));
        let mut file = station.into_file();
        let mut records = Count(0);
        let exported = kf_station::ledger::export(&mut file, &mut records).map_err(BenchError::failed("the records"));
        exported?;
        let journal_octets = std::fs::metadata(&journal).map_err(BenchError::io("the journal"))?.len();
        std::fs::remove_file(&journal).map_err(BenchError::io("the journal"))?;
        let ports = f64::from(u32::try_from(PORTS).unwrap_or(1));
        Ok(Run {
            cpu: (cpu.as_secs_f64() - device) / f64::from(count),
            wall,
            busy: busy / (wall * ports),
            journal_octets,
            record_octets: records.0,
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Counts what is written.
struct Count(u64);

impl std::io::Write for Count {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0 += u64::try_from(octets.len()).unwrap_or(0);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// F: a bare key and a bare signature, CPU seconds.
fn bare_key_and_signature(operations: u32) -> Result<f64, BenchError> {
    let random = SystemRandom::new();
    cpu_per_operation(operations, || {
        for _ in 0..operations {
            let key =
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(BenchError::failed("a P-256 key"))?;
            std::hint::black_box(key.sign(&random, &[0x5a; 500]).map_err(BenchError::failed("signing"))?);
        }
        Ok(())
    })
}

fn per(octets: u64, count: u32) -> f64 {
    f64::from(u32::try_from(octets / u64::from(count.max(1))).unwrap_or(u32::MAX))
}

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let bench = Bench::new()?;
    let mut figures = large_batch(effort, &bench)?;
    let (making, whole, more) = costs(effort, &bench)?;
    figures.extend(more);
    figures.push(vendor::measure(making, whole)?);
    figures.push(utilisation(effort, &bench)?);
    Ok(figures)
}

/// What a device costs: CPU seconds with all images in one file, alone and the whole way, and the figures.
fn costs(effort: &Effort, bench: &Bench) -> Result<(f64, f64, Vec<Figure>), BenchError> {
    let count = 250 * effort.scale;
    let pack = bench.path().join("images");
    let making = |output: Output| -> Result<f64, BenchError> {
        let authorised = bench.authorise(count)?;
        let terms = &authorised.quota.terms;
        let mut making = Making::new(bench.token.as_ref(), bench.target.as_ref(), terms)?;
        cpu_per_operation(count, || (0..count).try_for_each(|position| making.make(position, &output)))
    };
    // An image is a new file: writing over the one of the round before costs a file system far less. Nothing is removed
    // before the end: ext4 looks for five seconds past every inode that was given up, and a line gives up none.
    let folders = Cell::new(0_u32);
    let fresh = |folder: &Path| -> Result<Output, BenchError> {
        folders.set(folders.get() + 1);
        let folder = folder.join(folders.get().to_string());
        std::fs::create_dir_all(&folder).map_err(BenchError::io("a folder for images"))?;
        Ok(Output::Files(folder))
    };
    let folder = bench.path().join("one-each");
    let memory = tempfile::tempdir_in("/dev/shm").map_err(BenchError::io("a folder in memory"))?;
    let in_memory = memory.path();
    let medians = alternate(
        effort.rounds,
        &mut [
            &mut || bare_key_and_signature(count * 4),
            &mut || making(Output::pack(&pack)?),
            &mut || making(fresh(&folder)?),
            &mut || making(fresh(in_memory)?),
            &mut || bench.run(count, Output::pack(&pack)?, None).map(|run| run.cpu),
            &mut || bench.run(count, fresh(&folder)?, None).map(|run| run.cpu),
        ],
    )?;
    let [bare, made_packed, made_each, made_in_memory, packed, files] = medians[..] else {
        return Err(BenchError::Failed { what: "a station", why: "no rounds".to_owned() });
    };
    let figure = |name: &str, cost: f64, aim| Figure::ratio(name, micros(cost), "us CPU", bare / cost, "F rate", aim);
    let figures = vec![
        Figure::value("bare P-256 key + signature (F)", micros(bare), "us CPU", Aim::None),
        figure("key, IDevID, image, record, packed", made_packed, Aim::AtLeast(0.30))
            .with_note("24 KiB of encrypted NVS; no journal, no read-back, no proof"),
        figure("key, IDevID, image, record, one file each", made_each, Aim::AtLeast(0.15))
            .with_note("new files on the disk of this machine, most of which is the file system's"),
        figure("the same, one file each in memory", made_in_memory, Aim::None)
            .with_note("new files in /dev/shm, where images lie that are handed on at once"),
        figure("device, images packed", packed, Aim::None)
            .with_note("the whole way: journal, counter, read-back, search for secrets and proof verified in it"),
        figure("device, one file each", files, Aim::None),
    ];
    Ok((made_packed, packed, figures))
}

fn utilisation(effort: &Effort, bench: &Bench) -> Result<Figure, BenchError> {
    let pace = Duration::from_millis(IMAGE_OCTETS * 1_000 / OCTETS_PER_SECOND);
    let count = 40 * effort.scale;
    let run = bench.run(count, Output::Nothing, Some(pace))?;
    let rate = f64::from(count) / run.wall;
    Ok(Figure::value("eight ports at 921,600 baud, busy", run.busy * 100.0, "%", Aim::AtLeast(90.0))
        .with_note(format!("24 KiB written and read back, 267 ms each; {rate:.1} devices per second")))
}

fn large_batch(effort: &Effort, bench: &Bench) -> Result<Vec<Figure>, BenchError> {
    let count = (effort.large / 10).min(100_000);
    let name = |what: &str| format!("{what}, batch of {count}");
    forget_peak()?;
    let before = resident_octets(std::process::id())?;
    let run = bench.run(count, Output::pack(&bench.path().join("images"))?, None)?;
    let peak = peak_octets()?;
    let mebibytes = |octets: u64| f64::from(u32::try_from(octets >> 10).unwrap_or(u32::MAX)) / 1_024.0;
    let rate = f64::from(count) / run.wall;
    Ok(vec![
        Figure::value(name("station"), run.wall, "s", Aim::None).with_note(format!(
            "{rate:.0} devices per second, each of four entries durable before its act, eight ports"
        )),
        Figure::value(
            name("memory that it adds at its peak"),
            mebibytes(peak.saturating_sub(before)),
            "MiB",
            Aim::AtMost(64.0),
        ),
        Figure::value("record", per(run.record_octets, count), "octets", Aim::None),
        Figure::value("journal", per(run.journal_octets, count), "octets/device", Aim::None)
            .with_note("record and entries in it"),
    ])
}
