//! Frames on the serial port: two octets of length (little endian), then that many octets.

use crate::serial::Serial;

/// The most octets of a frame.
pub const MAX_FRAME_OCTETS: usize = 20 * 1024;

/// The line to the host.
#[derive(Debug)]
pub struct Line(Serial);

/// A frame that is longer than the buffer for it. It was read to its end and thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTooLong;

impl Line {
    /// Opens the line.
    #[must_use]
    pub fn open() -> Self {
        Self(Serial::start())
    }

    /// Sends one frame made of parts that together have at most [`MAX_FRAME_OCTETS`]; what is longer is cut.
    pub fn send(&mut self, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>().min(MAX_FRAME_OCTETS);
        let [low, high, ..] = length.to_le_bytes();
        self.0.write_all(&[low, high]);
        for octet in parts.iter().copied().flatten().take(length) {
            self.0.write(*octet);
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// [`FrameTooLong`].
    pub fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> Result<&'a mut [u8], FrameTooLong> {
        let length = usize::from(u16::from_le_bytes([self.0.read(), self.0.read()]));
        if length > buffer.len() {
            for _ in 0..length {
                let _thrown_away = self.0.read();
            }
            return Err(FrameTooLong);
        }
        let frame = buffer.get_mut(..length).ok_or(FrameTooLong)?;
        for octet in frame.iter_mut() {
            *octet = self.0.read();
        }
        Ok(frame)
    }
}
