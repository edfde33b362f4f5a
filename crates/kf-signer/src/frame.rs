//! Frames on the socket: `length 4 | id 8 | kind 1 | body`, big endian; `length` counts what follows it. The limit
//! depends on the kind, and is applied to the header, before anything is allocated.

use zeroize::Zeroize;

/// Octets in front of the body.
pub(crate) const HEADER_OCTETS: usize = 13;
/// Octets that `length` counts besides the body.
const COUNTED_OCTETS: usize = 9;
/// The most octets of a body, except where the kind allows more.
pub(crate) const MAX_BODY_OCTETS: usize = 1024 * 1024;
/// The most octets of a CRL to be signed.
pub(crate) const MAX_CRL_OCTETS: usize = 64 * 1024 * 1024;
/// What the buffer holds between frames.
const RESTING_OCTETS: usize = 256 * 1024;
/// Less free space than this in the buffer, and its content moves to the front.
const SMALL_SPACE_OCTETS: usize = 16 * 1024;

/// One frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) id: u64,
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
}

/// What the two directions allow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The most octets of a body of this kind; `None` for an unknown kind.
    pub(crate) limit: fn(u8) -> Option<usize>,
    /// Whether a body of this kind holds a secret, so that its copy in the buffer is wiped.
    pub(crate) is_secret: fn(u8) -> bool,
}

/// Octets that are no frame: the peer is not ours, and the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame of a known kind and allowed length")]
pub(crate) struct FrameError;

/// A frame ready to be written.
///
/// # Errors
/// [`FrameError`] above the limit.
pub(crate) fn encode(id: u64, kind: u8, parts: &[&[u8]]) -> Result<Vec<u8>, FrameError> {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(body + COUNTED_OCTETS).map_err(|_too_long| FrameError)?;
    let mut frame = Vec::with_capacity(HEADER_OCTETS + body);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&id.to_be_bytes());
    frame.push(kind);
    for part in parts {
        frame.extend_from_slice(part);
    }
    Ok(frame)
}

/// Received octets, cut into frames.
pub(crate) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    rules: Rules,
}

struct Header {
    id: u64,
    kind: u8,
    /// Octets of the frame with its header.
    octets: usize,
}

impl Inbox {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { buffer: vec![0; RESTING_OCTETS], start: 0, end: 0, rules }
    }

    /// Space to read into; never empty.
    ///
    /// # Errors
    /// [`FrameError`] when the frame that has begun is not allowed.
    pub(crate) fn space(&mut self) -> Result<&mut [u8], FrameError> {
        let wanted = self.header()?.map_or(0, |header| header.octets);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if wanted > self.buffer.len() || (self.start == self.end && self.buffer.len() > RESTING_OCTETS) {
            self.resize(wanted.max(RESTING_OCTETS));
        } else if self.start > 0 && self.buffer.len() - self.end < wanted.max(SMALL_SPACE_OCTETS) {
            self.move_to_front();
        }
        Ok(self.buffer.get_mut(self.end..).unwrap_or_default())
    }

    /// Says that `octets` of the space were filled.
    pub(crate) fn filled(&mut self, octets: usize) {
        self.end = (self.end + octets).min(self.buffer.len());
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// [`FrameError`].
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.header()? else { return Ok(None) };
        let Some(octets) = self.buffer.get_mut(self.start..self.start + header.octets) else { return Ok(None) };
        if self.start + header.octets > self.end {
            return Ok(None);
        }
        let body = octets.get(HEADER_OCTETS..).unwrap_or_default().to_vec();
        if (self.rules.is_secret)(header.kind) {
            octets.zeroize();
        }
        self.start += header.octets;
        Ok(Some(Frame { id: header.id, kind: header.kind, body }))
    }

    fn header(&self) -> Result<Option<Header>, FrameError> {
        let held = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some(header) = held.first_chunk::<HEADER_OCTETS>() else { return Ok(None) };
        let [l0, l1, l2, l3, i0, i1, i2, i3, i4, i5, i6, i7, kind] = *header;
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).map_err(|_too_long| FrameError)?;
        let body = length.checked_sub(COUNTED_OCTETS).ok_or(FrameError)?;
        let limit = (self.rules.limit)(kind).ok_or(FrameError)?;
        if body > limit {
            return Err(FrameError);
        }
        let id = u64::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
        Ok(Some(Header { id, kind, octets: HEADER_OCTETS + body }))
    }

    /// Moves what is held to a buffer of another size and wipes the old one.
    fn resize(&mut self, octets: usize) {
        let mut buffer = vec![0; octets];
        let held = self.buffer.get(self.start..self.end).unwrap_or_default();
        if let Some(front) = buffer.get_mut(..held.len()) {
            front.copy_from_slice(held);
        }
        (self.start, self.end) = (0, held.len());
        core::mem::swap(&mut self.buffer, &mut buffer);
        buffer.zeroize();
    }

    fn move_to_front(&mut self) {
        let held = self.end - self.start;
        self.buffer.copy_within(self.start..self.end, 0);
        self.buffer.get_mut(held..self.end).unwrap_or_default().zeroize();
        (self.start, self.end) = (0, held);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules {
        limit: |kind| (kind < 3).then_some(if kind == 2 { 3_000_000 } else { 1000 }),
        is_secret: |kind| kind == 1,
    };

    fn feed(inbox: &mut Inbox, mut octets: &[u8], step: usize) -> Result<Vec<Frame>, FrameError> {
        let mut frames = Vec::new();
        while !octets.is_empty() {
            let space = inbox.space()?;
            let count = space.len().min(step).min(octets.len());
            space[..count].copy_from_slice(&octets[..count]);
            inbox.filled(count);
            octets = &octets[count..];
            while let Some(frame) = inbox.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            bodies in proptest::collection::vec((0..2_u8, proptest::collection::vec(any::<u8>(), 0..1000)), 0..400),
            step in 1..70_000_usize,
        ) {
            let mut stream = Vec::new();
            for (id, (kind, body)) in (0..).zip(&bodies) {
                stream.extend(encode(id, *kind, &[body]).unwrap());
            }
            let frames = feed(&mut Inbox::new(RULES), &stream, step).unwrap();
            prop_assert_eq!(frames.len(), bodies.len());
            for (frame, (kind, body)) in frames.iter().zip(&bodies) {
                prop_assert_eq!((frame.kind, &frame.body), (*kind, body));
            }
        }

        #[test]
        fn garbage_is_refused_or_waits_for_more_and_never_grows_the_buffer(
            octets in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let mut inbox = Inbox::new(RULES);
            drop(feed(&mut inbox, &octets, 7));
            prop_assert!(inbox.buffer.len() <= 3_000_000 + HEADER_OCTETS);
        }
    }

    #[test]
    fn a_large_frame_passes_between_small_ones_and_its_buffer_is_given_back() {
        let mut stream = encode(1, 0, &[b"small"]).unwrap();
        stream.extend(encode(2, 2, &[&vec![7; 2_500_000]]).unwrap());
        stream.extend(encode(3, 0, &[b"small"]).unwrap());
        let mut inbox = Inbox::new(RULES);
        let frames = feed(&mut inbox, &stream, 100_000).unwrap();
        assert_eq!(frames.iter().map(|frame| frame.body.len()).collect::<Vec<_>>(), [5, 2_500_000, 5]);
        inbox.space().unwrap();
        assert_eq!(inbox.buffer.len(), RESTING_OCTETS);
    }

    #[test]
    fn unknown_kinds_and_lengths_above_or_below_the_limit_are_refused_from_the_header() {
        for (kind, length) in [(3, 9_u32), (0, 1010), (0, 8), (2, u32::MAX)] {
            let mut header = length.to_be_bytes().to_vec();
            header.extend([0; 8]);
            header.push(kind);
            assert!(matches!(feed(&mut Inbox::new(RULES), &header, 100), Err(FrameError)), "{kind} {length}");
        }
    }

    #[test]
    fn a_secret_is_wiped_from_the_buffer_once_it_is_taken() {
        let mut inbox = Inbox::new(RULES);
        let frames = feed(&mut inbox, &encode(1, 1, &[b"a secret"]).unwrap(), 100).unwrap();
        assert_eq!(frames[0].body, b"a secret");
        assert!(!inbox.buffer.windows(8).any(|window| window == b"a secret"));
    }
}
