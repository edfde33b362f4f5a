//! A device key over the authenticated exchange: the first one, a new epoch, another facility.

use kf_device::enrolment::Method;
use kf_device::exchange::{begin, keep};
use kf_device::identity::SoftwareIdentity;
use kf_device::pin::Pin;
use kf_exchange::{MAX_MESSAGE_OCTETS, Message, Purpose, Refused};
use kf_key::{KeyRole, UnixMillis};

use crate::device::{Device, octets_of, write};
use crate::fields::Fields;
use crate::host::{Request, ask};
use crate::text::{OrText, Text};

const PATH: &str = "/v1/device/exchange";

/// Gives the place of the device key that is now in use, 24 octets.
pub(crate) fn run(
    device: &mut Device<'_>,
    _now: UnixMillis,
    _fields: &mut Fields<'_>,
    result: &mut [u8],
) -> Result<usize, Text> {
    fetch(device)?;
    let held = device.held()?.ok_or(Text::of("there is no device key"))?;
    write(&[&octets_of(&held.place())], result)
}

/// Gets the newest device key and puts it into use.
pub(crate) fn fetch(device: &mut Device<'_>) -> Result<(), Text> {
    let pin = device.fuses.delivery.ok_or(Text::of("no delivery key is pinned"))?;
    let identity = device.identity()?.ok_or(Text::of("there is no identity"))?;
    let held = device.held()?.map(|held| held.place());
    let mut answer = [0; MAX_MESSAGE_OCTETS + 16];
    // What was taken up from the key in the fuses takes its place.
    let pin = *Pin::load(&mut device.store, KeyRole::Delivery, pin).or_text("pin")?.key();
    let (state, message) = begin(Purpose::Delivery, &pin, &mut device.source).or_text("begin")?;
    let challenge = send(device, &message, &mut answer)?;
    let (state, message) =
        state.prove(challenge, &[pin], device.fuses.device, identity.key()).map_err(|refused| told(&refused))?;
    let delivery = send(device, &message, &mut answer)?;
    let delivered = state.open(delivery, held.as_ref()).map_err(|refused| told(&refused))?;
    let nonce = device.source.nonce().or_text("nonce")?;
    let (kept, message) =
        keep(delivered, device.fuses.device, &mut device.store, &device.fuses.chip, nonce).or_text("keep")?;
    let done = send(device, &message, &mut answer)?;
    let (_held, _erasure_of_the_old_key) =
        kept.finish(done, &mut device.store, &device.fuses.chip).or_text("finish")?;
    Ok(())
}

fn told<S, H: core::fmt::Debug>(refused: &Refused<S, H>) -> Text {
    let mut text = Text::of("the exchange: ");
    let _cut = core::fmt::Write::write_fmt(&mut text, format_args!("{:?}", refused.error));
    text
}

fn send<'a>(device: &Device<'_>, message: &Message, answer: &'a mut [u8]) -> Result<&'a [u8], Text> {
    let request = Request {
        method: Method::Post,
        path: PATH,
        content_type: "application/cbor",
        authorization: "",
        body: message.as_bytes(),
        certificate: &[],
        headers: "",
        anchors: device.anchors,
    };
    let answer = ask(device.line, &request, None::<&SoftwareIdentity>, answer)?;
    if answer.status == 200 { Ok(answer.body) } else { Err(Text::of("the server refused the message")) }
}
