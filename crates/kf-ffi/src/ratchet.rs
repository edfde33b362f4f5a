//! The ratchet, whose earlier keys are in no cell of the store.

use core::ffi::c_char;
use core::mem;

use kf_device::session::StoredRatchet;

use crate::device::Device;
use crate::exchange::give_session_key;
use crate::handle::{self, Held, InHandle};
use crate::identity::erasure_code;
use crate::pointer;
use crate::status::Status;

/// What a `kf_ratchet` holds; nothing after a call that failed, until it is loaded again.
#[derive(Debug)]
pub struct Ratcheting(Option<StoredRatchet>);

impl InHandle for Ratcheting {
    const MARK: u64 = 0x4b46_5241_5443_4845;
    const WORDS: usize = 16;
}

impl Ratcheting {
    fn stored(&self) -> Result<&StoredRatchet, Status> {
        self.0.as_ref().ok_or(Status::State)
    }
}

border! {
    /// `kf_ratchet_begin` of the header.
    kf_ratchet_begin(ratchet: *mut Held<Ratcheting>, device: *mut Held<Device>, erasure: *mut u8)
    takes {
        out = handle::place(ratchet),
        device = handle::get(device),
        erasure = pointer::value_mut(erasure),
    } {
        let device = &mut *device;
        let held = device.held()?;
        let nonce = device.source.nonce()?;
        let (ratchet, done) = StoredRatchet::begin(&mut device.store, &device.chip, held, nonce)?;
        *erasure = erasure_code(done);
        out.put(Ratcheting(Some(ratchet)))
    }
}

border! {
    /// `kf_ratchet_load` of the header.
    kf_ratchet_load(ratchet: *mut Held<Ratcheting>, device: *mut Held<Device>)
    takes { out = handle::place(ratchet), device = handle::get(device) } {
        let device = &mut *device;
        let stored = StoredRatchet::load(&mut device.store, &device.chip, device.id)?.ok_or(Status::Missing)?;
        out.put(Ratcheting(Some(stored)))
    }
}

border! {
    /// `kf_ratchet_advance` of the header.
    kf_ratchet_advance(ratchet: *mut Held<Ratcheting>, device: *mut Held<Device>, position: u32, erasure: *mut u8)
    takes {
        ratchet = handle::get(ratchet),
        device = handle::get(device),
        erasure = pointer::value_mut(erasure),
    } {
        let device = &mut *device;
        let nonce = device.source.nonce()?;
        let stored = mem::take(&mut ratchet.0).ok_or(Status::State)?;
        let (stored, done) = stored.advance_to(position, &mut device.store, &device.chip, nonce)?;
        *erasure = erasure_code(done);
        ratchet.0 = Some(stored);
        Ok(())
    }
}

border! {
    /// `kf_ratchet_position` of the header.
    kf_ratchet_position(ratchet: *mut Held<Ratcheting>, position: *mut u32)
    takes { ratchet = handle::get(ratchet), position = pointer::value_mut(position) } {
        *position = ratchet.stored()?.position();
        Ok(())
    }
}

border! {
    /// `kf_ratchet_session_key` of the header.
    kf_ratchet_session_key(
        ratchet: *mut Held<Ratcheting>,
        session: *const u8,
        session_length: usize,
        service: *const c_char,
        algorithm: u8,
        key: *mut [u8; 32],
        length: *mut usize,
    ) takes {
        ratchet = handle::get(ratchet),
        session = pointer::octets(session, session_length),
        service = pointer::text(service),
        place = pointer::value_mut(key),
        length = pointer::value_mut(length),
    } {
        let session = ratchet.stored()?.session(session)?;
        give_session_key(&session, service, algorithm, place, length)
    }
}

/// `kf_ratchet_end` of the header.
///
/// # Safety
/// `ratchet` is NULL or a handle.
// SAFETY: no other symbol of this name exists: the prefix is ours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_ratchet_end(ratchet: *mut Held<Ratcheting>) {
    // SAFETY: by the caller's promise.
    unsafe { handle::wipe(ratchet) }
}
