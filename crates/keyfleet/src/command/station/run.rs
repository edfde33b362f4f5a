//! `keyfleet station run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kf_batch::P256Key;
use kf_station::clock::{Clock as _, SystemClock};
use kf_station::fixture::{Board, Deadline, Espefuse, EspefuseCommand, Fault, Fixture, Program, Simulator, Supply};
use kf_station::label::LabelSink;
use kf_station::line::Counts;
use kf_station::recipe::Recipe;
use kf_station::station::{Setup, Station, StationError};
use kf_station::target::{Target, of_recipe};
use serde::Serialize;

use super::cut::CutJournal;
use super::device::Place;
use super::directory::{self, BatchDirectory, BatchState, End, StationDirectory};
use super::screen::{Manner, Screen};
use super::show;
use crate::api::Context;
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, say};

/// The most fixtures of one station.
const MAX_FIXTURES: usize = 64;

/// How a station is run.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The recipe, TOML
    recipe: PathBuf,
    /// Print the plan and its hash, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// The station's directory
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    state: Option<PathBuf>,
    /// The quota, as the server signed it
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    quota: Option<PathBuf>,
    /// The server's batch authorisation key, PEM
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    server_key: Option<PathBuf>,
    /// A file that holds the passphrase of the station's keys, or the PIN of its token, readable by its owner only
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    passphrase_file: Option<PathBuf>,
    /// What is typed before fuses are burnt: `BURN` and the first twelve digits of the plan's hash
    #[arg(long, value_name = "PHRASE")]
    confirm: Option<String>,
    /// Who works at the line
    #[arg(long, default_value = "operator")]
    operator: String,
    /// How many fixtures, where they are simulated or the recipe's hook
    #[arg(long, default_value_t = 8)]
    fixtures: usize,
    /// A fixture's program; once for each fixture. What it is asked: docs/manual/station.md
    #[arg(long = "fixture", value_name = "PROGRAM", conflicts_with = "simulate")]
    programs: Vec<PathBuf>,
    /// A device whose key is born in hardware here: tpm=ADDRESS, pkcs11=LABEL or element=BUS[@ADDRESS]; once for each
    #[arg(long = "device", value_name = "KIND=PLACE", conflicts_with_all = ["simulate", "programs"], requires = "images")]
    devices: Vec<Place>,
    /// Where the files of devices go: DIR/1, DIR/2 and so on, one for each --device
    #[arg(long, value_name = "DIR", requires = "devices")]
    images: Option<PathBuf>,
    /// The PKCS#11 module of the devices' tokens
    #[arg(long, value_name = "FILE", requires = "devices")]
    device_module: Option<PathBuf>,
    /// A file that holds the PIN of the devices' tokens, readable by its owner only
    #[arg(long, value_name = "FILE", requires = "devices")]
    device_pin_file: Option<PathBuf>,
    /// Read and burn fuses with this espefuse; the fixtures' programs do the rest
    #[arg(long, value_name = "PROGRAM", requires = "programs", requires = "ports")]
    espefuse: Option<PathBuf>,
    /// The port of a fixture's chip, for espefuse; once for each fixture, in the same order
    #[arg(long = "port", value_name = "PORT", requires = "espefuse")]
    ports: Vec<String>,
    /// Simulate this many boards
    #[arg(long, value_name = "BOARDS")]
    simulate: Option<u32>,
    /// Where simulated boards keep what was written to them
    #[arg(long, value_name = "DIR", requires = "simulate")]
    boards: Option<PathBuf>,
    /// Every so manieth simulated board has a fault
    #[arg(long, hide = true, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..))]
    faulty_every: Option<u32>,
    /// Take the number of each board from a barcode scanner on standard input before the board is read; `fixture-N` chooses a fixture
    #[arg(long)]
    scan: bool,
    /// A line per device instead of the screen
    #[arg(long)]
    plain: bool,
    /// Nothing more will be made of this batch: scrap what did not come back, close it, and destroy its keys. Without a fixture
    /// that is all that is done
    #[arg(long = "final")]
    is_final: bool,
    /// Kill this process after so many writes and syncs of the journal
    #[arg(long, hide = true)]
    power_cut_after: Option<u32>,
}

#[derive(Serialize)]
struct Planned<'a> {
    sku: &'a str,
    hash: String,
    burns: bool,
    confirm: Option<String>,
    steps: Vec<String>,
    warnings: Vec<&'static str>,
}

/// The books at the end of a run.
#[derive(Serialize)]
struct Books {
    planned: u32,
    good: u32,
    scrap: u32,
    rework: u32,
    open: u32,
    left: u32,
    refused: u32,
    utilisation_percent: u64,
    autonomy_hours: u64,
    balances: bool,
}

pub(super) fn run(context: &Context, run: Run) -> Result<ExitCode, Failure> {
    let text = file::read_text(&run.recipe)?;
    let recipe = Recipe::parse(&text)
        .map_err(|error| Failure::usage(format!("{}: {error}", run.recipe.display()), "correct the recipe"))?;
    if run.dry_run {
        return print_plan(context, &recipe).map(|()| ExitCode::SUCCESS);
    }
    match (&run.state, &run.quota, &run.server_key, &run.passphrase_file) {
        (Some(state), Some(quota), Some(server_key), Some(passphrase)) => {
            work(context, &run, recipe, [state, quota, server_key, passphrase])
        }
        _ => Err(Failure::usage("something is missing", "give --state, --quota, --server-key and --passphrase-file")),
    }
}

fn print_plan(context: &Context, recipe: &Recipe) -> Result<(), Failure> {
    let plan = recipe.plan();
    if context.format == Format::Table {
        let phrase =
            if recipe.burns() { format!("to run: --confirm '{}'\n", plan.burn_phrase()) } else { String::new() };
        return crate::output::raw(
            format!("{} {}\n{}hash {}\n{phrase}", recipe.sku, recipe.target.name(), plan.to_text(), plan.hash_text())
                .as_bytes(),
        );
    }
    show(
        context,
        &Planned {
            sku: &recipe.sku,
            hash: plan.hash_text(),
            burns: recipe.burns(),
            confirm: recipe.burns().then(|| plan.burn_phrase()),
            steps: plan.steps.iter().map(|step| step.text.clone()).collect(),
            warnings: plan.warnings.clone(),
        },
    )
}

fn server_key(path: &Path) -> Result<P256Key, Failure> {
    let wrong =
        || Failure::usage(format!("{} holds no P-256 public key", path.display()), "fetch it from the server again");
    let text = file::read_text(path)?;
    let keys = kf_pki::pem::decode_all("PUBLIC KEY", &text).ok_or_else(wrong)?;
    keys.first().and_then(|spki| P256Key::from_spki(spki).ok()).ok_or_else(wrong)
}

fn work(
    context: &Context,
    run: &Run,
    recipe: Recipe,
    [state, quota, key, passphrase]: [&PathBuf; 4],
) -> Result<ExitCode, Failure> {
    if !kf_signer::ceremony::lock_memory() {
        say("memory is not locked and may be swapped out, with the keys of devices in it: raise LimitMEMLOCK");
    }
    let directory = StationDirectory::open(state)?;
    let token = directory.create_or_open_token(directory::passphrase(passphrase)?)?;
    let batch = {
        let _lock = directory.lock()?;
        directory.settle(token.as_ref())?;
        directory.take(token.as_ref(), &file::read(quota)?, &server_key(key)?, SystemClock.now())?
    };
    if batch.state()? != BatchState::Open {
        return has_ended(context, run, &batch);
    }
    let target =
        of_recipe(&recipe).map_err(|error| Failure::usage(error.to_string(), "choose another target in the recipe"))?;
    let fixtures = fixtures(run, &recipe, &target)?;
    let labels: Arc<dyn LabelSink> = Arc::new(batch.labels()?);
    let confirmation = match (&run.confirm, recipe.burns()) {
        (Some(phrase), _) => phrase.clone(),
        (None, true) => ask_for_phrase(&recipe)?,
        (None, false) => String::new(),
    };
    let setup = Setup {
        recipe,
        quota: batch.quota.clone(),
        signed_quota: batch.signed.clone(),
        confirmation,
        journal: CutJournal::new(batch.journal()?, run.power_cut_after),
        token: Arc::clone(&token),
        generation: batch.generation,
        target,
        labels,
        clock: Arc::new(SystemClock),
        operator: run.operator.clone(),
    };
    let (station, recovered) = Station::open(setup).map_err(refused)?;
    if recovered != Default::default() {
        say(&format!(
            "after the power cut: {} go on, {} are read back when they come, {} keys were lost and are barred",
            recovered.untouched, recovered.to_read_back, recovered.key_lost
        ));
    }
    let manner = Manner::choose(context.format == Format::Json, run.plain);
    let screen = Screen::new(manner, || (station.counts(), station.autonomy()));
    let fixtures = if run.scan { with_scanner(fixtures)? } else { fixtures };
    station.run(fixtures, &screen);
    let stopped = |reason: kf_station::line::FailReason| {
        Failure::local(format!("the shift was not closed: {}", reason.words()), reason.next(false).words())
    };
    station.close_shift(run.is_final).map_err(stopped)?;
    let books = Books::new(station.counts(), screen.utilisation(), station.autonomy());
    drop(screen);
    let is_closed = station.is_closed();
    // The journal stays locked until the keys are gone.
    let _journal = station.into_file();
    if is_closed {
        let _lock = directory.lock()?;
        batch.end(token.as_ref(), End::Closed)?;
        let (name, generation) = (&batch.terms().name, batch.generation);
        say(&format!("batch {name} is closed, its keys (generation {generation}) are destroyed"));
    }
    print_books(context, &books)
}

/// The batch was closed, or given up, before.
fn has_ended(context: &Context, run: &Run, batch: &BatchDirectory) -> Result<ExitCode, Failure> {
    let (name, generation) = (&batch.terms().name, batch.generation);
    if !run.is_final {
        return Err(Failure::usage(
            format!("batch {name} has ended here, and its keys (generation {generation}) are destroyed"),
            "make a request for the next batch: `keyfleet station request`",
        ));
    }
    say(&format!("batch {name} had ended before, its keys (generation {generation}) are destroyed"));
    let autonomy = batch.terms().expires.since(SystemClock.now());
    print_books(context, &Books::new(batch.counts(&batch.book()?), 0, autonomy))
}

impl Books {
    fn new(counts: Counts, utilisation_percent: u64, autonomy_millis: u64) -> Self {
        let balances = counts.balance();
        let Counts { planned, good, scrap, rework, open, left, refused } = counts;
        let autonomy_hours = autonomy_millis / kf_key::UnixMillis::HOUR;
        Self { planned, good, scrap, rework, open, left, refused, utilisation_percent, autonomy_hours, balances }
    }
}

fn print_books(context: &Context, books: &Books) -> Result<ExitCode, Failure> {
    if context.format == Format::Json {
        // One object a line, as the events before it.
        let mut line = crate::output::to_value(books)?.to_string();
        line.push('\n');
        crate::output::raw(line.as_bytes())?;
    } else {
        show(context, books)?;
    }
    Ok(if books.balances { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn with_scanner(fixtures: Vec<Box<dyn Fixture>>) -> Result<Vec<Box<dyn Fixture>>, Failure> {
    super::scan::scanned(fixtures, std::io::BufReader::new(std::io::stdin()))
        .map_err(|error| Failure::local(error.to_string(), "raise the limit on processes"))
}

fn refused(error: StationError) -> Failure {
    match error {
        StationError::NotConfirmed(phrase) => Failure::usage(
            "fuses will be burnt, which cannot be undone",
            format!("read `--dry-run`, then give --confirm '{phrase}'"),
        ),
        StationError::KeysGone(_) => Failure::local(
            error.to_string(),
            "give the station the token that the batch was requested with; if its keys are lost, cancel the batch at the server, \
             then `keyfleet station cancel` it here",
        ),
        other => Failure::local(crate::failure::chain_of(&other), "see docs/manual/station.md"),
    }
}

fn ask_for_phrase(recipe: &Recipe) -> Result<String, Failure> {
    let phrase = recipe.plan().burn_phrase();
    if !crate::output::can_ask() {
        return Err(refused(StationError::NotConfirmed(phrase)));
    }
    say(&recipe.plan().to_text());
    crate::ask::name(None, &phrase, "burn fuses, which cannot be undone")?;
    Ok(phrase)
}

fn fixtures(run: &Run, recipe: &Recipe, target: &Arc<dyn Target>) -> Result<Vec<Box<dyn Fixture>>, Failure> {
    if !(1..=MAX_FIXTURES).contains(&run.fixtures) {
        return Err(Failure::usage(
            format!("--fixtures takes 1 to {MAX_FIXTURES}"),
            "one per device that is made at once",
        ));
    }
    let limit = Duration::from_secs(u64::from(recipe.deadline_seconds));
    let Some(count) = run.simulate else {
        return match (run.devices.is_empty(), recipe.hook.split_first()) {
            (false, _) => devices(run, recipe, limit),
            (true, Some((program, arguments))) => hooks(run, Path::new(program), arguments, limit),
            (true, None) => programs(run, recipe, limit),
        };
    };
    let chip = recipe.chip.map(|chip| chip.name());
    let mut boards = Vec::new();
    for number in 1..=count {
        let board = match &run.boards {
            None => Board::new(number, chip),
            Some(path) => {
                Board::in_directory(number, chip, path).map_err(|error| Failure::file("open", path, error))?
            }
        };
        if board.has_passed() || board.is_scrap() {
            continue;
        }
        boards.push(match run.faulty_every {
            Some(every) if number.is_multiple_of(every) => board.with_fault(fault(number / every)),
            Some(_) | None => board,
        });
    }
    let supply = Supply::new(boards);
    let mut fixtures: Vec<Box<dyn Fixture>> = Vec::new();
    for _ in 0..run.fixtures {
        let simulator = Simulator::new(Arc::clone(&supply), Arc::clone(target));
        let fixture = Deadline::new(Box::new(simulator), limit)
            .map_err(|error| Failure::local(error.to_string(), "raise the limit on processes"))?;
        fixtures.push(Box::new(fixture));
    }
    Ok(fixtures)
}

/// The faults of simulated boards, in turn.
const fn fault(turn: u32) -> Fault {
    match turn % 3 {
        0 => Fault::OtherKey,
        1 => Fault::LyingReadBack,
        _ => Fault::BrokenWrite,
    }
}

/// The fixture, its fuses taken care of by espefuse where that was asked for.
fn with_fuses(
    run: &Run,
    recipe: &Recipe,
    number: usize,
    fixture: Box<dyn Fixture>,
) -> Result<Box<dyn Fixture>, Failure> {
    let (Some(program), Some(port)) = (&run.espefuse, run.ports.get(number)) else { return Ok(fixture) };
    let command = EspefuseCommand { program: program.clone(), arguments: vec!["--port".into(), port.into()] };
    match Espefuse::new(fixture, command, recipe) {
        Some(fixture) => Ok(Box::new(fixture)),
        None => Err(Failure::usage("the recipe is for no chip that espefuse knows", "leave --espefuse away")),
    }
}

/// Each device is a process of its own: a PKCS#11 module is loaded once in each, and one that hangs is ended.
fn devices(run: &Run, recipe: &Recipe, limit: Duration) -> Result<Vec<Box<dyn Fixture>>, Failure> {
    if run.devices.len() > MAX_FIXTURES {
        return Err(Failure::usage(format!("a station has 1 to {MAX_FIXTURES} fixtures"), "give fewer --device"));
    }
    let images = run.images.as_ref().ok_or_else(|| Failure::usage("the devices' files go nowhere", "give --images"))?;
    let program = std::env::current_exe().map_err(|error| Failure::file("find", Path::new("this program"), error))?;
    let mut fixtures: Vec<Box<dyn Fixture>> = Vec::new();
    for (number, place) in run.devices.iter().enumerate() {
        place.check(recipe)?;
        let mut arguments = vec!["station".to_owned(), "device".to_owned(), place.to_string(), "--out".to_owned()];
        arguments.push(images.join((number + 1).to_string()).display().to_string());
        for (name, path) in [("--module", &run.device_module), ("--pin-file", &run.device_pin_file)] {
            if let Some(path) = path {
                arguments.extend([name.to_owned(), path.display().to_string()]);
            }
        }
        let failed = |error: kf_station::fixture::FixtureError| {
            Failure::local(format!("{place} is not reached: {error}"), "look at the device and at its place")
        };
        let started = Program::start(&program, &arguments).map_err(failed)?;
        fixtures.push(Box::new(Deadline::new(Box::new(started), limit).map_err(failed)?));
    }
    Ok(fixtures)
}

/// The recipe names the program of its fixtures: what was approved is what runs.
fn hooks(run: &Run, program: &Path, arguments: &[String], limit: Duration) -> Result<Vec<Box<dyn Fixture>>, Failure> {
    if !run.programs.is_empty() {
        return Err(Failure::usage("the recipe names its program, and it is the approved one", "leave --fixture away"));
    }
    let failed = |error: kf_station::fixture::FixtureError| {
        Failure::local(format!("{} does not start: {error}", program.display()), "check `hook` in the recipe")
    };
    let mut fixtures: Vec<Box<dyn Fixture>> = Vec::new();
    for number in 1..=run.fixtures {
        let arguments: Vec<String> = arguments.iter().cloned().chain([number.to_string()]).collect();
        let started = Program::start(program, &arguments).map_err(failed)?;
        fixtures.push(Box::new(Deadline::new(Box::new(started), limit).map_err(failed)?));
    }
    Ok(fixtures)
}

fn programs(run: &Run, recipe: &Recipe, limit: Duration) -> Result<Vec<Box<dyn Fixture>>, Failure> {
    if run.programs.is_empty() && run.is_final {
        return Ok(Vec::new());
    }
    if run.programs.is_empty() || run.programs.len() > MAX_FIXTURES {
        return Err(Failure::usage(
            format!("a station has 1 to {MAX_FIXTURES} fixtures"),
            "give --fixture PROGRAM or --device KIND=PLACE for each, or --simulate BOARDS to rehearse the recipe",
        ));
    }
    if run.espefuse.is_some() && run.ports.len() != run.programs.len() {
        return Err(Failure::usage(
            "there are more fixtures than ports, or fewer",
            "give --port once for each --fixture",
        ));
    }
    let mut fixtures: Vec<Box<dyn Fixture>> = Vec::new();
    for (number, program) in run.programs.iter().enumerate() {
        let failed = |error: kf_station::fixture::FixtureError| {
            Failure::local(format!("{} does not start: {error}", program.display()), "check the fixture's program")
        };
        // The program learns which of the fixtures it is.
        let started = Program::start(program, &[(number + 1).to_string()]).map_err(failed)?;
        let fixture = with_fuses(run, recipe, number, Box::new(started))?;
        fixtures.push(Box::new(Deadline::new(fixture, limit).map_err(failed)?));
    }
    Ok(fixtures)
}
