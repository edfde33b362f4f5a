//! The noise source of the emulated board: the kernel's generator stands for it, or something that is broken.

use std::io;

/// Samples that the board hands over at once.
pub(crate) const SAMPLES: usize = 256;

/// What the source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Source {
    /// Gives noise.
    Works,
    /// Gives the same sample for ever.
    Stuck,
    /// Gives one value every fourth time, far less entropy than the board's designer has assessed; at fixed places, since the
    /// adaptive proportion test only counts the value that a window begins with.
    Biased,
    /// Gives the same samples after every start.
    Repeats,
}

/// The source, switched on.
#[derive(Debug)]
pub(crate) struct Noise {
    source: Source,
    position: u64,
}

impl Noise {
    pub(crate) const fn new(source: Source) -> Self {
        Self { source, position: 0 }
    }

    /// The next samples.
    ///
    /// # Errors
    /// Of the kernel.
    pub(crate) fn samples(&mut self) -> io::Result<Vec<u8>> {
        let mut samples = vec![0x5a; SAMPLES];
        match self.source {
            Source::Works => fill(&mut samples)?,
            Source::Stuck => {}
            Source::Biased => {
                fill(&mut samples)?;
                samples.iter_mut().step_by(4).for_each(|sample| *sample = 0);
            }
            Source::Repeats => {
                let mut random = crate::flash_chip::Random(self.position);
                for chunk in samples.chunks_mut(8) {
                    chunk.copy_from_slice(&random.next().to_le_bytes());
                }
                self.position = random.next();
            }
        }
        Ok(samples)
    }
}

/// Random octets of the kernel.
///
/// # Errors
/// Of the kernel.
pub(crate) fn fill(octets: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = octets.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}
