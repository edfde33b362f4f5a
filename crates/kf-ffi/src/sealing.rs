//! Sealed payloads.

use core::ffi::c_char;

use kf_derive::{ApplicationKey, DeviceKey, Sender};
use kf_key::DeviceId;
use kf_seal::{Boot, KeyId, OpenError, Opener, Replay, SESSION, SealAlgorithm, SealError, Sealed, Sealer, Service};

use crate::derivation::key;
use crate::handle::{self, Held, InHandle};
use crate::noise::HeldNoise;
use crate::pointer;
use crate::status::{Status, code};

/// `kf_place` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header documents them")]
pub struct Place {
    pub device: [u8; 16],
    pub facility_epoch: u32,
    pub device_epoch: u32,
    pub sender: u8,
    pub service: *const c_char,
}

/// What a `kf_sealer` holds.
#[derive(Debug)]
pub struct HeldSealer(Sealer);

impl InHandle for HeldSealer {
    const MARK: u64 = 0x4b46_5345_414c_4552;
    const WORDS: usize = 512;
}

/// # Safety
/// The pointers are NULL or valid as the header says.
unsafe fn application(device_key: *const u8, place: *const Place) -> Result<(ApplicationKey, KeyId), Status> {
    // SAFETY: by the caller's promise.
    let (key, place) = unsafe { (key(device_key)?, pointer::value(place)?) };
    // SAFETY: by the caller's promise.
    let service = Service::new(unsafe { pointer::text(place.service) }?).map_err(|_label| Status::Argument)?;
    let key_id = KeyId {
        device: DeviceId::from_bytes(place.device),
        facility_epoch: place.facility_epoch,
        device_epoch: place.device_epoch,
        sender: Sender::from_code(place.sender).ok_or(Status::Argument)?,
        service,
    };
    let session = DeviceKey::from_keyed_hmac(key).session(SESSION, 0).map_err(|_never| Status::Argument)?;
    let application = session.application(service.as_bytes(), 0).map_err(|_never| Status::Argument)?;
    Ok((application, key_id))
}

/// `kf_hazmat_sealer_begin` of the header.
///
/// # Safety
/// Every pointer is NULL or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_hazmat_sealer_begin(
    sealer: *mut Held<HeldSealer>,
    device_key: *const u8,
    place: *const Place,
    algorithm: u8,
    boot_number: u32,
    boot_random: *const u8,
) -> i32 {
    // SAFETY: by the caller's promise.
    code(unsafe { pointer::octets(boot_random, 16) }.and_then(|random| {
        let random = random.try_into().map_err(|_length| Status::Argument)?;
        // SAFETY: by the caller's promise.
        unsafe { begin(sealer, device_key, place, algorithm, (boot_number, random)) }
    }))
}

/// `kf_sealer_begin` of the header.
///
/// # Safety
/// Every pointer is NULL or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_sealer_begin(
    sealer: *mut Held<HeldSealer>,
    device_key: *const u8,
    place: *const Place,
    algorithm: u8,
    noise: *mut Held<HeldNoise>,
) -> i32 {
    // SAFETY: by the caller's promise.
    code(unsafe { handle::get(noise) }.and_then(|noise| {
        let boot = noise.boot()?;
        // SAFETY: by the caller's promise.
        unsafe { begin(sealer, device_key, place, algorithm, boot) }
    }))
}

/// # Safety
/// As [`kf_sealer_begin`].
unsafe fn begin(
    sealer: *mut Held<HeldSealer>,
    device_key: *const u8,
    place: *const Place,
    algorithm: u8,
    (number, random): (u32, [u8; 16]),
) -> Result<(), Status> {
    let algorithm = SealAlgorithm::from_cose(algorithm.into()).ok_or(Status::Argument)?;
    let boot = Boot::new(number, random).map_err(|_stuck| Status::Stuck)?;
    // SAFETY: by the caller's promise.
    let (application, key_id) = unsafe { application(device_key, place) }?;
    let made = Sealer::new(&application, key_id, boot, algorithm).map_err(|_not_built| Status::Argument)?;
    // SAFETY: by the caller's promise.
    unsafe { handle::put(sealer, HeldSealer(made)) }
}

/// `kf_seal` of the header.
///
/// # Safety
/// Every pointer is NULL or valid for the length beside it.
#[allow(clippy::too_many_arguments, reason = "C has no slices")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_seal(
    sealer: *mut Held<HeldSealer>,
    plaintext: *const u8,
    plaintext_length: usize,
    aad: *const u8,
    aad_length: usize,
    envelope: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> i32 {
    // SAFETY: by the caller's promise.
    code(unsafe { handle::get(sealer) }.and_then(|sealer| {
        // SAFETY: by the caller's promise.
        let (plaintext, aad) =
            unsafe { (pointer::octets(plaintext, plaintext_length)?, pointer::octets(aad, aad_length)?) };
        // SAFETY: by the caller's promise.
        let (out, length) = unsafe { (pointer::octets_mut(envelope, capacity)?, pointer::value_mut(length)?) };
        let sealed = sealer.0.seal(plaintext, aad, out).map_err(|error| match error {
            SealError::BootExhausted => Status::Exhausted,
            SealError::BufferTooSmall { .. } => Status::Buffer,
            _ => Status::Argument,
        })?;
        *length = sealed.len();
        Ok(())
    }))
}

/// `kf_sealer_wipe` of the header.
///
/// # Safety
/// `sealer` is NULL or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_sealer_wipe(sealer: *mut Held<HeldSealer>) {
    // SAFETY: by the caller's promise.
    unsafe { handle::wipe(sealer) }
}

/// `kf_open` of the header.
///
/// # Safety
/// Every pointer is NULL or valid for the length beside it.
#[allow(clippy::too_many_arguments, reason = "C has no slices")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_open(
    device_key: *const u8,
    place: *const Place,
    envelope: *const u8,
    envelope_length: usize,
    aad: *const u8,
    aad_length: usize,
    plaintext: *mut u8,
    capacity: usize,
    length: *mut usize,
    boot_number: *mut u32,
    counter: *mut u32,
) -> i32 {
    // SAFETY: by the caller's promise.
    code(unsafe { application(device_key, place) }.and_then(|(application, key_id)| {
        // SAFETY: by the caller's promise.
        let (envelope, aad) =
            unsafe { (pointer::octets(envelope, envelope_length)?, pointer::octets(aad, aad_length)?) };
        // SAFETY: by the caller's promise.
        let (out, length) = unsafe { (pointer::octets_mut(plaintext, capacity)?, pointer::value_mut(length)?) };
        // SAFETY: by the caller's promise.
        let (boot_number, counter) = unsafe { (pointer::value_mut(boot_number)?, pointer::value_mut(counter)?) };
        let sealed = Sealed::parse(envelope).map_err(|_form| Status::Refused)?;
        let mut opener = Opener::new(&application, &key_id, &sealed).map_err(|_mismatch| Status::Refused)?;
        let authentic = opener.open(&sealed, aad, out).map_err(|error| match error {
            OpenError::BufferTooSmall { .. } => Status::Buffer,
            _ => Status::Refused,
        })?;
        let accepted = Replay::<1>::new().accept(authentic.mark()).map_err(|_never| Status::Refused)?;
        *length = authentic.release(&accepted).map_err(|_never| Status::Refused)?.len();
        (*boot_number, *counter) = (sealed.boot().number(), sealed.counter());
        Ok(())
    }))
}
