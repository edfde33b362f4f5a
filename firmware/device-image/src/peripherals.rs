//! The flash chip and the noise source, which are at the other end of the line.

use core::cell::RefCell;
use core::fmt;

use board::line::Line;
use kf_device::entropy::Noise;
use kf_device::storage::{Flash, Geometry, Medium};

/// 16 sectors of 1 KiB, programmed in words of 8 octets, as on many microcontrollers.
const GEOMETRY: Geometry = Geometry { word: 8, sector: 1_024, sectors: 16 };
/// Samples that are fetched at once.
const SAMPLES: usize = 256;

/// The chip did not answer as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the chip did not answer")
    }
}

impl core::error::Error for Fault {}

/// The flash chip.
pub(crate) struct LineFlash<'l>(pub(crate) &'l RefCell<Line>);

impl LineFlash<'_> {
    fn ask(&self, request: &[&[u8]], answer: &mut [u8]) -> Result<(), Fault> {
        let mut line = self.0.borrow_mut();
        line.send(request);
        let length = answer.len();
        let found = line.receive(answer).map_err(|_too_long| Fault)?;
        if found.len() == length { Ok(()) } else { Err(Fault) }
    }

    fn act(&self, request: &[&[u8]]) -> Result<(), Fault> {
        let mut status = [1];
        self.ask(request, &mut status)?;
        if status == [0] { Ok(()) } else { Err(Fault) }
    }
}

impl Flash for LineFlash<'_> {
    type Error = Fault;

    fn geometry(&self) -> Geometry {
        GEOMETRY
    }

    fn medium(&self) -> Medium {
        Medium::Raw
    }

    fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), Fault> {
        let length = u32::try_from(octets.len()).map_err(|_too_long| Fault)?;
        self.ask(&[b"R", &offset.to_be_bytes(), &length.to_be_bytes()], octets)
    }

    fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), Fault> {
        self.act(&[b"P", &offset.to_be_bytes(), octets])
    }

    fn erase(&mut self, sector: u32) -> Result<(), Fault> {
        self.act(&[b"E", &sector.to_be_bytes()])
    }
}

/// The noise source.
pub(crate) struct LineNoise<'l> {
    line: &'l RefCell<Line>,
    samples: [u8; SAMPLES],
    next: usize,
}

impl<'l> LineNoise<'l> {
    pub(crate) fn new(line: &'l RefCell<Line>) -> Self {
        Self { line, samples: [0; SAMPLES], next: SAMPLES }
    }
}

impl Noise for LineNoise<'_> {
    type Error = Fault;

    fn sample(&mut self) -> Result<u8, Fault> {
        if self.next >= SAMPLES {
            let mut line = self.line.borrow_mut();
            line.send(&[b"N"]);
            let found = line.receive(&mut self.samples).map_err(|_too_long| Fault)?;
            if found.len() != SAMPLES {
                return Err(Fault);
            }
            self.next = 0;
        }
        let place = self.samples.get_mut(self.next).ok_or(Fault)?;
        self.next += 1;
        // A sample is used once.
        Ok(core::mem::take(place))
    }
}
