//! The station at work: a process of its own, started again after every power cut.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;

use kf_station::fixture::Board;
use kf_station::recipe::Recipe;
use kf_station::target::{Target, of_recipe};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::super::report::Report;
use super::super::stage::{LINE, Stage};
use super::super::{DemoError, at, failed};
use super::server::Authorised;
use super::{Chance, StationDemoOptions};

/// Name of the station and of its operator at the server.
pub(super) const STATION: &str = "station-1";
const STEP: &str = "shift";
const KILL: i32 = 9;
/// Every so manieth board has a fault.
const FAULTY_EVERY: u32 = 11;
/// About so many entries of the journal, and so many events, come of one device.
const ENTRIES_PER_DEVICE: u32 = 4;
const EVENTS_PER_DEVICE: u32 = 9;

/// The station's directory, boards included.
pub(super) struct Shift {
    directory: PathBuf,
    recipe: Recipe,
    pub(super) target: Arc<dyn Target>,
    pub(super) boards: u32,
    fixtures: u32,
    power_cuts: u32,
}

/// When the power goes.
#[derive(Clone, Copy)]
enum Cut {
    /// After so many writes and syncs of the journal: in the middle of the next write, or right after the next sync.
    Journal(u32),
    /// After so many events, wherever the station then is.
    Events(u32),
}

/// How a life of the station ended.
enum Ended {
    Cut,
    Closed(Counts),
}

/// The station's own books.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Counts {
    pub(super) planned: u32,
    pub(super) good: u32,
    pub(super) scrap: u32,
    pub(super) rework: u32,
    pub(super) open: u32,
    pub(super) left: u32,
    pub(super) balances: bool,
}

/// What happened.
#[derive(Default)]
struct Tally {
    lives: u32,
    in_journal: u32,
    at_event: u32,
}

impl Shift {
    /// Writes recipe and passphrase. A few of the boards that the quota has room for never arrive.
    pub(super) fn set(stage: &Stage, options: &StationDemoOptions) -> Result<Self, DemoError> {
        let directory = stage.path().join("station");
        std::fs::create_dir(&directory).map_err(at(STEP))?;
        let text = format!(
            "format = 1\nsku = \"gate-r1\"\nproduct_line = \"{LINE}\"\ntarget = \"linux\"\ndeadline_seconds = 30\n\n\
             [identity]\nalgorithm = \"p-256\"\norigin = \"station\"\nprotection = \"sealed\"\n\n\
             [device_key]\ninject = true\n\n[label]\nserver = \"{}\"\n",
            stage.server()
        );
        std::fs::write(directory.join("gate.toml"), &text).map_err(at(STEP))?;
        let random = kf_crypto::random_secret::<32>().map_err(at(STEP))?;
        // Exposed to the passphrase file of a station that lives minutes.
        let passphrase = hex::encode(random.expose());
        crate::file::write_private(&directory.join("passphrase"), passphrase.as_bytes())
            .map_err(|failure| failed(STEP, failure.to_string()))?;
        let recipe = Recipe::parse(&text).map_err(at(STEP))?;
        let target = of_recipe(&recipe).map_err(at(STEP))?;
        Ok(Self {
            directory,
            recipe,
            target,
            boards: options.devices.saturating_sub((options.devices / 20).max(1)),
            fixtures: options.fixtures,
            power_cuts: options.power_cuts,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn plan_hash(&self) -> Result<String, DemoError> {
        Ok(self.recipe.plan().hash_text())
    }

    /// A board, as it lies on its pile.
    pub(super) fn board(&self, number: u32) -> Result<Board, DemoError> {
        Board::in_directory(number, None, &self.path("boards")).map_err(at("boards"))
    }

    /// Makes the station, and what it hands in.
    pub(super) fn request(&self) -> Result<Vec<u8>, DemoError> {
        let out = self.path("station.request");
        let mut command = self.command("request");
        command.arg("--name").arg(STATION).arg("--out").arg(&out);
        command.arg("--public-key-out").arg(self.path("station.pem"));
        succeed(command.output_now()?)?;
        std::fs::read(&out).map_err(at(STEP))
    }

    /// The records and manifests, as they leave the station.
    pub(super) fn export(&self, batch: &str) -> Result<Vec<u8>, DemoError> {
        let out = self.path("records");
        let mut command = this_program();
        command.args(["station", "export", "--batch", batch, "--state"]).arg(self.path("state"));
        command.arg("--out").arg(&out);
        succeed(command.output_now()?)?;
        std::fs::read(&out).map_err(at(STEP))
    }

    /// The directory with the labels of devices that passed.
    pub(super) fn labels(&self, batch: &str) -> PathBuf {
        self.path("state").join("batches").join(batch).join("labels")
    }

    /// Files with keys of a batch, in the station's token.
    pub(super) fn batch_keys(&self) -> Result<Vec<String>, DemoError> {
        let mut names = names_in(&self.path("state").join("token"))?;
        names.retain(|name| name.starts_with("keyfleet-station-") && !name.ends_with("-identity"));
        Ok(names)
    }

    fn command(&self, verb: &str) -> std::process::Command {
        let mut command = this_program();
        command.args(["station", verb, "--state"]).arg(self.path("state"));
        command.arg("--passphrase-file").arg(self.path("passphrase"));
        command
    }

    /// Works until the power was cut as often as asked, and then to the end.
    pub(super) async fn work(
        &self,
        authorised: &Authorised,
        chance: &mut Chance,
        report: &mut Report,
    ) -> Result<Counts, DemoError> {
        let mut tally = Tally::default();
        let most = self.power_cuts.saturating_mul(3).saturating_add(8);
        let mut is_idle = false;
        let counts = loop {
            tally.lives += 1;
            if tally.lives > most {
                return Err(failed(STEP, format!("{most} starts, and the power was not cut as often as asked")));
            }
            let left = self.power_cuts.saturating_sub(tally.in_journal.saturating_add(tally.at_event));
            let cut = (left > 0).then(|| self.next_cut(left, is_idle, chance));
            match self.live(authorised, cut, left <= 1).await? {
                Ended::Closed(counts) if left == 0 => break counts,
                Ended::Closed(_) => is_idle = true,
                Ended::Cut if matches!(cut, Some(Cut::Journal(_))) => tally.in_journal += 1,
                Ended::Cut => tally.at_event += 1,
            }
        };
        report.check(
            "power",
            &format!(
                "the station was killed {} times, {} in or right after a write of its journal, {} elsewhere; {} starts",
                tally.in_journal + tally.at_event,
                tally.in_journal,
                tally.at_event,
                tally.lives
            ),
            tally.in_journal + tally.at_event == self.power_cuts,
        );
        let Counts { planned, good, scrap, rework, open, left, balances } = counts;
        report.check(
            STEP,
            &format!(
                "offline, {} fixtures: {planned} planned = {good} good + {scrap} scrap + {left} never begun; {rework} attempts failed",
                self.fixtures
            ),
            balances && open == 0 && good > 0 && planned == good + scrap + left,
        );
        Ok(counts)
    }

    /// The last cut, and one of a station that has nothing to do, must lie where every life comes past: at the first write.
    fn next_cut(&self, cuts_left: u32, is_idle: bool, chance: &mut Chance) -> Cut {
        if is_idle || cuts_left <= 1 {
            return Cut::Journal(chance.below(2));
        }
        let boards = self.unfinished() / cuts_left.saturating_add(1);
        let devices = boards.saturating_add(self.fixtures / 2);
        if chance.below(2) == 0 {
            Cut::Journal(chance.below(devices.saturating_mul(ENTRIES_PER_DEVICE)))
        } else {
            Cut::Events(chance.below(devices.saturating_mul(EVENTS_PER_DEVICE)).saturating_add(1))
        }
    }

    fn unfinished(&self) -> u32 {
        let boards = (1..=self.boards).filter_map(|number| self.board(number).ok());
        let left = boards.filter(|board| !board.has_passed() && !board.is_scrap()).count();
        u32::try_from(left).unwrap_or(self.boards)
    }

    /// One life of the station.
    async fn live(&self, authorised: &Authorised, cut: Option<Cut>, is_final: bool) -> Result<Ended, DemoError> {
        let mut command = self.command("run");
        command.args(["--format", "json"]).arg(self.path("gate.toml"));
        command.arg("--quota").arg(&authorised.quota_file).arg("--server-key").arg(&authorised.server_key_file);
        command.args(["--fixtures", &self.fixtures.to_string(), "--simulate", &self.boards.to_string()]);
        command.args(["--faulty-every", &FAULTY_EVERY.to_string()]).arg("--boards").arg(self.path("boards"));
        if is_final {
            command.arg("--final");
        }
        if let Some(Cut::Journal(acts)) = cut {
            command.args(["--power-cut-after", &acts.to_string()]);
        }
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(at(STEP))?;
        let kill_after = match cut {
            Some(Cut::Events(events)) => Some(events),
            Some(Cut::Journal(_)) | None => None,
        };
        let last = watch(&mut child, kill_after).await?;
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut said).await.map_err(at(STEP))?;
        }
        let status = child.wait().await.map_err(at(STEP))?;
        ended(status, &last, &said)
    }
}

/// Reads events until there are no more, and kills the process after so many; the last line.
async fn watch(child: &mut Child, kill_after: Option<u32>) -> Result<String, DemoError> {
    let stdout = child.stdout.take().ok_or_else(|| failed(STEP, "a station without standard output"))?;
    let mut lines = BufReader::new(stdout).lines();
    let (mut seen, mut last) = (0, String::new());
    while let Some(line) = lines.next_line().await.map_err(at(STEP))? {
        seen += 1;
        if kill_after == Some(seen) {
            child.start_kill().map_err(at(STEP))?;
        }
        last = line;
    }
    Ok(last)
}

fn ended(status: ExitStatus, last: &str, said: &str) -> Result<Ended, DemoError> {
    if status.signal() == Some(KILL) {
        return Ok(Ended::Cut);
    }
    let books = serde_json::from_str(last);
    match books {
        Ok(counts) if status.success() => Ok(Ended::Closed(counts)),
        _ => Err(failed(STEP, format!("the station ended with {status}: {}", said.trim()))),
    }
}

fn this_program() -> std::process::Command {
    std::process::Command::new("/proc/self/exe")
}

/// Runs a short verb to its end.
trait OutputNow {
    fn output_now(&mut self) -> Result<Output, DemoError>;
}

impl OutputNow for std::process::Command {
    fn output_now(&mut self) -> Result<Output, DemoError> {
        self.stdin(Stdio::null()).output().map_err(at(STEP))
    }
}

fn succeed(output: Output) -> Result<(), DemoError> {
    if output.status.success() {
        return Ok(());
    }
    Err(failed(STEP, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// A file of this name, in a directory.
pub(super) fn names_in(directory: &Path) -> Result<Vec<String>, DemoError> {
    let entries = std::fs::read_dir(directory).map_err(at("labels"))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(at("labels"))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
