//! The device's symmetric keys in this process: shared between who fetches them and who seals under them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kf_derive::{Sender, SessionKey};
use kf_exchange::KeyPlace;
use kf_key::DeviceId;
use kf_seal::{KeyId, MAX_OVERHEAD_OCTETS, SealAlgorithm, SealError, Sealer, Service};
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
    /// Of the boot that is under way, and its number. Here and not with who seals, so that it goes with the keys above it. Boxed: what is
    /// moved leaves copies.
    sealer: Mutex<Option<(Box<Sealer>, u32)>>,
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

/// A message as it leaves.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) octets: Vec<u8>,
    /// The number of the boot that sealed it.
    pub(crate) boot: u32,
}

/// Why a message was not sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSealed {
    /// No key can be had.
    #[error(transparent)]
    Key(#[from] VaultError),
    /// The message.
    #[error(transparent)]
    Message(#[from] SealError),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is replaced as a whole, or opened again after a failure.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeyRing {
    pub(crate) fn new(vault: Vault) -> Self {
        let (device, session, sealer) = (Mutex::new(None), Mutex::new(None), Mutex::new(None));
        let (vault, generation) = (Mutex::new(vault), watch::Sender::new(0));
        Self(Arc::new(Inner { vault, device, session, sealer, generation }))
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
        locked(&self.0.sealer).take();
        self.0.generation.send_modify(|generation| *generation = generation.wrapping_add(1));
    }

    /// The count of changes, to be compared and awaited.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// Seals a message, beginning a boot where none is under way; `None` as long as there is no key or no session.
    pub(crate) fn seal(&self, wanted: Sealing, plaintext: &[u8]) -> Result<Option<Envelope>, NotSealed> {
        on_a_wiped_stack(|| {
            let mut place = locked(&self.0.sealer);
            // The limit of a boot: the next one has a key of its own.
            if place.as_ref().is_some_and(|(sealer, _)| sealer.remaining() == 0) {
                place.take();
            }
            if place.is_none() {
                *place = self.make_sealer(wanted)?;
            }
            let Some((sealer, boot)) = place.as_mut() else { return Ok(None) };
            let mut octets = vec![0; plaintext.len().saturating_add(MAX_OVERHEAD_OCTETS)];
            let length = sealer.seal(plaintext, b"", &mut octets)?.len();
            octets.truncate(length);
            Ok(Some(Envelope { octets, boot: *boot }))
        })
    }

    /// A sealer of a fresh boot, and the number of that boot.
    fn make_sealer(&self, wanted: Sealing) -> Result<Option<(Box<Sealer>, u32)>, VaultError> {
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
        Ok(Some((Box::new(sealer), number)))
    }
}
