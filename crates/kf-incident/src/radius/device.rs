//! Single devices and single keys.

use kf_api::epoch::DeviceKeyState;
use kf_api::incident::{BlastRadius, FacilityHit, Reach};
use kf_key::{CertificateProfile, KeyProtection, SerialNumber, UnixMillis};
use kf_rotation::KeyClass;

use super::{ANYWHERE, Under, add_keys, add_serials, add_set, impersonation, is_hit_whole, live, safe, window};
use crate::facts::{DeviceFacts, DeviceSet, Facts, KeyFacts};

/// Whether a private key can be read out of where its device says that it lies.
const fn is_held_by_hardware(protection: KeyProtection) -> bool {
    matches!(protection, KeyProtection::Tpm | KeyProtection::SecureElement | KeyProtection::Token)
}

pub(super) fn device(facts: &Facts, hit: &DeviceFacts, radius: &mut BlastRadius) {
    let DeviceFacts { device, facility, facility_devices, certificates, keys, epoch: _ } = hit;
    let live: Vec<_> = live(certificates).collect();
    let serials: Vec<SerialNumber> = live.iter().map(|certificate| certificate.serial).collect();
    let set = DeviceSet {
        devices: 1,
        names: vec![device.name.clone()],
        certificates: u64::try_from(serials.len()).unwrap_or(u64::MAX),
        serials,
        facilities: vec![FacilityHit {
            facility: device.facility,
            name: facility.name.clone(),
            devices: 1,
            of_devices: *facility_devices,
        }],
        ..DeviceSet::default()
    };
    add_set(facts, &set, radius);
    if is_hit_whole(facts, device.facility) {
        return;
    }
    let (reach, why) = if is_held_by_hardware(device.protection) {
        (
            Reach::Usable,
            "it lies in a TPM, secure element or token, as the device says: whoever has the device uses it, and does \
             not read it",
        )
    } else {
        (Reach::Exposed, "whoever has the device can read its storage")
    };
    for (profile, class) in
        [(CertificateProfile::LDevId, KeyClass::LDevIdKey), (CertificateProfile::IDevId, KeyClass::IDevIdKey)]
    {
        let count = live.iter().filter(|certificate| certificate.profile == profile).count();
        add_keys(radius, class, u64::try_from(count).unwrap_or(0), ANYWHERE, reach, why);
    }
    for key in keys.iter().filter(|key| key.state != DeviceKeyState::Superseded) {
        let under = Under(Some(key.facility), Some(key.facility_epoch));
        let why = "the device holds it to seal with, and with it every key below it";
        add_keys(radius, KeyClass::DeviceKey, 1, under, Reach::Exposed, why);
        let what = format!("payloads of {} under facility epoch {}", device.name, key.facility_epoch);
        radius.windows.push(window(facts, what, 1, key.offered, "sealed under a key that may be known to others"));
    }
    if !live.is_empty() {
        let last = live.iter().map(|certificate| certificate.not_after).max();
        let what = format!("connections in the name of {}", device.name);
        radius.windows.push(impersonation(facts, what, 1, last, "who has its key passes for the device"));
    }
    safe(
        radius,
        format!("payloads of {} under superseded keys", device.name),
        "a device wipes a key when the next one is acknowledged; one that kept it against the rules is not excluded",
    );
    radius.unknown.push(format!("who had {} in their hands, and whether they opened it", device.name));
}

pub(super) fn key(facts: &Facts, hit: &KeyFacts, radius: &mut BlastRadius) {
    let live: Vec<_> = live(&hit.certificates).collect();
    let last: Option<UnixMillis> = live.iter().map(|certificate| certificate.not_after).max();
    let serials: Vec<SerialNumber> = live.iter().map(|certificate| certificate.serial).collect();
    radius.certificates += u64::try_from(serials.len()).unwrap_or(u64::MAX);
    add_serials(&serials, radius);
    let set = DeviceSet { certificates: 0, serials: Vec::new(), ..hit.set.clone() };
    add_set(facts, &set, radius);
    let class = match live.first().map(|certificate| certificate.profile) {
        Some(CertificateProfile::Root | CertificateProfile::LinkCa) => KeyClass::RootAuthorityKey,
        Some(CertificateProfile::IssuingCa) => KeyClass::IssuingAuthorityKey,
        Some(CertificateProfile::IDevId) => KeyClass::IDevIdKey,
        Some(CertificateProfile::TlsServer) => KeyClass::TlsServerKey,
        Some(CertificateProfile::OcspSigner) => KeyClass::OcspResponderKey,
        Some(CertificateProfile::Operator) => KeyClass::OperatorKey,
        Some(CertificateProfile::LDevId) | None => KeyClass::LDevIdKey,
    };
    add_keys(radius, class, 1, ANYWHERE, Reach::Exposed, "it is the subject of the incident");
    let holder = hit.holder.clone().unwrap_or_else(|| "nobody that this fleet knows".to_owned());
    if live.is_empty() {
        safe(radius, format!("certificates with the key {}", hit.spki_sha256), "there is none that is good or on hold");
    } else {
        let what = format!("connections in the name of {holder}");
        radius.windows.push(impersonation(facts, what, hit.set.devices, last, "who has the key passes for its holder"));
    }
    safe(
        radius,
        format!("symmetric keys of {holder}"),
        "they are not derived from the identity key; an exchange that it authenticated gives a key to whoever signed it, so a \
         stolen identity key reaches those delivered since",
    );
}
