//! What travels, as octets.

use kf_api::batch::Outcome;
use kf_key::SecretArray;

use crate::frame::{FormatError, MAX_ITEM_OCTETS, Split, document_hash, split_item};
use crate::key::P256Key;
use crate::manifest::{Counts, Manifest};
use crate::record::{Check, Hardware, HardwareKind, Record};
use crate::salt::{SaltOpener, SaltSealer, SealedSalt};
use crate::sample::{NOW, Sample, key};
use crate::station_request::{MAX_AGE, MAX_SKEW, StationRequest, StationRequestRefusal};

type Change = fn(&mut Record);

fn full(sample: &Sample) -> Record {
    let mut record = sample.made(0, 1, sample.quota_hash(), Outcome::Passed);
    record.hardware = vec![Hardware { kind: HardwareKind::Address, value: vec![1, 2, 3, 4, 5, 6] }];
    record.checks = ["flash", "secure-boot", "jtag", "possession"]
        .map(|name| Check { name: name.into(), passed: true, detail: Some("as the recipe demands".into()) })
        .into();
    let mut sealer = SaltSealer::new(&sample.quota.salt_key, record.batch).unwrap();
    record.salt = Some(sealer.seal(record.device, &SecretArray::fill(|salt| salt.fill(3))).unwrap());
    record
}

#[test]
fn a_record_survives_its_octets_and_no_changed_octet_is_accepted() {
    let sample = Sample::new(10);
    let record = full(&sample);
    let document = sample.sign(&record);
    println!("octets of a record: {}", document.len());
    assert_eq!(Record::verify(&document, &sample.record_key), Ok(record.clone()));
    assert_eq!(Record::claimed(&document), Ok(record));
    assert_eq!(Record::verify(&document, &sample.server_key), Err(FormatError::OtherKey));
    for position in 0..document.len() {
        let mut changed = document.clone();
        changed[position] ^= 1;
        assert!(Record::verify(&changed, &sample.record_key).is_err(), "octet {position}");
    }
}

#[test]
fn a_record_that_does_not_bear_out_its_outcome_is_refused_by_field() {
    let sample = Sample::new(10);
    let good = full(&sample);
    let rows: [(&str, Change); 9] = [
        ("certificate", |record| record.certificate = None),
        ("key", |record| record.key = None),
        ("entropy", |record| record.entropy = None),
        ("entropy", |record| record.entropy.as_mut().unwrap().failures = 1),
        ("checks", |record| record.checks[1].passed = false),
        ("reason", |record| record.outcome = Outcome::Scrapped),
        ("sequence", |record| record.sequence = 0),
        ("texts", |record| record.fixture = "a\u{7}".into()),
        ("hardware", |record| record.hardware[0].value.clear()),
    ];
    for (field, change) in rows {
        let mut record = good.clone();
        change(&mut record);
        assert_eq!(record.prepare(&sample.record_key).unwrap_err(), FormatError::Field(field));
    }
}

#[test]
fn one_kind_of_document_is_not_taken_for_another() {
    let sample = Sample::new(10);
    let record = sample.sign(&full(&sample));
    assert!(Manifest::verify(&record, &sample.record_key).is_err());
    assert_eq!(Record::verify(&sample.document, &sample.server_key), Err(FormatError::Kind));
    assert_eq!(StationRequest::claimed(&record), Err(FormatError::Kind));
}

#[test]
fn a_sequence_is_split_where_its_items_end_however_it_arrives() {
    let sample = Sample::new(10);
    let first = sample.sign(&full(&sample));
    let manifest = Manifest {
        batch: sample.quota.terms.batch,
        last: 1,
        head: document_hash(&first),
        counts: Counts { passed: 1, scrapped: 0, rework: 0 },
        at: NOW,
        operator: "Ana".into(),
        is_final: true,
    };
    let unsigned = manifest.prepare(&sample.record_key).unwrap();
    let signature = sample.record.sign(&unsigned.to_be_signed()).unwrap();
    let second = unsigned.complete(&signature).unwrap();
    assert_eq!(Manifest::verify(&second, &sample.record_key), Ok(manifest));
    let both = [first.clone(), second.clone()].concat();
    for length in 0..first.len() {
        assert_eq!(split_item(&both[..length]), Ok(None), "{length}");
    }
    let split = split_item(&both).unwrap().unwrap();
    assert_eq!((split.item, split.rest), (first.as_slice(), second.as_slice()));
    assert_eq!(split_item(split.rest).unwrap().unwrap(), Split { item: &second, rest: &[] });
    assert_eq!(split_item(b"{\"json\": 1}"), Err(FormatError::Malformed));
    // A length beyond every limit is refused as soon as that many octets are here.
    let endless = [&[0xd2, 0x84, 0x5a, 0x00, 0x10, 0x00, 0x00][..], &vec![0; MAX_ITEM_OCTETS]].concat();
    assert_eq!(split_item(&endless), Err(FormatError::TooLong { limit: MAX_ITEM_OCTETS }));
}

#[test]
fn a_salt_opens_for_its_device_batch_and_key_only() {
    let sample = Sample::new(10);
    let material = SecretArray::fill(|octets| octets.fill(4));
    let server = kf_crypto::HpkePrivateKey::derive(&material).unwrap();
    let salt_key = P256Key::from_point(*server.public_key()).unwrap();
    let batch = sample.quota.terms.batch;
    let mut sealer = SaltSealer::new(&salt_key, batch).unwrap();
    let salt = |octet: u8| SecretArray::fill(|salt: &mut [u8; 16]| salt.fill(octet));
    let sealed: Vec<_> = (0..3u8).map(|at| sealer.seal(sample.device(at.into()), &salt(at)).unwrap()).collect();
    let opener = SaltOpener::new(&server, sealed[0].encapsulated(), batch).unwrap();
    for at in [2u8, 0, 1] {
        let sealed = SealedSalt::from_octets(&sealed[usize::from(at)].to_octets()).unwrap();
        assert!(opener.open(sample.device(at.into()), &sealed).unwrap().equals(&salt(at)));
    }
    assert!(opener.open(sample.device(1), &sealed[0]).is_err(), "another device");
    let other = SaltOpener::new(&server, sealed[0].encapsulated(), kf_key::BatchId::from_bytes([0; 16])).unwrap();
    assert!(other.open(sample.device(0), &sealed[0]).is_err(), "another batch");
}

#[test]
fn a_station_request_is_believed_once_signed_and_fresh() {
    let (identity, identity_key) = key();
    let request = StationRequest {
        station: "line-1".into(),
        authority_csr: vec![0x30; 300],
        transport_key: key().1,
        record_key: key().1,
        made: NOW,
        nonce: [1; 16],
    };
    let unsigned = request.prepare(&identity_key).unwrap();
    let signature = identity.sign(&unsigned.to_be_signed()).unwrap();
    let document = unsigned.complete(&signature).unwrap();
    let verify = |now| StationRequest::verify(&document, &identity_key, now);
    assert_eq!(verify(NOW), Ok(request.clone()));
    assert_eq!(verify(NOW.plus(MAX_AGE + 1)), Err(StationRequestRefusal::TooOld));
    assert_eq!(verify(NOW.minus(MAX_SKEW + 1)), Err(StationRequestRefusal::FromTheFuture));
    let other = StationRequest::verify(&document, &key().1, NOW);
    assert_eq!(other, Err(StationRequestRefusal::Format(FormatError::OtherKey)));
    let one_key = StationRequest { record_key: request.transport_key, ..request };
    assert_eq!(one_key.prepare(&identity_key).unwrap_err(), FormatError::Field("transport_key"));
}
