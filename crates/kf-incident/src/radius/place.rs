//! Batches, stations, facilities and CAs.

use kf_api::authority::AuthorityKind;
use kf_api::epoch::EpochState;
use kf_api::incident::{BlastRadius, Reach};
use kf_rotation::KeyClass;

use super::{ANYWHERE, Under, add_keys, add_set, credential, impersonation, is_hit_whole, safe, window};
use crate::facts::{AuthorityFacts, BatchFacts, DeviceSet, FacilityFacts, Facts, StationFacts};

pub(super) fn batch(facts: &Facts, hit: &BatchFacts, radius: &mut BlastRadius) {
    let BatchFacts { batch, set, elsewhere: _ } = hit;
    add_set(facts, set, radius);
    if is_hit_whole(facts, batch.facility) {
        return;
    }
    let under = Under(Some(batch.facility), None);
    add_keys(
        radius,
        KeyClass::BatchKey,
        1,
        under,
        Reach::Exposed,
        "the station holds the key of the batch, of its CA and of its records",
    );
    add_keys(
        radius,
        KeyClass::DeviceKey,
        set.devices,
        under,
        Reach::Exposed,
        "below the batch key, for devices whose salts the thief saw: those made since the incident may have begun",
    );
    let what = format!("payloads of devices of batch {}", batch.name);
    radius.windows.push(window(facts, what, set.devices, batch.issued, "sealed below the batch key"));
    let what = format!("IDevIDs in the name of batch {}", batch.name);
    let why = "who has the key of the batch CA certifies keys for devices of the quota that have not been merged";
    radius.windows.push(impersonation(facts, what, set.devices, Some(batch.expires), why));
    safe(
        radius,
        format!("salts of devices of batch {} that left before the theft", batch.name),
        "a station seals them to a key that only the server derives; the batch key does not open them",
    );
    safe(
        radius,
        format!("IDevIDs of devices outside batch {}", batch.name),
        "the batch CA is trusted by this server alone, for the devices of its quota alone, and each certificate is compared octet by octet",
    );
}

pub(super) fn label(facts: &Facts, name: &str, set: &DeviceSet, radius: &mut BlastRadius) {
    add_set(facts, set, radius);
    let why = "whoever has the devices can read what they store";
    add_keys(radius, KeyClass::LDevIdKey, set.devices, ANYWHERE, Reach::Exposed, why);
    if set.certificates > 0 {
        let what = format!("connections in the name of devices of batch {name}");
        let why = "who has a device's key passes for the device";
        radius.windows.push(impersonation(facts, what, set.devices, set.last_not_after, why));
    }
    radius.unknown.push(format!("how the devices of batch {name} were made: no station's quota is on record for it"));
}

pub(super) fn station(facts: &Facts, hit: &StationFacts, radius: &mut BlastRadius) {
    credential::credential(facts, &hit.credential, radius);
    for own in &hit.batches {
        batch(facts, own, radius);
    }
    if hit.earlier_batches > 0 {
        safe(
            radius,
            format!("{} earlier batches of {}", hit.earlier_batches, hit.credential.operator.name),
            "a station holds the keys of one batch at a time, and theirs had ended before the incident may have begun",
        );
    }
    safe(
        radius,
        format!("vouchers of {} from the moment it is disabled", hit.credential.operator.name),
        "a voucher counts only from an enabled station of the device's facility",
    );
}

pub(super) fn facility(facts: &Facts, hit: &FacilityFacts, radius: &mut BlastRadius) {
    let FacilityFacts { facility, set, epochs, epoch: _, operators, batches, departed } = hit;
    add_own(set, radius);
    let why = "whoever walks through the site can read what its devices store";
    add_keys(radius, KeyClass::LDevIdKey, set.devices, Under(Some(facility.id), None), Reach::Exposed, why);
    for epoch in epochs.iter().filter(|epoch| epoch.state != EpochState::Retired && epoch.devices > 0) {
        let under = Under(Some(facility.id), Some(epoch.epoch));
        add_keys(radius, KeyClass::DeviceKey, epoch.devices, under, Reach::Exposed, why);
        let what = format!("payloads of {} under epoch {}", facility.name, epoch.epoch);
        let why = "sealed under device keys that may be known to others";
        radius.windows.push(window(facts, what, epoch.devices, epoch.created, why));
    }
    if set.certificates > 0 {
        let what = format!("connections in the name of devices of {}", facility.name);
        let why = "who has a device's key passes for the device";
        radius.windows.push(impersonation(facts, what, set.devices, set.last_not_after, why));
    }
    for batch in batches {
        let under = Under(Some(facility.id), None);
        add_keys(radius, KeyClass::BatchKey, 1, under, Reach::Exposed, &format!("batch {}", batch.batch.name));
    }
    let wider: Vec<_> =
        operators.iter().filter(|operator| operator.facilities.len() > 1).map(|one| one.name.as_str()).collect();
    if !wider.is_empty() {
        radius.unknown.push(format!(
            "whether credentials of {} were at {}: they act for other facilities too, and are left alone",
            wider.join(", "),
            facility.name
        ));
    }
    if *departed > 0 {
        radius.unknown.push(format!(
            "{departed} devices that are elsewhere by now still hold a key of {}: they are left alone, and named by \
             `keyfleet epoch holders`",
            facility.name
        ));
    }
    safe(
        radius,
        format!("the facility key of {}", facility.name),
        "it is derived in the signer and never leaves it; a new epoch gives every device a key that nobody at the site has seen",
    );
}

/// Adds the facility's own devices, which [`add_set`] leaves to it.
fn add_own(set: &DeviceSet, radius: &mut BlastRadius) {
    radius.devices += set.devices;
    radius.certificates += set.certificates;
    super::add_names(&set.names, radius);
    super::add_serials(&set.serials, radius);
    for one in &set.facilities {
        super::add_facility(one, radius);
    }
}

pub(super) fn authority(facts: &Facts, hit: &AuthorityFacts, radius: &mut BlastRadius) {
    let AuthorityFacts { authority, certificates, devices } = hit;
    radius.certificates += certificates;
    let class = match authority.kind {
        AuthorityKind::Root => KeyClass::RootAuthorityKey,
        AuthorityKind::Issuing | AuthorityKind::Factory => KeyClass::IssuingAuthorityKey,
    };
    let why = "who has it certifies any name that the CA may certify, and nothing of it is in the registry";
    add_keys(radius, class, 1, ANYWHERE, Reach::Exposed, why);
    let what = format!("connections in any name under {}", authority.name);
    let why = "until relying parties know that the CA is revoked";
    radius.windows.push(impersonation(facts, what, *devices, Some(authority.not_after), why));
    if *devices > 0 {
        radius.unknown.push(format!(
            "{devices} devices have certificates of {}; where other subjects of this incident are among them, they are \
             not counted twice",
            authority.name
        ));
        if radius.devices == 0 {
            radius.devices = *devices;
        }
    }
    radius.unknown.push(format!(
        "certificates made with the key of {} elsewhere: OCSP answers unknown for them, and only the revocation of the CA stops them",
        authority.name
    ));
    safe(
        radius,
        "private keys of the devices",
        "a CA never had them: each device made its own, and keeps it when it is certified anew",
    );
    safe(radius, "every symmetric key", "none is derived from a CA's key");
}
