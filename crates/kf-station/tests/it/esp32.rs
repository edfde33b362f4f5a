//! Images for the ESP32 family, through the whole line.

use std::sync::Arc;

use kf_flash::nvs::{Partition, Stored};
use kf_station::fixture::{Board, Fault, Simulator, Supply};
use kf_station::recipe::ChipState;
use kf_station::station::StationError;
use kf_station::target::Protected;

use crate::stage::{Disk, Stage};

pub(crate) const C3: &str = r#"
format = 1
sku = "pump-c3-r4"
product_line = "pump"
target = "esp32"
chip = "esp32-c3"
[identity]
algorithm = "p-256"
origin = "station"
protection = "nvs-hmac"
[device_key]
inject = true
[layout]
nvs = { offset = 0x9000, size = 0x6000 }
[[fuse]]
block = 4
purpose = "hmac-up"
[lock]
jtag = true
"#;

fn run(stage: &Stage, boards: impl IntoIterator<Item = Board>) -> (Arc<Supply>, kf_station::line::Counts) {
    let supply = Supply::new(boards);
    let (station, _) = stage.open(Disk::default()).unwrap();
    station.run(vec![Box::new(Simulator::new(Arc::clone(&supply), Arc::clone(&stage.target)))], &());
    (supply, station.counts())
}

#[test]
fn chips_pass_with_an_encrypted_partition_whose_keys_are_in_their_fuses_only() {
    let stage = Stage::new(C3, 3);
    let (supply, counts) = run(&stage, (0..3).map(|number| Board::new(number, Some("esp32-c3"))));
    assert_eq!(counts.good, 3, "{counts:?}");
    for (board, passed) in supply.take_done().values() {
        assert!(passed);
        let [nvs] = board.segments() else { panic!("one partition") };
        assert_eq!((nvs.name.as_str(), nvs.offset, nvs.octets.len()), ("nvs", 0x9000, 0x6000));
        let read = Partition::new(nvs.octets.expose()).unwrap();
        assert!(!matches!(read.namespace("keyfleet"), Ok(Some(_))), "nothing is readable without the fuse");
        assert!(stage.target.open(board.segments(), board.held()).is_some());
        assert!(stage.target.open(board.segments(), &Protected::default()).is_none());
    }
}

#[test]
fn what_the_chip_reads_with_its_fuse_is_what_the_quota_says() {
    let stage = Stage::new(C3, 1);
    let (supply, counts) = run(&stage, [Board::new(1, Some("esp32-c3"))]);
    assert_eq!(counts.good, 1);
    let done = supply.take_done();
    let (board, _) = done.values().next().unwrap();
    let mut octets = board.segments()[0].octets.expose().to_vec();
    let fuse = *board.unlock().unwrap().expose();
    let keys = kf_flash::nvs::NvsKeys::from_hmac(|message| -> Result<_, kf_flash::nvs::NvsError> {
        Ok(kf_key::SecretArray::fill(|out| *out = kf_crypto::hmac_sha256(&fuse, message)))
    })
    .unwrap();
    keys.cipher().decrypt(&mut octets).unwrap();
    let partition = Partition::new(&octets).unwrap();
    let namespace = partition.namespace("keyfleet").unwrap().unwrap();
    assert!(matches!(partition.value(namespace, "name").unwrap(), Some(Stored::Text("pump-000001"))));
    assert!(matches!(partition.value(namespace, "device_key").unwrap(), Some(Stored::Blob(blob)) if blob.len() == 32));
}

#[test]
fn another_chip_and_fuses_that_did_not_take_are_named_and_burnt_boards_are_scrap() {
    let stage = Stage::new(C3, 4);
    let boards = [
        Board::new(1, Some("esp32-s3")),
        Board::new(2, Some("esp32-c3")).with_fault(Fault::WeakFuses),
        Board::new(3, Some("esp32-c3")),
    ];
    let (_, counts) = run(&stage, boards);
    assert_eq!((counts.good, counts.scrap, counts.refused), (1, 1, 1), "{counts:?}");
    assert!(counts.balance());
}

#[test]
fn nothing_is_burnt_that_nobody_typed() {
    let stage = Stage::new(C3, 1);
    let phrase = stage.recipe.plan().burn_phrase();
    let refused = stage.open_confirmed("BURN 000000000000").err();
    assert!(matches!(refused, Some(StationError::NotConfirmed(expected)) if expected == phrase));
}

/// The same with its NVS keys in a partition that flash encryption protects.
pub(crate) fn scheme_a() -> String {
    C3.replace("nvs-hmac", "nvs-keys")
        .replace("[[fuse]]\nblock = 4\npurpose = \"hmac-up\"\n", "[[fuse]]\nblock = 0\npurpose = \"xts-aes128-key\"\n")
        .replace("jtag = true", "flash_encryption = true")
        .replace("[[fuse]]", "nvs_keys = { offset = 0xf000, size = 0x1000 }\n[[fuse]]")
}

#[test]
fn a_keys_partition_is_written_beside_the_one_that_it_opens() {
    let stage = Stage::new(&scheme_a(), 1);
    let (supply, counts) = run(&stage, [Board::new(1, Some("esp32-c3"))]);
    assert_eq!(counts.good, 1, "{counts:?}");
    let done = supply.take_done();
    let (board, _) = done.values().next().unwrap();
    assert_eq!(board.segments().len(), 2);
    assert!(stage.target.open(board.segments(), board.held()).is_some());
    assert!(stage.target.open(board.segments(), &Protected::default()).is_none(), "the keys lie in clear");
}

#[test]
fn a_keys_partition_that_the_firmware_will_encrypt_is_written_in_clear_and_the_chip_must_be_encrypting_by_then() {
    let recipe = scheme_a().replace("[lock]", "[chip_state]");
    let stage = Stage::new(&recipe, 2);
    let on = ChipState { flash_encryption: true, ..ChipState::default() };
    let boards = [Board::new(1, Some("esp32-c3")).with_chip_state(on), Board::new(2, Some("esp32-c3"))];
    let (supply, counts) = run(&stage, boards);
    assert_eq!((counts.good, counts.scrap), (1, 1), "{counts:?}");
    for (board, passed) in supply.take_done().values() {
        assert_eq!(*passed, board.mac() == Board::new(1, None).mac());
    }
}
