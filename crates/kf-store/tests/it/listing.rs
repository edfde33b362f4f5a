use std::collections::BTreeSet;

use kf_access::Visibility;
use kf_api::PageRequest;
use kf_key::{CertificateProfile, CertificateStatus, DeviceState, RevocationReason};
use kf_store::certificate::CertificateQuery;
use kf_store::device::{CertificateEffect, DeviceChange, DeviceQuery, DeviceTarget};
use kf_store::revocation::{Profiles, Revocation, Selection};
use kf_store::{Store, StoreError};

use crate::fixture::{
    NOW, authority_id, certificate, device, device_id, done, enrol, facility_id, fleet, issuance, line_id, only,
};

/// 60 devices with certificates in all states, and three servers.
async fn mixed() -> Store {
    let store = fleet().await;
    enrol(&store, 60).await;
    for number in 1..=60 {
        let (to, certificates) = match number % 5 {
            1 => (DeviceState::Suspended, CertificateEffect::Hold),
            2 => (
                DeviceState::Decommissioned,
                CertificateEffect::Revoke { ldevid: RevocationReason::Superseded, idevid: None },
            ),
            _ => continue,
        };
        let target = DeviceTarget::Device { id: device_id(number), seen: DeviceState::Active };
        let change = DeviceChange { target, to, certificates, at: NOW };
        store.change_devices(change, Visibility::Fleet, done()).await.unwrap();
    }
    for number in 100..103 {
        store.record_issuance(issuance(certificate(number, None), DeviceState::Active), done()).await.unwrap();
    }
    store
}

fn visibilities() -> [Visibility; 4] {
    [
        Visibility::Fleet,
        only(1),
        Visibility::Facilities([facility_id(1), facility_id(2)].into()),
        Visibility::Facilities([].into()),
    ]
}

fn walk_devices(
    store: &Store,
    mut query: DeviceQuery,
    visibility: &Visibility,
    limit: u32,
) -> Vec<kf_api::device::Device> {
    let mut found = Vec::new();
    query.page = PageRequest { after: None, limit: Some(limit) };
    loop {
        let page = store.devices(&query, visibility).unwrap();
        assert!(page.items.len() <= usize::try_from(limit).unwrap());
        found.extend(page.items);
        query.page.after = page.next;
        if query.page.after.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn pages_of_devices_repeat_and_drop_nothing_under_every_filter_and_scope() {
    let store = mixed().await;
    let everything = walk_devices(&store, DeviceQuery::default(), &Visibility::Fleet, 1_000);
    assert_eq!(everything.len(), 60);
    let none = DeviceQuery::default();
    let queries = [
        none.clone(),
        DeviceQuery { facility: Some(facility_id(2)), ..none.clone() },
        DeviceQuery { state: Some(DeviceState::Suspended), ..none.clone() },
        DeviceQuery { state: Some(DeviceState::Active), facility: Some(facility_id(1)), ..none.clone() },
        DeviceQuery { product_line: Some(line_id()), ..none.clone() },
        DeviceQuery { batch: Some("batch-3".into()), state: Some(DeviceState::Active), ..none.clone() },
        DeviceQuery { name_prefix: Some("device-000002".into()), ..none.clone() },
        DeviceQuery { name_prefix: Some("none".into()), ..none },
    ];
    for query in queries {
        for visibility in visibilities() {
            let expected: Vec<_> = everything
                .iter()
                .filter(|device| {
                    visibility.sees(device.facility)
                        && query.facility.is_none_or(|facility| device.facility == facility)
                        && query.state.is_none_or(|state| device.state == state)
                        && query.product_line.is_none_or(|line| device.product_line == line)
                        && query.batch.as_ref().is_none_or(|batch| device.batch.as_ref() == Some(batch))
                        && query.name_prefix.as_ref().is_none_or(|prefix| device.name.starts_with(prefix))
                })
                .cloned()
                .collect();
            for limit in [1, 7, 59, 60, 1_000] {
                let found = walk_devices(&store, query.clone(), &visibility, limit);
                assert_eq!(found, expected, "{query:?} {visibility:?} {limit}");
            }
        }
    }
}

fn walk_certificates(
    store: &Store,
    mut query: CertificateQuery,
    visibility: &Visibility,
    limit: u32,
) -> Vec<kf_api::certificate::Certificate> {
    let mut found = Vec::new();
    query.page = PageRequest { after: None, limit: Some(limit) };
    loop {
        let page = store.certificates(&query, visibility).unwrap();
        found.extend(page.items);
        query.page.after = page.next;
        if query.page.after.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn pages_of_certificates_repeat_and_drop_nothing_under_every_filter_and_scope() {
    let store = mixed().await;
    let everything = walk_certificates(&store, CertificateQuery::default(), &Visibility::Fleet, 1_000);
    assert_eq!(everything.len(), 64);
    let none = CertificateQuery::default();
    let middle = everything[30].not_after;
    let queries = [
        none.clone(),
        CertificateQuery { device: Some(device_id(7)), ..none.clone() },
        CertificateQuery { facility: Some(facility_id(2)), ..none.clone() },
        CertificateQuery { facility: Some(facility_id(2)), status: Some(CertificateStatus::Held), ..none.clone() },
        CertificateQuery { authority: Some(authority_id(1)), ..none.clone() },
        CertificateQuery { authority: Some(authority_id(7)), ..none.clone() },
        CertificateQuery { status: Some(CertificateStatus::Revoked), ..none.clone() },
        CertificateQuery { status: Some(CertificateStatus::Good), ..none.clone() },
        CertificateQuery { profile: Some(CertificateProfile::TlsServer), ..none.clone() },
        CertificateQuery { profile: Some(CertificateProfile::LDevId), ..none.clone() },
        CertificateQuery { expires_before: Some(middle), ..none.clone() },
        CertificateQuery {
            expires_before: Some(middle),
            status: Some(CertificateStatus::Good),
            facility: Some(facility_id(1)),
            ..none
        },
    ];
    for query in queries {
        for visibility in visibilities() {
            let sees = |facility: Option<kf_key::FacilityId>| match &visibility {
                Visibility::Fleet => true,
                Visibility::Facilities(seen) => facility.is_some_and(|facility| seen.contains(&facility)),
            };
            let mut expected: Vec<_> = everything
                .iter()
                .filter(|certificate| {
                    sees(certificate.facility)
                        && query.device.is_none_or(|device| certificate.device == Some(device))
                        && query.facility.is_none_or(|facility| certificate.facility == Some(facility))
                        && query.authority.is_none_or(|authority| certificate.authority == authority)
                        && query.profile.is_none_or(|profile| certificate.profile == profile)
                        && query.status.is_none_or(|status| certificate.status == status)
                        && query.expires_before.is_none_or(|before| certificate.not_after < before)
                })
                .cloned()
                .collect();
            if query.expires_before.is_some() {
                expected.sort_by_key(|certificate| (certificate.not_after, certificate.serial));
            }
            for limit in [1, 7, 63, 64, 1_000] {
                let found = walk_certificates(&store, query.clone(), &visibility, limit);
                assert_eq!(found, expected, "{query:?} {visibility:?} {limit}");
            }
        }
    }
}

#[tokio::test]
async fn a_cursor_from_elsewhere_is_refused() {
    let store = fleet().await;
    let page = PageRequest { after: Some("'; DROP TABLE device".into()), limit: None };
    let refused = StoreError::Invalid { field: "after", problem: "not the `next` of a page of this listing" };
    let devices = DeviceQuery { page: page.clone(), ..DeviceQuery::default() };
    assert_eq!(store.devices(&devices, &Visibility::Fleet).unwrap_err(), refused);
    let mut certificates = CertificateQuery { page: page.clone(), ..CertificateQuery::default() };
    assert_eq!(store.certificates(&certificates, &Visibility::Fleet).unwrap_err(), refused);
    certificates.expires_before = Some(NOW);
    assert_eq!(store.certificates(&certificates, &Visibility::Fleet).unwrap_err(), refused);
    assert_eq!(store.facilities(&Visibility::Fleet, &page).unwrap_err(), refused);
    assert_eq!(store.product_lines(&page).unwrap_err(), refused);
    assert_eq!(store.operators(&page).unwrap_err(), refused);
    assert_eq!(store.proposals(None, &Visibility::Fleet, &page).unwrap_err(), refused);
    assert_eq!(store.log_list(None, &Visibility::Fleet, &page).unwrap_err(), refused);
}

#[tokio::test]
async fn facilities_are_listed_within_the_scope() {
    let store = fleet().await;
    let page = PageRequest { after: None, limit: Some(1) };
    let first = store.facilities(&Visibility::Fleet, &page).unwrap();
    assert_eq!(first.items[0].id, facility_id(1));
    let second = store.facilities(&Visibility::Fleet, &PageRequest { after: first.next, limit: Some(1) }).unwrap();
    assert_eq!((second.items[0].id, second.next), (facility_id(2), None));
    assert_eq!(store.facilities(&only(2), &page).unwrap().items.len(), 1);
    assert_eq!(store.facility(facility_id(1), &only(2)).unwrap(), None);
    assert_eq!(store.facility_by_name("site-1", &only(2)).unwrap(), None);
    assert!(store.facility_by_name("site-1", &only(1)).unwrap().is_some());
}

#[tokio::test]
async fn every_revoked_entry_of_an_authority_is_given_once_in_order() {
    let store = fleet().await;
    enrol(&store, 100).await;
    for number in (1..=100).filter(|number| number % 3 != 0) {
        let reason = if number % 2 == 0 { RevocationReason::CertificateHold } else { RevocationReason::KeyCompromise };
        let selection = Selection::Device(device_id(number));
        let revocation = Revocation { selection, profiles: Profiles::LDevIdOnly, reason, at: NOW };
        store.revoke(revocation, Visibility::Fleet, done()).await.unwrap();
    }
    let mut serials = Vec::new();
    store.for_each_revoked(authority_id(1), &mut |entry| serials.push(entry.serial)).unwrap();
    let sorted: BTreeSet<_> = serials.iter().copied().collect();
    assert_eq!(serials.len(), 67);
    assert_eq!(serials, sorted.into_iter().collect::<Vec<_>>());
    assert_eq!(device(1).id, device_id(1));
}
