//! Where in the hierarchy a device key lies.

use kf_key::FacilityId;
use minicbor::Decoder;

use crate::codec::{Out, Read, Written, array};

/// Where in the hierarchy a device key lies: facility and epochs. With the root and the device's salt they determine it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    /// The facility.
    pub facility: FacilityId,
    /// Epoch of the facility.
    pub facility_epoch: u32,
    /// Epoch of the device. A move to another facility advances it too.
    pub device_epoch: u32,
}

impl KeyPlace {
    /// Whether a device that holds the key of `self` may take one of `offered`: the same again, when an acknowledgement
    /// was lost, or a newer one. Epochs of different facilities are not comparable, but a move advances the device's.
    #[must_use]
    pub fn may_become(&self, offered: &Self) -> bool {
        if self.facility == offered.facility {
            offered.device_epoch >= self.device_epoch && offered.facility_epoch >= self.facility_epoch
        } else {
            offered.device_epoch > self.device_epoch
        }
    }

    /// One length, for what is under a MAC.
    pub(crate) fn to_octets(self) -> [u8; 24] {
        let epochs = [self.facility_epoch.to_be_bytes(), self.device_epoch.to_be_bytes()];
        let mut octets = [0; 24];
        for (octet, value) in octets.iter_mut().zip(self.facility.as_bytes().iter().chain(epochs.iter().flatten())) {
            *octet = *value;
        }
        octets
    }

    pub(crate) fn write(&self, out: &mut Out<'_>) -> Written {
        out.bytes(self.facility.as_bytes())?.u32(self.facility_epoch)?.u32(self.device_epoch)?.ok()
    }

    pub(crate) fn read(input: &mut Decoder<'_>) -> Read<Self> {
        Ok(Self {
            facility: FacilityId::from_bytes(array(input)?),
            facility_epoch: input.u32()?,
            device_epoch: input.u32()?,
        })
    }
}
