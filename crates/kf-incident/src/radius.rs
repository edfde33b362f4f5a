//! What an incident reaches.

mod credential;
mod device;
mod place;

use kf_api::certificate::Certificate;
use kf_api::incident::{BlastRadius, DataWindow, FacilityHit, KeysHit, Reach, Safe};
use kf_key::{CertificateStatus, FacilityId, SerialNumber, UnixMillis};
use kf_rotation::KeyClass;
use kf_rotation::exposure::{Exposed, Impersonation};

use crate::facts::{BatchFacts, DeviceSet, Facts, HitFacts};

/// Names and serial numbers that are listed; beyond it there are counts.
const MAX_LISTED: usize = 100;

/// What an incident reaches. Subjects that lie within another one (a batch of a station, a device of a facility) count once;
/// a CA counts by itself, and says so.
#[must_use]
pub fn blast_radius(facts: &Facts) -> BlastRadius {
    let mut radius = BlastRadius::default();
    for hit in &facts.hits {
        match hit {
            HitFacts::Device(device) => device::device(facts, device, &mut radius),
            HitFacts::Key(key) => device::key(facts, key, &mut radius),
            HitFacts::Batch(batch) => {
                if !is_within_a_station(facts, batch) {
                    place::batch(facts, batch, &mut radius);
                }
            }
            HitFacts::Label { name, set } => place::label(facts, name, set, &mut radius),
            HitFacts::Station(station) => place::station(facts, station, &mut radius),
            HitFacts::Facility(facility) => place::facility(facts, facility, &mut radius),
            HitFacts::Authority(authority) => place::authority(facts, authority, &mut radius),
            HitFacts::Credential(credential) => credential::credential(facts, credential, &mut radius),
        }
    }
    safe_for_all(facts, &mut radius);
    radius.safe.dedup();
    radius
}

/// Those that are good or on hold.
fn live(certificates: &[Certificate]) -> impl Iterator<Item = &Certificate> {
    certificates.iter().filter(|certificate| certificate.status != CertificateStatus::Revoked)
}

fn is_within_a_station(facts: &Facts, batch: &BatchFacts) -> bool {
    facts.hits.iter().any(|hit| match hit {
        HitFacts::Station(station) => station.batches.iter().any(|own| own.batch.id == batch.batch.id),
        _ => false,
    })
}

/// Whether everything at this facility is a subject already.
fn is_hit_whole(facts: &Facts, facility: FacilityId) -> bool {
    facts.hits.iter().any(|hit| matches!(hit, HitFacts::Facility(hit) if hit.facility.id == facility))
}

/// Adds devices, except those of facilities that are hit as a whole.
fn add_set(facts: &Facts, set: &DeviceSet, radius: &mut BlastRadius) {
    let counted: Vec<_> = set.facilities.iter().filter(|hit| !is_hit_whole(facts, hit.facility)).collect();
    if !set.facilities.is_empty() && counted.is_empty() {
        return;
    }
    // A set that lies partly within a whole facility is counted by its facilities; its certificates are not known apart.
    radius.devices += counted.iter().map(|hit| hit.devices).sum::<u64>();
    radius.certificates += set.certificates;
    add_names(&set.names, radius);
    add_serials(&set.serials, radius);
    for hit in counted {
        add_facility(hit, radius);
    }
}

fn add_names(names: &[String], radius: &mut BlastRadius) {
    for name in names {
        if radius.device_names.len() < MAX_LISTED && !radius.device_names.contains(name) {
            radius.device_names.push(name.clone());
        }
    }
}

fn add_serials(serials: &[SerialNumber], radius: &mut BlastRadius) {
    for serial in serials {
        if radius.serials.len() < MAX_LISTED && !radius.serials.contains(serial) {
            radius.serials.push(*serial);
        }
    }
}

fn add_facility(hit: &FacilityHit, radius: &mut BlastRadius) {
    match radius.facilities.iter_mut().find(|known| known.facility == hit.facility) {
        Some(known) => known.devices = known.devices.saturating_add(hit.devices).min(known.of_devices),
        None => radius.facilities.push(hit.clone()),
    }
}

/// A place in the tree of keys.
#[derive(Clone, Copy)]
struct Under(Option<FacilityId>, Option<u32>);

const ANYWHERE: Under = Under(None, None);

fn add_keys(radius: &mut BlastRadius, class: KeyClass, keys: u64, under: Under, reach: Reach, why: &str) {
    if keys > 0 {
        let Under(facility, epoch) = under;
        radius.keys.push(KeysHit { class: class.to_string(), keys, facility, epoch, reach, why: why.to_owned() });
    }
}

fn safe(radius: &mut BlastRadius, what: impl Into<String>, why: impl Into<String>) {
    radius.safe.push(Safe { what: what.into(), why: why.into() });
}

/// Data under keys that were in force from `from` on: by the arithmetic of [`kf_rotation::exposure`], over a theft at a
/// uniform moment of the time that the key has served.
fn window(facts: &Facts, what: String, devices: u64, from: UnixMillis, why: &str) -> DataWindow {
    let until = facts.now;
    let period = until.0.saturating_sub(from.0).max(1);
    let detection = until.0.saturating_sub(facts.since.0);
    let exposed = |octets_per_second| Exposed {
        octets_per_second,
        sharing_devices: devices,
        period,
        detection,
        offline_share: 0.0,
        offline_gap: 0,
    };
    let rate = facts.octets_per_second.map(|rate| f64::from(u32::try_from(rate).unwrap_or(u32::MAX)));
    // The period is above zero and the rate is finite, so that there is always an answer.
    let exposure = exposed(rate.unwrap_or(0.0)).exposure().ok();
    DataWindow {
        what,
        devices,
        from,
        until,
        expected_millis: exposure.map_or(period, |exposure| whole(exposure.expected_time)),
        worst_millis: exposure.map_or(period, |exposure| whole(exposure.worst_time)),
        expected_octets: rate.and(exposure).map(|exposure| whole(exposure.expected_octets)),
        worst_octets: rate.and(exposure).map(|exposure| whole(exposure.worst_octets)),
        why: why.to_owned(),
    }
}

/// For how long whoever has the private key passes for a device: until the answer has reached relying parties, or until the
/// certificate ends.
fn impersonation(facts: &Facts, what: String, devices: u64, last: Option<UnixMillis>, why: &str) -> DataWindow {
    let detection = facts.now.0.saturating_sub(facts.since.0);
    let validity = last.map_or(u64::MAX, |last| last.0.saturating_sub(facts.since.0)).max(1);
    let window = Impersonation { validity, detection, freshness: Some(facts.freshness) }.window().ok();
    let (expected, worst) = window.map_or((validity, validity), |(expected, worst)| (whole(expected), whole(worst)));
    let until = last.unwrap_or(UnixMillis(u64::MAX)).min(facts.now.plus(facts.freshness));
    DataWindow {
        what,
        devices,
        from: facts.since,
        until,
        expected_millis: expected,
        worst_millis: worst,
        expected_octets: None,
        worst_octets: None,
        why: why.to_owned(),
    }
}

/// A length or an amount, rounded up: an exposure is not understated.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float saturates when it becomes an integer, and what comes here is not negative"
)]
fn whole(amount: f64) -> u64 {
    amount.ceil() as u64
}

fn safe_for_all(facts: &Facts, radius: &mut BlastRadius) {
    let hits_authority = facts.hits.iter().any(|hit| matches!(hit, HitFacts::Authority(_)));
    let others = facts.fleet_devices.saturating_sub(radius.devices);
    let facilities = facts.fleet_facilities.saturating_sub(u64::try_from(radius.facilities.len()).unwrap_or(u64::MAX));
    if others > 0 && !hits_authority {
        safe(
            radius,
            format!("keys and certificates of {others} other devices, {facilities} facilities among them untouched"),
            "each device made its identity key itself, and its symmetric key is a leaf: from one leaf no other can be \
             derived (HKDF-Expand is one-way)",
        );
    }
    safe(
        radius,
        "the fleet root key and the facility keys",
        "they are in the signer alone; no device, station or operator ever holds one",
    );
    if !hits_authority {
        safe(
            radius,
            "the keys of the CAs",
            "they are in the signer, which signs nothing that the rules of issuance did not check",
        );
    }
    safe(
        radius,
        "the log up to its newest witnessed checkpoint",
        "it is append-only, and whoever has a checkpoint can prove a change (`keyfleet audit verify`)",
    );
    safe(
        radius,
        "payloads of mixed sessions that have ended",
        "their keys came of ephemeral secrets that both ends have wiped; neither root nor device key gives them again",
    );
}
