//! The few heads of CBOR that an envelope has, in the deterministic encoding (RFC 8949 section 4.2.1) only: definite
//! lengths, the shortest argument.

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;

/// Fills a buffer from the front. Every step says `None` when there is no room; what was written then is of no use.
pub(crate) struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, length: 0 }
    }

    pub(crate) fn written(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    pub(crate) fn raw(&mut self, octets: &[u8]) -> Option<()> {
        let end = self.length.checked_add(octets.len())?;
        self.buffer.get_mut(self.length..end)?.copy_from_slice(octets);
        self.length = end;
        Some(())
    }

    fn head(&mut self, major: u8, argument: u16) -> Option<()> {
        let [high, low] = argument.to_be_bytes();
        match argument {
            0..=23 => self.raw(&[(major << 5) | low]),
            24..=0xff => self.raw(&[(major << 5) | 24, low]),
            _ => self.raw(&[(major << 5) | 25, high, low]),
        }
    }

    pub(crate) fn unsigned(&mut self, value: u8) -> Option<()> {
        self.head(UNSIGNED, u16::from(value))
    }

    pub(crate) fn bytes_head(&mut self, length: usize) -> Option<()> {
        self.head(BYTES, u16::try_from(length).ok()?)
    }

    pub(crate) fn bytes(&mut self, octets: &[u8]) -> Option<()> {
        self.bytes_head(octets.len())?;
        self.raw(octets)
    }

    pub(crate) fn text(&mut self, text: &str) -> Option<()> {
        self.head(TEXT, u16::try_from(text.len()).ok()?)?;
        self.raw(text.as_bytes())
    }
}

/// Why the next item is not the one that the fixed shape has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The input ends within the item.
    Truncated,
    /// Another item, an indefinite length, or an argument that is not the shortest.
    NotTheShape,
}

/// Reads from the front.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Unreadable::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Exactly these octets.
    pub(crate) fn literal(&mut self, octets: &[u8]) -> Result<(), Unreadable> {
        if !octets.iter().zip(self.0).all(|(expected, found)| expected == found) {
            return Err(Unreadable::NotTheShape);
        }
        self.take(octets.len()).map(drop)
    }

    fn head(&mut self, major: u8) -> Result<usize, Unreadable> {
        let initial = self.take(1)?.first().copied().unwrap_or_default();
        if initial >> 5 != major {
            return Err(Unreadable::NotTheShape);
        }
        let (argument, shortest_from) = match initial & 0x1f {
            small @ 0..=23 => return Ok(usize::from(small)),
            24 => (self.take(1)?.iter().fold(0, |_, low| usize::from(*low)), 24),
            25 => (self.take(2)?.iter().fold(0, |high, low| (high << 8) | usize::from(*low)), 0x100),
            _ => return Err(Unreadable::NotTheShape),
        };
        if argument < shortest_from { Err(Unreadable::NotTheShape) } else { Ok(argument) }
    }

    pub(crate) fn unsigned(&mut self) -> Result<usize, Unreadable> {
        self.head(UNSIGNED)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let length = self.head(BYTES)?;
        self.take(length)
    }
}
