//! One frame, and the walk over all of them.

use std::io::{self, Read};

use super::{JournalError, Noted};
use crate::line::Entry;

/// The most octets of a document beside an entry.
pub const MAX_DOCUMENT_OCTETS: usize = 256 * 1024;
const MAX_ENTRY_OCTETS: usize = 16 * 1024;
/// Length and checksum.
const HEAD_OCTETS: usize = 8;
/// Number, durable, length of the entry.
const FIXED_OCTETS: usize = 20;
const MAX_BODY_OCTETS: usize = FIXED_OCTETS + MAX_ENTRY_OCTETS + MAX_DOCUMENT_OCTETS;
/// What may lie behind a broken frame: frames of one group that was being written.
const MAX_TAIL_OCTETS: u64 = 64 * 1024 * 1024;

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame {number} at octet {offset} is broken, and later ones show that it was whole")]
pub struct JournalDamage {
    /// Frame, from 0.
    pub number: u64,
    /// Where it begins.
    pub offset: u64,
}

/// Writes one frame.
pub(super) fn write(out: &mut Vec<u8>, number: u64, durable: u64, entry: &Entry, document: &[u8]) -> io::Result<()> {
    let entry = serde_json::to_vec(entry)?;
    if entry.len() > MAX_ENTRY_OCTETS || document.len() > MAX_DOCUMENT_OCTETS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an entry of the journal is too long"));
    }
    let length = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX);
    let mut body = Vec::with_capacity(FIXED_OCTETS + entry.len() + document.len());
    body.extend_from_slice(&number.to_le_bytes());
    body.extend_from_slice(&durable.to_le_bytes());
    body.extend_from_slice(&length(entry.len()).to_le_bytes());
    body.extend_from_slice(&entry);
    body.extend_from_slice(document);
    out.extend_from_slice(&length(body.len()).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
    Ok(())
}

struct Frame {
    number: u64,
    durable: u64,
    noted: Noted,
}

/// A frame at the beginning of `octets` and its length; `None` for anything that is none.
fn parse(octets: &[u8]) -> Option<(Frame, usize)> {
    let (head, rest) = octets.split_first_chunk::<HEAD_OCTETS>()?;
    let [a, b, c, d, e, f, g, h] = *head;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok().filter(|length| *length <= MAX_BODY_OCTETS)?;
    let body = rest.get(..length)?;
    if crc32fast::hash(body) != u32::from_le_bytes([e, f, g, h]) {
        return None;
    }
    let (number, body) = body.split_first_chunk()?;
    let (durable, body) = body.split_first_chunk()?;
    let (entry_length, body) = body.split_first_chunk()?;
    let (entry, document) = body.split_at_checked(usize::try_from(u32::from_le_bytes(*entry_length)).ok()?)?;
    let entry = serde_json::from_slice(entry).ok()?;
    let frame = Frame {
        number: u64::from_le_bytes(*number),
        durable: u64::from_le_bytes(*durable),
        noted: Noted { entry, document: document.to_vec() },
    };
    Some((frame, HEAD_OCTETS + length))
}

/// Hands every entry to `take`; gives the octet at which the next frame is to be written.
pub(super) fn read_all<E: From<JournalError>>(
    reader: &mut impl Read,
    mut take: impl FnMut(Noted) -> Result<(), E>,
) -> Result<u64, E> {
    let failed = |source| JournalError::Io { verb: "read", source };
    let (mut end, mut expected) = (0u64, 0u64);
    loop {
        let octets = next(reader).map_err(failed)?;
        if octets.is_empty() {
            return Ok(end);
        }
        match parse(&octets) {
            Some((frame, length)) if frame.number == expected && length == octets.len() => {
                take(frame.noted)?;
                end = end.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                expected = expected.saturating_add(1);
            }
            _ => {
                let mut rest = octets;
                reader.by_ref().take(MAX_TAIL_OCTETS).read_to_end(&mut rest).map_err(failed)?;
                if is_known_whole(&rest, expected) {
                    return Err(JournalError::Damage(JournalDamage { number: expected, offset: end }).into());
                }
                return Ok(end);
            }
        }
    }
}

/// The octets of one frame as far as its length says, fewer at the end of the file.
fn next(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    reader.by_ref().take(u64::try_from(HEAD_OCTETS).unwrap_or(0)).read_to_end(&mut octets)?;
    if let Some([a, b, c, d]) = octets.first_chunk::<4>().filter(|_| octets.len() == HEAD_OCTETS) {
        let length = u32::from_le_bytes([*a, *b, *c, *d]);
        if usize::try_from(length).is_ok_and(|length| length <= MAX_BODY_OCTETS) {
            reader.by_ref().take(u64::from(length)).read_to_end(&mut octets)?;
        }
    }
    Ok(octets)
}

/// Whether a frame anywhere in `rest` says that frame `number` was durable.
fn is_known_whole(rest: &[u8], number: u64) -> bool {
    (0..rest.len()).any(|start| {
        rest.get(start..).and_then(parse).is_some_and(|(frame, _)| frame.durable > number && frame.number > number)
    })
}
