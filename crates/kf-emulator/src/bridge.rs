//! A running device, and what surrounds it: flash chip, noise source, fuses, modem.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use kf_testkit::{KnownSecret, MemoryReport, search_memory};

use crate::flash_chip::{Answer, FlashChip};
use crate::fuses::Fuses;
use crate::machine::{Machine, MachineError};
use crate::modem::{self, KnownRoots, Server};
use crate::noise::{Noise, Source};

/// Why a device did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BridgeError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("the power was cut")]
    PowerCut,
    #[error("the device refuses: {0}")]
    Refused(String),
    #[error("the firmware sent something that is no frame of its protocol")]
    Frame,
    #[error("a pin in fuses.json cannot be read")]
    Pin,
    #[error("a field of a command is too long")]
    TooLong,
    #[error("the modem could not be set up")]
    Modem(#[from] kf_client::ClientError),
    #[error("a file of the device")]
    File(#[from] std::io::Error),
    #[error("fuses.json cannot be read")]
    Fuses(#[from] serde_json::Error),
}

/// What a device is told to do; the code of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Enrolment code or nothing; 1 to renew at once. Gives the certificate.
    Enrol,
    /// Service and plaintext. Gives the envelope.
    Seal,
    /// Service and envelope. Gives the plaintext.
    Open,
    /// Gives where the device key lies.
    Exchange,
    /// Gives 1 when everything was erased and read back.
    Destroy,
    /// Noise state 1, place of the device key 24, certificate.
    Show,
    /// Does what is asked for beside an order, then fetches the order that waits, obeys and answers it. Gives the report.
    Orders,
    /// Number and octets: keeps them under the storage key.
    Keep,
    /// Number. Gives the version of the storage key in use, and the octets.
    Recall,
}

impl Command {
    const fn code(self) -> u8 {
        match self {
            Self::Enrol => 2,
            Self::Seal => 4,
            Self::Open => 5,
            Self::Exchange => 6,
            Self::Destroy => 8,
            Self::Show => 9,
            Self::Orders => 10,
            Self::Keep => 11,
            Self::Recall => 12,
        }
    }
}

/// The folder of a device, and what is plugged in.
#[derive(Debug)]
pub(crate) struct Board {
    fuses: Vec<u8>,
    pub(crate) flash: FlashChip,
    pub(crate) source: Source,
    pub(crate) server: Option<Server>,
    roots: KnownRoots,
    runtime: tokio::runtime::Runtime,
}

impl Board {
    /// The board whose fuses and flash are in `folder`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn new(folder: &Path, server: Option<Server>) -> Result<Self, BridgeError> {
        let fuses = Fuses::read(folder)?.frame(folder)?;
        let flash = FlashChip::open(&folder.join("flash.bin"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let roots = KnownRoots::default();
        Ok(Self { fuses, flash, source: Source::Works, server, roots, runtime })
    }

    /// Switches the power on. Gives the running device and its evidence about the noise.
    ///
    /// # Errors
    /// [`BridgeError::Refused`] when the device does not start: its noise or its storage.
    pub(crate) fn start(&mut self, image: &Path) -> Result<(Running<'_>, Vec<u8>), BridgeError> {
        let machine = Arc::new(Mutex::new(Machine::start(image)?));
        let noise = Noise::new(self.source);
        let fuses = self.fuses.clone();
        let mut running = Running { board: self, machine, noise, watched: None, seen: Vec::new() };
        let evidence = running.exchange(&fuses)?;
        Ok((running, evidence))
    }
}

/// A device whose power is on. Dropping it is pulling the plug.
pub(crate) struct Running<'b> {
    board: &'b mut Board,
    machine: Arc<Mutex<Machine>>,
    noise: Noise,
    /// What its memory is searched for whenever it waits for the modem.
    watched: Option<Vec<KnownSecret>>,
    seen: Vec<MemoryReport>,
}

impl Running<'_> {
    /// Tells the device to do something and serves it until it is done.
    ///
    /// # Errors
    /// [`BridgeError`].
    pub(crate) fn tell(&mut self, command: Command, arguments: &[&[u8]]) -> Result<Vec<u8>, BridgeError> {
        let now = now_millis().to_be_bytes();
        let arguments: Vec<&[u8]> = std::iter::once(now.as_slice()).chain(arguments.iter().copied()).collect();
        self.exchange(&[vec![command.code()], fields(&arguments)?].concat())
    }

    /// Searches the device's memory from now on whenever it waits for the modem, which is in the middle of an act.
    pub(crate) fn watch(&mut self, known: Vec<KnownSecret>) {
        self.watched = Some(known);
    }

    /// What was found so.
    pub(crate) fn seen(&self) -> &[MemoryReport] {
        &self.seen
    }

    /// Searches the memory of the process that runs the device, and so the device's: between two acts, when nothing else was begun.
    ///
    /// # Errors
    /// [`BridgeError::Frame`].
    pub(crate) fn search(&self, known: &[KnownSecret]) -> Result<MemoryReport, BridgeError> {
        Ok(search_memory(self.machine()?.process(), known))
    }

    fn machine(&self) -> Result<MutexGuard<'_, Machine>, BridgeError> {
        self.machine.lock().map_err(|_poisoned| BridgeError::Frame)
    }

    fn exchange(&mut self, frame: &[u8]) -> Result<Vec<u8>, BridgeError> {
        self.machine()?.send(frame)?;
        loop {
            let frame = self.machine()?.receive()?;
            let (kind, rest) = frame.split_first().ok_or(BridgeError::Frame)?;
            let answer = match kind {
                b'D' => return Ok(rest.to_vec()),
                b'F' => return Err(BridgeError::Refused(String::from_utf8_lossy(rest).into_owned())),
                b'R' => {
                    let (offset, length) = (number(rest, 0)?, number(rest, 4)?);
                    self.board.flash.read(offset, length).unwrap_or_default().to_vec()
                }
                b'P' => {
                    let (offset, octets) = (number(rest, 0)?, rest.get(4..).ok_or(BridgeError::Frame)?);
                    status(self.board.flash.program(offset, octets)?)?
                }
                b'E' => status(self.board.flash.erase(number(rest, 0)?)?)?,
                b'N' => self.noise.samples()?,
                b'H' => {
                    if let Some(known) = &self.watched {
                        self.seen.push(self.search(known)?);
                    }
                    let Board { server, roots, runtime, .. } = &mut *self.board;
                    modem::carry(&self.machine, (server.as_ref(), roots), runtime, rest)?
                }
                _ => return Err(BridgeError::Frame),
            };
            self.machine()?.send(&answer)?;
        }
    }
}

fn status(answer: Answer) -> Result<Vec<u8>, BridgeError> {
    match answer {
        Answer::Done => Ok(vec![0]),
        Answer::Refused => Ok(vec![1]),
        Answer::PowerCut => Err(BridgeError::PowerCut),
    }
}

fn number(octets: &[u8], at: usize) -> Result<u32, BridgeError> {
    let field = octets.get(at..).and_then(|rest| rest.first_chunk()).ok_or(BridgeError::Frame)?;
    Ok(u32::from_be_bytes(*field))
}

/// Fields, each behind its length.
///
/// # Errors
/// [`BridgeError::TooLong`].
pub(crate) fn fields(parts: &[&[u8]]) -> Result<Vec<u8>, BridgeError> {
    let mut frame = Vec::new();
    for part in parts {
        let length = u16::try_from(part.len()).map_err(|_too_long| BridgeError::TooLong)?;
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(part);
    }
    Ok(frame)
}

/// The clock of the emulated board.
#[allow(clippy::disallowed_methods, reason = "the emulator stands for the real-time clock of the board")]
fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
