//! Payloads of the server: what the device opens, once, and what it refuses with nothing given away.

use kf_device::PayloadError;
use kf_device::sealed::{Payload, open};
use kf_device::storage::{Medium, RecordId};
use kf_seal::{Mismatch, OpenError, ReplayError, Service};

use crate::device::{Chip, Device, chip, format};
use crate::server::Server;

type Refused = PayloadError<kf_device::storage::simulated::SimulatedError>;

/// A chip with a device key on it.
fn with_key(server: &mut Server) -> Chip {
    let mut chip = chip(8, Medium::Raw);
    format(&mut chip).unwrap();
    let mut device = Device::start(&mut chip, server, 1).unwrap();
    device.enrol(server, false).unwrap();
    device.fetch_key(server).unwrap();
    chip
}

/// Opens in a buffer that held something else, and sees to it that a refusal leaves nothing there.
fn obey(device: &mut Device<'_>, envelope: &[u8]) -> Result<Vec<u8>, Refused> {
    let held = device.held().unwrap().unwrap();
    let payload = Payload { envelope, external_aad: b"topic" };
    let mut out = [0; 256];
    let opened = open(&held, Service::new("command").unwrap(), payload, &mut device.store, &mut out);
    let opened = opened.map(<[u8]>::to_vec);
    assert!(opened.is_ok() || out == [0; 256], "a refusal gives nothing away");
    opened
}

#[test]
fn a_payload_is_obeyed_once_also_across_restarts_and_late_ones_while_they_are_remembered() {
    let mut server = Server::new();
    let mut chip = with_key(&mut server);
    let payloads: Vec<_> = (0..6_u8).map(|number| server.seal("command", &[number])).collect();
    let mut device = Device::start(&mut chip, &server, 2).unwrap();
    for order in [1, 0, 3] {
        assert_eq!(obey(&mut device, &payloads[order]), Ok(vec![u8::try_from(order).unwrap()]));
        assert_eq!(obey(&mut device, &payloads[order]), Err(PayloadError::Replay(ReplayError::Replayed)));
    }
    let mut device = Device::start(&mut chip, &server, 3).unwrap();
    for order in [0, 1, 3] {
        assert_eq!(obey(&mut device, &payloads[order]), Err(PayloadError::Replay(ReplayError::Replayed)));
    }
    for order in [4, 5] {
        assert!(obey(&mut device, &payloads[order]).is_ok());
    }
    let too_old = obey(&mut device, &payloads[0]);
    assert!(matches!(too_old, Err(PayloadError::Replay(ReplayError::BootTooOld { .. }))), "{too_old:?}");
    // Overtaken, and not known to be new any more.
    assert!(matches!(obey(&mut device, &payloads[2]), Ok(_) | Err(PayloadError::Replay(_))));
}

#[test]
fn what_is_cut_changed_too_long_or_for_another_key_is_refused_and_the_true_one_still_opens() {
    let mut server = Server::new();
    let mut chip = with_key(&mut server);
    let mut device = Device::start(&mut chip, &server, 2).unwrap();
    let whole = server.seal("command", b"open the valve");
    for length in 0..whole.len() {
        assert!(obey(&mut device, &whole[..length]).is_err(), "{length} octets");
    }
    for bit in 0..whole.len() * 8 {
        let mut changed = whole.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(obey(&mut device, &changed).is_err(), "bit {bit}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(matches!(obey(&mut device, &longer), Err(PayloadError::Malformed(_))));
    let oversized = vec![0xd0; kf_seal::MAX_ENVELOPE_OCTETS + 1];
    assert!(matches!(obey(&mut device, &oversized), Err(PayloadError::Malformed(_))));
    let too_long = server.seal("command", &[7; 300]);
    let refused = obey(&mut device, &too_long);
    assert_eq!(refused, Err(PayloadError::Open(OpenError::BufferTooSmall { needed: 300 })));

    let other_service = server.seal("telemetry", b"open the valve");
    assert_eq!(obey(&mut device, &other_service), Err(PayloadError::Open(OpenError::Mismatch(Mismatch::Service))));
    server.device_epoch += 1;
    let other_epoch = server.seal("command", b"open the valve");
    server.device_epoch -= 1;
    let refused = obey(&mut device, &other_epoch);
    assert!(matches!(refused, Err(PayloadError::Open(OpenError::Mismatch(_)))), "{refused:?}");
    let own = device.seal(b"21.5 C").unwrap();
    assert!(obey(&mut device, &own).is_err(), "what the device sealed itself");

    assert_eq!(obey(&mut device, &whole), Ok(b"open the valve".to_vec()));
}

#[test]
fn a_power_cut_anywhere_while_opening_loses_the_payload_or_leaves_it_and_never_gives_it_twice() {
    let mut server = Server::new();
    let chip = with_key(&mut server);
    let payload = server.seal("command", b"once");
    let (mut cut_at, mut lost, mut left) = (0, 0, 0);
    loop {
        let mut chip = chip.clone();
        let mut device = Device::start(&mut chip, &server, 2).unwrap();
        let held = device.held().unwrap().unwrap();
        drop(device);
        chip.cut_after(cut_at, [0, u32::MAX, cut_at][usize::try_from(cut_at % 3).unwrap()]);
        let mut out = [0; 64];
        let bound = Payload { envelope: &payload, external_aad: b"topic" };
        let opened = match kf_device::storage::Store::open(&mut chip, kf_device::storage::Checksum) {
            Ok(mut store) => {
                let service = Service::new("command").unwrap();
                open(&held, service, bound, &mut store, &mut out).is_ok()
            }
            Err(_) => false,
        };
        let had_power = chip.has_power();
        assert_eq!(opened, had_power, "operation {cut_at}");
        assert!(opened || out == [0; 64], "operation {cut_at}");
        chip.power_on();
        let mut device = Device::start(&mut chip, &server, 3).unwrap();
        let again = obey(&mut device, &payload);
        match again {
            Ok(_) => left += 1,
            Err(PayloadError::Replay(ReplayError::Replayed)) => lost += 1,
            Err(other) => panic!("operation {cut_at}: {other:?}"),
        }
        if had_power {
            assert!(again.is_err());
            break;
        }
        cut_at += 1;
    }
    assert!(left > 0 && lost > 0, "{left} {lost}");
}

#[test]
fn a_damaged_record_of_what_was_opened_opens_nothing() {
    let mut server = Server::new();
    let mut chip = with_key(&mut server);
    let mut device = Device::start(&mut chip, &server, 2).unwrap();
    assert!(obey(&mut device, &server.seal("command", b"first")).is_ok());
    for damaged in [&b""[..], &[1, 0, 0, 0, 0, 9], &[0; 400]] {
        device.store.put(RecordId(0x0005), damaged).unwrap();
        let refused = obey(&mut device, &server.seal("command", b"next"));
        assert_eq!(refused, Err(PayloadError::DamagedRecord));
    }
}
