//! Ours read by ours: content, limits, encryption.

use hmac::{Hmac, KeyInit, Mac};
use kf_flash::nvs::{
    ENTRIES_PER_PAGE, EntryState, MAX_BLOB_OCTETS, NvsError, NvsKeys, PAGE_OCTETS, PageState, Partition, Stored, Value,
    Writer,
};
use kf_key::SecretArray;
use proptest::prelude::*;
use sha2::Sha256;

use super::sample::{nvs_keys, read_all, samples};

proptest! {
    #[test]
    fn what_was_written_is_read_back(sample in samples()) {
        match sample.plain_image() {
            Ok(image) => prop_assert_eq!(read_all(&image), sample.expected()),
            Err(error) => prop_assert_eq!(error, NvsError::Full),
        }
    }

    #[test]
    fn decryption_undoes_encryption_and_encryption_hides_every_entry(sample in samples(), keys: [[u8; 32]; 2]) {
        let keys: [u8; 64] = keys.concat().try_into().unwrap();
        let Ok(plain) = sample.plain_image() else { return Ok(()) };
        let mut image = plain.clone();
        let cipher = nvs_keys(&keys).cipher();
        cipher.encrypt(&mut image).unwrap();
        prop_assert_eq!(Partition::new(&image).unwrap().items().count(), 0);
        cipher.decrypt(&mut image).unwrap();
        prop_assert_eq!(image, plain);
    }

    #[test]
    fn no_octets_make_the_reader_panic(octets in proptest::collection::vec(any::<u8>(), PAGE_OCTETS), pages in 1..4_usize) {
        let octets = octets.repeat(pages);
        let partition = Partition::new(&octets).unwrap();
        for placed in partition.pages().flat_map(kf_flash::nvs::Page::entries) {
            let _value = partition.read(&placed);
        }
        let _left = kf_flash::nvs::remnants(partition).count();
    }
}

#[test]
fn a_partition_is_a_whole_number_of_pages_and_one_that_is_written_to_has_three() {
    for octets in [0, 1, PAGE_OCTETS - 1, PAGE_OCTETS + 1, (16 << 20) + PAGE_OCTETS] {
        let mut image = vec![0; octets];
        assert_eq!(Writer::read_only(&mut image).err(), Some(NvsError::PartitionSize { octets }));
        assert_eq!(Partition::new(&image).err(), Some(NvsError::PartitionSize { octets }));
    }
    let mut image = vec![0; 2 * PAGE_OCTETS];
    assert_eq!(Writer::new(&mut image).err(), Some(NvsError::TooSmallToWrite { pages: 2 }));
    assert!(Writer::read_only(&mut image).is_ok());
}

#[test]
fn the_last_page_of_a_partition_that_is_written_to_stays_blank() {
    let mut image = vec![0; 3 * PAGE_OCTETS];
    let mut writer = Writer::new(&mut image).unwrap();
    let namespace = writer.namespace("n").unwrap();
    let refused = (0..).map(|number| writer.write(namespace, &format!("k{number}"), Value::U8(1)));
    assert_eq!(refused.take_while(Result::is_ok).count(), 2 * ENTRIES_PER_PAGE - 1);
    assert_eq!(writer.write(namespace, "one-more", Value::U8(1)), Err(NvsError::Full));
    let states: Vec<_> = Partition::new(&image).unwrap().pages().map(|page| page.state).collect();
    assert_eq!(states, [PageState::Full, PageState::Active, PageState::Blank]);
}

#[test]
fn what_does_not_fit_leaves_the_partition_as_it_was() {
    let mut image = vec![0; 3 * PAGE_OCTETS];
    let mut writer = Writer::new(&mut image).unwrap();
    let namespace = writer.namespace("n").unwrap();
    writer.write(namespace, "a", Value::U8(1)).unwrap();
    assert_eq!(writer.write(namespace, "b", Value::Blob(&[7; 8000])), Err(NvsError::Full));
    let too_long = NvsError::ValueTooLong { octets: MAX_BLOB_OCTETS + 1, limit: MAX_BLOB_OCTETS };
    assert_eq!(writer.write(namespace, "b", Value::Blob(&vec![7; MAX_BLOB_OCTETS + 1])), Err(too_long));
    assert_eq!(writer.write(namespace, "a", Value::U16(2)), Err(NvsError::DuplicateKey));
    assert_eq!(writer.write(namespace, "sixteen_octets__", Value::U8(2)), Err(NvsError::Name));
    assert_eq!(writer.write(namespace, "", Value::U8(2)), Err(NvsError::Name));
    assert_eq!(writer.write(namespace, "b", Value::Text("a\0b")), Err(NvsError::NulInText));
    let text = "x".repeat(4000);
    assert_eq!(
        writer.write(namespace, "b", Value::Text(&text)),
        Err(NvsError::ValueTooLong { octets: 4001, limit: 4000 })
    );
    writer.write(namespace, "b", Value::Text(&text[1..])).unwrap();
    assert_eq!(read_all(&image).len(), 2);
}

#[test]
fn a_namespace_that_is_named_again_is_the_same_one() {
    let mut image = vec![0; 3 * PAGE_OCTETS];
    let mut writer = Writer::new(&mut image).unwrap();
    let first = writer.namespace("first").unwrap();
    let second = writer.namespace("second").unwrap();
    assert_ne!(first, second);
    assert_eq!(writer.namespace("first").unwrap(), first);
    writer.write(first, "key", Value::U8(1)).unwrap();
    writer.write(second, "key", Value::U8(2)).unwrap();
    let partition = Partition::new(&image).unwrap();
    let value = |name| partition.value(partition.namespace(name).unwrap().unwrap(), "key").unwrap();
    assert!(matches!(value("first"), Some(Stored::U8(1))));
    assert!(matches!(value("second"), Some(Stored::U8(2))));
    assert_eq!(partition.namespace("third").unwrap(), None);
}

#[test]
fn there_are_at_most_254_namespaces() {
    let mut image = vec![0; 6 * PAGE_OCTETS];
    let mut writer = Writer::new(&mut image).unwrap();
    for number in 0..254 {
        writer.namespace(&format!("n{number}")).unwrap();
    }
    assert_eq!(writer.namespace("one-more"), Err(NvsError::TooManyNamespaces));
}

#[test]
fn a_keys_partition_is_read_back_and_a_damaged_or_blank_one_is_refused() {
    let keys: [u8; 64] = core::array::from_fn(|number| u8::try_from(number).unwrap());
    let mut partition = [0; PAGE_OCTETS];
    nvs_keys(&keys).write_partition(&mut partition);
    assert_eq!(&partition[..64], &keys);
    assert!(NvsKeys::from_partition(&partition).is_ok());
    for at in [0, 63, 64, 67] {
        let mut damaged = partition;
        damaged[at] ^= 1;
        assert_eq!(NvsKeys::from_partition(&damaged).err(), Some(NvsError::KeysChecksum));
    }
    assert_eq!(NvsKeys::from_partition(&[0xff; PAGE_OCTETS]).err(), Some(NvsError::BlankKeys));
    assert_eq!(NvsKeys::from_partition(&[0; 67]).err(), Some(NvsError::PartitionSize { octets: 67 }));
}

#[test]
fn equal_or_constant_keys_are_refused() {
    let with = |first: [u8; 32], second: [u8; 32]| {
        NvsKeys::from_secret(SecretArray::fill(|keys: &mut [u8; 64]| {
            keys[..32].copy_from_slice(&first);
            keys[32..].copy_from_slice(&second);
        }))
    };
    let counting: [u8; 32] = core::array::from_fn(|number| u8::try_from(number).unwrap());
    assert!(with(counting, [0; 32]).is_err());
    assert!(with([7; 32], counting).is_err());
    assert!(with(counting, counting).is_err());
    let mut other = counting;
    other.reverse();
    assert!(with(counting, other).is_ok());
}

#[test]
fn keys_of_the_hmac_scheme_come_from_the_hmac_that_is_given() {
    let mut asked = Vec::new();
    let keys = NvsKeys::from_hmac::<NvsError>(|message| {
        asked.push(*message);
        let mut mac = Hmac::<Sha256>::new_from_slice(&[9; 32]).unwrap();
        mac.update(message);
        Ok(SecretArray::fill(|key| *key = mac.finalize().into_bytes().0))
    })
    .unwrap();
    assert_eq!(asked, [kf_flash::nvs::HMAC_ENCRYPTION_MESSAGE, kf_flash::nvs::HMAC_TWEAK_MESSAGE]);
    let mut partition = [0; PAGE_OCTETS];
    keys.write_partition(&mut partition);
    assert!(NvsKeys::from_partition(&partition).is_ok());
}

#[test]
fn slots_of_a_whole_page_of_text_are_all_in_use() {
    let mut image = vec![0; 3 * PAGE_OCTETS];
    let mut writer = Writer::new(&mut image).unwrap();
    let namespace = writer.namespace("n").unwrap();
    writer.write(namespace, "long", Value::Text(&"x".repeat(3999))).unwrap();
    let partition = Partition::new(&image).unwrap();
    let page = partition.pages().nth(1).unwrap();
    assert!((0..ENTRIES_PER_PAGE).all(|slot| page.entry_state(slot) == EntryState::Written));
}
