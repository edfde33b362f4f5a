//! A device that moves: the registry's act, and the device's own consent, which is the acknowledgement of a key of its new
//! facility. Until then what it seals is opened under the old one.

use kf_access::Principal;
use kf_api::device::Device;
use kf_key::{FacilityId, UnixMillis};
use kf_store::device_key::KeyPlace;

use crate::entry::Entry;

/// The entry of an acknowledgement: of a claim, where the key before lay in another facility.
pub(crate) fn acknowledgement_entry(
    who: &Principal,
    device: &Device,
    place: &KeyPlace,
    before: Option<FacilityId>,
    at: UnixMillis,
) -> Entry {
    let entry = match before {
        Some(before) => Entry::done(who, "device.claim", at).about(device.id).about(before).about(place.facility),
        None => Entry::done(who, "key.acknowledge", at).about(device.id),
    };
    with_place(entry, place)
}

/// Facility and epochs of a key.
pub(crate) fn with_place(entry: Entry, place: &KeyPlace) -> Entry {
    entry
        .at_facility(Some(place.facility))
        .with("facility", place.facility)
        .with("facility_epoch", place.facility_epoch)
        .with("device_epoch", place.device_epoch)
}
