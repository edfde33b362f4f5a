//! Records that the device keeps for other programs, under its storage key. While the agent runs it has the state to itself.

use kf_device::storage::RecordId;
use kf_key::{DeviceId, SecretBytes};

use super::Agent;
use super::duties::device_of;
use crate::failure::Failure;
use crate::vault::VaultError;

impl Agent {
    /// Keeps at most 256 octets under a number.
    ///
    /// # Errors
    /// [`Failure`] when the device has no certificate or no orders yet, or there is no room.
    pub fn put_record(&self, number: u8, octets: &SecretBytes) -> Result<(), Failure> {
        let (duties, device) = self.keeper()?;
        // Exposed to be sealed.
        Ok(duties.ring.vault().put_record(device, id_of(number), octets.expose())?)
    }

    /// What is kept under a number; `None` when nothing is.
    ///
    /// # Errors
    /// As [`Self::put_record`].
    pub fn read_record(&self, number: u8) -> Result<Option<SecretBytes>, Failure> {
        let (duties, device) = self.keeper()?;
        Ok(duties.ring.vault().read_record(device, id_of(number))?)
    }

    fn keeper(&self) -> Result<(&super::Duties, DeviceId), Failure> {
        let material = self.in_use.borrow();
        let device = material.as_ref().and_then(|material| device_of(&material.identity.chain));
        let missing = VaultError::State("the device has no certificate yet, or its configuration has no [orders]");
        match (&self.duties, device) {
            (Some(duties), Some(device)) => Ok((duties, device)),
            _ => Err(missing.into()),
        }
    }
}

fn id_of(number: u8) -> RecordId {
    RecordId(RecordId::FIRST_PROTECTED.0.saturating_add(number.into()))
}
