//! Devices and certificates against a model in memory: the same acts, the same answers, the same state.

use std::collections::BTreeMap;

use kf_access::Visibility;
use kf_key::{CertificateProfile, CertificateStatus, DeviceState, RevocationReason};
use kf_store::certificate::{CertificateQuery, DeviceIssuance, IssuanceOutcome, StatusAnswer};
use kf_store::device::{CertificateEffect, DeviceChange, DeviceQuery, DeviceTarget};
use kf_store::revocation::{Profiles, Revocation, Selection};
use kf_store::{Store, StoreError};
use proptest::prelude::*;

use crate::fixture::{
    NOW, authority_id, certificate, device, device_id, done, facility_id, fleet, issuance, only, random, serial,
};

const DEVICES: u64 = 6;

#[derive(Clone, Copy, Debug)]
enum Act {
    Register(u64),
    /// Device, key, the state the caller believes in, and whether an IDevID is wanted.
    Issue(u64, u64, DeviceState, bool),
    Revoke(Target, RevocationReason, bool),
    Change(u64, DeviceState, DeviceState),
    DecommissionFacility(u64, bool),
    Move(u64, u64),
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Certificate(u64),
    Device(u64),
    Batch,
    Facility(u64),
    Authority,
}

fn act() -> impl Strategy<Value = Act> {
    let state = || proptest::sample::select(DeviceState::ALL.to_vec());
    let likely = || prop_oneof![3 => Just(DeviceState::Active), 2 => Just(DeviceState::Registered), 1 => state()];
    let device = 1..=DEVICES;
    let reason = proptest::sample::select(vec![
        RevocationReason::CertificateHold,
        RevocationReason::RemoveFromCrl,
        RevocationReason::KeyCompromise,
    ]);
    let target = prop_oneof![
        4 => (1_u64..40).prop_map(Target::Certificate),
        2 => (1..=DEVICES).prop_map(Target::Device),
        1 => Just(Target::Batch),
        1 => (1_u64..=2).prop_map(Target::Facility),
        1 => Just(Target::Authority),
    ];
    prop_oneof![
        3 => device.clone().prop_map(Act::Register),
        8 => (device.clone(), 1_u64..30, likely(), proptest::bool::weighted(0.2))
            .prop_map(|(device, key, seen, idevid)| Act::Issue(device, key, seen, idevid)),
        4 => (target, reason, any::<bool>()).prop_map(|(target, reason, fleet)| Act::Revoke(target, reason, fleet)),
        4 => (device.clone(), likely(), state()).prop_map(|(device, seen, to)| Act::Change(device, seen, to)),
        1 => (1_u64..=2, any::<bool>()).prop_map(|(facility, scrap)| Act::DecommissionFacility(facility, scrap)),
        1 => (device, 1_u64..=2).prop_map(|(device, to)| Act::Move(device, to)),
    ]
}

#[derive(Clone, Debug)]
struct ModelDevice {
    facility: u64,
    state: DeviceState,
}

#[derive(Clone, Debug)]
struct ModelCertificate {
    device: u64,
    idevid: bool,
    status: CertificateStatus,
    reason: Option<RevocationReason>,
}

#[derive(Default)]
struct Model {
    devices: BTreeMap<u64, ModelDevice>,
    certificates: BTreeMap<u64, ModelCertificate>,
    keys: BTreeMap<u64, u64>,
    entries: u64,
    next: u64,
}

impl Model {
    fn facility_of(&self, certificate: &ModelCertificate) -> u64 {
        self.devices[&certificate.device].facility
    }

    /// Changes the status of those selected; how many.
    fn change(&mut self, selected: &[u64], reason: RevocationReason) -> u64 {
        use CertificateStatus::{Good, Held, Revoked};
        let mut changed = 0;
        for number in selected {
            let certificate = self.certificates.get_mut(number).unwrap();
            let to = match (reason, certificate.status) {
                (RevocationReason::CertificateHold, Good) => Held,
                (RevocationReason::RemoveFromCrl, Held) => Good,
                (RevocationReason::CertificateHold | RevocationReason::RemoveFromCrl, _) | (_, Revoked) => continue,
                _ => Revoked,
            };
            certificate.status = to;
            certificate.reason = (to != Good).then_some(reason);
            changed += 1;
        }
        changed
    }

    fn of(&self, wanted: impl Fn(&ModelCertificate) -> bool) -> Vec<u64> {
        self.certificates.iter().filter(|(_, found)| wanted(found)).map(|(number, _)| *number).collect()
    }

    /// The number of changes, or `None` when the act must be refused.
    fn issue(&mut self, device: u64, key: u64, seen: DeviceState, idevid: bool) -> Option<u64> {
        let found = self.devices.get(&device)?;
        if found.state != seen || !seen.may_enrol() || *self.keys.get(&key).unwrap_or(&device) != device {
            return None;
        }
        self.keys.insert(key, device);
        let certificate = ModelCertificate { device, idevid, status: CertificateStatus::Good, reason: None };
        self.certificates.insert(self.next, certificate);
        if idevid {
            return Some(0);
        }
        self.devices.get_mut(&device)?.state = DeviceState::Active;
        let good = self.of(|found| found.device == device && !found.idevid && found.status == CertificateStatus::Good);
        let old = good.len().saturating_sub(2);
        Some(self.change(&good[..old], RevocationReason::Superseded))
    }

    fn set_state(&mut self, devices: &[u64], to: DeviceState) {
        for device in devices {
            let ldevids =
                self.of(|found| found.device == *device && !found.idevid && found.status != CertificateStatus::Revoked);
            let resumes = matches!(to, DeviceState::Active | DeviceState::Registered);
            let to = match (resumes, ldevids.is_empty()) {
                (true, true) => DeviceState::Registered,
                (true, false) => DeviceState::Active,
                _ => to,
            };
            self.devices.get_mut(device).unwrap().state = to;
        }
    }

    fn affect(&mut self, devices: &[u64], effect: CertificateEffect) -> u64 {
        let all = self.of(|found| devices.contains(&found.device));
        match effect {
            CertificateEffect::Keep => 0,
            CertificateEffect::Hold => self.change(&all, RevocationReason::CertificateHold),
            CertificateEffect::Release => self.change(&all, RevocationReason::RemoveFromCrl),
            CertificateEffect::Revoke { ldevid, idevid } => {
                let (idevids, ldevids): (Vec<_>, Vec<_>) =
                    all.into_iter().partition(|number| self.certificates[number].idevid);
                self.change(&ldevids, ldevid) + self.change(&idevids, idevid.unwrap_or(RevocationReason::RemoveFromCrl))
            }
        }
    }
}

fn effect_of(to: DeviceState) -> CertificateEffect {
    match to {
        DeviceState::Registered | DeviceState::Active => CertificateEffect::Release,
        DeviceState::Suspended | DeviceState::Quarantined => CertificateEffect::Hold,
        DeviceState::Decommissioned => {
            CertificateEffect::Revoke { ldevid: RevocationReason::CessationOfOperation, idevid: None }
        }
    }
}

async fn carry_out(store: &Store, model: &mut Model, act: Act) {
    match act {
        Act::Register(number) => {
            let result = store.register_device(device(number), done()).await;
            let fresh = !model.devices.contains_key(&number);
            assert_eq!(result.is_ok(), fresh);
            if fresh {
                let state = ModelDevice { facility: 2 - number % 2, state: DeviceState::Registered };
                model.devices.insert(number, state);
                model.entries += 1;
            }
        }
        Act::Issue(number, key, seen, idevid) => issue(store, model, number, key, seen, idevid).await,
        Act::Revoke(target, reason, fleet) => revoke(store, model, target, reason, fleet).await,
        Act::Change(number, seen, to) => change(store, model, number, seen, to).await,
        Act::DecommissionFacility(facility, scrap) => {
            let idevid = scrap.then_some(RevocationReason::KeyCompromise);
            let certificates = CertificateEffect::Revoke { ldevid: RevocationReason::CessationOfOperation, idevid };
            let target = DeviceTarget::Facility(facility_id(facility));
            let to = DeviceState::Decommissioned;
            let change = DeviceChange { target, to, certificates, at: NOW };
            let touched: Vec<_> = model
                .devices
                .iter()
                .filter(|(_, found)| found.facility == facility && found.state != to)
                .map(|(number, _)| *number)
                .collect();
            let counted = store.count_device_change(&change, &Visibility::Fleet).unwrap();
            let outcome = store.change_devices(change, Visibility::Fleet, done()).await.unwrap().value;
            let changed = model.affect(&touched, certificates);
            model.set_state(&touched, to);
            assert_eq!((outcome.devices, outcome.certificates), counted);
            assert_eq!(counted, (u64::try_from(touched.len()).unwrap(), changed));
            model.entries += 1;
        }
        Act::Move(number, to) => {
            let from = model.devices.get(&number).map(|found| found.facility);
            let there = facility_id(from.unwrap_or(1));
            let result = store.move_device(device_id(number), there, facility_id(to), done()).await;
            assert_eq!(result.is_ok(), from.is_some());
            if let Some(found) = model.devices.get_mut(&number) {
                found.facility = to;
                model.entries += 1;
            }
        }
    }
}

async fn issue(store: &Store, model: &mut Model, number: u64, key: u64, seen: DeviceState, idevid: bool) {
    model.next += 1;
    let mut named = device(number);
    if let Some(found) = model.devices.get(&number) {
        named.facility = facility_id(found.facility);
    }
    let mut wanted = issuance(certificate(model.next, Some(&named)), seen);
    wanted.device = Some(DeviceIssuance { seen, protection: None, max_live_ldevids: Some(2), is_sighting: false });
    wanted.certificate.spki_sha256 = hex::encode(random::<32>(key));
    if idevid {
        wanted.certificate.profile = CertificateProfile::IDevId;
    }
    let result = store.record_issuance(wanted, done()).await;
    match model.issue(number, key, seen, idevid) {
        None => {
            let refused = matches!(
                result,
                Err(StoreError::IllegalState { .. } | StoreError::NotFound { .. } | StoreError::KeyInUse { .. })
            );
            assert!(refused, "{result:?}");
        }
        Some(superseded) => {
            let Ok(IssuanceOutcome::Recorded { superseded: changes, .. }) = result else { panic!("{result:?}") };
            assert_eq!(u64::try_from(changes.len()).unwrap(), superseded);
            model.entries += 1;
        }
    }
}

async fn revoke(store: &Store, model: &mut Model, target: Target, reason: RevocationReason, fleet: bool) {
    let visibility = if fleet { Visibility::Fleet } else { only(1) };
    let visible = |facility: u64| fleet || facility == 1;
    let batch = |number: u64| number.is_multiple_of(3);
    let (selection, there) = match target {
        Target::Certificate(number) => {
            let found = model.certificates.get(&number);
            let there = found.is_some_and(|found| visible(model.facility_of(found)));
            (Selection::Certificate(serial(number)), there)
        }
        Target::Device(number) => {
            let there = model.devices.get(&number).is_some_and(|found| visible(found.facility));
            (Selection::Device(device_id(number)), there)
        }
        Target::Batch => {
            let there = model.devices.iter().any(|(number, found)| batch(*number) && visible(found.facility));
            (Selection::Batch("batch-3".into()), there)
        }
        Target::Facility(facility) => (Selection::Facility(facility_id(facility)), visible(facility)),
        Target::Authority => (Selection::Authority(authority_id(1)), true),
    };
    let certificates = model.certificates.clone();
    let selected: Vec<_> = certificates
        .iter()
        .filter(|(number, found)| {
            let named = match target {
                Target::Certificate(wanted) => **number == wanted,
                Target::Device(wanted) => found.device == wanted && !found.idevid,
                Target::Batch => batch(found.device) && !found.idevid,
                Target::Facility(wanted) => model.facility_of(found) == wanted && !found.idevid,
                Target::Authority => !found.idevid,
            };
            named && visible(model.facility_of(found))
        })
        .map(|(number, _)| *number)
        .collect();
    let revocation = Revocation { selection, profiles: Profiles::LDevIdOnly, reason, at: NOW };
    let counted = store.count_revocation(&revocation, &visibility).unwrap().0;
    let result = store.revoke(revocation, visibility, done()).await;
    let changed = if there { model.change(&selected, reason) } else { 0 };
    if !there {
        assert!(matches!(result, Err(StoreError::NotFound { .. })), "{result:?}");
    } else if changed == 0 && matches!(target, Target::Certificate(_)) {
        assert!(matches!(result, Err(StoreError::IllegalState { .. })), "{result:?}");
    } else {
        let outcome = result.unwrap().value;
        assert_eq!((outcome.certificates, counted), (changed, changed));
        model.entries += 1;
    }
}

async fn change(store: &Store, model: &mut Model, number: u64, seen: DeviceState, to: DeviceState) {
    let certificates = effect_of(to);
    let target = DeviceTarget::Device { id: device_id(number), seen };
    let change = DeviceChange { target, to, certificates, at: NOW };
    let result = store.change_devices(change, Visibility::Fleet, done()).await;
    let resumes = matches!(to, DeviceState::Active | DeviceState::Registered);
    let resumable = !resumes || matches!(seen, DeviceState::Suspended | DeviceState::Quarantined);
    let state = model.devices.get(&number).map(|found| found.state);
    if state == Some(seen) && seen.transition(to).is_ok() && resumable {
        let changed = model.affect(&[number], certificates);
        model.set_state(&[number], to);
        let outcome = result.unwrap().value;
        assert_eq!((outcome.devices, outcome.certificates), (1, changed));
        model.entries += 1;
    } else {
        assert!(result.is_err(), "{result:?}");
    }
}

/// The whole state, compared.
fn compare(store: &Store, model: &Model, base: u64) {
    assert_eq!(store.tree().size, base + model.entries);
    let devices = store.devices(&DeviceQuery::default(), &Visibility::Fleet).unwrap().items;
    let found: Vec<_> = devices.iter().map(|device| (device.id, device.facility, device.state)).collect();
    let expected: Vec<_> = model
        .devices
        .iter()
        .map(|(number, found)| (device_id(*number), facility_id(found.facility), found.state))
        .collect();
    assert_eq!(found, expected);
    let query = CertificateQuery { profile: None, ..CertificateQuery::default() };
    let certificates = store.certificates(&query, &Visibility::Fleet).unwrap().items;
    let found: Vec<_> = certificates
        .iter()
        .filter(|found| found.device.is_some())
        .map(|found| (found.serial, found.status, found.reason, found.facility))
        .collect();
    let expected: Vec<_> = model
        .certificates
        .iter()
        .map(|(number, found)| {
            (serial(*number), found.status, found.reason, Some(facility_id(model.facility_of(found))))
        })
        .collect();
    assert_eq!(found, expected);
    for facility in [1, 2] {
        for (state, count) in store.device_counts(&only(facility)).unwrap() {
            let expected =
                model.devices.values().filter(|found| found.facility == facility && found.state == state).count();
            assert_eq!(count, u64::try_from(expected).unwrap(), "{state} in {facility}");
        }
        let count = |status| {
            let same = |found: &&ModelCertificate| model.facility_of(found) == facility && found.status == status;
            u64::try_from(model.certificates.values().filter(same).count()).unwrap()
        };
        let expected =
            (count(CertificateStatus::Good), count(CertificateStatus::Held), count(CertificateStatus::Revoked));
        assert_eq!(store.certificate_counts(&only(facility)).unwrap(), expected);
    }
    for (number, found) in &model.certificates {
        let status = store.status(authority_id(1), serial(*number)).unwrap();
        assert_eq!(status == StatusAnswer::Good, found.status == CertificateStatus::Good);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_registry_does_what_the_model_does(acts in proptest::collection::vec(act(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = fleet().await;
            let base = store.tree().size;
            let mut model = Model::default();
            for act in acts {
                carry_out(&store, &mut model, act).await;
            }
            compare(&store, &model, base);
        });
    }
}
