//! What an operator sees from two metres: a line per fixture in large colours, and the counts. Without a terminal: a line per
//! event; with `--format json`: an object per event.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use kf_key::UnixMillis;
use kf_station::clock::{Clock as _, SystemClock};
use kf_station::line::Counts;
use kf_station::station::{Event, Watch};

/// How events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// The screen.
    Screen,
    /// A line per end of an attempt.
    Plain,
    /// A JSON object per event.
    Json,
}

impl Manner {
    /// The screen only for a person who sits there.
    pub(super) fn choose(json: bool, plain: bool) -> Self {
        match (json, plain || !std::io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Plain,
            (false, false) => Self::Screen,
        }
    }
}

#[derive(Default)]
struct Tile {
    event: Option<Event>,
    busy_millis: u64,
    attempts: u64,
}

/// Shows events.
pub(super) struct Screen<'a> {
    manner: Manner,
    tiles: Mutex<BTreeMap<String, Tile>>,
    counts: Box<dyn Fn() -> (Counts, u64) + Sync + 'a>,
    started: UnixMillis,
}

impl<'a> Screen<'a> {
    /// `counts` gives the books and the milliseconds until the quota ends.
    pub(super) fn new(manner: Manner, counts: impl Fn() -> (Counts, u64) + Sync + 'a) -> Self {
        Self { manner, tiles: Mutex::default(), counts: Box::new(counts), started: SystemClock.now() }
    }

    /// How much of the time the fixtures were busy, in percent.
    pub(super) fn utilisation(&self) -> u64 {
        let tiles = self.tiles.lock().unwrap_or_else(PoisonError::into_inner);
        let busy: u64 = tiles.values().map(|tile| tile.busy_millis).sum();
        let fixtures = u64::try_from(tiles.len()).unwrap_or(1).max(1);
        let passed = SystemClock.now().since(self.started).max(1);
        (busy.saturating_mul(100) / passed.saturating_mul(fixtures)).min(100)
    }

    fn draw(&self, tiles: &BTreeMap<String, Tile>) -> String {
        const ESCAPE: &str = "\u{1b}";
        let mut out = format!("{ESCAPE}[2J{ESCAPE}[H");
        for (name, tile) in tiles {
            let Some(event) = &tile.event else { continue };
            // Black on green, white on red, black on yellow: the word says the same to whoever sees no colours.
            let colour = match event.stage {
                "PASS" => "30;42",
                "FAIL" => "97;41",
                "waiting" => "0",
                _ => "30;43",
            };
            let reason = event.reason.map_or(String::new(), |reason| format!("{}: ", reason.words()));
            let next = event.next.unwrap_or("");
            let device = event.device.as_deref().unwrap_or("");
            out.push_str(&format!(
                "{ESCAPE}[1;{colour}m {name:<11} {:<12} {device:<24} {reason}{next} {ESCAPE}[0m\n\n",
                event.stage
            ));
        }
        let (counts, autonomy) = (self.counts)();
        out.push_str(&format!(
            "{ESCAPE}[1mGOOD {}   SCRAP {}   REWORK {}   LEFT {}   {} h{ESCAPE}[0m\n",
            counts.good,
            counts.scrap,
            counts.rework,
            counts.left,
            autonomy / UnixMillis::HOUR
        ));
        out
    }
}

impl Watch for Screen<'_> {
    fn tell(&self, event: &Event) {
        let mut tiles = self.tiles.lock().unwrap_or_else(PoisonError::into_inner);
        let tile = tiles.entry(event.fixture.clone()).or_default();
        if let Some(took) = event.took_millis {
            tile.busy_millis = tile.busy_millis.saturating_add(took);
            tile.attempts = tile.attempts.saturating_add(1);
        }
        // The last verdict stays until the next device is read: the operator may look later.
        let is_over = event.took_millis.is_some();
        if !(event.stage == "waiting" && tile.event.as_ref().is_some_and(|last| last.took_millis.is_some())) {
            tile.event = Some(event.clone());
        }
        let text = match self.manner {
            Manner::Json => format!("{}\n", serde_json::to_string(event).unwrap_or_default()),
            Manner::Plain if is_over => {
                let reason = event.reason.map_or("", |reason| reason.words());
                let device = event.device.as_deref().or(event.mac.as_deref()).unwrap_or("");
                format!("{} {} {device} {reason} {}\n", event.fixture, event.stage, event.next.unwrap_or(""))
                    .replace("  ", " ")
            }
            Manner::Plain => return,
            Manner::Screen => self.draw(&tiles),
        };
        let mut out = std::io::stdout().lock();
        // Whoever listened has gone: the journal still tells.
        let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
