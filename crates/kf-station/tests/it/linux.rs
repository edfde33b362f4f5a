//! Images for Linux devices, as their agent and their vendor's programs find them.

use std::sync::Arc;

use kf_station::fixture::{Board, Simulator, Supply};

use crate::stage::{Disk, LINUX, Stage};

#[test]
fn the_device_key_of_the_record_lies_in_the_image_sealed_under_what_the_device_is_given_at_its_start() {
    let firmware = "5a".repeat(32);
    let recipe = LINUX.replace("target = ", &format!("firmware_sha256 = \"{firmware}\"\ntarget = "));
    let stage = Stage::new(&recipe, 1);
    let supply = Supply::new([Board::new(1, None)]);
    let (station, _) = stage.open(Disk::default()).unwrap();
    station.run(vec![Box::new(Simulator::new(Arc::clone(&supply), Arc::clone(&stage.target)))], &());
    let records = stage.records(&mut station.into_file());
    let (board, passed) = supply.take_done().into_values().next().unwrap();
    assert!(passed);
    assert_eq!(records[0].firmware, Some([0x5a; 32]), "what the recipe names is what the record says");
    let sealed = board.segments().iter().find(|segment| segment.name == "device.key").unwrap();
    let open = |context: &[u8]| kf_crypto::open(board.unlock().unwrap(), context, sealed.octets.expose());
    let key = open(b"keyfleet station device key v1").unwrap();
    let print = kf_crypto::hmac_sha256(key.expose(), b"keyfleet station device key fingerprint v1");
    let recorded = records[0].fingerprints.iter().find(|one| one.slot == "device-key").unwrap();
    assert_eq!(print, recorded.value);
    assert!(open(b"keyfleet-agent private key v1").is_err(), "one key never stands for another");
}
