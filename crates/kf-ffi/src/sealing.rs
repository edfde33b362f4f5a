//! Sealed payloads.

use core::ffi::c_char;

use kf_derive::{ApplicationKey, DeviceKey, Sender, SoftwareKey};
use kf_device::sealed::{self, Payload};
use kf_key::DeviceId;
use kf_seal::{Boot, KeyId, OpenError, Opener, Replay, SESSION, SealAlgorithm, SealError, Sealed, Sealer, Service};

use crate::device::Device;
use crate::handle::{self, Held, InHandle};
use crate::pointer;
use crate::status::Status;

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
    const WORDS: usize = 192;
}

fn service_of(label: &str) -> Result<Service, Status> {
    Service::new(label).map_err(|_label| Status::Argument)
}

fn algorithm_of(cose: u8) -> Result<SealAlgorithm, Status> {
    SealAlgorithm::from_cose(cose.into()).ok_or(Status::Argument)
}

border! {
    /// `kf_sealer_begin` of the header.
    kf_sealer_begin(sealer: *mut Held<HeldSealer>, device: *mut Held<Device>, service: *const c_char, algorithm: u8)
    takes { place = handle::place(sealer), device = handle::get(device), service = pointer::text(service) } {
        let (service, algorithm) = (service_of(service)?, algorithm_of(algorithm)?);
        let device = &mut *device;
        let held = device.held()?;
        let sealer = match device.hooks.next_number()? {
            None => sealed::sealer(&held, service, algorithm, &mut device.store, &mut device.source)?,
            Some(number) => {
                sealed::sealer_of_boot(number, &held, service, algorithm, &mut device.store, &mut device.source)?
            }
        };
        place.put(HeldSealer(sealer))
    }
}

border! {
    /// `kf_seal` of the header.
    kf_seal(
        sealer: *mut Held<HeldSealer>,
        plaintext: *const u8,
        plaintext_length: usize,
        aad: *const u8,
        aad_length: usize,
        envelope: *mut u8,
        capacity: usize,
        length: *mut usize,
    ) takes {
        sealer = handle::get(sealer),
        plaintext = pointer::octets(plaintext, plaintext_length),
        aad = pointer::octets(aad, aad_length),
        out = pointer::octets_mut(envelope, capacity),
        length = pointer::value_mut(length),
    } {
        match sealer.0.seal(plaintext, aad, out) {
            Ok(sealed) => {
                *length = sealed.len();
                Ok(())
            }
            Err(error) => {
                if let SealError::BufferTooSmall { needed } = error {
                    *length = needed;
                }
                Err(error.into())
            }
        }
    }
}

/// `kf_sealer_wipe` of the header.
///
/// # Safety
/// `sealer` is NULL or a handle.
// SAFETY: no other symbol of this name exists: the prefix is ours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_sealer_wipe(sealer: *mut Held<HeldSealer>) {
    // SAFETY: by the caller's promise.
    unsafe { handle::wipe(sealer) }
}

border! {
    /// `kf_open` of the header.
    kf_open(
        device: *mut Held<Device>,
        service: *const c_char,
        envelope: *const u8,
        envelope_length: usize,
        aad: *const u8,
        aad_length: usize,
        plaintext: *mut u8,
        capacity: usize,
        length: *mut usize,
    ) takes {
        device = handle::get(device),
        service = pointer::text(service),
        envelope = pointer::octets(envelope, envelope_length),
        external_aad = pointer::octets(aad, aad_length),
        out = pointer::octets_mut(plaintext, capacity),
        length = pointer::value_mut(length),
    } {
        let service = service_of(service)?;
        let held = device.held()?;
        match sealed::open(&held, service, Payload { envelope, external_aad }, &mut device.store, out) {
            Ok(plaintext) => {
                *length = plaintext.len();
                Ok(())
            }
            Err(error) => {
                if let kf_device::PayloadError::Open(OpenError::BufferTooSmall { needed }) = error {
                    *length = needed;
                }
                Err(error.into())
            }
        }
    }
}

/// The application key that `place` names, below a device key of a test vector.
fn application(
    device_key: kf_key::SecretArray<32>,
    place: &Place,
    service: &str,
) -> Result<(ApplicationKey, KeyId), Status> {
    let service = service_of(service)?;
    let key_id = KeyId {
        device: DeviceId::from_bytes(place.device),
        facility_epoch: place.facility_epoch,
        device_epoch: place.device_epoch,
        session: None,
        sender: Sender::from_code(place.sender).ok_or(Status::Argument)?,
        service,
    };
    let key = DeviceKey::from_keyed_hmac(SoftwareKey::new(device_key));
    let session = key.session(SESSION, 0).map_err(|_never| Status::Bug)?;
    let application = session.application(service.as_bytes(), 0).map_err(|_never| Status::Bug)?;
    Ok((application, key_id))
}

/// The text that a place points to.
///
/// # Safety
/// `place` is NULL or valid, and so is what it points to.
unsafe fn service_text<'a>(place: *const Place) -> Result<&'a str, Status> {
    // SAFETY: by the caller's promise.
    unsafe { pointer::text(pointer::value(place)?.service) }
}

border! {
    /// `kf_hazmat_sealer_begin` of the header.
    kf_hazmat_sealer_begin(
        sealer: *mut Held<HeldSealer>,
        device_key: *const [u8; 32],
        place: *const Place,
        algorithm: u8,
        boot_number: u32,
        boot_random: *const [u8; 16],
    ) takes {
        out = handle::place(sealer),
        key = pointer::secret(device_key),
        service = service_text(place),
        place = pointer::value(place),
        random = pointer::value(boot_random),
    } {
        let algorithm = algorithm_of(algorithm)?;
        let boot = Boot::new(boot_number, *random).map_err(|_stuck| Status::Stuck)?;
        let (application, key_id) = application(key, place, service)?;
        out.put(HeldSealer(Sealer::new(&application, key_id, boot, algorithm)?))
    }
}

border! {
    /// `kf_hazmat_open` of the header.
    kf_hazmat_open(
        device_key: *const [u8; 32],
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
    ) takes {
        key = pointer::secret(device_key),
        service = service_text(place),
        place = pointer::value(place),
        envelope = pointer::octets(envelope, envelope_length),
        aad = pointer::octets(aad, aad_length),
        out = pointer::octets_mut(plaintext, capacity),
        length = pointer::value_mut(length),
        boot_number = pointer::value_mut(boot_number),
        counter = pointer::value_mut(counter),
    } {
        let (application, key_id) = application(key, place, service)?;
        let sealed = Sealed::parse(envelope).map_err(|_form| Status::Malformed)?;
        let mut opener = Opener::new(&application, &key_id, &sealed)?;
        let authentic = opener.open(&sealed, aad, out)?;
        let accepted = Replay::<1>::new().accept(authentic.mark()).map_err(|_never| Status::Bug)?;
        *length = authentic.release(&accepted).map_err(|_never| Status::Bug)?.len();
        (*boot_number, *counter) = (sealed.boot().number(), sealed.counter());
        Ok(())
    }
}
