//! Records that the product keeps, under a storage key that the fleet has replaced now and then.

use kf_device::enrolment::Method;
use kf_device::identity::SoftwareIdentity;
use kf_device::protected::{MAX_OCTETS, Migrated, Step, StorageKeys, last_migration};
use kf_device::storage::{Erasure, RecordId};
use kf_exchange::MAX_MESSAGE_OCTETS;
use kf_exchange::storage::{KeyErasure, StorageReport};
use kf_key::{UnixMillis, wipe_stack};

use crate::device::{Device, write};
use crate::fields::Fields;
use crate::host::{Request, ask};
use crate::text::{OrText, Text};

const PATH: &str = "/v1/device/storage";
/// More steps than there are records.
const MAX_STEPS: u32 = 1_024;

/// Number, octets: keeps them.
pub(crate) fn put(
    device: &mut Device<'_>,
    _now: UnixMillis,
    fields: &mut Fields<'_>,
    _result: &mut [u8],
) -> Result<usize, Text> {
    let id = id_of(fields.octet()?);
    let keys = keys(device)?;
    keys.put(&mut device.store, id, fields.next()?, &mut device.source).or_text("record")?;
    Ok(0)
}

/// Number: gives the version of the storage key in use, 4 octets, and what is kept.
pub(crate) fn recall(
    device: &mut Device<'_>,
    _now: UnixMillis,
    fields: &mut Fields<'_>,
    result: &mut [u8],
) -> Result<usize, Text> {
    let id = id_of(fields.octet()?);
    let keys = keys(device)?;
    let mut octets = [0; MAX_OCTETS];
    let length = keys.read(&mut device.store, id, &mut octets).or_text("record")?;
    let length = length.ok_or(Text::of("there is no such record"))?;
    write(&[&keys.version().to_be_bytes(), octets.get(..length).unwrap_or_default()], result)
}

/// Puts everything under a new storage key, destroys the old one, and tells the server so. Goes on with what a power cut left, and
/// says again what the server has not heard.
pub(crate) fn migrate(device: &mut Device<'_>, now: UnixMillis, request: [u8; 16]) -> Result<(), Text> {
    move_all(device, request)?;
    wipe_stack::<{ crate::STACK_OCTETS / 2 }>();
    let migrated = last_migration(&mut device.store).or_text("migration")?.ok_or(Text::of("it is not over"))?;
    tell(device, now, &migrated)
}

#[inline(never)]
fn move_all(device: &mut Device<'_>, request: [u8; 16]) -> Result<(), Text> {
    let mut keys = keys(device)?;
    keys.begin(&mut device.store, &device.fuses.chip, request, &mut device.source).or_text("migration")?;
    for _ in 0..MAX_STEPS {
        match keys.step(&mut device.store, &mut device.source).or_text("migration")? {
            Step::Moved(_) => {}
            Step::Over(_) | Step::Idle => return Ok(()),
        }
    }
    Err(Text::of("the migration does not come to an end"))
}

fn keys(device: &mut Device<'_>) -> Result<StorageKeys, Text> {
    StorageKeys::open(&mut device.store, &device.fuses.chip, device.fuses.device, &mut device.source)
        .or_text("storage key")
}

fn tell(device: &mut Device<'_>, now: UnixMillis, migrated: &Migrated) -> Result<(), Text> {
    let identity = device.identity()?.ok_or(Text::of("there is no identity"))?;
    let Migrated { request, version, records, erasure } = *migrated;
    let erasure = match erasure {
        Erasure::Overwritten => KeyErasure::Overwritten,
        Erasure::Erased { read_back: false } => KeyErasure::Erased,
        Erasure::Erased { read_back: true } => KeyErasure::ReadBack,
        Erasure::CryptoErased => KeyErasure::CryptoErased,
    };
    let report = StorageReport { device: device.fuses.device, request, version, records, erasure, at: now };
    let message = report.sign(identity.key()).or_text("statement")?;
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
    let mut answer = [0; MAX_MESSAGE_OCTETS + 16];
    match ask(device.line, &request, None::<&SoftwareIdentity>, &mut answer)?.status {
        200..=299 => Ok(()),
        _ => Err(Text::of("the server did not take the statement")),
    }
}

fn id_of(number: u8) -> RecordId {
    RecordId(RecordId::FIRST_PROTECTED.0 + u16::from(number))
}
