//! Keys of the boots that were opened last, so that the signer is not asked again for each payload.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kf_seal::{Authentic, BootId, KeyId, OpenError, Opener, SealAlgorithm, Sealed};

/// The most boots whose keys are remembered.
const MAX_OPENERS: usize = 1_024;

type Place = (KeyId, BootId, SealAlgorithm);

/// Bounded; what was used longest ago goes first. Whether a key may be used is asked of the registry each time, never
/// here.
#[derive(Default)]
pub(crate) struct Openers(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    /// Counts the uses, to tell what was used longest ago.
    clock: u64,
    /// Boxed: what is moved within a map leaves copies.
    openers: BTreeMap<Place, (u64, Box<Opener>)>,
}

fn place(sealed: &Sealed<'_>) -> Place {
    (*sealed.key_id(), *sealed.boot(), sealed.algorithm())
}

impl Openers {
    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has(&self, sealed: &Sealed<'_>) -> bool {
        self.remembered().openers.contains_key(&place(sealed))
    }

    /// Remembers an opener, unless there is one: that one has counted its failures.
    pub(crate) fn keep(&self, sealed: &Sealed<'_>, opener: Box<Opener>) {
        let mut remembered = self.remembered();
        let now = remembered.clock;
        if remembered.openers.len() >= MAX_OPENERS {
            let oldest = remembered.openers.iter().min_by_key(|(_, (used, _))| *used).map(|(place, _)| *place);
            if let Some(oldest) = oldest {
                remembered.openers.remove(&oldest);
            }
        }
        remembered.openers.entry(place(sealed)).or_insert((now, opener));
    }

    /// Forgets the keys of a mixed session.
    pub(crate) fn forget(&self, session: &[u8; 16]) {
        self.remembered().openers.retain(|(key_id, ..), _| key_id.session.as_ref() != Some(session));
    }

    /// Forgets the keys of a device.
    pub(crate) fn forget_device(&self, device: kf_key::DeviceId) {
        self.remembered().openers.retain(|(key_id, ..), _| key_id.device != device);
    }

    /// Opens; `None` when the key is not remembered.
    pub(crate) fn open<'a>(
        &self,
        sealed: &Sealed<'_>,
        external_aad: &[u8],
        plaintext: &'a mut [u8],
    ) -> Option<Result<Authentic<'a>, OpenError>> {
        let mut remembered = self.remembered();
        remembered.clock += 1;
        let now = remembered.clock;
        let (used, opener) = remembered.openers.get_mut(&place(sealed))?;
        *used = now;
        Some(opener.open(sealed, external_aad, plaintext))
    }
}
