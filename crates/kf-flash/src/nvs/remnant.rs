//! What a partition still holds although nobody can read it through the firmware.

use alloc::vec::Vec;

use super::entry::{Entry, EntryKey, EntryState, ItemType, Placed, Reading};
use super::page::{Page, PageState};
use super::partition::Partition;
use super::{ENTRY_OCTETS, FIRST_ENTRY_OFFSET, PAGE_OCTETS};
use crate::octets::is_blank;

/// One place where something is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remnant {
    /// Why it counts as left over.
    pub kind: RemnantKind,
    /// The page, from 0.
    pub page: usize,
    /// Where it is in the partition, in octets.
    pub offset: usize,
    /// How many octets of flash, its entry included.
    pub octets: usize,
    /// Namespace, key and type, where an entry can still be read.
    pub item: Option<RemnantItem>,
}

/// What the entry of a remnant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemnantItem {
    /// The number of its namespace.
    pub namespace: u8,
    /// Its key.
    pub key: EntryKey,
    /// Its type, if a version of the format knows it.
    pub item_type: Option<ItemType>,
    /// Where its value is in the partition.
    pub value_offset: usize,
    /// How many octets of the value are still there.
    pub value_octets: usize,
}

/// Why something counts as left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemnantKind {
    /// Marked erased, by `nvs_erase_key` or because a new value took its place, and still readable with key and value.
    ErasedItem,
    /// Marked erased; octets without a readable entry.
    ErasedOctets,
    /// In use, but a later item took its place: a power cut came between.
    SupersededItem,
    /// A chunk that belongs to no blob in use.
    OrphanChunk,
    /// Marked written, but no valid item.
    DamagedOctets,
    /// Written and never marked so: a power cut came between.
    UnmarkedOctets,
    /// In a page that the firmware no longer reads, and will erase on its next start.
    AbandonedPage,
}

impl RemnantKind {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ErasedItem => "erased_item",
            Self::ErasedOctets => "erased_octets",
            Self::SupersededItem => "superseded_item",
            Self::OrphanChunk => "orphan_chunk",
            Self::DamagedOctets => "damaged_octets",
            Self::UnmarkedOctets => "unmarked_octets",
            Self::AbandonedPage => "abandoned_page",
        }
    }
}

/// What is left, in the order of flash. Slots that a purge has zeroed are not listed; slots beside each other of which
/// nothing can be read are listed as one.
pub fn remnants(partition: Partition<'_>) -> impl Iterator<Item = Remnant> {
    let live = live_items(partition);
    let pages = partition.pages().filter(|page| page.state != PageState::Blank);
    let placed = pages.flat_map(|page| page.entries().map(move |placed| (page, placed)));
    let mut slots = placed
        .filter_map(move |(page, placed)| kind_of(&page, &placed, &live).map(|kind| remnant(kind, &placed)))
        .peekable();
    core::iter::from_fn(move || {
        let mut first = slots.next()?;
        while let Some(next) = slots.next_if(|next| continues(&first, next)) {
            first.octets += next.octets;
        }
        Some(first)
    })
}

fn continues(first: &Remnant, next: &Remnant) -> bool {
    let is_unnamed = first.item.is_none() && next.item.is_none();
    let is_beside = first.page == next.page && first.offset + first.octets == next.offset;
    is_unnamed && is_beside && first.kind == next.kind
}

/// The items that the firmware would return, with their offsets, sorted by offset; chunks only of blobs in use.
fn live_items(partition: Partition<'_>) -> Vec<usize> {
    let mut newest: Vec<(usize, Entry)> = Vec::new();
    for (placed, entry) in partition.items() {
        newest.push((placed.offset, entry));
    }
    // Stable: of equal items the later one comes last.
    newest.sort_by_key(|(_, entry)| identity(entry));
    let indexes: Vec<Entry> =
        newest.iter().map(|(_, entry)| *entry).filter(|entry| entry.item_type == Some(ItemType::BlobIndex)).collect();
    let mut live = Vec::new();
    let mut newest = newest.into_iter().peekable();
    while let Some((offset, entry)) = newest.next() {
        let is_superseded = newest.peek().is_some_and(|(_, next)| next.is_same_item(&entry));
        let is_orphan = entry.item_type == Some(ItemType::BlobData) && !has_index(&indexes, &entry);
        if !is_superseded && !is_orphan {
            live.push(offset);
        }
    }
    live.sort_unstable();
    live
}

type Identity = (u8, EntryKey, Option<ItemType>, u8);

const fn identity(entry: &Entry) -> Identity {
    (entry.namespace, entry.key, entry.item_type, entry.chunk)
}

/// Whether the newest index of this key counts the chunk; `indexes` are sorted by [`identity`].
fn has_index(indexes: &[Entry], chunk: &Entry) -> bool {
    let place = (chunk.namespace, chunk.key);
    let after = indexes.partition_point(|index| (index.namespace, index.key) <= place);
    let newest = after.checked_sub(1).and_then(|last| indexes.get(last));
    newest.filter(|index| (index.namespace, index.key) == place).is_some_and(|index| {
        let (count, start) = index.chunks();
        chunk.chunk & 0x80 == start & 0x80 && chunk.chunk & 0x7f < count
    })
}

fn kind_of(page: &Page<'_>, placed: &Placed<'_>, live: &[usize]) -> Option<RemnantKind> {
    let is_item = placed.entry().is_some();
    if matches!(placed.reading, Reading::Purged) || is_blank(placed.octets) {
        return None;
    }
    if !page.is_in_use() {
        return Some(RemnantKind::AbandonedPage);
    }
    Some(match placed.state {
        EntryState::Erased if is_item => RemnantKind::ErasedItem,
        EntryState::Erased => RemnantKind::ErasedOctets,
        EntryState::Empty => RemnantKind::UnmarkedOctets,
        EntryState::Illegal => RemnantKind::DamagedOctets,
        EntryState::Written if !is_item => RemnantKind::DamagedOctets,
        EntryState::Written if live.binary_search(&placed.offset).is_ok() => return None,
        EntryState::Written if is_chunk(placed) => RemnantKind::OrphanChunk,
        EntryState::Written => RemnantKind::SupersededItem,
    })
}

fn is_chunk(placed: &Placed<'_>) -> bool {
    placed.entry().is_some_and(|entry| entry.item_type == Some(ItemType::BlobData))
}

fn remnant(kind: RemnantKind, placed: &Placed<'_>) -> Remnant {
    let item = placed.entry().map(|entry| {
        let has_slots = entry.item_type.is_some_and(ItemType::has_data_slots);
        let (value_offset, value_octets) = if has_slots {
            let there = placed.octets.len().saturating_sub(ENTRY_OCTETS);
            (placed.offset + ENTRY_OCTETS, there.min(entry.value_octets().unwrap_or_default()))
        } else {
            (placed.offset + ENTRY_OCTETS - 8, 8)
        };
        RemnantItem {
            namespace: entry.namespace,
            key: entry.key,
            item_type: entry.item_type,
            value_offset,
            value_octets,
        }
    });
    Remnant { kind, page: placed.page, offset: placed.offset, octets: placed.octets.len(), item }
}

const _: () = assert!(FIRST_ENTRY_OFFSET + super::ENTRIES_PER_PAGE * ENTRY_OCTETS == PAGE_OCTETS);
