//! The material of encryption keys: 32 random octets, wrapped by the signer for the registry, and in locked memory while in use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kf_key::{EncryptionKeyId, SecretArray, SecretBytes};
use kf_store::encryption_key::WrappedMaterial;

use crate::{Fleet, FleetError};

/// The most versions whose material is kept in memory.
const MAX_MATERIALS: usize = 1_024;

type Place = (EncryptionKeyId, u32);

/// Material of the versions used last, so that the signer is not asked for each call. Whether a version may be used is asked
/// of the registry each time, never here.
#[derive(Default)]
pub(crate) struct Materials(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    /// Counts the uses, to tell what was used longest ago.
    clock: u64,
    materials: BTreeMap<Place, (u64, Arc<SecretArray<32>>)>,
}

impl Materials {
    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, place: Place) -> Option<Arc<SecretArray<32>>> {
        let mut remembered = self.remembered();
        remembered.clock += 1;
        let now = remembered.clock;
        let (used, material) = remembered.materials.get_mut(&place)?;
        *used = now;
        Some(Arc::clone(material))
    }

    fn keep(&self, place: Place, material: &Arc<SecretArray<32>>) {
        let mut remembered = self.remembered();
        if remembered.materials.len() >= MAX_MATERIALS {
            let oldest = remembered.materials.iter().min_by_key(|(_, (used, _))| *used).map(|(place, _)| *place);
            if let Some(oldest) = oldest {
                remembered.materials.remove(&oldest);
            }
        }
        let now = remembered.clock;
        remembered.materials.insert(place, (now, Arc::clone(material)));
    }

    pub(crate) fn forget(&self, key: EncryptionKeyId, version: u32) {
        self.remembered().materials.remove(&(key, version));
    }
}

/// What the wrapped octets are bound to: those of another key or version do not open in their place.
pub(crate) fn material_context(key: EncryptionKeyId, version: u32) -> Vec<u8> {
    [&b"encryption key"[..], key.as_bytes(), &version.to_be_bytes()].concat()
}

impl Fleet {
    /// Fresh material for a version, wrapped.
    pub(super) async fn new_material(&self, key: EncryptionKeyId, version: u32) -> Result<WrappedMaterial, FleetError> {
        let material = kf_crypto::random_secret::<32>()?;
        // Exposed to be wrapped.
        let material = SecretBytes::from_vec(material.expose().to_vec());
        Ok(WrappedMaterial(self.signer.wrap(&material_context(key, version), &material).await?))
    }

    /// The material of a version, from memory or unwrapped.
    pub(super) async fn material(
        &self,
        key: EncryptionKeyId,
        version: u32,
        wrapped: &WrappedMaterial,
    ) -> Result<Arc<SecretArray<32>>, FleetError> {
        if let Some(material) = self.materials.get((key, version)) {
            return Ok(material);
        }
        let unwrapped = self.signer.unwrap(&material_context(key, version), &wrapped.0).await?;
        // Exposed to be moved into memory of its fixed size.
        let octets: &[u8; 32] =
            unwrapped.expose().try_into().map_err(|_other_length| FleetError::Bug("material of another size"))?;
        let material = Arc::new(SecretArray::fill(|out| out.copy_from_slice(octets)));
        self.materials.keep((key, version), &material);
        Ok(material)
    }
}
