//! The device's symmetric keys in this process: shared between who fetches them and who seals under them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kf_derive::{Sender, SessionKey};
use kf_exchange::KeyPlace;
use kf_key::DeviceId;
use kf_seal::{KeyId, SealAlgorithm, Sealer, Service};
use tokio::sync::watch;

use crate::config::SealingSession;
use crate::vault::{Vault, VaultError, on_a_wiped_stack};

/// A mixed session that both sides have.
pub(crate) struct AgreedSession {
    pub(crate) id: [u8; 16],
    pub(crate) key: SessionKey,
    pub(crate) place: KeyPlace,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct KeyRing(Arc<Inner>);

struct Inner {
    vault: Mutex<Vault>,
    device: Mutex<Option<DeviceId>>,
    session: Mutex<Option<AgreedSession>>,
    /// Counts changes of what is sealed under.
    generation: watch::Sender<u64>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealing {
    pub(crate) service: Service,
    pub(crate) algorithm: SealAlgorithm,
    pub(crate) session: SealingSession,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is replaced as a whole, or opened again after a failure.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeyRing {
    pub(crate) fn new(vault: Vault) -> Self {
        let (device, session) = (Mutex::new(None), Mutex::new(None));
        Self(Arc::new(Inner { vault: Mutex::new(vault), device, session, generation: watch::Sender::new(0) }))
    }

    pub(crate) fn vault(&self) -> MutexGuard<'_, Vault> {
        locked(&self.0.vault)
    }

    /// Whose keys they are: from the certificate in use.
    pub(crate) fn belongs_to(&self, device: DeviceId) {
        let before = locked(&self.0.device).replace(device);
        if before != Some(device) {
            self.changed();
        }
    }

    /// The device key is another one now: what lay below it is forgotten.
    pub(crate) fn key_changed(&self, place: KeyPlace) {
        locked(&self.0.session).take_if(|session| session.place != place);
        self.changed();
    }

    pub(crate) fn agreed(&self, session: AgreedSession) {
        locked(&self.0.session).replace(session);
        self.changed();
    }

    /// Forgets everything: the device was wiped.
    pub(crate) fn forget(&self) {
        locked(&self.0.device).take();
        locked(&self.0.session).take();
        self.vault().forget();
        self.changed();
    }

    fn changed(&self) {
        self.0.generation.send_modify(|generation| *generation = generation.wrapping_add(1));
    }

    /// The count of changes, to be compared and awaited.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// A sealer of a fresh boot, and the number of that boot; `None` as long as there is no key or no session.
    pub(crate) fn sealer(&self, wanted: Sealing) -> Result<Option<(Sealer, u32)>, VaultError> {
        on_a_wiped_stack(|| self.make_sealer(wanted))
    }

    fn make_sealer(&self, wanted: Sealing) -> Result<Option<(Sealer, u32)>, VaultError> {
        let Sealing { service, algorithm, session } = wanted;
        let Some(device) = *locked(&self.0.device) else { return Ok(None) };
        let mut vault = self.vault();
        let Some(held) = vault.held(device)? else { return Ok(None) };
        let bug = |_never| VaultError::State("a label of a service is too long");
        let (application, session) = match session {
            SealingSession::Derived => (held.application(&service).map_err(bug)?, None),
            SealingSession::Mixed => {
                let agreed = locked(&self.0.session);
                let Some(agreed) = agreed.as_ref().filter(|agreed| agreed.place == held.place()) else {
                    return Ok(None);
                };
                (agreed.key.application(service.as_bytes(), 0).map_err(bug)?, Some(agreed.id))
            }
        };
        let KeyPlace { facility_epoch, device_epoch, .. } = held.place();
        let key_id = KeyId { device, facility_epoch, device_epoch, session, sender: Sender::Device, service };
        let boot = vault.begin_boot()?;
        let number = boot.id().number();
        let sealer = Sealer::new(&application, key_id, boot, algorithm)
            .map_err(|_not_built| VaultError::State("this program lacks the algorithm of sealing"))?;
        Ok(Some((sealer, number)))
    }
}
