//! The last line of the books: what was made enrols. The image of a finished board is started as `keyfleet-agent` and enrols
//! over EST with its IDevID; one whose key is barred is refused.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use kf_key::{CertificateProfile, DeviceState};
use tokio::process::Command;

use super::super::device::{history, write_secret};
use super::super::report::Report;
use super::super::stage::Stage;
use super::super::{DemoError, at, failed};
use super::books::{Books, Found};
use super::shift::Shift;

const STEP: &str = "enrol";
/// How many finished devices are started.
const DEVICES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn enrol(stage: &Stage, shift: &Shift, books: &Books, report: &mut Report) -> Result<(), DemoError> {
    let (good, barred) = books.boards(shift)?;
    let every = (good.len() / DEVICES).max(1);
    for found in good.iter().step_by(every).take(DEVICES) {
        let name = name_of(books, found)?;
        let has_enrolled = start(stage, shift, found, &name).await?;
        let history = history(stage, &name).await?;
        let of = |profile| history.certificates.iter().find(move |certificate| certificate.profile == profile);
        let (idevid, ldevid) = (of(CertificateProfile::IDevId), of(CertificateProfile::LDevId));
        let holds = has_enrolled
            && history.device.state == DeviceState::Active
            && ldevid.zip(idevid).is_some_and(|(ldevid, idevid)| ldevid.spki_sha256 != idevid.spki_sha256);
        report.check(
            STEP,
            &format!("board {} was started as {name}: EST with its IDevID, now an LDevID", found.number),
            holds,
        );
    }
    report.check(STEP, &format!("{} finished devices could be started", good.len()), !good.is_empty());
    if let Some(found) = barred.first() {
        let name = name_of(books, found)?;
        let has_enrolled = start(stage, shift, found, &name).await?;
        let history = history(stage, &name).await?;
        let has_ldevid = history.certificates.iter().any(|one| one.profile == CertificateProfile::LDevId);
        report.check(
            "barred",
            &format!("board {} from the scrap bin was started as {name}, and refused", found.number),
            !has_enrolled && !has_ldevid,
        );
    }
    Ok(())
}

fn name_of(books: &Books, found: &Found) -> Result<String, DemoError> {
    books.devices.name(found.device).ok_or_else(|| failed(STEP, "a device without a name"))
}

/// Gives the board power: its flash is the agent's directory, its protected place the credential at start. Whether it has
/// enrolled.
async fn start(stage: &Stage, shift: &Shift, found: &Found, name: &str) -> Result<bool, DemoError> {
    let directory: PathBuf = stage.path().join("devices").join(name);
    let credentials = directory.join("credentials");
    std::fs::create_dir_all(&credentials).map_err(at(STEP))?;
    let board = shift.board(found.number)?;
    for segment in board.segments() {
        // Exposed to the directory that the image is.
        write_secret(&directory.join(&segment.name), segment.octets.expose())?;
    }
    let unlock = board.unlock().ok_or_else(|| failed(STEP, "a board without a seal key"))?;
    // Exposed to the credential, as a service manager hands it over.
    write_secret(&credentials.join("keyfleet-seal"), unlock.expose())?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["agent", "once", "--config", "agent.toml"]).current_dir(&directory);
    command.env("CREDENTIALS_DIRECTORY", &credentials);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(at(STEP))?;
    match tokio::time::timeout(PATIENCE, child.wait()).await {
        Ok(status) => Ok(status.map_err(at(STEP))?.success()),
        Err(_elapsed) => Ok(false),
    }
}
