//! Symmetric keys below the root. What leaves is a leaf; facility keys stay, and device keys too.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use kf_derive::{DeviceKey, FacilityKey, FleetRoot, SoftwareKey};
use kf_key::{DeviceId, FacilityId, SecretArray, SecretBytes};

use super::batch::BATCH_EPOCH;
use super::{Engine, back_end, malformed};
use crate::derivation::{DeviceKeyPlace, is_service};
use crate::protocol::{Fields, bug};
use crate::{SignerError, SignerRefusal};

/// Facility keys kept at a time; a token would do some thousand HMACs a second.
const MAX_FACILITIES: usize = 1_024;
/// In front of the device's identifier in the wrapping context of its salt.
const SALT_CONTEXT: &[u8] = b"device salt ";
/// The session of sealed payloads, and the epochs of session and application.
const SEALED_SESSION: &[u8] = b"sealed";
const STATIC_EPOCH: u32 = 0;
/// The device epoch of a key that a station injected; deliveries begin with 1.
const PROVISIONED: u32 = 0;

/// Facility keys that were derived in this life of the process.
#[derive(Default)]
pub(super) struct FacilityKeys(RwLock<BTreeMap<(FacilityId, u32), Arc<FacilityKey>>>);

/// Whether a wrapping context is one of salts, which nobody but this process wraps or unwraps.
pub(super) fn is_salt_context(context: &[u8]) -> bool {
    context.starts_with(SALT_CONTEXT)
}

pub(crate) fn salt_context(device: DeviceId) -> Vec<u8> {
    [SALT_CONTEXT, device.as_bytes()].concat()
}

impl DeviceKeyPlace {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            facility: FacilityId::from_bytes(fields.array()?),
            facility_epoch: u32::from_be_bytes(fields.array()?),
            device: DeviceId::from_bytes(fields.array()?),
            device_epoch: u32::from_be_bytes(fields.array()?),
        })
    }
}

impl Engine {
    /// A fresh salt for a device, wrapped.
    pub(super) fn new_salt(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let device = fields.array().map(DeviceId::from_bytes).ok_or_else(malformed)?;
        fields.end().ok_or_else(malformed)?;
        let salt: [u8; 16] = kf_crypto::random_array().map_err(|_source| bug("random source"))?;
        self.wrap_under(&salt_context(device), &salt)
    }

    /// The application key of a service, which is the most that the server gets of a device's keys.
    pub(super) fn derive_sealing(&self, mut fields: Fields<'_>) -> Result<SecretBytes, SignerError> {
        let place = DeviceKeyPlace::read(&mut fields).ok_or_else(malformed)?;
        let service = fields.prefixed().ok_or_else(malformed)?;
        if !is_service(service) {
            return Err(SignerError::Refused(SignerRefusal::Content("not a label of a service".to_owned())));
        }
        let key = self
            .device_key(place, fields.rest())?
            .session(SEALED_SESSION, STATIC_EPOCH)
            .and_then(|session| session.application(service, STATIC_EPOCH))
            .map_err(|_too_long| bug("application context"))?
            .into_secret();
        // Exposed to the answer, which the serving loop wipes.
        Ok(SecretBytes::from_vec(key.expose().to_vec()))
    }

    /// The key of a device. It stays in this process, or leaves it encrypted to the device.
    pub(super) fn device_key(&self, place: DeviceKeyPlace, wrapped_salt: &[u8]) -> Result<DeviceKey, SignerError> {
        let wrapped = self.unwrap_under(&salt_context(place.device), wrapped_salt)?;
        // Exposed to be read: 16 octets of salt and, for a device that a station made, the identifier of its batch.
        let (found, batch) = wrapped.expose().split_first_chunk::<16>().ok_or(SignerError::Wrapped)?;
        let salt: SecretArray<16> = SecretArray::fill(|octets| octets.copy_from_slice(found));
        let facility = self.facility_key(place.facility, place.facility_epoch)?;
        let key = match (place.device_epoch, batch.len()) {
            // What the station injected lies below the batch key; the first delivery replaces it.
            (PROVISIONED, 16) => facility
                .batch(batch, BATCH_EPOCH)
                // Exposed to the derivation, here and below.
                .and_then(|batch| batch.device(place.device, salt.expose(), PROVISIONED)),
            (PROVISIONED, _) => return Err(SignerError::Wrapped),
            (epoch, 0 | 16) => facility.device(place.device, salt.expose(), epoch),
            _ => return Err(SignerError::Wrapped),
        };
        key.map_err(|_too_long| bug("device context"))
    }

    /// One HMAC under the root per facility and epoch.
    pub(super) fn facility_key(&self, facility: FacilityId, epoch: u32) -> Result<Arc<FacilityKey>, SignerError> {
        let at = (facility, epoch);
        if let Some(known) = self.facilities.0.read().unwrap_or_else(PoisonError::into_inner).get(&at) {
            return Ok(Arc::clone(known));
        }
        let info =
            FleetRoot::<SoftwareKey>::facility_info(facility, epoch).map_err(|_too_long| bug("facility info"))?;
        let key = self.backend.expand_root(&info).map_err(back_end)?;
        let key = Arc::new(FacilityKey::from_keyed_hmac(SoftwareKey::new(key)));
        let mut known = self.facilities.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_FACILITIES {
            known.clear();
        }
        known.insert(at, Arc::clone(&key));
        Ok(key)
    }
}
