//! Fuses through Espressif's espefuse, on its virtual chips.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kf_flash::fuse::{BurnStep, ChipFamily, ChipState, DownloadMode, FlashEncryption, KeyPurpose};
use kf_key::{KeyAlgorithm, SecretArray};
use kf_station::fixture::{
    Board, BurnOrder, Espefuse, EspefuseCommand, Fixture, FixtureError, OrderedStep, Reading, Simulator, Supply,
    Verdict,
};
use kf_station::image::{Image, Segment};
use kf_station::journal::{Journal, JournalError, Noted};
use kf_station::line::{Counts, Entry};
use kf_station::recipe::{ChipState as Demanded, Recipe};
use kf_testkit::{Python, TempDir, scratch};

use crate::esp32::C3;
use crate::stage::{Disk, Stage};

/// A virtual chip: a file of fuses.
struct VirtualChip(TempDir);

impl VirtualChip {
    fn new() -> Self {
        Self(scratch())
    }

    fn fuses(&self) -> PathBuf {
        self.0.path().join("fuses.bin")
    }

    /// What espefuse was given to burn: of a hidden block the chip itself shows nothing.
    fn given(&self, block: u8) -> Option<SecretArray<32>> {
        let octets: [u8; 32] = fs::read(self.0.path().join(format!("BLOCK_KEY{block}"))).ok()?.try_into().unwrap();
        Some(SecretArray::fill(|out| *out = octets))
    }

    /// espefuse, and a copy of each key that it burnt. After each burn the chip as it is then is put aside, as `1`, `2` and so on.
    fn command(&self) -> EspefuseCommand {
        let python = Python::with_esptool_module("espefuse");
        let script = format!(
            "cd {}; \"$0\" \"$@\" || exit 1
             for word; do case $word in
                 BLOCK_KEY*) block=$word;;
                 /proc/*/fd/*) cat $word >$block;;
                 burn-*|write-protect-*) burns=1;;
             esac; done
             [ -n \"$burns\" ] || exit 0
             number=1; while [ -d $number ]; do number=$((number + 1)); done
             mkdir $number && cp fuses.bin $number && {{ cp BLOCK_KEY* $number || :; }}",
            self.0.path().display()
        );
        let words = ["-c", &script, python.tool().path().to_str().unwrap(), "-m", "espefuse", "--virt"];
        let mut arguments: Vec<OsString> = words.map(Into::into).into();
        arguments.extend(["--path-efuse-file".into(), self.fuses().into()]);
        EspefuseCommand { program: "/bin/sh".into(), arguments }
    }

    /// This chip as it was after so many burns.
    fn after(&self, burns: usize) -> Self {
        let chip = Self::new();
        if burns > 0 {
            copy_files(&self.0.path().join(burns.to_string()), chip.0.path());
        }
        chip
    }

    /// A fixture with this chip, whose flash and firmware are simulated.
    fn fixture(&self, stage: &Stage, supply: &Arc<Supply>) -> Box<dyn Fixture> {
        let flash = Simulator::new(Arc::clone(supply), Arc::clone(&stage.target));
        let keys = [(0, KeyPurpose::XtsAes128Key), (4, KeyPurpose::HmacUp)];
        let firmware = Firmware { flash, folder: self.0.path().to_owned(), keys };
        Box::new(Espefuse::new(Box::new(firmware), self.command(), &stage.recipe).unwrap())
    }

    fn state(&self) -> ChipState {
        let path = self.fuses();
        let options = ["-m", "espefuse", "--chip", "esp32c3", "--virt", "--path-efuse-file", path.to_str().unwrap()];
        let arguments = [&options[..], &["summary", "--format", "json"]].concat();
        let output = Python::with_esptool_module("espefuse").tool().run(&arguments).expect_success();
        ChipState::from_summary(ChipFamily::Esp32C3, &output.stdout_text()).unwrap()
    }

    fn burn(&self, fuses: &[&str]) {
        let path = self.fuses();
        let options = ["-m", "espefuse", "--chip", "esp32c3", "--virt", "--path-efuse-file", path.to_str().unwrap()];
        let arguments = [&options, &["--do-not-confirm", "burn-efuse"][..], fuses].concat();
        drop(Python::with_esptool_module("espefuse").tool().run(&arguments).expect_success());
    }
}

/// Makes one device on this chip.
fn make(chip: &VirtualChip, recipe: &str) -> (Counts, Board, bool) {
    let stage = Stage::new(recipe, 1);
    let supply = Supply::new([Board::new(1, Some("esp32-c3"))]);
    let (station, _) = stage.open(Disk::default()).unwrap();
    station.run(vec![chip.fixture(&stage, &supply)], &());
    let (board, passed) = supply.take_done().into_values().next().unwrap();
    (station.counts(), board, passed)
}

const JTAG_OFF: [&str; 4] = ["DIS_PAD_JTAG", "1", "DIS_USB_JTAG", "1"];

/// A simulated board whose firmware uses what is burnt in the virtual chip.
struct Firmware {
    flash: Simulator,
    folder: PathBuf,
    keys: [(u8, KeyPurpose); 2],
}

impl Fixture for Firmware {
    fn read(&mut self) -> Result<Option<Reading>, FixtureError> {
        self.flash.read()
    }

    fn make_key(&mut self, algorithm: KeyAlgorithm, slot: Option<u32>) -> Result<Vec<u8>, FixtureError> {
        self.flash.make_key(algorithm, slot)
    }

    fn write(&mut self, image: &Image) -> Result<(), FixtureError> {
        assert!(image.unlock.is_none(), "what a fuse holds is nobody else's");
        self.flash.write(image)
    }

    fn read_back(&mut self) -> Result<(Vec<Segment>, Demanded), FixtureError> {
        self.flash.read_back()
    }

    fn prove(&mut self, message: &[u8]) -> Result<Vec<u8>, FixtureError> {
        let mut steps = Vec::new();
        for (block, purpose) in self.keys {
            if let Ok(octets) = fs::read(self.folder.join(format!("BLOCK_KEY{block}"))) {
                let key = Some(SecretArray::fill(|out: &mut [u8; 32]| out.copy_from_slice(&octets)));
                steps.push(OrderedStep { step: BurnStep::Key { block, purpose }, key });
            }
        }
        self.flash.burn(&BurnOrder { steps, is_resumed: true })?;
        self.flash.prove(message)
    }

    fn show(&mut self, verdict: Verdict) {
        self.flash.show(verdict);
    }
}

#[test]
fn the_key_of_the_image_is_burnt_hidden_and_read_back_as_such_before_the_device_passes() {
    let chip = VirtualChip::new();
    chip.burn(&JTAG_OFF);
    let (counts, board, passed) = make(&chip, C3);
    assert!(passed && counts.good == 1, "{counts:?}");
    let given = chip.given(4).unwrap();
    assert!(given.expose() == board.unlock().unwrap().expose(), "the fuses hold another key than the image needs");
}

#[test]
fn a_chip_whose_jtag_was_left_open_does_not_pass_whatever_its_fixture_says() {
    let recipe = C3.replace("[lock]\njtag = true", "[chip_state]\njtag_disabled = true");
    let chip = VirtualChip::new();
    let (counts, _, passed) = make(&chip, &recipe);
    assert!(!passed && chip.given(4).is_some());
    assert_eq!((counts.good, counts.scrap), (0, 1), "{counts:?}");
}

#[test]
fn a_block_that_holds_a_key_already_is_not_burnt_again() {
    let chip = VirtualChip::new();
    chip.burn(&JTAG_OFF);
    chip.burn(&["KEY_PURPOSE_4", "8"]);
    let before = fs::read(chip.fuses()).unwrap();
    let (counts, ..) = make(&chip, C3);
    assert_eq!((counts.good, counts.scrap), (0, 1), "{counts:?}");
    assert!(fs::read(chip.fuses()).unwrap() == before, "something was burnt");
}

/// Everything that can be burnt.
fn everything() -> String {
    let digest = "0d".repeat(32);
    C3.replace(
        "[lock]\njtag = true",
        &format!(
            "[[fuse]]\nblock = 0\npurpose = \"xts-aes128-key\"\n\
             [[fuse]]\nblock = 2\npurpose = \"secure-boot-digest0\"\ndigest = \"{digest}\"\n\
             [lock]\nflash_encryption = true\nsecure_boot = true\njtag = true\ndownload_mode = \"secure\""
        ),
    )
}

/// The chip is as the recipe demands.
fn assert_locked(chip: &VirtualChip, what: &str) {
    let state = chip.state();
    assert_eq!(state.flash_encryption, FlashEncryption::Release, "{what}");
    assert_eq!(state.download_mode, DownloadMode::Secure, "{what}");
    assert!(state.has_secure_boot && state.is_jtag_off && !state.can_hide_keys, "{what}");
    assert_eq!(state.revoked_digests, [false, true, true], "{what}");
    assert_eq!(state.key_block(2).unwrap().digest, Some([0x0d; 32]), "{what}");
    assert!(!state.has_readable_key(), "{what}");
}

#[test]
fn flash_encryption_secure_boot_jtag_and_the_port_are_burnt_as_the_plan_says_and_the_port_last() {
    let (chip, recipe) = (VirtualChip::new(), everything());
    let (counts, board, passed) = make(&chip, &recipe);
    assert!(passed && counts.good == 1, "{counts:?}");
    assert_locked(&chip, "uncut");
    let flash_key = chip.given(0).unwrap();
    assert!(flash_key.expose() != chip.given(4).unwrap().expose(), "two purposes, one key");
    assert!(board.held().flash_key.as_ref().unwrap().expose() == flash_key.expose());
    let plan = Recipe::parse(&recipe).unwrap().plan();
    let burnt: Vec<&str> =
        plan.steps.iter().filter(|step| !step.is_reversible).map(|step| step.text.as_str()).collect();
    assert_eq!(burnt.len(), STEPS, "{burnt:?}");
    assert!(burnt[STEPS - 1].contains("ENABLE_SECURITY_DOWNLOAD"), "{burnt:?}");
    let other = recipe.replacen("0d", "0e", 1);
    assert_ne!(Recipe::parse(&other).unwrap().plan().hash, plan.hash, "another digest is another plan");
}

/// Two secret keys, flash encryption, a digest, two spare ones, secure boot, read protection, JTAG, port.
const STEPS: usize = 10;

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The journal up to the entry before which nothing was burnt, or before which only the port was open.
pub(crate) fn journal_until(durable: &[u8], is_last: fn(&Entry) -> bool) -> Disk {
    let mut noted: Vec<Noted> = Vec::new();
    let mut whole = Disk { durable: durable.to_vec(), ..Disk::default() };
    kf_station::journal::read(&mut whole, |one| -> Result<(), JournalError> {
        noted.push(one);
        Ok(())
    })
    .unwrap();
    let until = noted.iter().position(|one| is_last(&one.entry)).unwrap();
    let journal = Journal::open(Disk::default(), |_| Ok::<_, JournalError>(())).unwrap();
    for one in &noted[..=until] {
        let ticket = journal.append(&one.entry, &one.document).unwrap();
        journal.wait(ticket).unwrap();
    }
    journal.into_file()
}

/// One device that was made with nothing going wrong, and every state that it went through.
struct Uncut {
    stage: Stage,
    chip: VirtualChip,
    boards: TempDir,
    durable: Vec<u8>,
}

impl Uncut {
    fn make() -> Self {
        let (stage, chip, boards) = (Stage::new(&everything(), 2), VirtualChip::new(), scratch());
        let board = Board::in_directory(1, Some("esp32-c3"), boards.path()).unwrap();
        let supply = Supply::new([board]);
        let (station, _) = stage.open(Disk::default()).unwrap();
        station.run(vec![chip.fixture(&stage, &supply)], &());
        assert_eq!(station.counts().good, 1);
        let durable = station.into_file().durable;
        Self { stage, chip, boards, durable }
    }

    /// Power was cut after so many burns: the station starts again, and the board is put in again.
    fn cut_after(&self, burns: usize) {
        let what = format!("cut after {burns} burns");
        let (stage, chip, boards) = (&self.stage, self.chip.after(burns), scratch());
        let name = "board-000001/flash";
        copy_files(&self.boards.path().join(name), &boards.path().join(name));
        let board = Board::in_directory(1, Some("esp32-c3"), boards.path()).unwrap();
        let disk = if burns < STEPS {
            journal_until(&self.durable, |entry| matches!(entry, Entry::Burning { .. }))
        } else {
            journal_until(&self.durable, |entry| matches!(entry, Entry::Closing { .. }))
        };
        let (station, recovered) = stage.open(disk).unwrap();
        assert_eq!(recovered.to_read_back, 1, "{what}");
        station.run(vec![chip.fixture(stage, &Supply::new([board]))], &());
        station.close_shift(true).unwrap();
        let counts = station.counts();
        assert!(counts.balance() && counts.open == 0, "{what}: {counts:?}");
        // Keys that were in memory are lost: with both of them in the chip everything else goes on.
        if burns >= 2 {
            assert_eq!((counts.good, counts.scrap), (1, 0), "{what}: {counts:?}");
            assert_locked(&chip, &what);
        } else {
            assert_eq!((counts.good, counts.scrap), (0, 1), "{what}: {counts:?}");
        }
    }
}

#[test]
fn power_cut_after_any_burn_the_board_is_finished_or_scrap_and_nothing_else() {
    let uncut = Uncut::make();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::SeqCst) {
                        burns if burns <= STEPS => uncut.cut_after(burns),
                        _ => return,
                    }
                }
            });
        }
    });
}
