//! Orders of the fleet.

use kf_device::order::{Accepted, OrderKey};
use kf_exchange::order::OrderOutcome;
use kf_key::UnixMillis;

use crate::device::{Device, write};
use crate::fields::Fields;
use crate::text::{OrText, Text};
use crate::{enrol, exchange};

/// Order: carries it out and gives the signed report.
pub(crate) fn obey(
    device: &mut Device<'_>,
    now: UnixMillis,
    fields: &mut Fields<'_>,
    result: &mut [u8],
) -> Result<usize, Text> {
    let key = device.fuses.orders.ok_or(Text::of("no order key is pinned"))?;
    let key = OrderKey { key, device: device.fuses.device };
    let identity = device.identity()?.ok_or(Text::of("there is no identity"))?;
    let report = match key.accept(fields.next()?, now, &mut device.store).or_text("order")? {
        Accepted::Wipe(order) => order.carry_out(now, identity.key(), &mut device.store).or_text("wipe")?.0,
        Accepted::Rotate(order) => {
            enrol::keep_certificate(device, now, &[], true)?;
            exchange::fetch(device)?;
            let identity = device.identity()?.ok_or(Text::of("there is no identity"))?;
            order.report(OrderOutcome::Done, now, identity.key()).or_text("report")?
        }
    };
    write(&[report.as_bytes()], result)
}
