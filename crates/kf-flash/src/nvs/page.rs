//! One page.

use super::entry::{Entry, EntryState, Placed, Reading};
use super::{ENTRIES_PER_PAGE, ENTRY_OCTETS, FIRST_ENTRY_OFFSET, PAGE_OCTETS, VERSION};
use crate::octets::{crc32, is_blank, is_purged, put, u32_le};

pub(super) const ACTIVE: u32 = 0xffff_fffe;
pub(super) const FULL: u32 = 0xffff_fffc;
const FREEING: u32 = 0xffff_fff8;

/// What the header of a page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Erased, and nothing written since.
    Blank,
    /// Entries are added here.
    Active,
    /// No more entries are added.
    Full,
    /// Its live entries are on the way to another page.
    Freeing,
    /// Not blank, and no header that the firmware would accept. It erases such a page on its next start.
    Damaged,
}

/// The header of a page that the firmware looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHead {
    /// Active, full or freeing.
    pub state: PageState,
    /// The order in which pages were begun.
    pub sequence: u32,
    /// Which copy of the page it is: an octet that the format reserves, ff where the vendor's driver wrote it.
    edition: u8,
}

/// Where the edition is in the header.
const EDITION_OFFSET: usize = 9;

impl PageHead {
    /// Reads the first 32 octets of a page; `None` for a blank or damaged one.
    #[must_use]
    pub fn in_use(octets: &[u8; 32]) -> Option<Self> {
        let (state, sequence, _) = read_header(octets);
        let is_in_use = matches!(state, PageState::Active | PageState::Full | PageState::Freeing);
        let edition = octets.get(EDITION_OFFSET).copied().unwrap_or_default();
        is_in_use.then_some(Self { state, sequence, edition })
    }

    /// The header of a new page, to which entries are added.
    #[must_use]
    pub fn first_edition(sequence: u32) -> [u8; 32] {
        let mut octets = [0xff; 32];
        put(&mut octets, 0, &ACTIVE.to_le_bytes());
        put(&mut octets, 4, &sequence.to_le_bytes());
        put(&mut octets, 8, &[VERSION]);
        Self::with_checksum(octets)
    }

    /// The header of the copy that takes the place of the page with this one.
    #[must_use]
    pub fn next_edition(octets: &[u8; 32]) -> [u8; 32] {
        let mut octets = *octets;
        if let Some(edition) = octets.get_mut(EDITION_OFFSET) {
            *edition = edition.wrapping_sub(1);
        }
        Self::with_checksum(octets)
    }

    /// Whether this is the copy that takes the place of the page with the header `other`.
    #[must_use]
    pub const fn replaces(&self, other: &Self) -> bool {
        self.sequence == other.sequence && self.edition == other.edition.wrapping_sub(1)
    }

    fn with_checksum(mut octets: [u8; 32]) -> [u8; 32] {
        let crc = crc32(&[octets.get(4..28).unwrap_or_default()]);
        put(&mut octets, 28, &crc.to_le_bytes());
        octets
    }
}

/// One page of a partition.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    /// From 0, in the order of flash.
    pub index: usize,
    /// What the header says.
    pub state: PageState,
    /// The order in which pages were begun. Meaningless for a blank or damaged page.
    pub sequence: u32,
    /// The format version: [`VERSION`], or ff for version 1.
    pub version: u8,
    octets: &'a [u8],
}

impl<'a> Page<'a> {
    pub(super) fn new(index: usize, octets: &'a [u8]) -> Self {
        let (state, sequence, version) = read_header(octets);
        Self { index, state, sequence, version, octets }
    }

    /// Whether the firmware looks at its entries.
    #[must_use]
    pub const fn is_in_use(&self) -> bool {
        matches!(self.state, PageState::Active | PageState::Full | PageState::Freeing)
    }

    /// All of its octets.
    #[must_use]
    pub const fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// What is said of the slot `slot`.
    #[must_use]
    pub fn entry_state(&self, slot: usize) -> EntryState {
        let states = self.octets.get(32..).and_then(<[u8]>::first_chunk);
        states.map_or(EntryState::Erased, |states| EntryState::of(states, slot))
    }

    /// The octets of the slot `slot`.
    fn slot(&self, slot: usize) -> Option<&'a [u8; ENTRY_OCTETS]> {
        self.octets.get(FIRST_ENTRY_OFFSET + slot * ENTRY_OCTETS..)?.first_chunk()
    }

    /// Everything that is not blank, in order: items with all of their slots, and single slots where no item can be read.
    pub fn entries(self) -> impl Iterator<Item = Placed<'a>> {
        let mut slot = 0;
        core::iter::from_fn(move || {
            while slot < ENTRIES_PER_PAGE {
                let here = slot;
                let (placed, span) = self.at(here)?;
                slot += span;
                if placed.state != EntryState::Empty || !is_blank(placed.octets) {
                    return Some(placed);
                }
            }
            None
        })
    }

    fn at(&self, slot: usize) -> Option<(Placed<'a>, usize)> {
        let state = self.entry_state(slot);
        let octets = self.slot(slot)?;
        let whole = |entry: &Entry| self.run(slot, state, usize::from(entry.span));
        // What is in use must be whole; of what was erased, also the beginning tells something.
        let is_readable = |entry: &Entry| state != EntryState::Written || whole(entry) == usize::from(entry.span);
        let entry = Entry::parse(octets).filter(is_readable);
        let span = entry.as_ref().map_or(1, whole);
        let reading = match entry {
            Some(entry) => Reading::Item(entry),
            None if is_purged(octets) => Reading::Purged,
            None => Reading::Octets,
        };
        let start = FIRST_ENTRY_OFFSET + slot * ENTRY_OCTETS;
        let octets = self.octets.get(start..)?.get(..span * ENTRY_OCTETS)?;
        let offset = self.index * PAGE_OCTETS + start;
        Some((Placed { page: self.index, slot, offset, state, reading, octets }, span))
    }

    /// How many of the `span` slots from `slot` are in this page and have its state: at least 1.
    fn run(&self, slot: usize, state: EntryState, span: usize) -> usize {
        let end = (slot + span).min(ENTRIES_PER_PAGE);
        1 + (slot + 1..end).take_while(|slot| self.entry_state(*slot) == state).count()
    }
}

fn read_header(octets: &[u8]) -> (PageState, u32, u8) {
    let (state, sequence) = (u32_le(octets, 0), u32_le(octets, 4));
    let version = octets.get(8).copied().unwrap_or_default();
    if state == u32::MAX && is_blank(octets) {
        return (PageState::Blank, sequence, version);
    }
    let is_known = version >= VERSION && octets.get(4..28).is_some_and(|head| crc32(&[head]) == u32_le(octets, 28));
    let state = match state {
        ACTIVE if is_known => PageState::Active,
        FULL if is_known => PageState::Full,
        FREEING if is_known => PageState::Freeing,
        _ => PageState::Damaged,
    };
    (state, sequence, version)
}

/// The entries that stand before their data in the first `end` slots of a page that was written here, one for each item.
pub(super) fn headers(page: &[u8], end: usize) -> impl Iterator<Item = &[u8; ENTRY_OCTETS]> {
    let mut slot = 0;
    core::iter::from_fn(move || {
        if slot >= end {
            return None;
        }
        let header: &[u8; ENTRY_OCTETS] = page.get(FIRST_ENTRY_OFFSET + slot * ENTRY_OCTETS..)?.first_chunk()?;
        // The rest of a page in which an item had no room is blank: its span of 255 reaches over the end.
        let [_, _, span, ..] = header;
        slot += usize::from(*span).max(1);
        Some(header)
    })
}

/// Writes the header of a new page.
pub(super) fn write_header(page: &mut [u8], sequence: u32) {
    put(page, 0, &PageHead::first_edition(sequence));
}

/// Marks the slot `slot` as written.
pub(super) fn mark_written(page: &mut [u8], slot: usize) {
    if let Some(states) = page.get_mut(32..).and_then(<[u8]>::first_chunk_mut) {
        EntryState::mark_written(states, slot);
    }
}
