//! Ours read by ours: content, limits, damage.

use kf_flash::secure_cert::{
    Integrity, KeyProtection, RecordType, SecureCert, SecureCertError, SecureCertWriter, danger,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Records, image};

/// Records of distinct type and index, without those that `add` keeps out.
pub(super) fn records() -> impl Strategy<Value = Records> {
    let kinds = prop_oneof![Just(0_u8), Just(1), Just(3), Just(4), Just(5), Just(6), Just(8), 51..=55_u8, 201..=202_u8];
    proptest::collection::btree_map((kinds, 0..=16_u8), vec(any::<u8>(), 0..700), 1..9)
        .prop_map(|records| records.into_iter().map(|((number, index), value)| (number, index, value)).rev().collect())
}

proptest! {
    #[test]
    fn what_was_written_is_read_back(records in records()) {
        let (image, end) = image(&records, 0x2000).unwrap();
        let partition = SecureCert::new(&image).unwrap();
        let read: Result<Records, _> = partition
            .records()
            .map(|record| record.map(|record| (record.record_type.number(), record.index, record.value.to_vec())))
            .collect();
        let mut read = read.unwrap();
        prop_assert_eq!(read.pop().unwrap().0, 9);
        prop_assert_eq!(read, records);
        prop_assert_eq!(partition.integrity(), Ok(Integrity::Holds));
        prop_assert!(image[end..].iter().all(|octet| *octet == 0xff));
    }

    #[test]
    fn no_changed_octet_goes_unseen(records in records(), at: prop::sample::Index, bit in 0..8_u8) {
        let (mut image, end) = image(&records, 0x2000).unwrap();
        image[at.index(end)] ^= 1 << bit;
        let verdict = SecureCert::new(&image).unwrap().integrity();
        prop_assert!(verdict.is_err(), "{:?}", verdict);
    }

    #[test]
    fn no_octets_make_the_reader_panic(octets in vec(any::<u8>(), 16..600), is_record: bool) {
        let mut octets = octets;
        if is_record {
            octets[..4].copy_from_slice(&0xba5e_ba11_u32.to_le_bytes());
        }
        let partition = SecureCert::new(&octets).unwrap();
        let _verdict = partition.integrity();
        prop_assert!(partition.records().count() <= octets.len() / 16);
    }
}

#[test]
fn a_record_that_was_taken_out_or_added_breaks_the_integrity_record() {
    let (first, second) = ((1, 0, vec![1; 20]), (0, 0, vec![2; 40]));
    let (whole, _) = image(&vec![first.clone(), second.clone()], 0x400).unwrap();
    let (one, end) = image(&vec![first], 0x400).unwrap();
    // The integrity record of the whole partition, after the first record alone.
    let first_end = end - 48;
    let integrity = whole.iter().rposition(|octet| *octet != 0xff).unwrap() - 47;
    let mut cut = one.clone();
    cut[first_end..end].copy_from_slice(&whole[integrity..integrity + 48]);
    assert_eq!(SecureCert::new(&cut).unwrap().integrity(), Ok(Integrity::Broken));
    // A record after the integrity record.
    let mut added = one;
    let (extra, _) = image(&vec![second], 0x400).unwrap();
    added[end..end + 64].copy_from_slice(&extra[..64]);
    assert_eq!(SecureCert::new(&added).unwrap().integrity(), Ok(Integrity::Partial));
}

#[test]
fn what_cannot_be_written_is_refused_and_leaves_nothing() {
    let mut octets = [0; 0x200];
    let mut writer = SecureCertWriter::new(&mut octets).unwrap();
    assert_eq!(writer.add(RecordType::PrivateKey, 0, b"key"), Err(SecureCertError::PrivateKeyInClear));
    assert_eq!(writer.add(RecordType::TeeStorageKey, 0, b"key"), Err(SecureCertError::PrivateKeyInClear));
    assert_eq!(writer.add(RecordType::Integrity, 0, &[0; 32]), Err(SecureCertError::IntegrityIsWrittenLast));
    assert_eq!(writer.add(RecordType::CaCertificate, 17, b"x"), Err(SecureCertError::Index { index: 17 }));
    assert_eq!(writer.add(RecordType::CaCertificate, 0, &[0; 600]), Err(SecureCertError::Full));
    let octets_too_many = 0x1_0000;
    let too_long = SecureCertError::ValueTooLong { octets: octets_too_many };
    assert_eq!(writer.add(RecordType::CaCertificate, 0, &vec![0; octets_too_many]), Err(too_long));
    writer.add(RecordType::CaCertificate, 0, b"one").unwrap();
    assert_eq!(writer.add(RecordType::CaCertificate, 0, b"two"), Err(SecureCertError::Duplicate));
    // The salt would fit, the key's record is there already: neither stays.
    writer.add_efuse_ecdsa_key(1, 2).unwrap();
    assert_eq!(writer.add_derived_key(1, &[7; 16]), Err(SecureCertError::Duplicate));
    writer.finish().unwrap();
    let partition = SecureCert::new(&octets).unwrap();
    assert_eq!(partition.records().count(), 4);
    assert!(partition.record(RecordType::EcdsaKeySalt, 1).unwrap().is_none());
    assert_eq!(SecureCertWriter::new(&mut []).err(), Some(SecureCertError::PartitionSize { octets: 0 }));
}

#[test]
fn keys_that_are_not_in_flash_are_references_with_their_flags() {
    let mut octets = [0; 0x800];
    let mut writer = SecureCertWriter::new(&mut octets).unwrap();
    writer.add_efuse_ecdsa_key(0, 3).unwrap();
    writer.add_derived_key(1, &[7; 16]).unwrap();
    writer.add_ds_key(2, 4, 2048, &[9; 1216]).unwrap();
    writer.finish().unwrap();
    let partition = SecureCert::new(&octets).unwrap();
    let key = |index| partition.record(RecordType::PrivateKey, index).unwrap().unwrap();
    assert_eq!((key(0).protection, key(0).value), (KeyProtection::EcdsaPeripheral, [].as_slice()));
    assert_eq!((key(1).protection, key(1).value), (KeyProtection::HmacDerived, [].as_slice()));
    let config = partition.record(RecordType::SecurityConfig, 0).unwrap().unwrap();
    assert_eq!((config.value.len(), config.value[0]), (40, 7), "BLOCK_KEY3 is block 7");
    let context = partition.record(RecordType::DsContext, 2).unwrap().unwrap();
    assert_eq!(context.value, [0, 0, 0, 0, 4, 0, 0, 8]);
    let operands = partition.record(RecordType::DsData, 2).unwrap().unwrap();
    assert_eq!((operands.value.len(), &operands.value[..4]), (1220, [63, 0, 0, 0].as_slice()));
}

#[test]
fn a_private_key_in_clear_takes_the_module_of_dangers() {
    let mut octets = [0; 0x400];
    let mut writer = SecureCertWriter::new(&mut octets).unwrap();
    danger::add_private_key_in_clear(&mut writer, 0, b"-----BEGIN EC PRIVATE KEY-----").unwrap();
    writer.finish().unwrap();
    let key = SecureCert::new(&octets).unwrap().record(RecordType::PrivateKey, 0).unwrap().unwrap();
    assert_eq!(key.protection, KeyProtection::Clear);
}

#[test]
fn a_pem_certificate_ends_in_a_nul_and_a_der_one_does_not() {
    let (image, _) =
        image(&vec![(1, 0, b"-----BEGIN CERTIFICATE-----".to_vec()), (0, 0, vec![0x30, 0])], 0x400).unwrap();
    let partition = SecureCert::new(&image).unwrap();
    let value = |record_type| partition.record(record_type, 0).unwrap().unwrap().value;
    assert_eq!(value(RecordType::DeviceCertificate).last(), Some(&0));
    assert_eq!(value(RecordType::CaCertificate), [0x30, 0]);
}
