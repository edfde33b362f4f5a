//! Roots that succeed one another: which are held, and which may go.

use kf_device::certificate::Anchor;
use kf_device::enrolment::{Answer, Authorities};
use kf_device::trust::{Anchors, MAX_ANCHORS};
use kf_key::UnixMillis;

use crate::device::Device;
use crate::handle::{self, Held};
use crate::pointer;
use crate::status::Status;

/// Fingerprints of all roots that can be held.
pub(crate) const ROOTS_OCTETS: usize = 32 * MAX_ANCHORS;

fn give_roots(anchors: &Anchors, place: &mut [u8; ROOTS_OCTETS], count: &mut u8) -> Result<(), Status> {
    place.fill(0);
    place.chunks_exact_mut(32).zip(anchors.iter()).for_each(|(place, anchor)| place.copy_from_slice(&anchor.0));
    *count = u8::try_from(anchors.iter().count()).map_err(|_more| Status::Bug)?;
    Ok(())
}

border! {
    /// `kf_roots` of the header.
    kf_roots(
        device: *mut Held<Device>,
        anchor: *const [u8; 32],
        roots: *mut [u8; ROOTS_OCTETS],
        count: *mut u8,
    ) takes {
        device = handle::get(device),
        anchor = pointer::value(anchor),
        roots = pointer::value_mut(roots),
        count = pointer::value_mut(count),
    } {
        give_roots(&Anchors::load(&mut device.store, Anchor(*anchor))?, roots, count)
    }
}

border! {
    /// `kf_roots_take_up` of the header.
    kf_roots_take_up(
        device: *mut Held<Device>,
        anchor: *const [u8; 32],
        now: u64,
        answer: *mut u8,
        length: usize,
        taken: *mut u8,
    ) takes {
        device = handle::get(device),
        anchor = pointer::value(anchor),
        answer = pointer::octets_mut(answer, length),
        taken = pointer::value_mut(taken),
    } {
        let answer = Answer { status: 200, retry_after_seconds: None, body: answer };
        let mut authorities = Authorities::read(answer, Anchors::load(&mut device.store, Anchor(*anchor))?)?;
        let clock = (now > 0).then_some(UnixMillis(now));
        *taken = u8::try_from(authorities.take_up(&mut device.store, clock)?).map_err(|_more| Status::Bug)?;
        Ok(())
    }
}

border! {
    /// `kf_roots_remaining` of the header.
    kf_roots_remaining(
        device: *mut Held<Device>,
        anchor: *const [u8; 32],
        answer: *mut u8,
        length: usize,
        forget: u8,
        roots: *mut [u8; ROOTS_OCTETS],
        count: *mut u8,
    ) takes {
        device = handle::get(device),
        anchor = pointer::value(anchor),
        answer = pointer::octets_mut(answer, length),
        roots = pointer::value_mut(roots),
        count = pointer::value_mut(count),
    } {
        let mut anchors = Anchors::load(&mut device.store, Anchor(*anchor))?;
        let answer = Answer { status: 200, retry_after_seconds: None, body: answer };
        let authorities = Authorities::read(answer, anchors)?;
        let remaining = anchors.without_retired(authorities.offered()).ok_or(Status::Missing)?;
        give_roots(remaining.anchors(), roots, count)?;
        if forget != 0 {
            remaining.adopt(&mut anchors, &mut device.store)?;
        }
        Ok(())
    }
}
