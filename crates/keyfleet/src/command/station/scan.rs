//! Numbers of boards from a barcode scanner, which types like a keyboard: a line for each. With several fixtures the scanner reads the label
//! of one first, `fixture-N`; what follows is for it, until it reads another.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use kf_key::KeyAlgorithm;
use kf_station::fixture::{BurnOrder, Destruction, DeviceNoise, ElementOrder, Fixture, FixtureError, Reading, Verdict};
use kf_station::image::{Image, Segment};
use kf_station::recipe::ChipState;

/// The most octets of a line: far more than a board number has.
const MAX_LINE_OCTETS: u64 = 256;
/// Boards that may be scanned ahead for one fixture.
const AHEAD: usize = 8;

/// A fixture that waits for the scanner before it reads a board.
struct Scanned {
    inner: Box<dyn Fixture>,
    numbers: Receiver<String>,
}

/// Puts the scanner before each fixture. It is read on a thread of its own until it ends; then no fixture waits any more.
///
/// # Errors
/// [`FixtureError::Failed`] when there is no thread for it.
pub(super) fn scanned(
    fixtures: Vec<Box<dyn Fixture>>,
    input: impl BufRead + Send + 'static,
) -> Result<Vec<Box<dyn Fixture>>, FixtureError> {
    let mut senders = Vec::new();
    let mut waiting: Vec<Box<dyn Fixture>> = Vec::new();
    for inner in fixtures {
        let (sender, numbers) = sync_channel(AHEAD);
        senders.push(sender);
        waiting.push(Box::new(Scanned { inner, numbers }));
    }
    let thread = std::thread::Builder::new().name("scanner".to_owned());
    thread.spawn(move || hand_out(input, &senders)).map_err(|_no_thread| FixtureError::Failed)?;
    Ok(waiting)
}

/// Hands each number to the fixture that was named last; the first one, until one is.
fn hand_out(mut input: impl BufRead, fixtures: &[SyncSender<String>]) {
    let mut at = 0;
    loop {
        let mut line = Vec::new();
        let read = std::io::Read::take(&mut input, MAX_LINE_OCTETS).read_until(b'\n', &mut line);
        if line.is_empty() || read.is_err() {
            return;
        }
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        let named = text.strip_prefix("fixture-").and_then(|number| number.parse::<usize>().ok());
        match named.and_then(|number| number.checked_sub(1)) {
            Some(number) if number < fixtures.len() => at = number,
            _ if text.is_empty() => {}
            // One whose fixture is out of service is put in elsewhere and scanned again.
            _ => drop(fixtures.get(at).map(|fixture| fixture.send(text))),
        }
    }
}

impl Fixture for Scanned {
    fn read(&mut self) -> Result<Option<Reading>, FixtureError> {
        let Ok(number) = self.numbers.recv() else { return Ok(None) };
        let Some(reading) = self.inner.read()? else { return Ok(None) };
        // The board tells another number than its label does.
        if !reading.board.is_empty() && reading.board != number {
            return Err(FixtureError::Failed);
        }
        Ok(Some(Reading { board: number, ..reading }))
    }

    fn make_key(&mut self, algorithm: KeyAlgorithm, slot: Option<u32>) -> Result<Vec<u8>, FixtureError> {
        self.inner.make_key(algorithm, slot)
    }

    fn personalize(&mut self, order: &ElementOrder) -> Result<Vec<u8>, FixtureError> {
        self.inner.personalize(order)
    }

    fn noise(&mut self) -> Result<DeviceNoise, FixtureError> {
        self.inner.noise()
    }

    fn write(&mut self, image: &Image) -> Result<(), FixtureError> {
        self.inner.write(image)
    }

    fn burn(&mut self, order: &BurnOrder) -> Result<ChipState, FixtureError> {
        self.inner.burn(order)
    }

    fn read_back(&mut self) -> Result<(Vec<Segment>, ChipState), FixtureError> {
        self.inner.read_back()
    }

    fn prove(&mut self, message: &[u8]) -> Result<Vec<u8>, FixtureError> {
        self.inner.prove(message)
    }

    fn destroy(&mut self) -> Result<Destruction, FixtureError> {
        self.inner.destroy()
    }

    fn show(&mut self, verdict: Verdict) {
        self.inner.show(verdict);
    }
}
