//! The systemd units, judged by systemd.

use kf_testkit::{Tool, scratch};

const UNIT: &str = include_str!("../../../../contrib/systemd/keyfleet-agent.service");
const TPM: &str = include_str!("../../../../contrib/systemd/keyfleet-agent-tpm.conf");

#[test]
fn the_units_are_valid_and_expose_little() {
    let directory = scratch();
    let program = env!("CARGO_BIN_EXE_keyfleet-agent");
    let unit = UNIT.replace("/usr/bin/keyfleet-agent", program);
    assert_ne!(unit, UNIT);
    let plain = directory.path().join("keyfleet-agent.service");
    std::fs::write(&plain, &unit).unwrap();
    // A drop-in is read after the unit: the same as both in one file.
    let with_tpm = directory.path().join("keyfleet-agent-tpm.service");
    std::fs::write(&with_tpm, format!("{unit}\n{TPM}")).unwrap();
    let systemd = Tool::new("systemd-analyze").env("SYSTEMD_LOG_LEVEL", "warning");
    for (file, most) in [(&plain, "15"), (&with_tpm, "22")] {
        let file = file.to_str().unwrap();
        let verified = systemd.run(&["verify", "--man=no", file]);
        assert!(verified.success() && verified.text().trim().is_empty(), "{}", verified.text());
        // Ten is exposed, zero is not; the threshold counts tenths.
        let judged = systemd.run(&["security", "--offline=yes", "--no-pager", &format!("--threshold={most}"), file]);
        assert!(judged.success(), "{}", judged.text());
    }
}
