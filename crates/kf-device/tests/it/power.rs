//! The same life with the power cut at every word that is programmed and every sector that is erased.

use kf_device::storage::Medium;
use kf_exchange::order::OrderAct;

use crate::device::{Chip, Device, Step_, chip, format};
use crate::server::Server;

/// Goes on from whatever is in the memory, until the device has been wiped by order.
fn live(chip: &mut Chip, server: &mut Server, seed: u64) -> Step_<()> {
    let mut device = Device::start(chip, server, seed)?;
    if let Some(report) = device.wiped()? {
        if server.reports.iter().all(|report| report.act != OrderAct::Wipe) {
            server.report(&report);
        }
        return Ok(());
    }
    device.enrol(server, false)?;
    device.fetch_key(server)?;
    let payload = device.seal(b"before")?;
    assert_eq!(server.open(&payload), Ok(b"before".to_vec()), "what a device seals can be opened");
    if server.device_epoch == 1 {
        server.device_epoch = 2;
    }
    // A rotation that was cut short goes on with the next order.
    let counter = 1 + u64::try_from(server.boots.len()).unwrap();
    let rotate = server.order(OrderAct::Rotate, counter);
    device.obey(&rotate, server)?;
    let payload = device.seal(b"after")?;
    assert_eq!(server.open(&payload), Ok(b"after".to_vec()));
    let wipe = server.order(OrderAct::Wipe, counter + 1);
    device.obey(&wipe, server)
}

fn operations_of_a_life() -> u32 {
    let (mut server, mut chip) = (Server::new(), chip(32, Medium::Raw));
    format(&mut chip).unwrap();
    let before = chip.operations();
    live(&mut chip, &mut server, 1).unwrap();
    chip.operations() - before
}

#[test]
fn a_device_whose_power_is_cut_anywhere_in_its_life_goes_on_with_it() {
    let operations = operations_of_a_life();
    assert!(operations > 150, "{operations}");
    let mut cuts = 0;
    for at in 0..operations {
        let tear = [0, u32::MAX, at + 1][usize::try_from(at % 3).unwrap()];
        let (mut server, mut chip) = (Server::new(), chip(32, Medium::Raw));
        format(&mut chip).unwrap();
        chip.cut_after(at, tear);
        let cut = live(&mut chip, &mut server, 1);
        assert!(cut.is_err() && !chip.has_power(), "operation {at}: {cut:?}");
        cuts += 1;
        chip.power_on();
        // Noise is fresh after every power-on.
        live(&mut chip, &mut server, 2).unwrap_or_else(|stopped| panic!("operation {at}: {stopped:?}"));
        assert!(server.reports.iter().any(|report| report.act == OrderAct::Wipe), "operation {at}");
        let mut device = Device::start(&mut chip, &server, 3).unwrap();
        assert!(device.identity().unwrap().is_none() && device.held().unwrap().is_none(), "operation {at}");
    }
    assert_eq!(cuts, operations);
}
