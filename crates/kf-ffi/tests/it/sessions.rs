//! Keys of sessions, called through the C functions: those of an exchange and those of the ratchet, as the server has them.
#![allow(unsafe_code, reason = "calls of the C interface; every pointer is of a value that outlives the call")]

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;

use kf_derive::{AeadAlgorithm, DeviceKey, SoftwareKey};
use kf_exchange::order::{Order, OrderAct};
use kf_exchange::{Acknowledgement, AwaitProof, Ephemeral, IdentityKey as _, KeyPlace, P256IdentityKey, PublicKey};
use kf_ffi::{BoardOfC, Device, Exchanging, Held, Hooks, KeyPlaceOfC, Ordered, Ratcheting};
use kf_key::{DeviceId, FacilityId, SecretArray, UnixMillis};

const DEVICE: [u8; 16] = [0xd1; 16];
const FACILITY: [u8; 16] = [0xfa; 16];
const SECTOR: usize = 1_024;
const AES_128_CCM: u8 = 4;
/// Statuses of the header.
const OTHER_KEY: i32 = -82;
const REFUSED: i32 = -97;
const EXPIRED: i32 = -99;
const OTHER_DEVICE: i32 = -100;
const OUT_OF_ORDER: i32 = -102;

struct Chip {
    flash: Vec<u8>,
    seed: u64,
}

/// # Safety
/// `context` is a `Chip` that nobody else uses.
unsafe fn chip<'a>(context: *mut c_void) -> &'a mut Chip {
    // SAFETY: by the caller's promise.
    unsafe { &mut *context.cast() }
}

unsafe extern "C" fn noise(context: *mut c_void, sample: *mut u8) -> i32 {
    // SAFETY: the library calls with the context of the table.
    let chip = unsafe { chip(context) };
    chip.seed = chip.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (chip.seed ^ (chip.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    // SAFETY: the library gives a place for one octet.
    unsafe { sample.write((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).to_be_bytes()[0]) };
    0
}

unsafe extern "C" fn read(context: *mut c_void, offset: u32, octets: *mut u8, length: usize) -> i32 {
    // SAFETY: the library calls with the context of the table.
    let flash = unsafe { &chip(context).flash };
    // SAFETY: the library gives a place for so many octets.
    unsafe { ptr::copy_nonoverlapping(flash[usize::try_from(offset).unwrap()..][..length].as_ptr(), octets, length) };
    0
}

unsafe extern "C" fn program(context: *mut c_void, offset: u32, octets: *const u8, length: usize) -> i32 {
    // SAFETY: the library calls with the context of the table, and gives so many octets.
    let (chip, octets) = unsafe { (chip(context), core::slice::from_raw_parts(octets, length)) };
    let cells = chip.flash[usize::try_from(offset).unwrap()..].iter_mut();
    cells.zip(octets).for_each(|(cell, octet)| *cell &= octet);
    0
}

unsafe extern "C" fn erase(context: *mut c_void, sector: u32) -> i32 {
    // SAFETY: the library calls with the context of the table.
    unsafe { chip(context) }.flash[usize::try_from(sector).unwrap() * SECTOR..][..SECTOR].fill(0xff);
    0
}

unsafe extern "C" fn chip_hmac(_context: *mut c_void, message: *const u8, length: usize, tag: *mut u8) -> i32 {
    // SAFETY: the library gives so many octets and a place for 32.
    unsafe { kf_ffi::kf_hmac_sha256(&[0xee; 32], message, length, tag.cast()) }
}

fn secret(octet: u8) -> SecretArray<32> {
    SecretArray::fill(|key| key.fill(octet))
}

fn device_key() -> DeviceKey {
    DeviceKey::from_keyed_hmac(SoftwareKey::new(secret(0x77)))
}

fn place() -> KeyPlace {
    KeyPlace { facility: FacilityId::from_bytes(FACILITY), facility_epoch: 1, device_epoch: 1 }
}

/// A started device with a device key and an identity in use.
fn device(chip: &mut Chip) -> (Box<MaybeUninit<Held<Device>>>, PublicKey) {
    let hooks = Hooks {
        context: ptr::from_mut(chip).cast(),
        noise: Some(noise),
        read: Some(read),
        program: Some(program),
        erase: Some(erase),
        chip_hmac: Some(chip_hmac),
        counter: None,
        revoke: None,
    };
    let board = BoardOfC {
        device: DEVICE,
        noise_source: *b"a test in Rust..",
        word: 8,
        sector: 1_024,
        sectors: 16,
        noise_millibits: 4_000,
        noise_alpha: 30,
        noise_alphabet: 2,
        noise_state: 1,
        medium: 1,
        tags: 2,
    };
    let mut device = Box::new(MaybeUninit::<Held<Device>>::uninit());
    let handle = device.as_mut_ptr();
    let at = KeyPlaceOfC { facility: FACILITY, facility_epoch: 1, device_epoch: 1 };
    let (mut spki, mut erasure) = ([0; 91], 0);
    // SAFETY: every pointer is of a value above, and the chip outlives the device.
    unsafe {
        assert_eq!(kf_ffi::kf_format(&raw const hooks, &raw const board), 0);
        assert_eq!(kf_ffi::kf_start(handle, &raw const hooks, &raw const board), 0);
        assert_eq!(kf_ffi::kf_device_key_inject(handle, &raw const at, secret(0x77).expose()), 0);
        assert_eq!(kf_ffi::kf_identity_make(handle, 1), 0);
        assert_eq!(kf_ffi::kf_identity_public_key(handle, 3, &raw mut spki), 0);
    }
    let key = PublicKey::from_spki(&spki).unwrap();
    let authority = kf_testkit::ForeignAuthority::new();
    let certificate = authority.certify_client("pump-7", &key.to_sec1(), (2026, 11, 1), (2027, 11, 1));
    let another = P256IdentityKey::from_secret(&secret(5)).unwrap().public_key().to_sec1();
    let another = authority.certify_client("pump-8", &another, (2026, 11, 1), (2027, 11, 1));
    // SAFETY: as above.
    unsafe {
        assert_eq!(kf_ffi::kf_identity_certify(handle, another.as_ptr(), another.len()), OTHER_KEY);
        assert_eq!(kf_ffi::kf_identity_certify(handle, certificate.as_ptr(), certificate.len()), 0);
        assert_eq!(kf_ffi::kf_identity_adopt(handle, &raw mut erasure), 0);
    }
    assert_eq!(erasure, 3);
    (device, key)
}

#[test]
fn a_session_of_an_exchange_has_the_key_that_the_server_has() {
    let mut chip = Chip { flash: vec![0xff; 16 * SECTOR], seed: 1 };
    let (mut device, identity) = device(&mut chip);
    let mut exchange = Box::new(MaybeUninit::<Held<Exchanging>>::uninit());
    let (handle, exchange) = (device.as_mut_ptr(), exchange.as_mut_ptr());
    let (mut message, mut length) = ([0; kf_exchange::MAX_MESSAGE_OCTETS], 0);
    let delivery_key = P256IdentityKey::from_secret(&secret(2)).unwrap();
    let pin = delivery_key.public_key().to_spki();
    let mut step = |answer: Option<&[u8]>| {
        let (out, octets) = (&raw mut message, &raw mut length);
        // SAFETY: every pointer is of a value above.
        let status = unsafe {
            match answer {
                None => kf_ffi::kf_exchange_begin(exchange, handle, 2, &raw const pin, out, octets),
                Some(answer) => kf_ffi::kf_exchange_step(exchange, handle, answer.as_ptr(), answer.len(), out, octets),
            }
        };
        assert_eq!(status, 0);
        message[..length].to_vec()
    };
    let hello = step(None);
    let ephemeral = Ephemeral::from_random(secret(9)).unwrap();
    let (state, challenge) = AwaitProof::challenge(&hello, &delivery_key, [7; 16], ephemeral).unwrap();
    let proof = step(Some(challenge.as_bytes()));
    let proved = state.verify(&proof, DeviceId::from_bytes(DEVICE), &identity).unwrap();
    let (session, delivery) = proved.open_session(place(), &device_key()).unwrap();
    let acknowledgement = step(Some(delivery.as_bytes()));
    let done = Acknowledgement::read(&acknowledgement).unwrap().verify_session(&session).unwrap();
    assert_eq!(step(Some(done.as_bytes())).len(), 0, "nothing more to send");

    let (mut key, mut octets) = ([0; 32], 0);
    // SAFETY: every pointer is of a value above.
    let status = unsafe {
        kf_ffi::kf_exchange_session_key(exchange, c"diagnosis".as_ptr(), AES_128_CCM, &raw mut key, &raw mut octets)
    };
    assert_eq!(status, 0);
    let of_server = session.encryption(b"diagnosis", AeadAlgorithm::Aes128Ccm, 0).unwrap();
    assert_eq!(&key[..octets], of_server.expose());
    // SAFETY: handles that were made.
    unsafe {
        kf_ffi::kf_exchange_end(exchange);
        kf_ffi::kf_stop(handle);
    }
}

#[test]
fn the_ratchet_gives_the_key_of_its_position_also_after_it_was_loaded_again() {
    let mut chip = Chip { flash: vec![0xff; 16 * SECTOR], seed: 2 };
    let (mut device, _identity) = device(&mut chip);
    let mut ratchet = Box::new(MaybeUninit::<Held<Ratcheting>>::uninit());
    let (handle, ratchet) = (device.as_mut_ptr(), ratchet.as_mut_ptr());
    let (mut key, mut octets, mut erasure) = ([0; 32], 0, 0);
    // SAFETY: every pointer is of a value above.
    unsafe {
        assert_eq!(kf_ffi::kf_ratchet_begin(ratchet, handle, &raw mut erasure), 0);
        assert_eq!(kf_ffi::kf_ratchet_advance(ratchet, handle, 2, &raw mut erasure), 0);
        kf_ffi::kf_ratchet_end(ratchet);
        assert_eq!(kf_ffi::kf_ratchet_load(ratchet, handle), 0);
        let (session, service) = (b"monday", c"diagnosis".as_ptr());
        let (place, length) = (&raw mut key, &raw mut octets);
        let status = kf_ffi::kf_ratchet_session_key(ratchet, session.as_ptr(), 6, service, AES_128_CCM, place, length);
        assert_eq!(status, 0);
        kf_ffi::kf_ratchet_end(ratchet);
        kf_ffi::kf_stop(handle);
    }
    let mut expected = device_key().into_ratchet().unwrap();
    expected.advance_to(2).unwrap();
    let expected = expected.session(b"monday").unwrap().encryption(b"diagnosis", AeadAlgorithm::Aes128Ccm, 0).unwrap();
    assert_eq!((&key[..octets], erasure), (expected.expose(), 3));
}

#[test]
fn orders_that_are_late_misdirected_or_changed_and_messages_out_of_order_are_told_apart() {
    let mut chip = Chip { flash: vec![0xff; 16 * SECTOR], seed: 3 };
    let (mut device, _identity) = device(&mut chip);
    let mut order = Box::new(MaybeUninit::<Held<Ordered>>::uninit());
    let mut exchange = Box::new(MaybeUninit::<Held<Exchanging>>::uninit());
    let (handle, order, exchange) = (device.as_mut_ptr(), order.as_mut_ptr(), exchange.as_mut_ptr());
    let order_key = P256IdentityKey::from_secret(&secret(3)).unwrap();
    let pin = order_key.public_key().to_spki();
    let signed = |device: [u8; 16]| {
        let (device, expires) = (DeviceId::from_bytes(device), UnixMillis(1_000));
        let order = Order { act: OrderAct::Rotate, device, counter: 1, expires };
        order.sign(&order_key).unwrap().as_bytes().to_vec()
    };
    let accept = |message: &[u8], now: u64| {
        let mut act = 0;
        let (octets, length) = (message.as_ptr(), message.len());
        // SAFETY: every pointer is of a value above.
        unsafe { kf_ffi::kf_order_accept(order, handle, &raw const pin, octets, length, now, &raw mut act) }
    };
    let mut changed = signed(DEVICE);
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(accept(&signed(DEVICE), 1_001), EXPIRED);
    assert_eq!(accept(&signed([0xd2; 16]), 0), OTHER_DEVICE);
    assert_eq!(accept(&changed, 0), REFUSED);
    assert_eq!(accept(&signed(DEVICE), 0), 0);

    let (mut message, mut length) = ([0; kf_exchange::MAX_MESSAGE_OCTETS], 0);
    let (out, octets) = (&raw mut message, &raw mut length);
    // SAFETY: every pointer is of a value above.
    let status = unsafe { kf_ffi::kf_exchange_begin(exchange, handle, 1, &raw const pin, out, octets) };
    assert_eq!(status, 0);
    let hello = message[..length].to_vec();
    // SAFETY: as above; the answer is a copy.
    let status = unsafe { kf_ffi::kf_exchange_step(exchange, handle, hello.as_ptr(), hello.len(), out, octets) };
    assert_eq!((status, length), (OUT_OF_ORDER, 0), "a hello is no challenge");
}
