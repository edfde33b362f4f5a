//! What the server may ask of the hierarchy: the leaf of one service of one device.

use std::time::Duration;

use kf_key::{DeviceId, FacilityId};

/// How long a mixed session lives once the device has acknowledged it: the window in which whoever takes this host can
/// still open what is sealed under it.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// The most octets of a service's label.
pub(crate) const MAX_SERVICE_OCTETS: usize = 16;

/// Where in the hierarchy a device key lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceKeyPlace {
    /// The facility.
    pub facility: FacilityId,
    /// Epoch of the facility.
    pub facility_epoch: u32,
    /// The device.
    pub device: DeviceId,
    /// Epoch of the device.
    pub device_epoch: u32,
}

impl DeviceKeyPlace {
    /// Octets on the socket.
    pub(crate) const OCTETS: usize = 40;

    pub(crate) fn to_octets(self) -> [u8; Self::OCTETS] {
        let mut octets = [0; Self::OCTETS];
        let parts: [&[u8]; 4] = [
            self.facility.as_bytes(),
            &self.facility_epoch.to_be_bytes(),
            self.device.as_bytes(),
            &self.device_epoch.to_be_bytes(),
        ];
        for (octet, value) in octets.iter_mut().zip(parts.into_iter().flatten()) {
            *octet = *value;
        }
        octets
    }
}

/// Which key of a device's sealed payloads is asked for: the application key of `service` in the device's static
/// session.
#[derive(Clone, Copy, Debug)]
pub struct SealingKey<'a> {
    /// The device key above it.
    pub place: DeviceKeyPlace,
    /// The device's salt, wrapped, as [`crate::SignerClient::new_device_salt`] made it.
    pub wrapped_salt: &'a [u8],
    /// 1 to 16 octets of `a-z`, `0-9`, `-`.
    pub service: &'a str,
}

/// Whether a label may name a service.
pub(crate) fn is_service(label: &[u8]) -> bool {
    (1..=MAX_SERVICE_OCTETS).contains(&label.len())
        && label.iter().all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}
