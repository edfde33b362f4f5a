//! The life of a device from blank memory to destruction.

use kf_device::storage::Medium;
use kf_exchange::order::OrderAct;

use crate::device::{Device, chip, format};
use crate::server::{DEVICE, Server};

#[test]
fn a_device_lives_from_blank_memory_to_its_destruction() {
    for word in [4, 16] {
        let mut server = Server::new();
        let mut chip = chip(word, Medium::Raw);
        format(&mut chip).unwrap();

        // Boot, health, key, certificate by code, device key, a sealed payload.
        let mut device = Device::start(&mut chip, &server, 1).unwrap();
        assert!(device.identity().unwrap().is_none() && device.held().unwrap().is_none());
        device.enrol(&mut server, false).unwrap();
        let first = device.identity().unwrap().unwrap().public_key();
        assert_eq!(server.codes_used, [first]);
        let held = device.fetch_key(&mut server).unwrap();
        assert_eq!((held.device(), held.place()), (DEVICE, server.place()));
        assert_eq!(server.acknowledged_epoch, 1);
        let payload = device.seal(b"21.5 C").unwrap();
        assert_eq!(server.open(&payload).unwrap(), b"21.5 C");
        assert_eq!(server.open(&payload), Err("replay"));

        // Another power-on finds everything, and is another boot.
        let mut device = Device::start(&mut chip, &server, 2).unwrap();
        device.enrol(&mut server, false).unwrap();
        assert_eq!(device.identity().unwrap().unwrap().public_key(), first, "nothing is due");
        let payload = device.seal(b"21.6 C").unwrap();
        assert_eq!(server.open(&payload).unwrap(), b"21.6 C");
        assert_eq!(server.boots.len(), 2);

        // Rotation by order: a new identity key, by the certificate in use, and a new epoch of the device key.
        server.device_epoch = 2;
        let order = server.order(OrderAct::Rotate, 1);
        device.obey(&order, &mut server).unwrap();
        let second = device.identity().unwrap().unwrap().public_key();
        assert_ne!(first, second);
        assert_eq!(server.codes_used.len(), 1, "a renewal needs no code");
        assert_eq!((server.acknowledged_epoch, server.reports.len()), (2, 1));
        assert!(device.obey(&order, &mut server).is_err(), "an order is obeyed once");
        let payload = device.seal(b"21.7 C").unwrap();
        assert_eq!(server.open(&payload).unwrap(), b"21.7 C");

        // Destruction by order: nothing is left but the counter and the report.
        let mut device = Device::start(&mut chip, &server, 3).unwrap();
        let order = server.order(OrderAct::Wipe, 2);
        device.obey(&order, &mut server).unwrap();
        assert!(device.identity().unwrap().is_none() && device.held().unwrap().is_none());
        let mut device = Device::start(&mut chip, &server, 4).unwrap();
        let report = device.wiped().unwrap().unwrap();
        server.report(&report);
        assert_eq!(server.reports.len(), 3);
        assert!(device.obey(&order, &mut server).is_err());
        assert!(device.seal(b"no").is_err());
    }
}
