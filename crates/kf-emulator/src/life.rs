//! A whole life of a device on the emulated microcontroller, against a real server, with the power cut again and again.

use std::error::Error;
use std::path::{Path, PathBuf};

use kf_device::certificate::Certificate;
use kf_entropy::{Evidence, NoiseState as Declared};
use kf_key::DeviceId;

use crate::bridge::{Board, BridgeError, Command};
use crate::flash_chip::Random;
use crate::fuses::{Fuses, NoiseState};
use crate::noise::Source;
use crate::report::Row;
use crate::server::{Fleet, pem};

const NAME: &str = "thermo-0001";
const LINE: &str = "thermo";
const SERVICE: &[u8] = b"telemetry";
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
    envelopes: Vec<(String, PathBuf)>,
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
    // A renewal whose answer was lost in a power cut is asked for again, and each answer is a live certificate.
    fleet.run(&["product-line", "create", LINE, "--max-live-ldevids", "16"])?;
    let new = fleet.json(&["device", "register", NAME, "--facility", "lyon", "--product-line", LINE])?;
    let device: DeviceId = new["id"].as_str().unwrap_or_default().parse()?;
    fleet.run(&["code", "create", NAME, "--out", "code"])?;
    let folder = fleet.path("device");
    fuses(&fleet, device, NoiseState::PhysicalOn)?.burn(&folder)?;
    let board = Board::new(&folder, Some(fleet.address()?))?;
    let (random, rows) = (Random(seed), Vec::new());
    let image = image.to_owned();
    let mut life = Life { fleet, image, board, folder, random, cuts: 0, envelopes: Vec::new(), rows };
    life.refuse_bad_noise(device)?;
    let stages: [Stage; 6] = [
        ("birth", Life::be_born),
        ("first messages", |life| life.talk("first")),
        ("rotation", Life::rotate),
        ("later messages", |life| life.talk("second")),
        ("opening", Life::everything_opens),
        ("death", Life::die),
    ];
    for (name, stage) in stages {
        stage(&mut life).map_err(|error| format!("{name}: {error}; {}", life.fleet.refusals()))?;
    }
    let (cuts, operations) = (life.cuts, life.board.flash.operations());
    life.hold("power cuts survived", format!("{cuts} in {operations} flash operations, seed {seed}"), cuts > 0);
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
    fn hold(&mut self, what: &str, found: String, holds: bool) {
        self.rows.push(Row { what: what.to_owned(), found, limit: String::new(), holds });
    }

    /// Does it with the power cut at random, until it is done without a cut.
    fn despite_cuts(&mut self, command: Command, arguments: &[&[u8]]) -> Outcome<Vec<u8>> {
        for attempt in 1..=MAX_CUTS {
            let operations = self.random.below(attempt * 24);
            let torn = Random(self.random.next());
            self.board.flash.cut_after(operations, torn);
            let done = self.board.start(&self.image).and_then(|(mut running, _)| running.tell(command, arguments));
            self.board.flash.power_on();
            match done {
                Err(BridgeError::PowerCut) => self.cuts += 1,
                other => return Ok(other?),
            }
        }
        Err("the device made no progress between power cuts".into())
    }

    fn refuse_bad_noise(&mut self, device: DeviceId) -> Outcome<()> {
        for (what, source) in
            [("a stuck noise source", Source::Stuck), ("noise that repeats after a start", Source::Repeats)]
        {
            let folder = self.fleet.path(if source == Source::Stuck { "stuck" } else { "repeats" });
            fuses(&self.fleet, device, NoiseState::PhysicalOn)?.burn(&folder)?;
            let mut board = Board::new(&folder, None)?;
            board.source = source;
            // The first start has nothing to be compared with.
            let _first = board.start(&self.image).map(drop);
            let refused = matches!(board.start(&self.image), Err(BridgeError::Refused(_)));
            self.hold(&format!("{what} is refused"), "no start".to_owned(), refused);
        }
        let folder = self.fleet.path("pseudo-random");
        fuses(&self.fleet, device, NoiseState::PseudoRandomOnly)?.burn(&folder)?;
        let mut board = Board::new(&folder, Some(self.fleet.address()?))?;
        let code = std::fs::read(self.fleet.path("code"))?;
        let (mut running, _) = board.start(&self.image)?;
        let made = running.tell(Command::Enrol, &[code.trim_ascii(), &[0]]);
        let refused = matches!(&made, Err(BridgeError::Refused(reason)) if reason.starts_with("seed"));
        self.hold("pseudo-random noise makes no key", "no seed for production".to_owned(), refused);
        Ok(())
    }

    fn be_born(&mut self) -> Outcome<()> {
        let (running, evidence) = self.board.start(&self.image)?;
        drop(running);
        let evidence = Evidence::from_bytes(&evidence)?;
        let healthy = evidence.state == Declared::PhysicalOn && evidence.counts.samples >= 1_024;
        self.hold("start-up test of the noise", format!("{} samples", evidence.counts.samples), healthy);
        let code = std::fs::read(self.fleet.path("code"))?;
        let certificate = self.despite_cuts(Command::Enrol, &[code.trim_ascii(), &[0]])?;
        let listed = self.fleet.json(&["device", "show", NAME])?;
        let count = listed["certificates"].as_array().map_or(0, Vec::len);
        // Cut before the request is stored, the key is gone and with it what was asked for; never after.
        let known = Certificate::from_der(&certificate).is_ok() && listed["device"]["state"] == "active";
        self.hold("enrolled over EST", format!("active, {count} certificate issued"), known && count == 1);
        let place = self.despite_cuts(Command::Exchange, &[])?;
        self.hold("device key delivered", epochs(&place), self.is_up_to_date()?);
        Ok(())
    }

    fn is_up_to_date(&self) -> Outcome<bool> {
        let keys = self.fleet.json(&["epoch", "show", "--device", NAME])?;
        Ok(keys["up_to_date"] == true)
    }

    /// A few messages over a few boots, some of which end in a power cut.
    fn talk(&mut self, when: &str) -> Outcome<()> {
        for number in 0..4 {
            let text = format!("{when} {number}");
            let envelope = self.despite_cuts(Command::Seal, &[SERVICE, text.as_bytes()])?;
            let path = self.fleet.path(&format!("{when}-{number}.cose"));
            std::fs::write(&path, envelope)?;
            self.envelopes.push((text, path));
        }
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

    fn everything_opens(&mut self) -> Outcome<()> {
        let (mut opened, mut boots) = (0, std::collections::BTreeSet::new());
        for (text, path) in &self.envelopes {
            let path = path.to_string_lossy().into_owned();
            let found = self.fleet.run(&["open", &path])?;
            opened += usize::from(found == *text);
            let octets = std::fs::read(path)?;
            let sealed = kf_device::sealed::kf_seal::Sealed::parse(&octets)?;
            boots.insert((*sealed.boot().random(), sealed.counter()));
        }
        let all = self.envelopes.len();
        self.hold("sealed messages opened by the server", format!("{opened} of {all}"), opened == all);
        self.hold("no nonce twice", format!("{} of {all} differ", boots.len()), boots.len() == all);
        Ok(())
    }

    fn die(&mut self) -> Outcome<()> {
        let shown = self.despite_cuts(Command::Show, &[])?;
        let certificate = shown.get(60..124).unwrap_or_default().to_vec();
        let facility = shown.get(1..17).unwrap_or_default().to_vec();
        let is_there = |cells: &[u8], what: &[u8]| cells.windows(what.len().max(1)).any(|window| window == what);
        let before = is_there(self.board.flash.cells(), &certificate) && is_there(self.board.flash.cells(), &facility);
        let answer = self.despite_cuts(Command::Destroy, &[])?;
        let cells = self.board.flash.cells();
        let after = is_there(cells, &certificate) || is_there(cells, &facility);
        let gone = before && !after && answer == [1];
        self.hold("destroyed, cells read back", "nothing of key records or certificate is left".to_owned(), gone);
        let again = Board::new(&self.folder, None)?.start(&self.image)?.0.tell(Command::Seal, &[SERVICE, b"x"]);
        let refused = matches!(again, Err(BridgeError::Refused(_)));
        self.hold("a destroyed device seals nothing", "refused".to_owned(), refused);
        Ok(())
    }
}

fn epochs(place: &[u8]) -> String {
    let epoch =
        |at: usize| place.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_be_bytes(*four));
    format!("facility epoch {}, device epoch {}", epoch(16), epoch(20))
}
