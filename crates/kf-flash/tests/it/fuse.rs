//! Plans and read-back against espefuse and its virtual chips.

use std::fs;

use kf_flash::fuse::{
    BurnPlan, BurnStep, ChipFamily, ChipState, DownloadMode, FlashEncryption, FuseError, KeyPurpose, Lock, SummaryError,
};
use kf_testkit::{Output, Python, TempDir};

/// A virtual chip: a file of fuses.
struct VirtualChip {
    chip: ChipFamily,
    folder: TempDir,
}

impl VirtualChip {
    fn new(chip: ChipFamily) -> Self {
        Self { chip, folder: kf_testkit::scratch() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn espefuse(&self, arguments: &[String]) -> Output {
        let fuses = self.path("fuses.bin");
        let options =
            ["-m", "espefuse", "--chip", self.chip.name(), "--virt", "--path-efuse-file", &fuses, "--do-not-confirm"];
        let all: Vec<&str> = options.into_iter().chain(arguments.iter().map(String::as_str)).collect();
        Python::with_esptool_module("espefuse").tool().run(&all)
    }

    fn state(&self) -> ChipState {
        let arguments = ["summary", "--format", "json"].map(str::to_owned);
        let output = self.espefuse(&arguments).expect_success();
        ChipState::from_summary(self.chip, &output.stdout_text())
            .unwrap_or_else(|error| panic!("{}: {error}", self.chip))
    }

    /// Burns one step, with a key of its own number.
    fn burn(&self, step: &BurnStep) -> Output {
        let key = self.path("key.bin");
        let number = if let BurnStep::Key { block, .. } = step { block + 1 } else { 0 };
        fs::write(&key, [number; 32]).unwrap();
        self.espefuse(&step.espefuse(self.chip, &key))
    }
}

const fn key(block: u8, purpose: KeyPurpose) -> BurnStep {
    BurnStep::Key { block, purpose }
}

fn fresh(chip: ChipFamily) -> ChipState {
    ChipState::fresh(chip)
}

#[test]
fn every_fresh_chip_is_read_as_unprotected() {
    for chip in ChipFamily::ALL {
        assert_eq!(VirtualChip::new(chip).state(), fresh(chip));
    }
}

#[test]
fn a_whole_plan_is_burnt_step_by_step_and_read_back() {
    let chip = VirtualChip::new(ChipFamily::Esp32S3);
    let steps = [
        key(0, KeyPurpose::XtsAes256Key1),
        key(1, KeyPurpose::XtsAes256Key2),
        key(2, KeyPurpose::HmacUp),
        BurnStep::Lock(Lock::FlashEncryptionRelease),
        key(3, KeyPurpose::SecureBootDigest0),
        BurnStep::Lock(Lock::SpareDigest(1)),
        BurnStep::Lock(Lock::SpareDigest(2)),
        BurnStep::Lock(Lock::SecureBoot),
        BurnStep::Lock(Lock::ReadProtection),
        BurnStep::Lock(Lock::Jtag),
        BurnStep::Lock(Lock::Download),
    ];
    let plan = BurnPlan::check(chip.chip, &chip.state(), &steps).unwrap();
    for (number, step) in plan.steps().iter().enumerate() {
        let left = BurnPlan::resume(chip.chip, &chip.state(), &steps).unwrap();
        assert_eq!(left.steps(), &steps[number..], "what was burnt is known, and what is left goes on");
        drop(chip.burn(step).expect_success());
    }
    let state = chip.state();
    assert!(BurnPlan::resume(chip.chip, &state, &steps).unwrap().steps().is_empty());
    assert_eq!(state.revoked_digests, [false, true, true]);
    assert_eq!(state.key_block(3).unwrap().digest, Some([4; 32]));
    assert_eq!(state.flash_encryption, FlashEncryption::Release);
    assert!(state.has_secure_boot && state.is_jtag_off && !state.can_hide_keys && !state.has_readable_key());
    assert_eq!(state.download_mode, DownloadMode::Off);
    for step in &steps {
        if let BurnStep::Key { block, purpose } = step {
            let found = state.key_block(*block).unwrap();
            assert_eq!((found.purpose, found.is_readable), (Some(*purpose), !purpose.is_secret()));
            assert!(!found.is_writable && !found.is_unused());
        }
    }
    assert!(state.key_block(4).unwrap().is_unused());
}

#[test]
fn chips_of_every_kind_take_the_plan_that_suits_them() {
    for chip in [ChipFamily::Esp32C3, ChipFamily::Esp32S2, ChipFamily::Esp32H2] {
        let chip = VirtualChip::new(chip);
        let own = if chip.chip.has_ecdsa() { KeyPurpose::User } else { KeyPurpose::HmacDownDigitalSignature };
        let steps = [key(4, KeyPurpose::XtsAes128Key), key(5, own), BurnStep::Lock(Lock::Jtag)];
        for step in BurnPlan::check(chip.chip, &chip.state(), &steps).unwrap().steps() {
            drop(chip.burn(step).expect_success());
        }
        let state = chip.state();
        assert!(state.is_jtag_off);
        assert_eq!(state.blocks_for(KeyPurpose::XtsAes128Key).map(|block| block.number).collect::<Vec<_>>(), [4]);
    }
}

#[test]
fn a_block_in_use_is_refused_by_ours_and_by_espefuse() {
    let chip = VirtualChip::new(ChipFamily::Esp32C3);
    let step = key(0, KeyPurpose::HmacUp);
    drop(chip.burn(&step).expect_success());
    let refused = BurnPlan::check(chip.chip, &chip.state(), &[step]);
    assert_eq!(refused, Err(FuseError::BlockInUse { block: 0 }));
    drop(chip.burn(&step).expect_failure());
    // What an earlier run burnt counts, too.
    let later = [key(1, KeyPurpose::HmacUp)];
    assert!(BurnPlan::check(chip.chip, &chip.state(), &later).is_ok());
}

#[test]
fn encryption_that_can_still_be_undone_is_development() {
    let chip = VirtualChip::new(ChipFamily::Esp32C6);
    let burn = |fuses: &[&str]| {
        let arguments: Vec<String> = ["burn-efuse"].iter().chain(fuses).map(|word| (*word).to_owned()).collect();
        drop(chip.espefuse(&arguments).expect_success());
        chip.state()
    };
    assert_eq!(burn(&["SPI_BOOT_CRYPT_CNT", "1"]).flash_encryption, FlashEncryption::Development);
    assert_eq!(burn(&["SPI_BOOT_CRYPT_CNT", "3"]).flash_encryption, FlashEncryption::Off);
    assert_eq!(burn(&["SPI_BOOT_CRYPT_CNT", "7"]).flash_encryption, FlashEncryption::Development);
    assert_eq!(burn(&["DIS_DOWNLOAD_MANUAL_ENCRYPT", "1"]).flash_encryption, FlashEncryption::Release);
    assert!(!burn(&["DIS_PAD_JTAG", "1"]).is_jtag_off, "JTAG over USB is still open");
    assert_eq!(burn(&["ENABLE_SECURITY_DOWNLOAD", "1"]).download_mode, DownloadMode::Secure);
}

fn refusal(chip: ChipFamily, steps: &[BurnStep]) -> FuseError {
    BurnPlan::check(chip, &fresh(chip), steps).expect_err("a refusal")
}

#[test]
fn flash_encryption_comes_before_secure_boot() {
    let digest = key(3, KeyPurpose::SecureBootDigest0);
    let secure_boot = BurnStep::Lock(Lock::SecureBoot);
    let encryption_key = key(0, KeyPurpose::XtsAes128Key);
    let encryption = BurnStep::Lock(Lock::FlashEncryptionRelease);
    let chip = ChipFamily::Esp32C3;
    assert_eq!(
        refusal(chip, &[digest, secure_boot, encryption_key, encryption]),
        FuseError::AfterSecureBoot { step: 2 }
    );
    assert_eq!(
        refusal(chip, &[encryption_key, digest, secure_boot, encryption]),
        FuseError::AfterSecureBoot { step: 3 }
    );
    assert_eq!(
        refusal(chip, &[digest, secure_boot, key(1, KeyPurpose::HmacUp)]),
        FuseError::AfterSecureBoot { step: 2 }
    );
    assert!(BurnPlan::check(chip, &fresh(chip), &[encryption_key, encryption, digest, secure_boot]).is_ok());
    let locked = ChipState { has_secure_boot: true, ..fresh(chip) };
    let too_late = BurnPlan::check(chip, &locked, &[encryption_key, encryption]);
    assert_eq!(too_late, Err(FuseError::AfterSecureBoot { step: 0 }));
    let hidden_no_more = ChipState { can_hide_keys: false, ..fresh(chip) };
    assert_eq!(BurnPlan::check(chip, &hidden_no_more, &[encryption_key]), Err(FuseError::KeysCannotBeHidden));
}

#[test]
fn a_plan_that_the_hardware_cannot_do_is_refused_before_anything_is_burnt() {
    let unsupported = |chip, block, purpose| {
        assert_eq!(refusal(chip, &[key(block, purpose)]), FuseError::Unsupported { block, purpose });
    };
    unsupported(ChipFamily::Esp32C61, 0, KeyPurpose::HmacUp);
    unsupported(ChipFamily::Esp32C2, 1, KeyPurpose::XtsAes128Key);
    unsupported(ChipFamily::Esp32C3, 0, KeyPurpose::XtsAes256Key1);
    unsupported(ChipFamily::Esp32S3, 0, KeyPurpose::EcdsaKey);
    unsupported(ChipFamily::Esp32C3, 5, KeyPurpose::XtsAes128Key);
    unsupported(ChipFamily::Esp32C3, 6, KeyPurpose::HmacUp);
    unsupported(ChipFamily::Esp32, 0, KeyPurpose::User);
    let chip = ChipFamily::Esp32S3;
    let lock = BurnStep::Lock;
    assert_eq!(
        refusal(chip, &[key(0, KeyPurpose::User), key(0, KeyPurpose::HmacUp)]),
        FuseError::BlockInUse { block: 0 }
    );
    let twice = [key(0, KeyPurpose::XtsAes128Key), key(1, KeyPurpose::XtsAes128Key)];
    assert_eq!(refusal(chip, &twice), FuseError::PurposeTwice { purpose: KeyPurpose::XtsAes128Key });
    assert_eq!(refusal(chip, &[key(0, KeyPurpose::XtsAes256Key1)]), FuseError::HalfAKey);
    assert_eq!(refusal(chip, &[lock(Lock::FlashEncryptionRelease)]), FuseError::NoFlashEncryptionKey);
    assert_eq!(refusal(chip, &[lock(Lock::SecureBoot)]), FuseError::NoSecureBootDigest);
    let in_use = [key(0, KeyPurpose::SecureBootDigest1), lock(Lock::SpareDigest(1))];
    assert_eq!(refusal(chip, &in_use), FuseError::UnsupportedLock(Lock::SpareDigest(1)));
    assert_eq!(refusal(chip, &[lock(Lock::SpareDigest(3))]), FuseError::UnsupportedLock(Lock::SpareDigest(3)));
    assert_eq!(refusal(chip, &[lock(Lock::Jtag), lock(Lock::Jtag)]), FuseError::Done(Lock::Jtag));
    assert_eq!(refusal(chip, &[lock(Lock::Download), lock(Lock::Jtag)]), FuseError::AfterDownloadOff { step: 1 });
    assert_eq!(refusal(chip, &[lock(Lock::SecureDownload), lock(Lock::Jtag)]), FuseError::AfterDownloadOff { step: 1 });
    assert_eq!(refusal(ChipFamily::Esp32, &[lock(Lock::Jtag)]), FuseError::UnsupportedLock(Lock::Jtag));
    assert_eq!(refusal(chip, &[lock(Lock::Jtag); 33]), FuseError::TooManySteps);
    let other = BurnPlan::check(chip, &fresh(ChipFamily::Esp32C3), &[]);
    assert_eq!(other, Err(FuseError::OtherChip { found: ChipFamily::Esp32C3 }));
}

#[test]
fn a_summary_that_is_not_whole_is_refused_and_nothing_is_guessed() {
    let read = |text: &str| ChipState::from_summary(ChipFamily::Esp32C3, text).expect_err("a refusal");
    assert_eq!(read(""), SummaryError::Json);
    assert_eq!(read("{\"a\": 1}"), SummaryError::Json);
    assert_eq!(read("{}"), SummaryError::Missing { fuse: "SPI_BOOT_CRYPT_CNT".into() });
    assert_eq!(read(&" ".repeat(300_000)), SummaryError::TooLong);
    let fuse = |raw: &str, readable| {
        format!(
            "{{\"SPI_BOOT_CRYPT_CNT\": {{\"raw_value\": \"{raw}\", \"readable\": {readable}, \"writeable\": true}}}}"
        )
    };
    assert_eq!(read(&fuse("0x0", false)), SummaryError::Unreadable { fuse: "SPI_BOOT_CRYPT_CNT".into() });
    assert_eq!(read(&fuse("seven", true)), SummaryError::Value { fuse: "SPI_BOOT_CRYPT_CNT".into() });
    assert_eq!(read(&fuse("0x1", true)), SummaryError::Missing { fuse: "DIS_DOWNLOAD_MANUAL_ENCRYPT".into() });
}
