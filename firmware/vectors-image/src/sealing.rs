//! Sealed payloads.

use kf_derive::{ApplicationKey, DeviceKey, Sender, SoftwareKey};
use kf_key::DeviceId;
use kf_seal::{Boot, KeyId, MAX_PLAINTEXT_OCTETS, Opener, Replay, SESSION, SealAlgorithm, Sealed, Sealer, Service};

use crate::fields::{Fields, write};

/// The most messages that are sealed to reach the counter of a vector.
const MAX_COUNTER: u32 = 1_000;

/// device key 32, device 16, facility epoch, device epoch, sender, service.
fn place(fields: &mut Fields<'_>) -> Option<(ApplicationKey, KeyId)> {
    let key = DeviceKey::from_keyed_hmac(SoftwareKey::new(fields.key()?));
    let key_id = KeyId {
        device: DeviceId::from_bytes(fields.array()?),
        facility_epoch: fields.number()?,
        device_epoch: fields.number()?,
        session: None,
        sender: Sender::from_code(fields.octet()?)?,
        service: Service::new(fields.text()?).ok()?,
    };
    let application = key.session(SESSION, 0).ok()?.application(key_id.service.as_bytes(), 0).ok()?;
    Some((application, key_id))
}

/// The place, COSE algorithm, boot number, boot random 16, counter, additional data, plaintext: answers with the envelope.
pub(crate) fn seal(fields: &mut Fields<'_>, result: &mut [u8]) -> Option<usize> {
    let (application, key_id) = place(fields)?;
    let algorithm = SealAlgorithm::from_cose(fields.octet()?.into())?;
    let boot = Boot::new(fields.number()?, fields.array()?).ok()?;
    let counter = fields.number().filter(|counter| *counter <= MAX_COUNTER)?;
    let mut sealer = Sealer::new(&application, key_id, boot, algorithm).ok()?;
    for _ in 0..counter {
        sealer.seal(b"", b"", result).ok()?;
    }
    let (external_aad, plaintext) = (fields.next()?, fields.next()?);
    sealer.seal(plaintext, external_aad, result).ok().map(<[u8]>::len)
}

/// The place, additional data, envelope: answers with the plaintext.
pub(crate) fn open(fields: &mut Fields<'_>, result: &mut [u8]) -> Option<usize> {
    let (application, key_id) = place(fields)?;
    let external_aad = fields.next()?;
    let sealed = Sealed::parse(fields.next()?).ok()?;
    let mut opener = Opener::new(&application, &key_id, &sealed).ok()?;
    let mut plaintext = [0; MAX_PLAINTEXT_OCTETS];
    let authentic = opener.open(&sealed, external_aad, &mut plaintext).ok()?;
    let accepted = Replay::<2>::new().accept(authentic.mark()).ok()?;
    write(&[authentic.release(&accepted).ok()?], result)
}
