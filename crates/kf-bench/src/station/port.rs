//! A port of the line: writes images where the measurement wants them, and plays the device.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};
use kf_station::fixture::{BurnOrder, Fixture, FixtureError, Reading};
use kf_station::image::{Image, Segment};
use kf_station::recipe::ChipState;
use kf_station::target::{Protected, Target};
use rustix::time::{ClockId, clock_gettime};

use crate::error::BenchError;

/// Where images go.
pub(super) enum Output {
    /// One behind the other into one file.
    Pack(Mutex<File>),
    /// A file each.
    Files(PathBuf),
    /// Nowhere: the port itself is the measurement.
    Nothing,
}

impl Output {
    pub(super) fn pack(path: &Path) -> Result<Self, BenchError> {
        let file = File::create(path).map_err(BenchError::io("a file for images"))?;
        Ok(Self::Pack(Mutex::new(file)))
    }

    /// Writes the image of the device of this number.
    pub(super) fn write(&self, number: u32, image: &Image) -> std::io::Result<()> {
        // Exposed to be written: what the vendor's tool sends to a chip.
        let mut parts = image.segments.iter().map(|segment| segment.octets.expose());
        match self {
            Self::Pack(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                parts.try_for_each(|part| file.write_all(part))
            }
            Self::Files(folder) => {
                let mut file = File::create_new(folder.join(format!("{number:06}.bin")))?;
                parts.try_for_each(|part| file.write_all(part))
            }
            Self::Nothing => Ok(()),
        }
    }
}

/// What the ports share.
pub(super) struct Line {
    next: AtomicU32,
    last: u32,
    output: Output,
    pace: Option<Duration>,
    /// What the devices themselves computed.
    pub(super) device_nanoseconds: AtomicU64,
    /// How long the ports were busy, all together.
    pub(super) busy_nanoseconds: AtomicU64,
}

impl Line {
    /// `pace`: how long an image takes over the wire, each way.
    pub(super) const fn new(count: u32, output: Output, pace: Option<Duration>) -> Self {
        Self {
            next: AtomicU32::new(0),
            last: count,
            output,
            pace,
            device_nanoseconds: AtomicU64::new(0),
            busy_nanoseconds: AtomicU64::new(0),
        }
    }

    fn wire(&self) {
        let Some(pace) = self.pace else { return };
        let started = Instant::now();
        while let Some(left) = pace.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
        let busy = u64::try_from(started.elapsed().as_nanos()).unwrap_or(0);
        self.busy_nanoseconds.fetch_add(busy, Ordering::Relaxed);
    }

    /// What the device does costs the station nothing.
    fn as_device<T>(&self, act: impl FnOnce() -> T) -> T {
        let before = thread_nanoseconds();
        let outcome = act();
        self.device_nanoseconds.fetch_add(thread_nanoseconds().saturating_sub(before), Ordering::Relaxed);
        outcome
    }
}

fn thread_nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// One port.
pub(super) struct Port {
    line: Arc<Line>,
    target: Arc<dyn Target>,
    number: u32,
    segments: Vec<Segment>,
    held: Protected,
}

impl Port {
    pub(super) const fn new(line: Arc<Line>, target: Arc<dyn Target>) -> Self {
        Self { line, target, number: 0, segments: Vec::new(), held: Protected { unlock: None, flash_key: None } }
    }
}

fn copy(segment: &Segment) -> Segment {
    // Exposed to the simulated flash.
    let octets = segment.octets.expose();
    Segment {
        name: segment.name.clone(),
        offset: segment.offset,
        octets: SecretBytes::fill(octets.len(), |out| out.copy_from_slice(octets)),
    }
}

impl Fixture for Port {
    fn read(&mut self) -> Result<Option<Reading>, FixtureError> {
        self.number = self.line.next.fetch_add(1, Ordering::Relaxed);
        if self.number >= self.line.last {
            return Ok(None);
        }
        let [a, b, c, d] = self.number.to_be_bytes();
        Ok(Some(Reading {
            mac: format!("02:4b:{a:02x}:{b:02x}:{c:02x}:{d:02x}"),
            board: format!("B{:08}", self.number),
            chip: Some("esp32-c3".to_owned()),
            ..Reading::default()
        }))
    }

    fn make_key(&mut self, _algorithm: KeyAlgorithm, _slot: Option<u32>) -> Result<Vec<u8>, FixtureError> {
        Err(FixtureError::Unsupported)
    }

    fn write(&mut self, image: &Image) -> Result<(), FixtureError> {
        self.line.output.write(self.number, image).map_err(|_io| FixtureError::Failed)?;
        self.line.wire();
        let line = Arc::clone(&self.line);
        line.as_device(|| {
            self.segments = image.segments.iter().map(copy).collect();
        });
        Ok(())
    }

    fn burn(&mut self, order: &BurnOrder) -> Result<ChipState, FixtureError> {
        let key = order.steps.iter().find_map(|one| one.key.as_ref());
        // Exposed to the simulated fuse.
        self.held.unlock = key.map(|key| SecretArray::fill(|out: &mut [u8; 32]| *out = *key.expose()));
        Ok(ChipState { keys_hidden: true, ..ChipState::default() })
    }

    fn read_back(&mut self) -> Result<(Vec<Segment>, ChipState), FixtureError> {
        self.line.wire();
        let segments = self.line.as_device(|| self.segments.iter().map(copy).collect());
        Ok((segments, ChipState { keys_hidden: true, ..ChipState::default() }))
    }

    fn prove(&mut self, message: &[u8]) -> Result<Vec<u8>, FixtureError> {
        self.line.as_device(|| {
            let key = self.target.open(&self.segments, &self.held).ok_or(FixtureError::Failed)?;
            key.sign(message).map_err(|_opaque| FixtureError::Failed)
        })
    }
}
