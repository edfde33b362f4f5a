//! A whole life of a device in C: certificate, device key, payloads both ways, rotation, wipe.

use kf_derive::{AeadAlgorithm, ApplicationKey, Sender};
use kf_exchange::order::{Order, OrderAct, OrderOutcome, OrderReport};
use kf_exchange::storage::{KeyErasure, StorageReport};
use kf_key::UnixMillis;
use kf_seal::{Boot, KEY_ID_MAX_OCTETS, KeyId, Opener, Replay, SESSION, SealAlgorithm, Sealed, Sealer, Service};
use kf_testkit::Python;
use serde_json::json;

use crate::est_server::{CODE, DEVICE, EstServer};
use crate::host::{Bench, POWER_CUT, SECTORS_OCTETS, Told};
use crate::root;

/// The device has no clock that it trusts: orders are judged by the latest time that it has seen proof of.
const NOW: u64 = 0;

fn bench(noise_state: u8) -> Bench {
    let server = EstServer::new();
    let [delivery, orders] = server.pins();
    let texts = [b"pump-7".to_vec(), b"pumps".to_vec()];
    let [name, label] = texts;
    let fuses = vec![
        DEVICE.as_bytes().to_vec(),
        name,
        label,
        vec![0xee; 32],
        server.anchor(),
        vec![noise_state],
        delivery,
        orders,
    ];
    Bench::new(fuses, server)
}

fn key_id(server: &EstServer, sender: Sender, service: &str) -> KeyId {
    let service = Service::new(service).unwrap();
    KeyId { device: DEVICE, facility_epoch: 1, device_epoch: server.device_epoch, session: None, sender, service }
}

/// Opens as the server does.
fn opened<'e>(server: &EstServer, envelope: &'e [u8]) -> (Vec<u8>, ApplicationKey, Sealed<'e>) {
    let key_id = key_id(server, Sender::Device, "telemetry");
    let key = server.device_key(server.device_epoch);
    let application = key.session(SESSION, 0).unwrap().application(b"telemetry", 0).unwrap();
    let sealed = Sealed::parse(envelope).unwrap();
    let mut opener = Opener::new(&application, &key_id, &sealed).unwrap();
    let mut plaintext = [0; 256];
    let authentic = opener.open(&sealed, b"", &mut plaintext).unwrap();
    let accepted = Replay::<1>::new().accept(authentic.mark()).unwrap();
    let plaintext = authentic.release(&accepted).unwrap().to_vec();
    (plaintext, application, sealed)
}

/// Opens as the server does, and lets pycose open it too.
fn open(server: &EstServer, envelope: &[u8]) -> Vec<u8> {
    let (plaintext, application, sealed) = opened(server, envelope);
    let key = server.device_key(server.device_epoch);
    let key_id = key_id(server, Sender::Device, "telemetry");
    let boot = sealed.boot();
    let sealing = application.boot(boot.random(), Sender::Device, AeadAlgorithm::Aes128Ccm).unwrap();
    let mut kid = [0; KEY_ID_MAX_OCTETS];
    let kid_octets = key_id.encode(&mut kid);
    let number = |number: u32| number.to_be_bytes();
    let vector = json!({
        "name": "by the C library", "device_key": hex::encode(key.into_secret().expose()), "device": hex::encode(DEVICE.as_bytes()),
        "facility_epoch": 1, "device_epoch": server.device_epoch, "sender": "device", "service": "telemetry",
        "alg": 30, "boot_number": boot.number(), "boot_random": hex::encode(boot.random()), "counter": sealed.counter(),
        "external_aad": "", "plaintext": hex::encode(&plaintext), "application_key": hex::encode(application.into_secret().expose()),
        "sealing_key": hex::encode(sealing.expose()), "kid": hex::encode(&kid[..kid_octets]),
        "kid_context": hex::encode([&number(boot.number())[..], boot.random()].concat()),
        "iv": hex::encode([&boot.random()[..9], &number(sealed.counter())[..]].concat()), "envelope": hex::encode(envelope),
    });
    let mut changed = envelope.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    let refused = json!({ "name": "changed", "external_aad": "", "envelope": hex::encode(&changed) });
    let scratch = kf_testkit::scratch();
    let file = scratch.path().join("sealed.json");
    std::fs::write(&file, json!({ "vectors": [vector], "refused": [refused] }).to_string()).unwrap();
    let script = root().join("vectors/seal.py");
    let opened = Python::with_module("pycose").tool().run(&[script.to_str().unwrap(), file.to_str().unwrap()]);
    assert!(opened.success(), "{}", opened.text());
    plaintext
}

/// A command of the server.
fn sealed_by_server(server: &EstServer, number: u32, plaintext: &[u8]) -> Vec<u8> {
    let key = server.device_key(server.device_epoch);
    let application = key.session(SESSION, 0).unwrap().application(b"command", 0).unwrap();
    let mut random = [0xb0; 16];
    random[..4].copy_from_slice(&number.to_be_bytes());
    let boot = Boot::new(number, random).unwrap();
    let key_id = key_id(server, Sender::Server, "command");
    let mut sealer = Sealer::new(&application, key_id, boot, SealAlgorithm::Aes128Ccm).unwrap();
    let mut out = [0; 512];
    sealer.seal(plaintext, b"", &mut out).unwrap().to_vec()
}

fn order(server: &EstServer, act: OrderAct, counter: u64) -> Vec<u8> {
    let order = Order { act, device: DEVICE, counter, expires: UnixMillis(UnixMillis::HOUR) };
    order.sign(&server.order_key).unwrap().as_bytes().to_vec()
}

#[test]
fn a_device_in_c_lives_from_blank_memory_to_its_wipe() {
    let mut bench = bench(1);
    let (mut device, evidence) = bench.power_on();
    let evidence = kf_entropy::Evidence::from_bytes(&evidence.unwrap()).unwrap();
    assert_eq!((evidence.state, evidence.counts.samples), (kf_entropy::NoiseState::PhysicalOn, 1_024));

    // A certificate for a key that the device has made; openssl has checked the request.
    let refused = device.tell(Told::Enrol, NOW, &[b"wrong", &[0]]).unwrap_err();
    assert!(refused.contains("there is no such key"), "{refused}");
    let certificate = device.tell(Told::Enrol, NOW, &[CODE, &[0]]).unwrap();
    assert_eq!(device.server().certified, std::slice::from_ref(&certificate));

    // The device key over the exchange, and payloads both ways.
    device.tell(Told::Exchange, NOW, &[]).unwrap();
    assert_eq!(device.server().acknowledged_epoch, 1);
    for text in [b"21.5 C", b"21.6 C"] {
        let envelope = device.tell(Told::Seal, NOW, &[b"telemetry", text]).unwrap();
        assert_eq!(open(device.server(), &envelope), text);
    }
    let command = sealed_by_server(device.server(), 1, b"valve open");
    assert_eq!(device.tell(Told::Open, NOW, &[b"command", &command]).unwrap(), b"valve open");
    drop(device);

    // After power loss everything is there, and the command is not obeyed again.
    let (mut device, started) = bench.power_on();
    started.unwrap();
    assert_eq!(device.tell(Told::Enrol, NOW, &[b"", &[0]]).unwrap(), certificate, "nothing is due");
    let again = device.tell(Told::Open, NOW, &[b"command", &command]).unwrap_err();
    assert!(again.contains("accepted before"), "{again}");
    let other = device.tell(Told::Open, NOW, &[b"telemetry", &command]).unwrap_err();
    assert!(other.contains("not authentic"), "{other}");

    // Rotation by order: another identity key by mutual TLS, and another epoch.
    device.server().device_epoch = 2;
    let rotate = order(device.server(), OrderAct::Rotate, 1);
    let report = device.tell(Told::Obey, NOW, &[&rotate]).unwrap();
    let report = OrderReport::verify(&report, &device.server().identity(0)).unwrap();
    assert_eq!((report.act, report.outcome), (OrderAct::Rotate, OrderOutcome::Done));
    assert_eq!((device.server().certified.len(), device.server().acknowledged_epoch), (2, 2));
    let again = device.tell(Told::Obey, NOW, &[&rotate]).unwrap_err();
    assert!(again.contains("accepted before"), "{again}");
    let envelope = device.tell(Told::Seal, NOW, &[b"telemetry", b"21.7 C"]).unwrap();
    assert_eq!(open(device.server(), &envelope), b"21.7 C");

    // A wipe, whose report the identity key signed before it went.
    let wipe = order(device.server(), OrderAct::Wipe, 2);
    let report = device.tell(Told::Obey, NOW, &[&wipe]).unwrap();
    assert!(OrderReport::verify(&report, &device.server().identity(0)).is_ok());
    assert!(device.tell(Told::Seal, NOW, &[b"telemetry", b"no"]).is_err());
    assert_eq!(device.tell(Told::Show, NOW, &[]).unwrap()[1..], [0; 24], "no device key, no certificate");
}

#[test]
fn a_device_in_c_that_is_reset_is_one_that_never_enrolled_and_obeys_no_order_twice() {
    let mut bench = bench(1);
    let (mut device, started) = bench.power_on();
    started.unwrap();
    let first = device.tell(Told::Enrol, NOW, &[CODE, &[0]]).unwrap();
    device.tell(Told::Exchange, NOW, &[]).unwrap();
    let reset = order(device.server(), OrderAct::FactoryReset, 5);
    let report = device.tell(Told::Obey, NOW, &[&reset]).unwrap();
    let report = OrderReport::verify(&report, &device.server().identity(0)).unwrap();
    assert_eq!((report.act, report.outcome), (OrderAct::FactoryReset, OrderOutcome::Done));
    assert!(device.tell(Told::Seal, NOW, &[b"telemetry", b"no"]).is_err());
    assert_eq!(device.tell(Told::Show, NOW, &[]).unwrap()[1..], [0; 24], "no device key, no certificate");
    drop(device);
    // After a loss of power it enrols as it did the first time, and seals under the next device key.
    let (mut device, started) = bench.power_on();
    started.unwrap();
    let second = device.tell(Told::Enrol, NOW, &[CODE, &[0]]).unwrap();
    assert_ne!(first, second);
    device.server().device_epoch = 2;
    device.tell(Told::Exchange, NOW, &[]).unwrap();
    let envelope = device.tell(Told::Seal, NOW, &[b"telemetry", b"21.8 C"]).unwrap();
    assert_eq!(open(device.server(), &envelope), b"21.8 C");
    let again = device.tell(Told::Obey, NOW, &[&reset]).unwrap_err();
    assert!(again.contains("accepted before"), "{again}");
}

#[test]
fn a_device_in_c_takes_up_a_root_that_the_held_one_vouches_for_and_none_that_is_only_offered() {
    for is_vouched in [true, false] {
        let mut bench = bench(1);
        let (mut device, started) = bench.power_on();
        started.unwrap();
        device.tell(Told::Enrol, NOW, &[CODE, &[0]]).unwrap();
        device.server().offer_successor(is_vouched);
        device.tell(Told::Enrol, NOW, &[b"", &[1]]).unwrap();
        drop(device);
        bench.server.retire_first();
        let (mut device, started) = bench.power_on();
        started.unwrap();
        let renewed = device.tell(Told::Enrol, NOW, &[b"", &[1]]);
        if is_vouched {
            assert_eq!(Some(&renewed.unwrap()), device.server().certified.last(), "below the second root");
        } else {
            let refused = renewed.unwrap_err();
            assert!(refused.contains("pinned root"), "{refused}");
        }
    }
}

#[test]
fn a_device_in_c_does_what_is_asked_beside_its_poll_and_says_what_it_knows() {
    let mut bench = bench(1);
    let (mut device, started) = bench.power_on();
    started.unwrap();
    device.tell(Told::Enrol, NOW, &[CODE, &[0]]).unwrap();
    device.tell(Told::Exchange, NOW, &[]).unwrap();
    let (first, kept) = (device.server().anchor(), b"offset 17".as_slice());
    device.tell(Told::Keep, NOW, &[&[3], kept]).unwrap();
    let recalled = |version: u32| [&version.to_be_bytes(), kept].concat();
    assert_eq!(device.tell(Told::Recall, NOW, &[&[3]]).unwrap(), recalled(1));

    // Nothing is asked; then a new storage key, twice by the same request, and another one.
    assert_eq!(device.tell(Told::Orders, NOW, &[]).unwrap(), b"");
    for (request, version) in [([0x51; 16], 2), ([0x51; 16], 2), ([0x52; 16], 3)] {
        device.server().asks = format!("keyfleet-storage:{}\n", hex::encode(request));
        assert_eq!(device.tell(Told::Orders, NOW, &[]).unwrap(), b"");
        let report = device.server().statements.pop().unwrap();
        let report = StorageReport::verify(&report, &device.server().identity(0)).unwrap();
        let expected = (DEVICE, request, version, 1, KeyErasure::ReadBack);
        assert_eq!((report.device, report.request, report.version, report.records, report.erasure), expected);
        assert_eq!(device.tell(Told::Recall, NOW, &[&[3]]).unwrap(), recalled(version));
    }

    // A new root: it polls once more, by both.
    device.server().offer_successor(true);
    let second = device.server().successor();
    device.server().asks = format!("keyfleet-anchor:{}\n", hex::encode(&second));
    let before = device.server().polls.len();
    device.tell(Told::Orders, NOW, &[]).unwrap();
    let by: Vec<Vec<u8>> = device.server().polls[before..].iter().map(|(_, believed)| believed.clone()).collect();
    assert_eq!(by, [first.clone(), [first, second].concat()]);
    assert_eq!(device.server().certified.len(), 1, "for that no certificate is renewed");

    // A renewal.
    device.server().asks = format!("keyfleet-renewal:{}\n", hex::encode([7; 16]));
    device.server().device_epoch = 2;
    device.tell(Told::Orders, NOW, &[]).unwrap();
    assert_eq!((device.server().certified.len(), device.server().acknowledged_epoch), (2, 2));
    let knows = "keyfleet-storage:1\nkeyfleet-renewal:1\nkeyfleet-acts:factory-reset\n";
    assert!(device.server().polls.iter().all(|(headers, _)| headers == knows), "{:?}", device.server().polls);
}

#[test]
fn noise_that_is_not_declared_physical_makes_no_identity_in_c() {
    let mut bench = bench(2);
    let (mut device, started) = bench.power_on();
    started.unwrap();
    let refused = device.tell(Told::Enrol, NOW, &[CODE, &[0]]).unwrap_err();
    assert!(refused.contains("not declared as physical"), "{refused}");
}

#[test]
fn what_is_destroyed_in_c_is_in_no_cell_any_more() {
    let mut bench = bench(1);
    let (mut device, started) = bench.power_on();
    started.unwrap();
    let place = [0xfa; 16];
    device.tell(Told::Inject, NOW, &[&place, &1_u32.to_be_bytes(), &1_u32.to_be_bytes(), &[0x77; 32]]).unwrap();
    drop(device);
    let before = bench.flash.clone();
    let (mut device, started) = bench.power_on();
    started.unwrap();
    assert_eq!(device.tell(Told::Destroy, NOW, &[]).unwrap(), [1]);
    drop(device);
    // The wrapped key is 60 octets behind the place in its record; no eight of them in a row are left.
    let record = before.windows(16).position(|window| window == place).unwrap();
    let wrapped = &before[record + 24..record + 24 + 60];
    for fragment in wrapped.windows(8) {
        assert!(before.windows(8).any(|window| window == fragment));
        assert!(!bench.flash.windows(8).any(|window| window == fragment));
    }
}

#[test]
fn a_device_in_c_goes_on_after_power_loss_anywhere_in_its_birth() {
    let mut bench = bench(1);
    let mut cuts = 0;
    for operations in (0..).step_by(17) {
        bench.flash = vec![0xff; SECTORS_OCTETS];
        bench.server.certified.clear();
        // Formatting is the factory's, which repeats it until it is done.
        bench.power_on().1.unwrap();
        bench.cut_after = Some(operations);
        let born = birth(&mut bench);
        let was_cut = born.as_ref().is_err_and(|why| why == POWER_CUT);
        bench.cut_after = None;
        let certificate = if was_cut { birth(&mut bench).unwrap() } else { born.unwrap() };
        // Whatever was lost on the way, the newest certificate is the one in use, and a message opens.
        assert_eq!(bench.server.certified.last(), Some(&certificate), "cut after {operations}");
        let (mut device, started) = bench.power_on();
        started.unwrap();
        let envelope = device.tell(Told::Seal, NOW, &[b"telemetry", b"21.5 C"]).unwrap();
        assert_eq!(opened(device.server(), &envelope).0, b"21.5 C");
        cuts += u32::from(was_cut);
        if !was_cut {
            break;
        }
    }
    assert!(cuts >= 10, "{cuts} cuts have not tried much");
}

/// Blank or half-written memory, until there is a certificate and a device key.
fn birth(bench: &mut Bench) -> Result<Vec<u8>, String> {
    let (mut device, started) = bench.power_on();
    started?;
    let certificate = device.tell(Told::Enrol, NOW, &[CODE, &[0]])?;
    device.tell(Told::Exchange, NOW, &[])?;
    Ok(certificate)
}

#[test]
fn a_root_or_a_server_that_is_not_the_pinned_one_gives_a_device_in_c_nothing() {
    let mut bench = bench(1);
    let (anchor, delivery) = (bench.fuses[4].clone(), bench.fuses[6].clone());
    bench.fuses[4] = vec![0; 32];
    let (mut device, started) = bench.power_on();
    started.unwrap();
    let refused = device.tell(Told::Enrol, NOW, &[CODE, &[0]]).unwrap_err();
    assert!(refused.contains("no chain of signatures"), "{refused}");
    assert_eq!(device.server().certified.len(), 0, "the code was not shown to such a server");
    drop(device);

    bench.fuses[4] = anchor;
    bench.fuses[6] = bench.fuses[7].clone();
    let (mut device, started) = bench.power_on();
    started.unwrap();
    device.tell(Told::Enrol, NOW, &[CODE, &[0]]).unwrap();
    let refused = device.tell(Told::Exchange, NOW, &[]).unwrap_err();
    assert!(refused.contains("not the pinned one"), "{refused}");
    assert_eq!(device.server().acknowledged_epoch, 0);
    drop(device);

    bench.fuses[6] = delivery;
    let (mut device, started) = bench.power_on();
    started.unwrap();
    device.tell(Told::Exchange, NOW, &[]).unwrap();
    assert_eq!(device.server().acknowledged_epoch, 1);
}
