//! One emulated microcontroller: a QEMU process whose serial port is our pipe.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::target::{Target, TargetError};

/// How long the firmware may stay silent while an answer is due. P-256 takes it half a second; a machine that runs other
/// tests beside this one makes that several.
const SILENCE: Duration = Duration::from_secs(60);

/// The most octets of a frame, either way.
pub(crate) const MAX_FRAME_OCTETS: usize = 20 * 1024;

/// Chunks read from the emulator that may wait for us.
const QUEUE: usize = 64;

/// Why the firmware gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("cannot start {program}; it is in the Debian package {package}")]
    Start { program: &'static str, package: &'static str, source: std::io::Error },
    #[error("the firmware stopped with {status}: {said}")]
    Stopped { status: ExitStatus, said: String },
    #[error("the firmware was silent for {} s", SILENCE.as_secs())]
    Silent,
    #[error("a frame of {octets} octets is more than {MAX_FRAME_OCTETS}")]
    FrameTooLong { octets: usize },
    #[error("the firmware does not know this request, or it could not be encoded")]
    Request,
    #[error("the emulator's pipe broke")]
    Pipe(#[from] std::io::Error),
}

/// A running machine. Dropping it is pulling the plug.
#[derive(Debug)]
pub(crate) struct Machine {
    emulator: Child,
    to_firmware: ChildStdin,
    from_firmware: Receiver<Vec<u8>>,
    pending: std::collections::VecDeque<u8>,
}

impl Machine {
    /// Starts `image` on the machine that it is for. One instruction takes one nanosecond of the machine's time, so that counts repeat exactly.
    ///
    /// # Errors
    /// [`MachineError::Target`], [`MachineError::Start`].
    pub(crate) fn start(image: &Path) -> Result<Self, MachineError> {
        let (program, package, machine) = Target::of(image)?.emulator();
        let start = |source| MachineError::Start { program, package, source };
        let mut command = Command::new(program);
        command.args(machine).args(["-nodefaults", "-nic", "none", "-display", "none"]);
        command.args(["-serial", "stdio", "-icount", "shift=0,sleep=off"]);
        command.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(image);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut emulator = command.spawn().map_err(start)?;
        let (Some(to_firmware), Some(mut stdout)) = (emulator.stdin.take(), emulator.stdout.take()) else {
            return Err(start(std::io::Error::other("no pipes")));
        };
        let (sender, from_firmware) = sync_channel(QUEUE);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut chunk) {
                if sender.send(chunk.get(..count).unwrap_or_default().to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { emulator, to_firmware, from_firmware, pending: std::collections::VecDeque::new() })
    }

    /// The emulator's process.
    pub(crate) fn process(&self) -> u32 {
        self.emulator.id()
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<(), MachineError> {
        let too_long = MachineError::FrameTooLong { octets: frame.len() };
        let length = u16::try_from(frame.len()).ok().filter(|length| usize::from(*length) <= MAX_FRAME_OCTETS);
        let length = length.ok_or(too_long)?;
        let written = self.to_firmware.write_all(&[length.to_le_bytes().as_slice(), frame].concat());
        match written.and_then(|()| self.to_firmware.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(self.stopped(error)),
            other => Ok(other?),
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(crate) fn receive(&mut self) -> Result<Vec<u8>, MachineError> {
        let length = usize::from(u16::from_le_bytes([self.octet()?, self.octet()?]));
        if length > MAX_FRAME_OCTETS {
            return Err(MachineError::FrameTooLong { octets: length });
        }
        (0..length).map(|_| self.octet()).collect()
    }

    /// Sends a frame and waits for the answer.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(crate) fn ask(&mut self, frame: &[u8]) -> Result<Vec<u8>, MachineError> {
        self.send(frame)?;
        self.receive()
    }

    /// Waits for the firmware to end by itself, and returns its status and what it said on the debug channel.
    ///
    /// # Errors
    /// [`MachineError::Silent`].
    pub(crate) fn ended(mut self) -> Result<(ExitStatus, String), MachineError> {
        let deadline = Instant::now() + SILENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.emulator.try_wait()? {
                return Ok((status, self.said()));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Err(MachineError::Silent)
    }

    fn octet(&mut self) -> Result<u8, MachineError> {
        loop {
            if let Some(octet) = self.pending.pop_front() {
                return Ok(octet);
            }
            match self.from_firmware.recv_timeout(SILENCE) {
                Ok(chunk) => self.pending.extend(chunk),
                Err(RecvTimeoutError::Timeout) => return Err(MachineError::Silent),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.stopped(std::io::ErrorKind::BrokenPipe.into()));
                }
            }
        }
    }

    fn stopped(&mut self, error: std::io::Error) -> MachineError {
        match self.emulator.wait() {
            Ok(status) => MachineError::Stopped { status, said: self.said() },
            Err(_) => MachineError::Pipe(error),
        }
    }

    fn said(&mut self) -> String {
        let mut said = String::new();
        if let Some(stderr) = self.emulator.stderr.as_mut() {
            let _what_came = stderr.take(4096).read_to_string(&mut said);
        }
        said.trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _has_ended = self.emulator.kill();
        let _has_ended = self.emulator.wait();
    }
}
