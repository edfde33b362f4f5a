//! The flash chip and the noise source, which are at the other end of the line.

use core::cell::RefCell;
use core::fmt;

use board::line::Line;
use kf_device::entropy::Noise;
use kf_device::storage::{Flash, Geometry, Medium};

/// 16 sectors of 1 KiB, programmed in words of 8 octets, as on many microcontrollers.
const GEOMETRY: Geometry = Geometry { word: 8, sector: 1_024, sectors: 16 };
/// Octets that are fetched at once.
const PAGE: usize = 128;
const PAGES: usize = 16 * 1_024 / PAGE;
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

/// The flash chip. What was read is kept until it is programmed or erased: reading over the line is slow, and the
/// flash memory of a microcontroller is not.
pub(crate) struct LineFlash<'l> {
    line: &'l RefCell<Line>,
    pages: [[u8; PAGE]; PAGES],
    is_known: [bool; PAGES],
}

impl<'l> LineFlash<'l> {
    pub(crate) const fn new(line: &'l RefCell<Line>) -> Self {
        Self { line, pages: [[0; PAGE]; PAGES], is_known: [false; PAGES] }
    }

    /// The page, as the chip holds it.
    fn page(&mut self, number: usize) -> Result<&[u8; PAGE], Fault> {
        let mut page = *self.pages.get(number).ok_or(Fault)?;
        if !self.is_known.get(number).copied().unwrap_or(false) {
            let offset = u32::try_from(number * PAGE).map_err(|_outside| Fault)?;
            let length = u32::try_from(PAGE).map_err(|_never| Fault)?;
            self.ask(&[b"R", &offset.to_be_bytes(), &length.to_be_bytes()], &mut page)?;
            *self.pages.get_mut(number).ok_or(Fault)? = page;
            *self.is_known.get_mut(number).ok_or(Fault)? = true;
        }
        self.pages.get(number).ok_or(Fault)
    }

    fn forget(&mut self, offset: u32, octets: u32) -> Result<(), Fault> {
        let start = usize::try_from(offset).map_err(|_outside| Fault)?;
        let end = start.saturating_add(usize::try_from(octets).map_err(|_outside| Fault)?);
        for is_known in self.is_known.iter_mut().take(end.div_ceil(PAGE)).skip(start / PAGE) {
            *is_known = false;
        }
        Ok(())
    }

    fn ask(&self, request: &[&[u8]], answer: &mut [u8]) -> Result<(), Fault> {
        let mut line = self.line.borrow_mut();
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
        let mut at = usize::try_from(offset).map_err(|_outside| Fault)?;
        let mut rest = octets;
        while !rest.is_empty() {
            let (number, from) = (at / PAGE, at % PAGE);
            let (part, after) = rest.split_at_mut(rest.len().min(PAGE - from));
            part.copy_from_slice(self.page(number)?.get(from..from + part.len()).ok_or(Fault)?);
            at += part.len();
            rest = after;
        }
        Ok(())
    }

    fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), Fault> {
        self.forget(offset, u32::try_from(octets.len()).map_err(|_too_long| Fault)?)?;
        self.act(&[b"P", &offset.to_be_bytes(), octets])
    }

    fn erase(&mut self, sector: u32) -> Result<(), Fault> {
        self.forget(sector.saturating_mul(GEOMETRY.sector), GEOMETRY.sector)?;
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
