//! A fleet with two facilities, one product line and one CA, and the things that tests put into it.

use std::collections::BTreeMap;

use kf_access::Visibility;
use kf_api::authority::{Authority, AuthorityKind};
use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_api::facility::Facility;
use kf_api::product_line::{EnrolmentPolicy, ProductLine};
use kf_key::{
    AuthorityId, CertificateProfile, CertificateStatus, DeviceId, DeviceState, FacilityId, KeyAlgorithm, KeyId,
    KeyProtection, KeyState, KeyType, ProductLineId, SerialNumber, UnixMillis,
};
use kf_log::{Actor, AuditEntry, Phase};
use kf_store::Store;
use kf_store::authority::AuthorityRecord;
use kf_store::certificate::{Basis, DeviceIssuance, Issuance};
use kf_store::key::{KeyMaterial, KeyRecord};

pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

pub(crate) fn random<const N: usize>(number: u64) -> [u8; N] {
    let mut octets = [0; N];
    let tail = number.to_be_bytes();
    octets[N - 8..].copy_from_slice(&tail);
    octets
}

pub(crate) fn facility_id(number: u64) -> FacilityId {
    FacilityId::from_parts(NOW, random(number))
}

pub(crate) fn line_id() -> ProductLineId {
    ProductLineId::from_parts(NOW, random(1))
}

pub(crate) fn authority_id(number: u64) -> AuthorityId {
    AuthorityId::from_parts(NOW, random(number))
}

pub(crate) fn device_id(number: u64) -> DeviceId {
    DeviceId::from_parts(NOW.plus(number), random(number))
}

pub(crate) fn serial(number: u64) -> SerialNumber {
    SerialNumber::from_parts(NOW.plus(number * 4_000), random(number))
}

/// Sees this facility alone.
pub(crate) fn only(facility: u64) -> Visibility {
    Visibility::Facilities([facility_id(facility)].into())
}

pub(crate) fn entry(act: &str, facility: Option<u64>, subjects: &[String]) -> AuditEntry {
    AuditEntry {
        v: 1,
        at: NOW,
        who: Actor {
            id: "server".into(),
            name: "server".into(),
            role: "fleet-operator".into(),
            by: "server".into(),
            token: None,
        },
        act: act.into(),
        phase: Phase::Done,
        facility: facility.map(facility_id),
        subjects: subjects.to_vec(),
        why: String::new(),
        detail: BTreeMap::new(),
    }
}

pub(crate) fn done() -> AuditEntry {
    entry("test.act", None, &[])
}

/// Device `number` of facility 1 or 2: odd ones belong to 1.
pub(crate) fn device(number: u64) -> Device {
    Device {
        id: device_id(number),
        name: format!("device-{number:07}"),
        facility: facility_id(2 - number % 2),
        product_line: line_id(),
        state: DeviceState::Registered,
        batch: number.is_multiple_of(3).then(|| "batch-3".to_owned()),
        attributes: BTreeMap::new(),
        protection: KeyProtection::Unknown,
        created: NOW,
        last_seen: None,
    }
}

/// Certificate `number` for a device, with a key of its own.
pub(crate) fn certificate(number: u64, device: Option<&Device>) -> Certificate {
    Certificate {
        serial: serial(number),
        authority: authority_id(1),
        profile: if device.is_some() { CertificateProfile::LDevId } else { CertificateProfile::TlsServer },
        device: device.map(|device| device.id),
        operator: None,
        facility: device.map(|device| device.facility),
        subject: device.map_or_else(|| format!("CN=server-{number}"), |device| format!("CN={}", device.name)),
        spki_sha256: hex::encode(random::<32>(number)),
        not_before: NOW,
        not_after: NOW.plus(90 * UnixMillis::DAY + number),
        status: CertificateStatus::Good,
        revoked: None,
        reason: None,
    }
}

pub(crate) fn issuance(certificate: Certificate, seen: DeviceState) -> Issuance {
    let device = certificate.device.map(|_| DeviceIssuance {
        seen,
        protection: None,
        max_live_ldevids: None,
        is_sighting: false,
    });
    Issuance { certificate, der: vec![0x30; 700], device, basis: Basis::Standing, at: NOW }
}

pub(crate) fn key(number: u64, key_type: KeyType) -> KeyRecord {
    KeyRecord {
        id: KeyId::from_parts(NOW, random(number)),
        key_type,
        algorithm: KeyAlgorithm::P256,
        state: KeyState::PreActivation,
        purpose: "test".into(),
        material: KeyMaterial::Wrapped(vec![0x5a; 150]),
        spki: Vec::new(),
        created: NOW,
        activated: None,
        suspended: None,
        deactivated: None,
        compromised: None,
        destroyed: None,
    }
}

pub(crate) fn authority(number: u64) -> AuthorityRecord {
    let key = key(1_000_000 + number, KeyType::PrivateSignature);
    let authority = Authority {
        id: authority_id(number),
        name: format!("ca-{number}"),
        kind: AuthorityKind::Root,
        issuer: None,
        facility: None,
        is_default: number == 1,
        algorithm: KeyAlgorithm::P256,
        key: key.id,
        subject: format!("CN=ca-{number}"),
        shard_count: 8,
        certificate_pem: "PEM".into(),
        not_before: NOW,
        not_after: NOW.plus(3_650 * UnixMillis::DAY),
        status: CertificateStatus::Good,
        key_destroyed: None,
    };
    let certificate = Certificate {
        authority: authority.id,
        profile: CertificateProfile::Root,
        subject: authority.subject.clone(),
        ..certificate(9_000_000 + number, None)
    };
    AuthorityRecord { authority, certificate, der: vec![0x30; 400], key }
}

/// Fills a store that is empty.
pub(crate) async fn populate(store: &Store) {
    for number in [1, 2] {
        let facility = Facility {
            id: facility_id(number),
            name: format!("site-{number}"),
            description: String::new(),
            created: NOW,
        };
        store.insert_facility(facility, done()).await.unwrap();
    }
    let line = ProductLine {
        id: line_id(),
        name: "meter".into(),
        authority: None,
        policy: EnrolmentPolicy::default(),
        created: NOW,
    };
    store.insert_product_line(line, done()).await.unwrap();
    store.insert_authority(authority(1), done()).await.unwrap();
}

/// A throw-away fleet.
pub(crate) async fn fleet() -> Store {
    let store = Store::in_memory().unwrap();
    populate(&store).await;
    store
}

/// Registers devices `1..=count`.
pub(crate) async fn register(store: &Store, count: u64) {
    for number in 1..=count {
        store.register_device(device(number), done()).await.unwrap();
    }
}

/// Registers devices `1..=count` and gives each a certificate of the same number.
pub(crate) async fn enrol(store: &Store, count: u64) {
    register(store, count).await;
    for number in 1..=count {
        let certificate = certificate(number, Some(&device(number)));
        store.record_issuance(issuance(certificate, DeviceState::Registered), done()).await.unwrap();
    }
}

/// The database in a directory, as a server would open it.
pub(crate) fn open(directory: &tempfile::TempDir, options: kf_store::Options) -> Store {
    Store::open(&directory.path().join("registry.db"), options).unwrap()
}

pub(crate) fn small_reserve() -> kf_store::Options {
    kf_store::Options { reserve_octets: 1 << 20, ..kf_store::Options::default() }
}
