//! The directory of a ceremony: `escrow.json`, the shares that were not handed out yet, the transcript.

use std::path::{Path, PathBuf};

use kf_api::escrow::Escrow;
use kf_escrow::{Class, Share};

use super::transcript::Transcript;
use crate::failure::Failure;
use crate::file;

/// The record, without any secret.
pub(super) const RECORD: &str = "escrow.json";

/// A ceremony that was finished.
pub(super) struct Directory {
    pub(super) escrow: Escrow,
    pub(super) transcript: Transcript,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let record: PathBuf = path.join(RECORD);
        let unfinished = |problem: String| {
            Failure::local(
                problem,
                "give the directory of a finished ceremony; one without escrow.json was cut short, and its shares are void",
            )
        };
        if !record.exists() {
            return Err(unfinished(format!("{} is not there", record.display())));
        }
        let escrow: Escrow = serde_json::from_slice(&file::read(&record)?)
            .map_err(|error| unfinished(format!("{} cannot be read: {error}", record.display())))?;
        Ok(Self { escrow, transcript: Transcript::open(path)? })
    }

    pub(super) fn class(&self) -> Result<Class, Failure> {
        Class::parse(&self.escrow.class)
            .map_err(|error| Failure::usage(error.to_string(), "give the directory of a finished ceremony"))
    }

    /// Whose share it is; refused when it is of another ceremony.
    pub(super) fn custodian(&self, share: &Share) -> Result<&str, Failure> {
        let foreign = || {
            Failure::usage(
                format!(
                    "share {} is of ceremony {}, this is {}",
                    share.index(),
                    share.ceremony(),
                    self.escrow.ceremony
                ),
                "give shares of one ceremony only",
            )
        };
        let is_ours =
            share.ceremony().to_string() == self.escrow.ceremony && share.threshold() == self.escrow.threshold;
        let found = self.escrow.custodians.iter().find(|custodian| is_ours && custodian.index == share.index());
        found.map(|custodian| custodian.person.as_str()).ok_or_else(foreign)
    }
}
