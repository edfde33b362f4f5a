//! The device: its store, its noise and its chip, behind one handle.

use kf_device::entropy::{Healthy, Source};
use kf_device::exchange::kf_exchange::Message;
use kf_device::storage::{Change, Counter, RecordId, Store};
use kf_entropy::Evidence;
use kf_key::DeviceId;

use crate::handle::{self, Held, InHandle};
use crate::hooks::{BoardOfC, Chip, HookFlash, Hooks, Tags, noise_state};
use crate::pointer::{self, give};
use crate::status::{HookFailed, Status};

/// What a `kf_device` holds.
#[derive(Debug)]
pub struct Device {
    pub(crate) hooks: Hooks,
    pub(crate) id: DeviceId,
    pub(crate) store: Store<HookFlash, Tags>,
    pub(crate) source: Source<Hooks, Healthy>,
    pub(crate) chip: Chip,
}

impl InHandle for Device {
    const MARK: u64 = 0x4b46_4445_5649_4345;
    const WORDS: usize = 96;
}

impl Device {
    /// Eight random octets to spread the waits of a fleet: not secret.
    pub(crate) fn spread(&mut self) -> Result<u64, Status> {
        let random = self.source.random::<8>()?;
        Ok(u64::from_be_bytes(*random.expose()))
    }
}

border! {
    /// `kf_format` of the header.
    kf_format(hooks: *const Hooks, board: *const BoardOfC)
    takes { hooks = pointer::value(hooks), board = pointer::value(board) } {
        hooks.require()?;
        let board = board.checked()?;
        Store::format(HookFlash::new(*hooks, &board), Tags::of(*hooks, &board)?)?;
        Ok(())
    }
}

border! {
    /// `kf_start` of the header.
    kf_start(device: *mut Held<Device>, hooks: *const Hooks, board: *const BoardOfC)
    takes { place = handle::place(device), hooks = pointer::value(hooks), board = pointer::value(board) } {
        hooks.require()?;
        let board = board.checked()?;
        let mut store = Store::open(HookFlash::new(*hooks, &board), Tags::of(*hooks, &board)?)?;
        let source = Source::new(*hooks, board.profile).start_up().map_err(|failed| Status::from(failed.error))?;
        let source = source.compare_with_last_start(&mut store)?;
        place.put(Device { hooks: *hooks, id: board.device, store, source, chip: Chip::new(*hooks) })
    }
}

/// `kf_stop` of the header.
///
/// # Safety
/// `device` is NULL or a handle.
// SAFETY: no other symbol of this name exists: the prefix is ours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_stop(device: *mut Held<Device>) {
    // SAFETY: by the caller's promise.
    unsafe { handle::wipe(device) }
}

border! {
    /// `kf_declare_noise` of the header.
    kf_declare_noise(device: *mut Held<Device>, state: u8)
    takes { device = handle::get(device) } {
        device.source.declare(noise_state(state)?);
        Ok(())
    }
}

border! {
    /// `kf_test_noise` of the header.
    kf_test_noise(device: *mut Held<Device>)
    takes { device = handle::get(device) } {
        Ok(device.source.test_on_demand()?)
    }
}

border! {
    /// `kf_evidence` of the header.
    kf_evidence(device: *mut Held<Device>, evidence: *mut [u8; Evidence::OCTETS])
    takes { device = handle::get(device), evidence = pointer::value_mut(evidence) } {
        *evidence = device.source.evidence().to_bytes();
        Ok(())
    }
}

border! {
    /// `kf_random` of the header.
    kf_random(device: *mut Held<Device>, octets: *mut u8, length: usize)
    takes { device = handle::get(device), place = pointer::octets_mut(octets, length) } {
        let drawn = place.chunks_mut(32).try_for_each(|chunk| {
            let block = device.source.random::<32>()?;
            // Exposed to the caller, who asked for it.
            chunk.iter_mut().zip(block.expose()).for_each(|(place, octet)| *place = *octet);
            Ok(())
        });
        if drawn.is_err() {
            place.fill(0);
        }
        drawn
    }
}

/// A record of the firmware's own. Those from [`RecordId::FIRST_PROTECTED`] on are read and written under the storage key alone.
fn record(id: u16) -> Result<RecordId, Status> {
    let id = RecordId(id);
    if (RecordId::FIRST_OF_FIRMWARE..RecordId::FIRST_PROTECTED).contains(&id) { Ok(id) } else { Err(Status::Argument) }
}

border! {
    /// `kf_record_put` of the header.
    kf_record_put(device: *mut Held<Device>, id: u16, octets: *const u8, length: usize)
    takes { device = handle::get(device), octets = pointer::octets(octets, length) } {
        Ok(device.store.put(record(id)?, octets)?)
    }
}

border! {
    /// `kf_record_get` of the header.
    kf_record_get(device: *mut Held<Device>, id: u16, octets: *mut u8, capacity: usize, length: *mut usize)
    takes {
        device = handle::get(device),
        place = pointer::octets_mut(octets, capacity),
        length = pointer::value_mut(length),
    } {
        read(&mut device, record(id)?, place, length)
    }
}

fn read(device: &mut Device, id: RecordId, place: &mut [u8], length: &mut usize) -> Result<(), Status> {
    match device.store.read(id, place) {
        Ok(Some(found)) => {
            *length = found;
            Ok(())
        }
        Ok(None) => Err(Status::Missing),
        Err(error) => Err(told(error, length)),
    }
}

/// The status of an error of the store, and how long the record is that did not fit.
pub(crate) fn told(error: kf_device::storage::StorageError<HookFailed>, length: &mut usize) -> Status {
    if let kf_device::storage::StorageError::Buffer { needed } = error {
        *length = needed;
    }
    error.into()
}

border! {
    /// `kf_record_remove` of the header.
    kf_record_remove(device: *mut Held<Device>, id: u16)
    takes { device = handle::get(device) } {
        Ok(device.store.update(&[Change::Remove(record(id)?)])?)
    }
}

border! {
    /// `kf_next_number` of the header.
    kf_next_number(device: *mut Held<Device>, id: u16, number: *mut u64)
    takes { device = handle::get(device), number = pointer::value_mut(number) } {
        let id = record(id)?;
        let mut counter = Counter::open(&mut device.store, id, 1)?;
        *number = counter.next(&mut device.store)?;
        Ok(())
    }
}

/// Copies a message of the device into the caller's array.
pub(crate) fn give_message(message: &Message, place: &mut [u8], length: &mut usize) -> Result<(), Status> {
    give(message.as_bytes(), place, length)
}
