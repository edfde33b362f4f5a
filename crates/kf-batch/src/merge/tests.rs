use std::collections::{BTreeMap, BTreeSet};

use kf_api::batch::Outcome;
use kf_crypto::PrivateKey;
use kf_key::KeyAlgorithm;
use proptest::prelude::*;

use super::*;
use crate::frame::document_hash;
use crate::record::MadeKey;
use crate::sample::{NOW, Sample};

type Lie<'a> = &'a dyn Fn(&mut Record);

fn check(sample: &Sample, record: &Record, expected: &[ConflictKind]) {
    let issuer = sample.quota.terms.issuer().unwrap();
    let facts = BatchFacts {
        terms: &sample.quota.terms,
        issuer: &issuer,
        quota_hash: sample.quota_hash(),
        is_cancelled: false,
    };
    assert_eq!(judge(record, &facts), expected);
    let cancelled = BatchFacts { is_cancelled: true, ..facts };
    assert!(judge(record, &cancelled).contains(&ConflictKind::BatchCancelled));
}

#[test]
fn an_honest_record_has_no_conflict_and_each_lie_has_its_name() {
    let sample = Sample::new(10);
    let good = sample.made(0, 1, sample.quota_hash(), Outcome::Passed);
    check(&sample, &good, &[]);
    check(&sample, &sample.made(0, 1, sample.quota_hash(), Outcome::Scrapped), &[]);
    let rows: [(ConflictKind, Lie<'_>); 5] = [
        (ConflictKind::UnknownRecipe, &|record| record.recipe = [0; 32]),
        (ConflictKind::BeforeQuota, &|record| record.at = NOW.minus(MAX_SKEW + 1)),
        (ConflictKind::AfterExpiry, &|record| record.at = sample.quota.terms.expires.plus(1)),
        (ConflictKind::UnsafeNotAllowed, &|record| record.unsafe_marks = vec!["plain flash".into()]),
        (ConflictKind::OutsideQuota, &|record| record.device = DeviceId::from_bytes([1; 16])),
    ];
    for (kind, lie) in rows {
        let mut record = good.clone();
        lie(&mut record);
        check(&sample, &record, &[kind]);
    }
}

#[test]
fn a_stolen_batch_authority_can_certify_nothing_but_devices_of_its_batch() {
    let sample = Sample::new(10);
    let good = sample.made(0, 1, sample.quota_hash(), Outcome::Passed);
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let made = MadeKey { spki_sha256: kf_crypto::sha256(&key.spki()), ..good.key.unwrap() };
    let subject = |name: &str, line: &str| Subject::Device {
        organization: "Acme".into(),
        device: sample.device(0),
        name: name.into(),
        product_line: line.into(),
    };
    let with = |certificate: Vec<u8>| Record { certificate: Some(certificate), key: Some(made), ..good.clone() };
    check(&sample, &with(sample.certify_as(subject("pump-000001", "pump"), &key, NOW)), &[]);
    let wrong = [
        ("another name", sample.certify_as(subject("valve-1", "pump"), &key, NOW)),
        ("another line", sample.certify_as(subject("pump-000001", "valve"), &key, NOW)),
        ("another device", sample.certify(sample.device(1), &key, NOW)),
        ("before the quota", sample.certify(sample.device(0), &key, NOW.minus(UnixMillis::DAY))),
        ("after it", sample.certify(sample.device(0), &key, sample.quota.terms.expires.plus(UnixMillis::DAY))),
        ("another CA", Sample::new(10).certify_as(subject("pump-000001", "pump"), &key, NOW)),
        ("no certificate", vec![0x30, 0]),
    ];
    for (what, certificate) in wrong {
        let record = with(certificate);
        let issuer = sample.quota.terms.issuer().unwrap();
        let terms = &sample.quota.terms;
        let facts = BatchFacts { terms, issuer: &issuer, quota_hash: [0; 32], is_cancelled: false };
        assert_eq!(judge(&record, &facts), [ConflictKind::Certificate], "{what}");
    }
    // The key beside the certificate is another one.
    check(
        &sample,
        &Record { key: good.key, ..with(sample.certify(sample.device(0), &key, NOW)) },
        &[ConflictKind::Certificate],
    );
}

/// The store, as far as the chain goes.
#[derive(Default)]
struct Chain {
    links: BTreeMap<u64, Vec<Link>>,
    found: BTreeSet<(u64, ConflictKind)>,
}

impl Chain {
    fn add(&mut self, link: Link, quota_hash: [u8; 32]) {
        let at = |sequence| self.links.get(&sequence).map_or(&[][..], Vec::as_slice);
        let (before, same, after) = (at(link.sequence - 1), at(link.sequence), at(link.sequence + 1));
        self.found.extend(judge_link(&link, Neighbours { before, same, after }, quota_hash));
        let same = self.links.entry(link.sequence).or_default();
        if !same.contains(&link) {
            same.push(link);
        }
    }
}

fn history(station: u8, from: Option<&Link>, length: u64) -> Vec<Link> {
    let (mut sequence, mut previous, mut at) =
        from.map_or((0, [0; 32], NOW), |link| (link.sequence, link.hash, link.at));
    let mut links = Vec::new();
    for _ in 0..length {
        sequence += 1;
        at = at.plus(1);
        let hash = document_hash(&[[station; 32], previous].concat());
        links.push(Link { sequence, hash, previous, at, device: DeviceId::from_bytes([station; 16]) });
        previous = hash;
    }
    links
}

fn found(links: impl IntoIterator<Item = Link>) -> BTreeSet<(u64, ConflictKind)> {
    let mut chain = Chain::default();
    for link in links {
        chain.add(link, [0; 32]);
    }
    chain.found
}

#[test]
fn one_history_is_clean_with_gaps_and_repetitions() {
    let links = history(1, None, 20);
    assert_eq!(found(links.clone()), BTreeSet::new());
    assert_eq!(found(links.iter().rev().copied()), BTreeSet::new());
    assert_eq!(found(links.iter().chain(&links).step_by(3).copied()), BTreeSet::new());
}

#[test]
fn a_copied_station_shows_at_every_sequence_that_both_used() {
    let common = history(1, None, 5);
    let (left, right) = (history(1, common.last(), 4), history(2, common.last(), 6));
    let all: Vec<_> = common.iter().chain(&left).chain(&right).copied().collect();
    let expected: BTreeSet<_> = (6..=9).map(|sequence| (sequence, ConflictKind::ClonedStation)).collect();
    assert_eq!(found(all), expected);
    // One record of the other history is enough, even where the one it contradicts is not here: 6 and 8 name each 7.
    let few = [left[0], left[2], right[0]];
    assert_eq!(found(few), BTreeSet::from([(6, ConflictKind::ClonedStation)]));
    let few = [left[1], right[2]];
    assert_eq!(found(few), BTreeSet::from([(7, ConflictKind::ClonedStation)]));
}

#[test]
fn a_chain_of_another_quota_and_a_clock_that_went_back_are_named() {
    let mut links = history(1, None, 3);
    links[2].at = NOW;
    assert_eq!(found(links.clone()), BTreeSet::from([(3, ConflictKind::ClockWentBack)]));
    let mut chain = Chain::default();
    chain.add(links[0], [9; 32]);
    assert_eq!(chain.found, BTreeSet::from([(1, ConflictKind::OtherQuota)]));
}

#[test]
fn a_manifest_contradicts_a_history_that_it_does_not_end() {
    let links = history(1, None, 3);
    let counts = crate::manifest::Counts { passed: 3, scrapped: 0, rework: 0 };
    let manifest = Manifest {
        batch: kf_key::BatchId::from_bytes([1; 16]),
        last: 3,
        head: links[2].hash,
        counts,
        at: NOW,
        operator: "Ana".into(),
        is_final: true,
    };
    assert_eq!(judge_manifest(&manifest, &links[2..], [0; 32]), None);
    assert_eq!(judge_manifest(&manifest, &[], [0; 32]), None, "not here yet");
    let other = Manifest { head: [7; 32], ..manifest.clone() };
    assert_eq!(judge_manifest(&other, &links[2..], [0; 32]), Some((3, ConflictKind::ClonedStation)));
    let empty = Manifest { last: 0, counts: crate::manifest::Counts::default(), ..other };
    assert_eq!(judge_manifest(&empty, &[], [7; 32]), None);
    assert_eq!(judge_manifest(&empty, &[], [0; 32]), Some((1, ConflictKind::OtherQuota)));
}

proptest! {
    #[test]
    fn what_is_found_depends_on_the_set_and_not_on_the_order(
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
        keep in prop::collection::vec(any::<bool>(), 14),
    ) {
        let common = history(1, None, 4);
        let (left, right) = (history(1, common.last(), 4), history(2, common.last(), 6));
        let all: Vec<_> = common.iter().chain(&left).chain(&right).copied()
            .zip(&keep).filter_map(|(link, keep)| keep.then_some(link)).collect();
        if !all.is_empty() {
            let shuffled: Vec<_> = order.iter().map(|index| all[index.index(all.len())]).chain(all.iter().rev().copied()).collect();
            prop_assert_eq!(found(shuffled), found(all));
        }
    }
}
