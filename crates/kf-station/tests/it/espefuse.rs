//! Fuses through Espressif's espefuse, on its virtual chips.

use std::ffi::OsString;
use std::fs;
use std::sync::Arc;

use kf_station::fixture::{Board, Espefuse, EspefuseCommand, Simulator, Supply};
use kf_station::line::Counts;
use kf_testkit::{Python, TempDir, scratch};

use crate::esp32::C3;
use crate::stage::{Disk, Stage};

/// A virtual chip: a file of fuses.
struct VirtualChip(TempDir);

impl VirtualChip {
    fn new() -> Self {
        Self(scratch())
    }

    fn fuses(&self) -> std::path::PathBuf {
        self.0.path().join("fuses.bin")
    }

    /// What espefuse was given to burn: of a hidden block the chip itself shows nothing.
    fn given(&self) -> Vec<u8> {
        fs::read(self.0.path().join("given.bin")).unwrap()
    }

    /// espefuse, and a copy of each key file that it is given.
    fn command(&self) -> EspefuseCommand {
        let python = Python::with_esptool_module("espefuse");
        let script = format!(
            "for word; do case $word in /proc/*/fd/*) cat $word >{}/given.bin;; esac; done; exec \"$0\" \"$@\"",
            self.0.path().display()
        );
        let words = ["-c", &script, python.tool().path().to_str().unwrap(), "-m", "espefuse", "--virt"];
        let mut arguments: Vec<OsString> = words.map(Into::into).into();
        arguments.extend(["--path-efuse-file".into(), self.fuses().into()]);
        EspefuseCommand { program: "/bin/sh".into(), arguments }
    }

    fn burn(&self, fuses: &[&str]) {
        let path = self.fuses();
        let options = ["-m", "espefuse", "--chip", "esp32c3", "--virt", "--path-efuse-file", path.to_str().unwrap()];
        let arguments = [&options, &["--do-not-confirm", "burn-efuse"][..], fuses].concat();
        drop(Python::with_esptool_module("espefuse").tool().run(&arguments).expect_success());
    }
}

/// Makes one device on this chip.
fn make(chip: &VirtualChip) -> (Counts, Board, bool) {
    let stage = Stage::new(C3, 1);
    let supply = Supply::new([Board::new(1, Some("esp32-c3"))]);
    let inner = Simulator::new(Arc::clone(&supply), Arc::clone(&stage.target));
    let fixture = Espefuse::new(Box::new(inner), chip.command(), &stage.recipe).unwrap();
    let (station, _) = stage.open(Disk::default()).unwrap();
    station.run(vec![Box::new(fixture)], &());
    let (board, passed) = supply.take_done().into_values().next().unwrap();
    (station.counts(), board, passed)
}

const JTAG_OFF: [&str; 4] = ["DIS_PAD_JTAG", "1", "DIS_USB_JTAG", "1"];

#[test]
fn the_key_of_the_image_is_burnt_hidden_and_read_back_as_such_before_the_device_passes() {
    let chip = VirtualChip::new();
    chip.burn(&JTAG_OFF);
    let (counts, board, passed) = make(&chip);
    assert!(passed && counts.good == 1, "{counts:?}");
    assert!(chip.given() == board.unlock().unwrap().expose(), "the fuses hold another key than the image needs");
}

#[test]
fn a_chip_whose_jtag_was_left_open_does_not_pass_whatever_its_fixture_says() {
    let (counts, board, passed) = make(&VirtualChip::new());
    assert!(!passed && board.unlock().is_some());
    assert_eq!((counts.good, counts.scrap), (0, 1), "{counts:?}");
}

#[test]
fn a_block_that_holds_a_key_already_is_not_burnt_again() {
    let chip = VirtualChip::new();
    chip.burn(&JTAG_OFF);
    chip.burn(&["KEY_PURPOSE_4", "8"]);
    let before = fs::read(chip.fuses()).unwrap();
    let (counts, ..) = make(&chip);
    assert_eq!((counts.good, counts.scrap), (0, 1), "{counts:?}");
    assert!(fs::read(chip.fuses()).unwrap() == before, "something was burnt");
}
