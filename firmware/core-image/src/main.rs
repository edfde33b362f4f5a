//! The smallest firmware that uses the core: from the device key to a sealed telemetry message, and from a sealed
//! command to its plaintext. Its flash is the core's budget; it writes the depth of its stack to the debug channel.
#![no_std]
#![no_main]

use core::hint::black_box;

use kf_derive::{ApplicationKey, DeviceKey, Sender, SoftwareKey};
use kf_key::{DeviceId, SecretArray};
use kf_seal::{Boot, KeyId, Opener, Replay, SESSION, SealAlgorithm, Sealed, Sealer, Service};

const ALGORITHM: SealAlgorithm = SealAlgorithm::Aes128Ccm;
/// Of the two buffers: a small message and its envelope.
const BUFFER_OCTETS: usize = 128;

#[board::entry]
fn main() -> ! {
    let mut holds = false;
    let stack_octets = board::stack::used_by(|| holds = seal_and_open().is_some());
    board::semihosting::write_number(stack_octets);
    board::semihosting::exit(u8::from(!holds))
}

/// Seals one message and opens it again, as the other side would.
fn seal_and_open() -> Option<()> {
    let application = application()?;
    let key_id = KeyId {
        device: DeviceId::from_bytes(black_box([1; 16])),
        facility_epoch: 1,
        device_epoch: 1,
        session: None,
        sender: Sender::Device,
        service: Service::new("telemetry").ok()?,
    };
    let mut envelope = [0; BUFFER_OCTETS];
    let envelope = seal(&application, key_id, &mut envelope)?;
    open(&application, &key_id, envelope)
}

// Frames of their own: what one step needs is gone when the next one begins.
#[inline(never)]
fn application() -> Option<ApplicationKey> {
    let key = DeviceKey::from_keyed_hmac(SoftwareKey::new(SecretArray::fill(|key| key.fill(black_box(7)))));
    key.session(SESSION, 0).ok()?.application(b"telemetry", 0).ok()
}

#[inline(never)]
fn seal<'a>(application: &ApplicationKey, key_id: KeyId, envelope: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut random = black_box([0x5a; 16]);
    random[0] = 1;
    let mut sealer = Sealer::new(application, key_id, Boot::new(1, random).ok()?, ALGORITHM).ok()?;
    sealer.seal(black_box(b"21.5 C"), b"", envelope).ok()
}

#[inline(never)]
fn open(application: &ApplicationKey, key_id: &KeyId, envelope: &[u8]) -> Option<()> {
    let sealed = Sealed::parse(black_box(envelope)).ok()?;
    let mut opener = Opener::new(application, key_id, &sealed).ok()?;
    let mut plaintext = [0; BUFFER_OCTETS];
    let authentic = opener.open(&sealed, b"", &mut plaintext).ok()?;
    let accepted = Replay::<2>::new().accept(authentic.mark()).ok()?;
    (authentic.release(&accepted).ok()? == b"21.5 C").then_some(())
}
