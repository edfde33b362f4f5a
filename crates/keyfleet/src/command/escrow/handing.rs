//! Shares on their way to custodians: sealed, or to be printed, each in a file of its own and in the transcript.
//!
//! A key that lies somewhere is split again from there when a ceremony was cut short. One that exists nowhere else cannot be: so all of
//! its shares are durable, under names that nobody reads, before the first gets its name. Then its ceremony goes on without the
//! key; and where it had not come so far, no share had left, and nothing is lost.

use std::path::{Path, PathBuf};

use kf_age::Recipient;
use kf_escrow::Share;
use serde::{Deserialize, Serialize};

use super::paper;
use super::transcript::Transcript;
use crate::failure::Failure;
use crate::file;

/// What the names of files begin with that are not to be read.
pub(super) const DRAFT: &str = ".tmp";

/// A share that is written and has no name yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    index: u8,
    /// The name that it gets.
    file: String,
    /// SHA-256 of the file, hexadecimal.
    sha256: String,
}

/// For whom a share is.
pub(super) struct Custodian<'a> {
    pub(super) ceremony: &'a str,
    pub(super) person: &'a str,
    pub(super) recipient: Option<&'a Recipient>,
}

impl Custodian<'_> {
    fn file(&self, index: u8) -> String {
        let extension = if self.recipient.is_some() { "age" } else { "txt" };
        format!("share-{index:02}-{}.{extension}", self.person)
    }

    /// Writes a share: sealed to its custodian, or as it is printed, mode 0600. What was there under this name was being written when a
    /// process ended.
    fn write(&self, path: &Path, share: &Share) -> Result<(), Failure> {
        if path.exists() {
            std::fs::remove_file(path).map_err(|error| Failure::file("remove", path, error))?;
        }
        let paper = paper::print(share, self.ceremony, self.person)?;
        let Some(recipient) = self.recipient else {
            return file::write_private(path, paper.expose()); // exposed to the file that is printed
        };
        let mut sealed = Vec::new();
        // Exposed to be sealed to the custodian.
        kf_age::seal(std::slice::from_ref(recipient), paper.expose(), &mut sealed)
            .map_err(|error| Failure::local(format!("a share was not sealed: {error}"), "please report this"))?;
        file::write_private(path, &sealed)
    }

    fn tell(&self, transcript: &mut Transcript, index: &str) -> Result<(), Failure> {
        let kind = if self.recipient.is_some() { "sealed" } else { "paper" };
        transcript.add("share", &[("share", index), ("custodian", self.person), ("kind", kind)])
    }
}

/// Writes one share under its name. Once the transcript says that it was made it is left alone, wherever it is now.
pub(super) fn hand_out(
    out: &Path,
    transcript: &mut Transcript,
    share: &Share,
    custodian: &Custodian<'_>,
) -> Result<(), Failure> {
    let (id, index) = (share.ceremony().to_string(), share.index().to_string());
    if transcript.has(&id, "share", ("share", &index)) {
        return Ok(());
    }
    custodian.write(&out.join(custodian.file(share.index())), share)?;
    file::sync_directory(out)?;
    custodian.tell(transcript, &index)
}

/// Writes a share under a name that nobody reads; durable when this returns, but for the name.
pub(super) fn draft(out: &Path, share: &Share, custodian: &Custodian<'_>) -> Result<Draft, Failure> {
    let file = custodian.file(share.index());
    let path = draft_path(out, &file);
    custodian.write(&path, share)?;
    let sha256 = hex::encode(kf_crypto::sha256(&file::read(&path)?));
    Ok(Draft { index: share.index(), file, sha256 })
}

fn draft_path(out: &Path, file: &str) -> PathBuf {
    out.join(format!("{DRAFT}-{file}"))
}

/// Gives a share its name, unless the transcript says that it has it.
pub(super) fn reveal(
    out: &Path,
    transcript: &mut Transcript,
    (id, draft): (&str, &Draft),
    custodian: &Custodian<'_>,
) -> Result<(), Failure> {
    let index = draft.index.to_string();
    if transcript.has(id, "share", ("share", &index)) {
        return Ok(());
    }
    let (hidden, path) = (draft_path(out, &draft.file), out.join(&draft.file));
    let written = if hidden.exists() { &hidden } else { &path };
    let is_whole = file::read(written).is_ok_and(|octets| hex::encode(kf_crypto::sha256(&octets)) == draft.sha256);
    if !is_whole || draft.file != custodian.file(draft.index) {
        return Err(Failure::local(
            format!("share {index} is not there as it was written ({})", written.display()),
            "somebody took it away or changed it: give the ceremony up with --void, and hold it again",
        ));
    }
    if hidden.exists() {
        std::fs::rename(&hidden, &path).map_err(|error| Failure::file("rename", &hidden, error))?;
        file::sync_directory(out)?;
    }
    custodian.tell(transcript, &index)
}
