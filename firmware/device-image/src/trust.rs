//! Roots that take over from one another. A new one is believed because one that is held vouches for it.

use kf_device::enrolment::{Authorities, Operation, Service};
use kf_device::identity::SoftwareIdentity;
use kf_device::trust::Anchors;
use kf_key::UnixMillis;

use crate::device::Device;
use crate::enrol::{ANSWER_OCTETS, get};
use crate::host::ask;
use crate::text::{OrText, Text};

/// The CA certificates. What a root that is held vouches for is held from now on.
pub(crate) fn authorities<'a>(
    device: &mut Device<'_>,
    now: UnixMillis,
    answer: &'a mut [u8],
) -> Result<Authorities<'a>, Text> {
    let path = Service::new(Some(device.fuses.label())).or_text("label")?.path(Operation::CaCerts);
    let request = get(path.as_str(), &[], device.anchors);
    let answer = ask(device.line, &request, None::<&SoftwareIdentity>, answer)?;
    let mut found = Authorities::read(answer, device.anchors).or_text("cacerts")?;
    if found.take_up(&mut device.store, Some(now)).or_text("roots")? > 0 {
        device.anchors = Anchors::load(&mut device.store, device.fuses.anchor).or_text("roots")?;
    }
    Ok(found)
}

/// Takes up what the server announces; whether there is something new to prove.
pub(crate) fn take_up(device: &mut Device<'_>, now: UnixMillis, announced: [u8; 32]) -> Result<bool, Text> {
    if device.anchors.has(announced) {
        return Ok(false);
    }
    authorities(device, now, &mut [0; ANSWER_OCTETS])?;
    Ok(device.anchors.has(announced))
}
