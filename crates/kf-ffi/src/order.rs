//! Orders of the fleet: rotate, wipe, factory reset.

use core::mem;

use kf_device::exchange::kf_exchange::MAX_MESSAGE_OCTETS;
use kf_device::exchange::kf_exchange::order::OrderOutcome;
use kf_device::order::{
    Accepted, OrderKey, ResetOrder, RotateOrder, WipeOrder, forget_reset_report, reset_report, wipe_report,
};
use kf_device::pin::Pin;
use kf_key::{KeyRole, UnixMillis};

use crate::device::{Device, give_message};
use crate::handle::{self, Held, InHandle};
use crate::identity::erasure_code;
use crate::pointer;
use crate::status::Status;

/// What a `kf_order` holds.
#[derive(Debug)]
pub struct Ordered(State);

impl InHandle for Ordered {
    const MARK: u64 = 0x4b46_4f52_4445_5231;
    const WORDS: usize = 16;
}

#[derive(Debug)]
enum State {
    Rotate(RotateOrder),
    Wipe(WipeOrder),
    FactoryReset(ResetOrder),
    Spent,
}

const ROTATE: u8 = 1;
const WIPE: u8 = 2;
const FACTORY_RESET: u8 = 3;

border! {
    /// `kf_order_accept` of the header.
    kf_order_accept(
        order: *mut Held<Ordered>,
        device: *mut Held<Device>,
        pin: *const [u8; 91],
        message: *const u8,
        length: usize,
        now: u64,
        act: *mut u8,
    ) takes {
        out = handle::place(order),
        device = handle::get(device),
        key = pointer::public_key(pin),
        message = pointer::octets(message, length),
        act = pointer::value_mut(act),
    } {
        let pin = Pin::load(&mut device.store, KeyRole::Order, key)?;
        let key = OrderKey { key: *pin.key(), factory: *pin.factory(), device: device.id };
        let (state, code) = match key.accept(message, UnixMillis(now), &mut device.store)? {
            Accepted::Rotate(order) => (State::Rotate(order), ROTATE),
            Accepted::Wipe(order) => (State::Wipe(order), WIPE),
            Accepted::FactoryReset(order) => (State::FactoryReset(order), FACTORY_RESET),
        };
        *act = code;
        out.put(Ordered(state))
    }
}

impl Ordered {
    /// Takes the order out, if it is of this act; another one stays.
    fn take<T>(&mut self, act: fn(State) -> Result<T, State>) -> Result<T, Status> {
        act(mem::replace(&mut self.0, State::Spent)).map_err(|other| {
            self.0 = other;
            Status::State
        })
    }
}

border! {
    /// `kf_order_report` of the header.
    kf_order_report(
        order: *mut Held<Ordered>,
        device: *mut Held<Device>,
        outcome: u8,
        now: u64,
        report: *mut [u8; MAX_MESSAGE_OCTETS],
        length: *mut usize,
    ) takes {
        order = handle::get(order),
        device = handle::get(device),
        place = pointer::value_mut(report),
        length = pointer::value_mut(length),
    } {
        let outcome = match outcome {
            1 => OrderOutcome::Done,
            2 => OrderOutcome::Failed,
            3 => OrderOutcome::Declined,
            _ => return Err(Status::Argument),
        };
        let identity = device.in_use()?;
        let rotate = order.take(|state| match state { State::Rotate(order) => Ok(order), other => Err(other) })?;
        give_message(&rotate.report(outcome, UnixMillis(now), identity.key())?, place, length)
    }
}

border! {
    /// `kf_order_wipe` of the header.
    kf_order_wipe(
        order: *mut Held<Ordered>,
        device: *mut Held<Device>,
        now: u64,
        report: *mut [u8; MAX_MESSAGE_OCTETS],
        length: *mut usize,
        erasure: *mut u8,
    ) takes {
        order = handle::get(order),
        device = handle::get(device),
        place = pointer::value_mut(report),
        length = pointer::value_mut(length),
        erasure = pointer::value_mut(erasure),
    } {
        let identity = device.in_use()?;
        let wipe = order.take(|state| match state { State::Wipe(order) => Ok(order), other => Err(other) })?;
        let (report, done) = wipe.carry_out(UnixMillis(now), identity.key(), &mut device.store)?;
        *erasure = erasure_code(done);
        give_message(&report, place, length)
    }
}

border! {
    /// `kf_order_factory_reset` of the header.
    kf_order_factory_reset(
        order: *mut Held<Ordered>,
        device: *mut Held<Device>,
        now: u64,
        report: *mut [u8; MAX_MESSAGE_OCTETS],
        length: *mut usize,
        erasure: *mut u8,
    ) takes {
        order = handle::get(order),
        device = handle::get(device),
        place = pointer::value_mut(report),
        length = pointer::value_mut(length),
        erasure = pointer::value_mut(erasure),
    } {
        let identity = device.in_use()?;
        let reset = order.take(|state| match state { State::FactoryReset(order) => Ok(order), other => Err(other) })?;
        let (report, done) = reset.carry_out(UnixMillis(now), identity.key(), &mut device.store)?;
        *erasure = erasure_code(done);
        give_message(&report, place, length)
    }
}

border! {
    /// `kf_reset_report` of the header.
    kf_reset_report(device: *mut Held<Device>, report: *mut [u8; MAX_MESSAGE_OCTETS], length: *mut usize)
    takes {
        device = handle::get(device),
        place = pointer::value_mut(report),
        length = pointer::value_mut(length),
    } {
        *length = reset_report(&mut device.store, place)?.ok_or(Status::Missing)?.len();
        Ok(())
    }
}

border! {
    /// `kf_reset_told` of the header.
    kf_reset_told(device: *mut Held<Device>) takes {
        device = handle::get(device),
    } {
        forget_reset_report(&mut device.store)?;
        Ok(())
    }
}

border! {
    /// `kf_wipe_report` of the header.
    kf_wipe_report(device: *mut Held<Device>, report: *mut [u8; MAX_MESSAGE_OCTETS], length: *mut usize)
    takes {
        device = handle::get(device),
        place = pointer::value_mut(report),
        length = pointer::value_mut(length),
    } {
        *length = wipe_report(&mut device.store, place)?.ok_or(Status::Missing)?.len();
        Ok(())
    }
}

/// `kf_order_end` of the header.
///
/// # Safety
/// `order` is NULL or a handle.
// SAFETY: no other symbol of this name exists: the prefix is ours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_order_end(order: *mut Held<Ordered>) {
    // SAFETY: by the caller's promise.
    unsafe { handle::wipe(order) }
}
