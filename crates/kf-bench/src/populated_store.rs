//! A registry filled with devices and certificates, and what looking things up in it costs.

use std::path::Path;

use kf_access::Visibility;
use kf_api::PageRequest;
use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_crypto::random_array;
use kf_key::{
    AuthorityId, CertificateProfile, CertificateStatus, DeviceId, DeviceState, FacilityId, KeyProtection,
    ProductLineId, SerialNumber, UnixMillis,
};
use kf_log::{Actor, AuditEntry, Phase};
use kf_store::certificate::{Basis, DeviceIssuance, Issuance};
use kf_store::device::{DeviceQuery, Registration};
use kf_store::{Options, Store, StoreError};
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::measure::cpu_per_operation;

/// Rows registered in one call.
const ROWS: u32 = 10_000;
/// Issuances in one commit while the store is filled: a loader does not wait for each.
pub(crate) const GROUP: usize = 4_096;
/// Octets of a device's certificate with addresses of CRL and OCSP, P-256.
const CERTIFICATE_OCTETS: usize = 700;

/// What every row refers to.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    pub(crate) facility: FacilityId,
    pub(crate) line: ProductLineId,
    pub(crate) authority: AuthorityId,
    /// When it begins.
    pub(crate) now: UnixMillis,
}

impl Places {
    /// When a device is registered and gets its certificate: four in a millisecond.
    fn at(&self, number: u32) -> UnixMillis {
        self.now.plus(u64::from(number / 4))
    }
}

async fn register_rows(store: &Store, places: &Places, first: u32, rows: u32) -> Result<Vec<DeviceId>, BenchError> {
    let mut devices = Vec::new();
    for number in first..first + rows {
        let id = DeviceId::from_parts(places.at(number), random()?);
        devices.push((device(places, id, number), entry(places, "device.register", id.to_string())));
    }
    let ids: Vec<DeviceId> = devices.iter().map(|(device, _)| device.id).collect();
    let registered = store.register_devices(devices).await.map_err(store_error)?;
    if let Some(other) = registered.iter().find(|row| !matches!(row, Registration::Registered { .. })) {
        return Err(BenchError::Failed { what: "registering devices", why: format!("{other:?}") });
    }
    Ok(ids)
}

/// Registers devices `device-0` and so on, without certificates.
pub(crate) async fn register(store: &Store, places: &Places, count: u32) -> Result<Vec<DeviceId>, BenchError> {
    let mut ids = Vec::new();
    for first in (0..count).step_by(usize::try_from(ROWS).unwrap_or(1)) {
        ids.extend(register_rows(store, places, first, ROWS.min(count - first)).await?);
    }
    Ok(ids)
}

/// A log entry of the server's that is about nothing in particular.
pub(crate) fn plain_entry(act: &str) -> AuditEntry {
    AuditEntry {
        v: 1,
        at: UnixMillis(0),
        who: Actor {
            id: "server".into(),
            name: "bench".into(),
            role: "owner".into(),
            by: "server".into(),
            token: None,
        },
        act: act.to_owned(),
        phase: Phase::Done,
        facility: None,
        subjects: Vec::new(),
        why: String::new(),
        detail: std::collections::BTreeMap::new(),
    }
}

/// An open registry with devices `device-0` and so on, each with one LDevID.
pub(crate) struct PopulatedStore {
    store: Store,
    places: Places,
    devices: Vec<(DeviceId, SerialNumber)>,
}

pub(crate) fn store_error(error: StoreError) -> BenchError {
    BenchError::Failed { what: "the store", why: error.to_string() }
}

fn entry(places: &Places, act: &str, subject: String) -> AuditEntry {
    AuditEntry { at: places.now, facility: Some(places.facility), subjects: vec![subject], ..plain_entry(act) }
}

impl PopulatedStore {
    /// Opens the registry at `path`, in which `places` must exist, and adds `count` devices with certificates.
    pub(crate) fn fill(runtime: &Runtime, path: &Path, places: Places, count: u32) -> Result<Self, BenchError> {
        let store =
            Store::open(path, Options { queue: GROUP, group: GROUP, ..Options::default() }).map_err(store_error)?;
        let mut this = Self { store, places, devices: Vec::new() };
        for first in (0..count).step_by(usize::try_from(ROWS).unwrap_or(1)) {
            let rows = ROWS.min(count - first);
            runtime.block_on(this.add(first, rows))?;
            eprint!("\r{} of {count} devices with certificates", first + rows);
        }
        eprintln!();
        Ok(this)
    }

    async fn add(&mut self, first: u32, rows: u32) -> Result<(), BenchError> {
        let ids = register_rows(&self.store, &self.places, first, rows).await?;
        let mut running = tokio::task::JoinSet::new();
        for (number, device) in (first..).zip(ids) {
            let issuance = issuance(&self.places, device, number)?;
            let serial = issuance.certificate.serial;
            self.devices.push((device, serial));
            let audit = entry(&self.places, "certificate.issue", format!("cert:{serial}"));
            let store = self.store.clone();
            running.spawn(async move { store.record_issuance(issuance, audit).await.map(drop) });
            while running.len() >= GROUP {
                finish(running.join_next().await)?;
            }
        }
        while !running.is_empty() {
            finish(running.join_next().await)?;
        }
        Ok(())
    }

    /// The serial numbers of the certificates, in the order of the devices.
    pub(crate) fn serials(&self) -> Vec<SerialNumber> {
        self.devices.iter().map(|(_, serial)| *serial).collect()
    }

    /// Has so many of a hundred devices seen now; the others are away.
    pub(crate) fn sight(&self, percent: u32) {
        for (number, (device, _)) in (0_u32..).zip(&self.devices) {
            if number % 100 < percent {
                self.store.touch_device(*device, self.places.at(number));
            }
        }
    }

    /// Closes the registry.
    pub(crate) fn close(self, runtime: &Runtime) {
        runtime.block_on(self.store.close());
    }

    /// CPU seconds of looking up a device by name, its certificate by serial number, and its status.
    pub(crate) fn look_up(&self, count: u32) -> Result<f64, BenchError> {
        let stride = usize::try_from(7_919_u32).unwrap_or(1);
        let places = self.places;
        cpu_per_operation(count, || {
            let mut place = 0;
            for _ in 0..count {
                place = (place + stride) % self.devices.len();
                let Some((_, serial)) = self.devices.get(place) else { break };
                let name = format!("device-{place}");
                let device = self.store.device_by_name(&name, &Visibility::Fleet).map_err(store_error)?;
                let certificate = self.store.certificate(*serial, &Visibility::Fleet).map_err(store_error)?;
                self.store.status(places.authority, *serial).map_err(store_error)?;
                if device.is_none() || certificate.is_none() {
                    return Err(BenchError::Failed { what: "a look-up", why: format!("{name} is not there") });
                }
            }
            Ok(())
        })
    }

    /// CPU seconds of one page of 100 devices from the middle of the listing.
    pub(crate) fn list(&self, count: u32) -> Result<f64, BenchError> {
        let mut ids: Vec<DeviceId> = self.devices.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        let middle = ids.get(ids.len() / 2).map(DeviceId::to_string);
        let page = PageRequest { after: middle, limit: Some(100) };
        let query = DeviceQuery { facility: Some(self.places.facility), page, ..DeviceQuery::default() };
        cpu_per_operation(count, || {
            for _ in 0..count {
                let page = self.store.devices(&query, &Visibility::Fleet).map_err(store_error)?;
                if page.items.len() != 100 {
                    let why = format!("a page of {} rows", page.items.len());
                    return Err(BenchError::Failed { what: "a listing", why });
                }
            }
            Ok(())
        })
    }
}

pub(crate) fn finish(ended: Option<Result<Result<(), StoreError>, tokio::task::JoinError>>) -> Result<(), BenchError> {
    match ended {
        Some(ended) => ended.map_err(BenchError::failed("a task"))?.map_err(store_error),
        None => Ok(()),
    }
}

fn random<const N: usize>() -> Result<[u8; N], BenchError> {
    random_array().map_err(BenchError::failed("random octets"))
}

fn device(places: &Places, id: DeviceId, number: u32) -> Device {
    Device {
        id,
        name: format!("device-{number}"),
        facility: places.facility,
        product_line: places.line,
        state: DeviceState::Registered,
        batch: Some(format!("batch-{}", number / 1_000)),
        attributes: std::collections::BTreeMap::new(),
        protection: KeyProtection::default(),
        created: places.now,
        last_seen: None,
    }
}

fn issuance(places: &Places, device: DeviceId, number: u32) -> Result<Issuance, BenchError> {
    let spki: [u8; 32] = random()?;
    let now = places.at(number);
    let serial = SerialNumber::from_parts(now, random()?);
    let mut der = vec![0x30; CERTIFICATE_OCTETS];
    // Signature and key make a third of a certificate incompressible.
    for (octet, random) in der.iter_mut().zip(random::<240>()?) {
        *octet = random;
    }
    let certificate = Certificate {
        serial,
        authority: places.authority,
        profile: CertificateProfile::LDevId,
        device: Some(device),
        operator: None,
        facility: Some(places.facility),
        subject: format!("CN={device},O=bench"),
        spki_sha256: spki.iter().map(|octet| format!("{octet:02x}")).collect(),
        not_before: now,
        not_after: now.plus(90 * UnixMillis::DAY),
        status: CertificateStatus::Good,
        revoked: None,
        reason: None,
    };
    let seen = DeviceIssuance {
        seen: DeviceState::Registered,
        protection: None,
        max_live_ldevids: Some(2),
        is_sighting: false,
    };
    Ok(Issuance { certificate, der, device: Some(seen), basis: Basis::Standing, at: now })
}
