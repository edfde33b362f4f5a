use super::*;
use crate::sample::{NOW, Sample, key, sign_quota};

type Change = fn(&mut QuotaTerms);

fn knows(sample: &Sample) -> StationKnows<'_> {
    StationKnows {
        server_key: &sample.server_key,
        station: "line-1",
        transport_key: &sample.quota.terms.transport_key,
        record_key: &sample.quota.terms.record_key,
        last_sequence: 3,
    }
}

#[test]
fn a_quota_survives_its_octets_and_stays_small() {
    let sample = Sample::new(100_000);
    assert_eq!(Quota::verify(&sample.document, &knows(&sample), NOW), Ok(sample.quota.clone()));
    assert!(sample.document.len() < 3 * 1024, "{}", sample.document.len());
    let octets = sample.quota.terms.to_octets();
    assert_eq!(QuotaTerms::from_octets(&octets), Ok(sample.quota.terms));
}

#[test]
fn a_forged_foreign_expired_or_rolled_back_quota_is_refused_by_name() {
    let sample = Sample::new(10);
    let knows = knows(&sample);
    let refusal = |knows: &StationKnows<'_>, now| Quota::verify(&sample.document, knows, now).unwrap_err();
    let (_, other) = key();
    let refused = refusal(&StationKnows { server_key: &other, ..knows }, NOW);
    assert_eq!(refused, QuotaRefusal::Format(FormatError::OtherKey), "of another server");
    assert_eq!(refusal(&StationKnows { station: "line-2", ..knows }, NOW), QuotaRefusal::OtherStation);
    assert_eq!(refusal(&StationKnows { transport_key: &other, ..knows }, NOW), QuotaRefusal::OtherKeys);
    assert_eq!(refusal(&StationKnows { record_key: &other, ..knows }, NOW), QuotaRefusal::OtherKeys);
    for last in [4, 5] {
        let refused = refusal(&StationKnows { last_sequence: last, ..knows }, NOW);
        assert_eq!(refused, QuotaRefusal::RolledBack { last });
    }
    assert_eq!(refusal(&knows, sample.quota.terms.expires.plus(1)), QuotaRefusal::Expired);
    assert_eq!(refusal(&knows, NOW.minus(MAX_SKEW + 1)), QuotaRefusal::FromTheFuture);
    assert!(Quota::verify(&sample.document, &knows, NOW.minus(MAX_SKEW)).is_ok());
}

#[test]
fn no_changed_octet_of_a_quota_is_accepted() {
    let sample = Sample::new(10);
    for position in 0..sample.document.len() {
        let mut changed = sample.document.clone();
        changed[position] ^= 1;
        assert!(Quota::open(&changed, &sample.server_key).is_err(), "octet {position}");
        assert!(Quota::open(&sample.document[..position], &sample.server_key).is_err(), "length {position}");
    }
}

#[test]
fn terms_that_give_a_station_more_than_a_batch_are_refused_even_if_signed() {
    let sample = Sample::new(10);
    let changes: [(&str, Change); 5] = [
        ("authority_certificate", |terms| terms.authority_certificate = terms.factory_certificate.clone()),
        ("authority_certificate", |terms| terms.expires = terms.expires.minus(UnixMillis::DAY)),
        ("expires", |terms| terms.expires = terms.issued.plus(MAX_LIFETIME + 1)),
        ("expires", |terms| terms.issued = terms.expires),
        ("sequence", |terms| terms.sequence = 0),
    ];
    for (field, change) in changes {
        let mut quota = sample.quota.clone();
        change(&mut quota.terms);
        assert_eq!(quota.prepare(&sample.server_key).unwrap_err(), FormatError::Field(field));
    }
}

#[test]
fn the_batch_key_opens_with_the_transport_key_under_these_terms_only() {
    let mut sample = Sample::new(10);
    let transport = kf_crypto::HpkePrivateKey::derive(&SecretArray::fill(|octets| octets.fill(1))).unwrap();
    sample.quota.terms.transport_key = P256Key::from_point(*transport.public_key()).unwrap();
    let secret = SecretArray::fill(|octets| octets.fill(0x5a));
    let hash = sample.quota.terms.hash();
    sample.quota.batch_key = SealedBatchKey::seal(&secret, &sample.quota.terms.transport_key, &hash).unwrap();
    let document = sign_quota(&sample.quota, &sample.server, &sample.server_key);
    let quota = Quota::open(&document, &sample.server_key).unwrap();
    // What a token's ECDH gives: the receiver is made from nothing else.
    let agreed = transport.agree(quota.batch_key.encapsulated()).unwrap();
    assert!(quota.open_batch_key(&agreed).unwrap().equals(&secret));
    let mut other = quota.clone();
    other.terms.sequence += 1;
    assert!(other.open_batch_key(&agreed).is_err(), "other terms");
    assert!(quota.open_batch_key(&SecretArray::fill(|octets| octets.fill(2))).is_err(), "another key");
}
