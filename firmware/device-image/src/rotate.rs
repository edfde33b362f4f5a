//! Orders of the fleet.

use kf_device::certificate::MAX_CERTIFICATE_OCTETS;
use kf_device::enrolment::Method;
use kf_device::identity::SoftwareIdentity;
use kf_device::order::{Accepted, OrderKey, wipe_report};
use kf_exchange::MAX_MESSAGE_OCTETS;
use kf_exchange::order::OrderOutcome;
use kf_key::UnixMillis;

use crate::device::{Device, write};
use crate::fields::Fields;
use crate::host::{Request, ask};
use crate::text::{OrText, Text};
use crate::{enrol, exchange};

const ORDERS: &str = "/v1/device/orders";
const OUTCOME: &str = "/v1/device/orders/outcome";

/// Order: carries it out and gives the signed report.
pub(crate) fn obey(
    device: &mut Device<'_>,
    now: UnixMillis,
    fields: &mut Fields<'_>,
    result: &mut [u8],
) -> Result<usize, Text> {
    carry_out(device, now, fields.next()?, result)
}

/// Asks the server for the order that waits, carries it out and sends the signed report, which it gives; nothing when none
/// waits. A device that was wiped has only its report left to send.
pub(crate) fn fetch(
    device: &mut Device<'_>,
    now: UnixMillis,
    _fields: &mut Fields<'_>,
    result: &mut [u8],
) -> Result<usize, Text> {
    let mut octets = [0; MAX_MESSAGE_OCTETS];
    let length = match wipe_report(&mut device.store, &mut octets).or_text("report of a wipe")? {
        Some(report) => write(&[report], result)?,
        None => {
            // What TLS asks to be signed comes the same way.
            let mut answer = [0; 2 * MAX_MESSAGE_OCTETS];
            let order = waiting(device, &mut answer)?;
            if order.is_empty() {
                return Ok(0);
            }
            carry_out(device, now, order, result)?
        }
    };
    report(device, result.get(..length).unwrap_or_default())?;
    Ok(length)
}

fn carry_out(device: &mut Device<'_>, now: UnixMillis, order: &[u8], result: &mut [u8]) -> Result<usize, Text> {
    let key = device.fuses.orders.ok_or(Text::of("no order key is pinned"))?;
    let key = OrderKey { key, device: device.fuses.device };
    let identity = device.identity()?.ok_or(Text::of("there is no identity"))?;
    let report = match key.accept(order, now, &mut device.store).or_text("order")? {
        Accepted::Wipe(order) => {
            device.forget();
            order.carry_out(now, identity.key(), &mut device.store).or_text("wipe")?.0
        }
        Accepted::Rotate(order) => {
            enrol::keep_certificate(device, now, &[], true)?;
            exchange::fetch(device)?;
            let identity = device.identity()?.ok_or(Text::of("there is no identity"))?;
            order.report(OrderOutcome::Done, now, identity.key()).or_text("report")?
        }
    };
    write(&[report.as_bytes()], result)
}

/// The order that waits; empty when there is none.
fn waiting<'a>(device: &mut Device<'_>, answer: &'a mut [u8]) -> Result<&'a [u8], Text> {
    let identity = device.identity()?.ok_or(Text::of("there is no identity"))?;
    let mut certificate = [0; MAX_CERTIFICATE_OCTETS];
    let certificate = identity.certificate(&mut device.store, &mut certificate).or_text("certificate")?;
    let request =
        Request { method: Method::Get, path: ORDERS, content_type: "", authorization: "", body: &[], certificate };
    let answer = ask(device.line, &request, Some(identity.key()), answer)?;
    match answer.status {
        200 => Ok(answer.body),
        204 => Ok(&[]),
        _ => Err(Text::of("the server gave no order")),
    }
}

fn report(device: &Device<'_>, report: &[u8]) -> Result<(), Text> {
    let request = Request {
        method: Method::Post,
        path: OUTCOME,
        content_type: "application/cbor",
        authorization: "",
        body: report,
        certificate: &[],
    };
    let mut answer = [0; MAX_MESSAGE_OCTETS + 16];
    match ask(device.line, &request, None::<&SoftwareIdentity>, &mut answer)?.status {
        200..=299 => Ok(()),
        _ => Err(Text::of("the server did not take the report")),
    }
}
