//! A whole life of a device on the emulated microcontroller, against a real server, with the power cut again and again.

mod death;
mod migration;
mod refusals;
mod sale;

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};

use kf_device::certificate::Certificate;
use kf_entropy::{Evidence, NoiseState as Declared};
use kf_key::DeviceId;

use crate::bridge::{Board, BridgeError, Command, Running};
use crate::flash_chip::Random;
use crate::fuses::{Fuses, NoiseState};
use crate::remains::Remains;
use crate::report::Row;
use crate::server::{Fleet, pem};

const NAME: &str = "thermo-0001";
const LINE: &str = "thermo";
const SERVICE: &[u8] = b"telemetry";
const COMMANDS: &str = "command";
/// Fewer cuts than this have not tried much.
const MIN_CUTS: u32 = 10;
/// More cuts than an act needs: each lets more operations pass than the one before.
const MAX_CUTS: u32 = 60;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The device, its fleet, and where the power goes.
struct Life {
    fleet: Fleet,
    image: PathBuf,
    board: Board,
    folder: PathBuf,
    random: Random,
    cuts: u32,
    /// Sealed and not opened yet: the text and the file.
    sealed: Vec<(String, PathBuf)>,
    /// Boots and counters that were seen: what no two messages may share.
    nonces: BTreeSet<([u8; 16], u32)>,
    /// Sealed before the rotation and sent after it.
    late: Option<PathBuf>,
    messages: usize,
    remains: Remains,
    rows: Vec<Row>,
}

/// One part of a life.
type Stage = (&'static str, fn(&mut Life) -> Outcome<()>);

/// Lives it.
///
/// # Errors
/// When something could not be run; what does not hold is in the rows.
pub(crate) fn run(keyfleet: &Path, image: &Path, seed: u64) -> Outcome<Vec<Row>> {
    let fleet = Fleet::start(keyfleet)?;
    fleet.run(&["facility", "create", "lyon"])?;
    fleet.run(&["product-line", "create", LINE])?;
    let new = fleet.json(&["device", "register", NAME, "--facility", "lyon", "--product-line", LINE])?;
    let device: DeviceId = new["id"].as_str().unwrap_or_default().parse()?;
    fleet.run(&["code", "create", NAME, "--out", "code"])?;
    let folder = fleet.path("device");
    fuses(&fleet, device, NoiseState::PhysicalOn)?.burn(&folder)?;
    let board = Board::new(&folder, Some(fleet.address()?))?;
    let remains = Remains::of(&folder, device)?;
    let mut life = Life {
        fleet,
        image: image.to_owned(),
        board,
        folder,
        random: Random(seed),
        cuts: 0,
        sealed: Vec::new(),
        nonces: BTreeSet::new(),
        late: None,
        messages: 0,
        remains,
        rows: Vec::new(),
    };
    life.fleet.sign_up_second()?;
    life.refuse_bad_noise(device)?;
    let stages: [Stage; 15] = [
        ("birth", Life::be_born),
        ("a sale too early", Life::refuse_early_sale),
        ("first messages", |life| life.talk("first")),
        ("commands", Life::obey),
        ("bad payloads", Life::refuse_bad_payloads),
        ("rotation", Life::rotate),
        ("later messages", |life| life.talk("second")),
        ("late message", Life::refuse_superseded),
        ("a new storage key", Life::move_storage),
        ("a new root", Life::take_up_root),
        ("a renewal by campaign", Life::renew_by_campaign),
        ("a look into its memory", Life::look_into_memory),
        ("a sale", Life::be_sold),
        ("messages of the next owner", |life| life.talk("third")),
        ("death", Life::die),
    ];
    for (name, stage) in stages {
        stage(&mut life).map_err(|error| format!("{name}: {error}; {}", life.fleet.refusals()))?;
        life.look_for_keys(name)?;
    }
    life.conclude(seed);
    Ok(life.rows)
}

fn fuses(fleet: &Fleet, device: DeviceId, noise: NoiseState) -> Outcome<Fuses> {
    use base64::Engine as _;
    let pins = pem(&fleet.run(&["epoch", "pins"])?);
    let pin =
        |place: usize| pins.get(place).map(|der| base64::prelude::BASE64_STANDARD.encode(der)).unwrap_or_default();
    let anchor = hex::encode(Certificate::from_der(&fleet.address()?.root)?.fingerprint());
    let (name, label) = (NAME.to_owned(), LINE.to_owned());
    Ok(Fuses { device, name, label, anchor, noise, delivery: pin(0), orders: pin(1) })
}

impl Life {
    fn conclude(&mut self, seed: u64) {
        let (nonces, messages) = (self.nonces.len(), self.messages);
        self.hold("no nonce twice", format!("{nonces} of {messages} differ"), nonces == messages && messages > 0);
        let (cuts, operations) = (self.cuts, self.board.flash.operations());
        self.hold("power cuts survived", cuts.to_string(), cuts >= MIN_CUTS);
        if let Some(row) = self.rows.last_mut() {
            row.limit = format!("at least {MIN_CUTS}");
        }
        self.hold("flash operations", operations.to_string(), operations > 0);
        self.hold("seed of the power cuts", seed.to_string(), true);
    }

    fn hold(&mut self, what: &str, found: String, holds: bool) {
        self.rows.push(Row { what: what.to_owned(), found, limit: String::new(), holds, target: None });
    }

    fn despite_cuts(&mut self, command: Command, arguments: &[&[u8]]) -> Outcome<Vec<u8>> {
        self.repeat(|running| running.tell(command, arguments))
    }

    /// Does it with the power cut at random, until it is done without a cut. Keys that come and go meanwhile are known afterwards.
    fn repeat<T>(&mut self, act: impl Fn(&mut Running<'_>) -> Result<T, BridgeError>) -> Outcome<T> {
        for attempt in 1..=MAX_CUTS {
            let operations = self.random.below(attempt * 24);
            let torn = Random(self.random.next());
            self.board.flash.cut_after(operations, torn);
            let done = self.board.start(&self.image).and_then(|(mut running, _)| act(&mut running));
            self.board.flash.power_on();
            self.remains.collect(self.board.flash.cells())?;
            match done {
                Err(BridgeError::PowerCut) => self.cuts += 1,
                other => return Ok(other?),
            }
        }
        Err("the device made no progress between power cuts".into())
    }

    fn be_born(&mut self) -> Outcome<()> {
        let (running, evidence) = self.board.start(&self.image)?;
        drop(running);
        let evidence = Evidence::from_bytes(&evidence)?;
        let healthy = evidence.state == Declared::PhysicalOn && evidence.counts.samples >= 1_024;
        self.hold("start-up test of the noise", format!("{} samples", evidence.counts.samples), healthy);
        let certificate = self.enrol("code")?;
        let listed = self.fleet.json(&["device", "show", NAME])?;
        let count = listed["certificates"].as_array().map_or(0, Vec::len);
        // Cut before the request is stored, the key is gone and with it what was asked for; never after.
        let known = Certificate::from_der(&certificate).is_ok() && listed["device"]["state"] == "active";
        self.hold("enrolled over EST", format!("active, {count} certificate issued"), known && count == 1);
        let place = self.despite_cuts(Command::Exchange, &[])?;
        self.hold("device key delivered", epochs(&place), self.is_up_to_date()?);
        Ok(())
    }

    /// With the one-time code in a file of the fleet's folder.
    fn enrol(&mut self, code: &str) -> Outcome<Vec<u8>> {
        let code = std::fs::read(self.fleet.path(code))?;
        self.despite_cuts(Command::Enrol, &[code.trim_ascii(), &[0]])
    }

    fn is_up_to_date(&self) -> Outcome<bool> {
        let keys = self.fleet.json(&["epoch", "show", "--device", NAME])?;
        Ok(keys["up_to_date"] == true)
    }

    /// A few messages over a few boots, some of which end in a power cut. The server opens all but one.
    fn talk(&mut self, when: &str) -> Outcome<()> {
        for number in 0..4 {
            let text = format!("{when} {number}");
            let envelope = self.despite_cuts(Command::Seal, &[SERVICE, text.as_bytes()])?;
            let sealed = kf_device::sealed::kf_seal::Sealed::parse(&envelope)?;
            self.nonces.insert((*sealed.boot().random(), sealed.counter()));
            self.messages += 1;
            let path = self.fleet.path(&format!("{when}-{number}.cose"));
            std::fs::write(&path, envelope)?;
            self.sealed.push((text, path));
        }
        let (mut opened, all) = (0, self.sealed.len() - 1);
        for (text, path) in self.sealed.drain(..all) {
            opened += usize::from(self.fleet.run(&["open", &path.to_string_lossy()])? == text);
        }
        self.hold(&format!("{when} messages opened"), format!("{opened} of {all}"), opened == all);
        Ok(())
    }

    fn rotate(&mut self) -> Outcome<()> {
        let before = self.despite_cuts(Command::Show, &[])?;
        self.fleet.run(&["epoch", "advance", "--facility", "lyon", "--why", "rehearsal"])?;
        let place = self.despite_cuts(Command::Exchange, &[])?;
        let moved = self.is_up_to_date()? && place.get(16..20) == Some(&2_u32.to_be_bytes());
        self.hold("device key rotated", epochs(&place), moved);
        let is_new = self.renew(before.get(25..).unwrap_or_default())?;
        self.hold("identity renewed under mutual TLS", "the key signed on the device".to_owned(), is_new);
        // However often the answer was lost, it was the same one.
        let listed = self.fleet.json(&["device", "show", NAME])?;
        let count = listed["certificates"].as_array().map_or(0, Vec::len);
        self.hold("certificates of the whole life", count.to_string(), count == 2);
        Ok(())
    }

    /// Asks for a renewal once: after a cut the device goes on by itself with what it had begun.
    fn renew(&mut self, before: &[u8]) -> Outcome<bool> {
        for attempt in 1..=MAX_CUTS {
            let operations = self.random.below(attempt * 24);
            let torn = Random(self.random.next());
            self.board.flash.cut_after(operations, torn);
            let ask = [b"".as_slice(), &[1]];
            let done = self.board.start(&self.image).and_then(|(mut running, _)| running.tell(Command::Enrol, &ask));
            self.board.flash.power_on();
            self.remains.collect(self.board.flash.cells())?;
            match done {
                Err(BridgeError::PowerCut) => self.cuts += 1,
                other => return Ok(other?.as_slice() != before),
            }
            let shown = self.despite_cuts(Command::Show, &[])?;
            if shown.get(25..) != Some(before) {
                return Ok(true);
            }
        }
        Err("the renewal made no progress between power cuts".into())
    }
}

fn epochs(place: &[u8]) -> String {
    let epoch =
        |at: usize| place.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_be_bytes(*four));
    format!("facility epoch {}, device epoch {}", epoch(16), epoch(20))
}
