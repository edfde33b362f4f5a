//! Sealed payloads below a counter of starts that survives power loss.
//!
//! A [`kf_seal::Sealer`] needs a *boot*: a number that never goes down and 128 fresh random bits. Here the number is a
//! persistent counter, and the random bits are drawn from a noise source that is healthy *and hashed with that number*:
//! if the noise repeats the number keeps two boots apart, if storage was restored the noise does.

use hmac::{Hmac, KeyInit, Mac};
use kf_derive::Sender;
use kf_seal::{Boot, KeyId, SealAlgorithm, Sealer, Service};
use sha2::Sha256;

use crate::derivation::HeldKey;
use crate::entropy::{Healthy, Noise, Source};
use crate::error::BootError;
use crate::record;
use crate::storage::{Counter, Flash, Integrity, Store};

pub use kf_seal;

/// The key id of a service of this device.
#[must_use]
pub const fn key_id(held: &HeldKey, sender: Sender, service: Service) -> KeyId {
    let place = held.place();
    KeyId {
        device: held.device(),
        facility_epoch: place.facility_epoch,
        device_epoch: place.device_epoch,
        sender,
        service,
    }
}

/// Begins a boot: steps the persistent counter and draws the random bits, in this order.
///
/// # Errors
/// [`BootError`]. No boot is ever begun twice: a number that was stepped and not used is left out.
pub fn begin_boot<F: Flash, I: Integrity, N: Noise>(
    store: &mut Store<F, I>,
    source: &mut Source<N, Healthy>,
) -> Result<Boot, BootError<F::Error, N::Error>> {
    let number = Counter::open(store, record::BOOTS, 1)
        .and_then(|mut counter| counter.next(store))
        .map_err(BootError::Counter)?;
    let number =
        u32::try_from(number).map_err(|_exhausted| BootError::Counter(crate::storage::CounterError::Exhausted))?;
    let fresh = source.random::<64>().map_err(BootError::Entropy)?;
    // Exposed to HMAC.
    let mut mac = Hmac::<Sha256>::new(fresh.expose().into());
    mac.update(b"keyfleet boot v1");
    mac.update(&number.to_be_bytes());
    let digest: [u8; 32] = mac.finalize().into_bytes().into();
    let random = digest.first_chunk::<16>().ok_or(BootError::Bug)?;
    Boot::new(number, *random).map_err(|_stuck| BootError::StuckRandom)
}

/// A sealer for one service of this device. Each call begins a boot of its own, so no two sealers share a counter.
///
/// # Errors
/// [`BootError`].
pub fn sealer<F: Flash, I: Integrity, N: Noise>(
    held: &HeldKey,
    service: Service,
    algorithm: SealAlgorithm,
    store: &mut Store<F, I>,
    source: &mut Source<N, Healthy>,
) -> Result<Sealer, BootError<F::Error, N::Error>> {
    let application = held.application(&service).map_err(|_never| BootError::Bug)?;
    let boot = begin_boot(store, source)?;
    Sealer::new(&application, key_id(held, Sender::Device, service), boot, algorithm).map_err(BootError::Seal)
}
