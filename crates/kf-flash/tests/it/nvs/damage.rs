//! Damaged partitions, and what erasing leaves.

use kf_flash::nvs::{
    DamagedValue, EntryState, FIRST_ENTRY_OFFSET, NvsError, PAGE_OCTETS, PageState, Partition, RemnantKind, Stored,
    Value, Writer, remnants,
};

/// Three pages: a number, a text, and a blob over two pages.
fn image() -> Vec<u8> {
    let mut image = vec![0; 4 * PAGE_OCTETS];
    let mut writer = Writer::new(&mut image).unwrap();
    let namespace = writer.namespace("n").unwrap();
    writer.write(namespace, "number", Value::U32(7)).unwrap();
    writer.write(namespace, "text", Value::Text("hello")).unwrap();
    writer.write(namespace, "blob", Value::Blob(&[0x42; 6000])).unwrap();
    writer.finish();
    image
}

fn slot_offset(slot: usize) -> usize {
    FIRST_ENTRY_OFFSET + slot * 32
}

/// Sets both bits of a slot of the first page to 0, which is all that erasing does.
fn erase(image: &mut [u8], slots: std::ops::Range<usize>) {
    for slot in slots {
        image[32 + slot / 4] &= !(3 << (slot % 4 * 2));
    }
}

fn kinds(image: &[u8]) -> Vec<RemnantKind> {
    remnants(Partition::new(image).unwrap()).map(|remnant| remnant.kind).collect()
}

#[test]
fn a_whole_partition_has_no_remnants() {
    assert_eq!(kinds(&image()), []);
}

#[test]
fn a_changed_octet_anywhere_in_a_value_makes_it_damaged_and_never_another_value() {
    let mut image = image();
    image[slot_offset(3)] ^= 1;
    let partition = Partition::new(&image).unwrap();
    assert_eq!(partition.value(1, "text").err(), Some(NvsError::Damaged(DamagedValue::Checksum)));
    assert!(matches!(partition.value(1, "number"), Ok(Some(Stored::U32(7)))));
}

#[test]
fn an_entry_with_a_wrong_crc_is_not_there_and_its_slots_are_remnants() {
    let mut image = image();
    image[slot_offset(2) + 8] ^= 1;
    assert!(Partition::new(&image).unwrap().value(1, "text").unwrap().is_none());
    // The entry, and the data slot that lost it.
    let found: Vec<_> =
        remnants(Partition::new(&image).unwrap()).map(|remnant| (remnant.kind, remnant.octets)).collect();
    assert_eq!(found, [(RemnantKind::DamagedOctets, 64)]);
}

#[test]
fn a_blob_that_lost_a_page_is_damaged_and_its_other_chunks_stay_with_its_index() {
    let mut image = image();
    image[PAGE_OCTETS + 28] ^= 1;
    let partition = Partition::new(&image).unwrap();
    assert_eq!(partition.pages().nth(1).unwrap().state, PageState::Damaged);
    assert_eq!(partition.value(1, "blob").err(), None, "the index was in the lost page");
    assert!(partition.value(1, "blob").unwrap().is_none());
    let found = kinds(&image);
    assert!(found.contains(&RemnantKind::OrphanChunk) && found.contains(&RemnantKind::AbandonedPage));
}

#[test]
fn a_blob_without_its_first_chunk_names_the_chunk() {
    let mut image = image();
    image[slot_offset(4) + 8] ^= 1;
    let damaged = Partition::new(&image).unwrap().value(1, "blob").err();
    assert_eq!(damaged, Some(NvsError::Damaged(DamagedValue::MissingChunk { number: 0 })));
}

#[test]
fn an_erased_item_is_found_with_key_type_and_value() {
    let mut image = image();
    erase(&mut image, 2..4);
    let partition = Partition::new(&image).unwrap();
    assert!(partition.value(1, "text").unwrap().is_none());
    let found: Vec<_> = remnants(partition).collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].kind, found[0].offset, found[0].octets), (RemnantKind::ErasedItem, slot_offset(2), 64));
    let item = found[0].item.unwrap();
    assert_eq!((item.namespace, item.key.octets()), (1, b"text".as_slice()));
    assert_eq!(&image[item.value_offset..item.value_offset + item.value_octets], b"hello\0");
}

#[test]
fn a_number_that_was_written_twice_leaves_its_old_value() {
    let mut image = image();
    // What the firmware does for a new value: write it to a free slot, then mark the old one erased.
    let old: [u8; 32] = image[slot_offset(1)..slot_offset(2)].try_into().unwrap();
    image.copy_within(slot_offset(1)..slot_offset(2), PAGE_OCTETS + slot_offset(100));
    image[PAGE_OCTETS + 32 + 25] &= !1;
    assert_eq!(kinds(&image), [RemnantKind::SupersededItem], "a power cut before the mark");
    erase(&mut image, 1..2);
    assert_eq!(kinds(&image), [RemnantKind::ErasedItem]);
    assert_eq!(&image[slot_offset(1)..slot_offset(2)], &old);
}

#[test]
fn a_purged_slot_is_no_remnant_and_a_partly_erased_item_still_is() {
    let mut image = image();
    erase(&mut image, 2..3);
    let found: Vec<_> =
        remnants(Partition::new(&image).unwrap()).map(|remnant| (remnant.kind, remnant.octets)).collect();
    assert_eq!(found, [(RemnantKind::ErasedItem, 32), (RemnantKind::DamagedOctets, 32)]);
    erase(&mut image, 3..4);
    image[slot_offset(2)..slot_offset(4)].fill(0);
    assert_eq!(kinds(&image), []);
}

#[test]
fn octets_in_slots_that_are_marked_empty_are_found() {
    let mut image = image();
    image[PAGE_OCTETS + slot_offset(120)] = 0x41;
    assert_eq!(kinds(&image), [RemnantKind::UnmarkedOctets]);
    let partition = Partition::new(&image).unwrap();
    let left = partition.entries().find(|placed| placed.state == EntryState::Empty).unwrap();
    assert_eq!((left.page, left.slot, left.offset), (1, 120, PAGE_OCTETS + slot_offset(120)));
}

#[test]
fn a_page_without_a_header_but_with_octets_is_abandoned() {
    let mut image = image();
    image.copy_within(0..PAGE_OCTETS, 3 * PAGE_OCTETS);
    image[3 * PAGE_OCTETS..3 * PAGE_OCTETS + 32].fill(0xff);
    assert!(kinds(&image).iter().all(|kind| *kind == RemnantKind::AbandonedPage));
    assert_eq!(kinds(&image).len(), 4);
}
