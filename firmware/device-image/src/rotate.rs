//! Orders of the fleet.

use kf_device::certificate::MAX_CERTIFICATE_OCTETS;
use kf_device::enrolment::Method;
use kf_device::identity::SoftwareIdentity;
use kf_device::order::{Accepted, OrderKey, forget_reset_report, reset_report, wipe_report};
use kf_device::trust::Anchors;
use kf_exchange::MAX_MESSAGE_OCTETS;
use kf_exchange::order::OrderOutcome;
use kf_key::UnixMillis;

use crate::device::{Device, write};
use crate::fields::Fields;
use crate::host::{Request, ask, ask_for_news};
use crate::text::{OrText, Text};
use crate::{enrol, exchange, records, trust};

const ORDERS: &str = "/v1/device/orders";
/// What this program can be asked for without an order, and the act that not every program knows.
const KNOWS: &str = "keyfleet-storage:1\nkeyfleet-renewal:1\nkeyfleet-acts:factory-reset\n";
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

/// Asks the server for what waits. Takes up a root, puts records under a new storage key, renews, where that is asked; then
/// carries out the order that waits and sends the signed report, which it gives; nothing when none waits. A device that was wiped
/// has only its report left to send; one that was reset sends its own first.
pub(crate) fn fetch(
    device: &mut Device<'_>,
    now: UnixMillis,
    _fields: &mut Fields<'_>,
    result: &mut [u8],
) -> Result<usize, Text> {
    let (mut octets, mut reset) = ([0; MAX_MESSAGE_OCTETS], [0; MAX_MESSAGE_OCTETS]);
    let wiped = wipe_report(&mut device.store, &mut octets).or_text("report of a wipe")?;
    let reset = reset_report(&mut device.store, &mut reset).or_text("report of a factory reset")?;
    let length = match wiped.or(reset) {
        Some(report) => write(&[report], result)?,
        None => {
            // What TLS asks to be signed comes the same way.
            let mut answer = [0; 2 * MAX_MESSAGE_OCTETS];
            let (order, beside) = waiting(device, &mut answer)?;
            do_beside(device, now, beside, order.is_empty())?;
            if order.is_empty() {
                return Ok(0);
            }
            carry_out(device, now, order, result)?
        }
    };
    report(device, result.get(..length).unwrap_or_default())?;
    forget_reset_report(&mut device.store).or_text("report of a factory reset")?;
    // A reset took the roots along that had been taken up; the report still went to a server that was found by them.
    device.anchors = Anchors::load(&mut device.store, device.fuses.anchor).or_text("roots")?;
    Ok(length)
}

/// What is asked for without an order. Whatever the next poll proves is proved at once.
fn do_beside(device: &mut Device<'_>, now: UnixMillis, beside: Beside, may_renew: bool) -> Result<(), Text> {
    let mut proves = false;
    if let Some(announced) = beside.anchor {
        proves |= trust::take_up(device, now, announced)?;
    }
    if let Some(request) = beside.storage {
        records::migrate(device, now, request)?;
    }
    // An order to rotate does the same, and is answered.
    if beside.renewal && may_renew {
        enrol::keep_certificate(device, now, &[], true)?;
        exchange::fetch(device)?;
        proves = true;
    }
    if proves {
        waiting(device, &mut [0; 2 * MAX_MESSAGE_OCTETS])?;
    }
    Ok(())
}

fn carry_out(device: &mut Device<'_>, now: UnixMillis, order: &[u8], result: &mut [u8]) -> Result<usize, Text> {
    let key = device.fuses.orders.ok_or(Text::of("no order key is pinned"))?;
    let key = OrderKey { key, factory: key, device: device.fuses.device };
    let identity = device.identity()?.ok_or(Text::of("there is no identity"))?;
    let report = match key.accept(order, now, &mut device.store).or_text("order")? {
        Accepted::Wipe(order) => {
            device.forget();
            order.carry_out(now, identity.key(), &mut device.store).or_text("wipe")?.0
        }
        Accepted::FactoryReset(order) => {
            device.forget();
            order.carry_out(now, identity.key(), &mut device.store).or_text("factory reset")?.0
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

/// What is asked for beside an order, or without one.
#[derive(Clone, Copy, Default)]
struct Beside {
    /// SHA-256 of a root that is to be taken up.
    anchor: Option<[u8; 32]>,
    /// What a statement about a new storage key is to name.
    storage: Option<[u8; 16]>,
    /// A new identity key and certificate.
    renewal: bool,
}

impl Beside {
    fn read(headers: &str) -> Self {
        let mut beside = Self::default();
        for (name, value) in headers.lines().filter_map(|line| line.split_once(':')) {
            match name {
                "keyfleet-anchor" => beside.anchor = from_hex(value),
                "keyfleet-storage" => beside.storage = from_hex(value),
                "keyfleet-renewal" => beside.renewal = true,
                _ => {}
            }
        }
        beside
    }
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut octets = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (place, pair) in octets.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *place = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(octets)
}

/// The order that waits, empty when there is none, and what is asked for beside it.
fn waiting<'a>(device: &mut Device<'_>, answer: &'a mut [u8]) -> Result<(&'a [u8], Beside), Text> {
    let identity = device.identity()?.ok_or(Text::of("there is no identity"))?;
    let mut certificate = [0; MAX_CERTIFICATE_OCTETS];
    let certificate = identity.certificate(&mut device.store, &mut certificate).or_text("certificate")?;
    let request = Request {
        method: Method::Get,
        path: ORDERS,
        content_type: "",
        authorization: "",
        body: &[],
        certificate,
        headers: KNOWS,
        anchors: device.anchors,
    };
    let (answer, headers) = ask_for_news(device.line, &request, Some(identity.key()), answer)?;
    let beside = Beside::read(headers);
    match answer.status {
        200 => Ok((answer.body, beside)),
        204 => Ok((&[], beside)),
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
        headers: "",
        anchors: device.anchors,
    };
    let mut answer = [0; MAX_MESSAGE_OCTETS + 16];
    match ask(device.line, &request, None::<&SoftwareIdentity>, &mut answer)?.status {
        200..=299 => Ok(()),
        _ => Err(Text::of("the server did not take the report")),
    }
}
