//! Sealed payloads below a counter of starts that survives power loss.
//!
//! A [`kf_seal::Sealer`] needs a *boot*: a number that never goes down and 128 fresh random bits. Here the number is a
//! persistent counter, and the random bits are drawn from a noise source that is healthy *and hashed with that number*:
//! if the noise repeats the number keeps two boots apart, if storage was restored the noise does.
//!
//! What the server seals for this device is opened by [`open`], which gives the plaintext out when the store has noted
//! it: a command that was obeyed is not obeyed again after a restart.

use hmac::{Hmac, KeyInit, Mac};
use kf_derive::Sender;
use kf_seal::{Boot, KeyId, Opener, Replay, SealAlgorithm, Sealed, Sealer, Service};
use sha2::Sha256;
use zeroize::Zeroize as _;

use crate::derivation::HeldKey;
use crate::entropy::{Healthy, Noise, Source};
use crate::error::{BootError, PayloadError};
use crate::record;
use crate::storage::{Counter, CounterError, Flash, HighWater, Integrity, StorageError, Store};

pub use kf_seal;

/// The key id of a service of this device.
#[must_use]
pub const fn key_id(held: &HeldKey, sender: Sender, service: Service) -> KeyId {
    let place = held.place();
    KeyId {
        device: held.device(),
        facility_epoch: place.facility_epoch,
        device_epoch: place.device_epoch,
        session: None,
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
    let number = u32::try_from(number).map_err(|_exhausted| BootError::Counter(CounterError::Exhausted))?;
    boot_of(number, source)
}

/// Random bits for the boot of this number, hashed with it.
fn boot_of<F, N: Noise>(number: u32, source: &mut Source<N, Healthy>) -> Result<Boot, BootError<F, N::Error>> {
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

/// As [`sealer`], with the number of the boot from a monotonic counter in hardware, which nobody can set back by writing
/// an old copy of the memory. The store keeps the number too, so a counter that goes back is found.
///
/// # Errors
/// [`BootError`]; [`CounterError::NotAbove`] when the number is not above every one that was used.
pub fn sealer_of_boot<F: Flash, I: Integrity, N: Noise>(
    number: u32,
    held: &HeldKey,
    service: Service,
    algorithm: SealAlgorithm,
    store: &mut Store<F, I>,
    source: &mut Source<N, Healthy>,
) -> Result<Sealer, BootError<F::Error, N::Error>> {
    let application = held.application(&service).map_err(|_never| BootError::Bug)?;
    HighWater::open(store, record::BOOTS)
        .and_then(|mut last| last.raise(store, number.into()))
        .map_err(BootError::Counter)?;
    let boot = boot_of(number, source)?;
    Sealer::new(&application, key_id(held, Sender::Device, service), boot, algorithm).map_err(BootError::Seal)
}

/// Boots of the server that the device remembers. The server begins one for each payload, so this is also by how many
/// payloads one may come too late.
pub const REMEMBERED_BOOTS: usize = 4;

type Opened = Replay<REMEMBERED_BOOTS>;

/// A payload of the server as it came, and what it is bound to: for example the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The COSE_Encrypt0.
    pub envelope: &'a [u8],
    /// As the server gave it.
    pub external_aad: &'a [u8],
}

/// Opens a payload of the server into the front of `out`. It is delivered at most once: the store notes it first, and
/// power that goes in between loses it.
///
/// # Errors
/// [`PayloadError`]; then nothing of the plaintext is in `out`, and the record of what was opened is as it was.
pub fn open<'o, F: Flash, I: Integrity>(
    held: &HeldKey,
    service: Service,
    payload: Payload<'_>,
    store: &mut Store<F, I>,
    out: &'o mut [u8],
) -> Result<&'o [u8], PayloadError<F::Error>> {
    match open_into(held, service, payload, store, out) {
        Ok(length) => out.get(..length).ok_or(PayloadError::Bug),
        Err(error) => {
            out.zeroize();
            Err(error)
        }
    }
}

fn open_into<F: Flash, I: Integrity>(
    held: &HeldKey,
    service: Service,
    Payload { envelope, external_aad }: Payload<'_>,
    store: &mut Store<F, I>,
    out: &mut [u8],
) -> Result<usize, PayloadError<F::Error>> {
    let sealed = Sealed::parse(envelope).map_err(PayloadError::Malformed)?;
    let mut opened = load_opened(store)?;
    let application = held.application(&service).map_err(|_never| PayloadError::Bug)?;
    let mut opener =
        Opener::new(&application, &key_id(held, Sender::Server, service), &sealed).map_err(PayloadError::Open)?;
    let authentic = opener.open(&sealed, external_aad, out).map_err(PayloadError::Open)?;
    let accepted = opened.accept(authentic.mark()).map_err(PayloadError::Replay)?;
    let mut octets = [0; Opened::MAX_OCTETS];
    let length = opened.encode(&mut octets).ok_or(PayloadError::Bug)?;
    store.put(record::OPENED, octets.get(..length).ok_or(PayloadError::Bug)?).map_err(PayloadError::Storage)?;
    authentic.release(&accepted).map(<[u8]>::len).map_err(|_never| PayloadError::Bug)
}

fn load_opened<F: Flash, I: Integrity>(store: &mut Store<F, I>) -> Result<Opened, PayloadError<F::Error>> {
    let mut octets = [0; Opened::MAX_OCTETS];
    let length = match store.read(record::OPENED, &mut octets) {
        Ok(None) => return Ok(Opened::new()),
        Ok(Some(length)) => length,
        Err(StorageError::Buffer { .. }) => return Err(PayloadError::DamagedRecord),
        Err(error) => return Err(PayloadError::Storage(error)),
    };
    let octets = octets.get(..length).ok_or(PayloadError::Bug)?;
    Opened::decode(octets).map_err(|_damaged| PayloadError::DamagedRecord)
}
