//! Data at rest under a storage key that is replaced while the device works.

use kf_device::KeyError;
use kf_device::exchange::kf_exchange::MAX_MESSAGE_OCTETS;
use kf_device::exchange::kf_exchange::storage::{KeyErasure, StorageReport};
use kf_device::protected::{ProtectError, Step, StorageKeys, last_migration};
use kf_device::storage::{Erasure, RecordId};
use kf_key::UnixMillis;

use crate::device::{Device, give_message, told};
use crate::handle::{self, Held, InHandle};
use crate::pointer;
use crate::status::Status;

/// What a `kf_protected` holds.
#[derive(Debug)]
pub struct Protecting(pub(crate) StorageKeys);

impl InHandle for Protecting {
    const MARK: u64 = 0x4b46_5052_4f54_4543;
    const WORDS: usize = 24;
}

pub(crate) const IDLE: u8 = 0;
pub(crate) const MOVED: u8 = 1;
pub(crate) const OVER: u8 = 2;

border! {
    /// `kf_protected_open` of the header.
    kf_protected_open(keys: *mut Held<Protecting>, device: *mut Held<Device>)
    takes { out = handle::place(keys), device = handle::get(device) } {
        let device = &mut *device;
        let keys = StorageKeys::open(&mut device.store, &device.chip, device.id, &mut device.source)?;
        out.put(Protecting(keys))
    }
}

border! {
    /// `kf_protected_version` of the header.
    kf_protected_version(keys: *mut Held<Protecting>, version: *mut u32)
    takes { keys = handle::get(keys), version = pointer::value_mut(version) } {
        *version = keys.0.version();
        Ok(())
    }
}

border! {
    /// `kf_protected_put` of the header.
    kf_protected_put(
        keys: *mut Held<Protecting>,
        device: *mut Held<Device>,
        id: u16,
        octets: *const u8,
        length: usize,
    ) takes {
        keys = handle::get(keys),
        device = handle::get(device),
        octets = pointer::octets(octets, length),
    } {
        let device = &mut *device;
        Ok(keys.0.put(&mut device.store, RecordId(id), octets, &mut device.source)?)
    }
}

border! {
    /// `kf_protected_get` of the header.
    kf_protected_get(
        keys: *mut Held<Protecting>,
        device: *mut Held<Device>,
        id: u16,
        octets: *mut u8,
        capacity: usize,
        length: *mut usize,
    ) takes {
        keys = handle::get(keys),
        device = handle::get(device),
        place = pointer::octets_mut(octets, capacity),
        length = pointer::value_mut(length),
    } {
        match keys.0.read(&mut device.store, RecordId(id), place) {
            Ok(Some(found)) => {
                *length = found;
                Ok(())
            }
            Ok(None) => Err(Status::Missing),
            Err(ProtectError::Key(KeyError::Storage(error))) => Err(told(error, length)),
            Err(error) => Err(error.into()),
        }
    }
}

border! {
    /// `kf_protected_begin` of the header.
    kf_protected_begin(keys: *mut Held<Protecting>, device: *mut Held<Device>, request: *const [u8; 16])
    takes {
        keys = handle::get(keys),
        device = handle::get(device),
        request = pointer::value(request),
    } {
        let device = &mut *device;
        Ok(keys.0.begin(&mut device.store, &device.chip, *request, &mut device.source)?)
    }
}

border! {
    /// `kf_protected_step` of the header.
    kf_protected_step(keys: *mut Held<Protecting>, device: *mut Held<Device>, what: *mut u8)
    takes {
        keys = handle::get(keys),
        device = handle::get(device),
        what = pointer::value_mut(what),
    } {
        let device = &mut *device;
        *what = match keys.0.step(&mut device.store, &mut device.source)? {
            Step::Idle => IDLE,
            Step::Moved(_) => MOVED,
            Step::Over(_) => OVER,
        };
        Ok(())
    }
}

border! {
    /// `kf_protected_report` of the header.
    kf_protected_report(
        device: *mut Held<Device>,
        now: u64,
        report: *mut [u8; MAX_MESSAGE_OCTETS],
        length: *mut usize,
    ) takes {
        device = handle::get(device),
        place = pointer::value_mut(report),
        length = pointer::value_mut(length),
    } {
        let over = last_migration(&mut device.store)?.ok_or(Status::Missing)?;
        let report = StorageReport {
            device: device.id,
            request: over.request,
            version: over.version,
            records: over.records,
            erasure: worth(over.erasure),
            at: UnixMillis(now),
        };
        let identity = device.in_use()?;
        give_message(&report.sign(identity.key())?, place, length)
    }
}

const fn worth(erasure: Erasure) -> KeyErasure {
    match erasure {
        Erasure::Overwritten => KeyErasure::Overwritten,
        Erasure::Erased { read_back: false } => KeyErasure::Erased,
        Erasure::Erased { read_back: true } => KeyErasure::ReadBack,
        Erasure::CryptoErased => KeyErasure::CryptoErased,
    }
}

/// `kf_protected_end` of the header.
///
/// # Safety
/// `keys` is NULL or a handle.
// SAFETY: no other symbol of this name exists: the prefix is ours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_protected_end(keys: *mut Held<Protecting>) {
    // SAFETY: by the caller's promise.
    unsafe { handle::wipe(keys) }
}
