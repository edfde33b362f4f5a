//! One batch of a station: its quota, its journal, the keys that it was requested with, and what became of them.

use std::path::PathBuf;

use kf_batch::P256Key;
use kf_batch::keys_destroyed::KeysDestroyed;
use kf_batch::quota::{Quota, QuotaTerms};
use kf_station::clock::{Clock as _, SystemClock};
use kf_station::ending;
use kf_station::journal::{DirectoryFile, JournalError};
use kf_station::label::LabelDirectory;
use kf_station::ledger::LedgerError;
use kf_station::line::{Book, Counts};
use kf_station::token::{Generation, StationToken};

use super::{local, of_token};
use crate::failure::Failure;
use crate::file;

/// Why the keys of a batch are destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::command::station) enum End {
    /// The station closed it: its last manifest says that nothing more will be made.
    Closed,
    /// It was given up here, because it was cancelled at the server or its journal is lost.
    Cancelled,
}

impl End {
    const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where the keys of a batch stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::command::station) enum BatchState {
    /// In the token: devices may be made.
    Open,
    /// It has ended, and the keys are not known to be gone.
    Ending,
    /// They were destroyed and looked for.
    Ended(End),
}

impl BatchState {
    /// In a listing.
    pub(in crate::command::station) const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ending => "ending",
            Self::Ended(end) => end.word(),
        }
    }
}

/// One batch of a station.
pub(in crate::command::station) struct BatchDirectory {
    path: PathBuf,
    pub(in crate::command::station) signed: Vec<u8>,
    pub(in crate::command::station) quota: Quota,
    pub(in crate::command::station) generation: Generation,
}

impl BatchDirectory {
    pub(super) fn open(path: PathBuf) -> Result<Self, Failure> {
        let damaged = |error: &dyn std::error::Error| {
            let problem = format!("{}: {}", path.display(), crate::failure::chain_of(error));
            Failure::local(problem, "restore the directory of this batch from a copy, its journal excepted")
        };
        let server_key = P256Key::from_spki(&file::read(&path.join("server-key"))?).map_err(|error| damaged(&error))?;
        let signed = file::read(&path.join("quota"))?;
        let quota = Quota::open(&signed, &server_key).map_err(|error| damaged(&error))?;
        let number = file::read_text(&path.join("generation"))?;
        let generation = number.trim().parse().ok().and_then(Generation::from_number).ok_or_else(|| {
            let problem = format!("{} is no number from 1 on", path.join("generation").display());
            Failure::local(problem, "restore the directory of this batch from a copy, its journal excepted")
        })?;
        Ok(Self { path, signed, quota, generation })
    }

    pub(in crate::command::station) fn journal(&self) -> Result<DirectoryFile, Failure> {
        let path = self.path.join("journal");
        DirectoryFile::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Failure::InTheWay {
                problem: "another station is at work on this batch".to_owned(),
                remedy: "end it first".to_owned(),
            },
            _ => Failure::file("open", &path, error),
        })
    }

    /// The journal, to be read beside a station that is at work; `None` before the first start.
    pub(in crate::command::station) fn journal_to_read(&self) -> Result<Option<DirectoryFile>, Failure> {
        let path = self.path.join("journal");
        match DirectoryFile::open_to_read(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::file("read", &path, error)),
        }
    }

    pub(in crate::command::station) fn labels(&self) -> Result<LabelDirectory, Failure> {
        let path = self.path.join("labels");
        LabelDirectory::open(&path).map_err(|error| Failure::file("open", &path, error))
    }

    pub(in crate::command::station) const fn terms(&self) -> &QuotaTerms {
        &self.quota.terms
    }

    /// The book as the journal has it now.
    pub(in crate::command::station) fn book(&self) -> Result<Book, Failure> {
        let mut book = Book::new();
        let Some(mut journal) = self.journal_to_read()? else { return Ok(book) };
        let read = kf_station::journal::read(&mut journal, |noted| -> Result<(), LedgerError> {
            Ok(book.apply(&noted.entry)?)
        });
        match read {
            Ok(()) => Ok(book),
            Err(LedgerError::Journal(JournalError::Damage(damage))) => Err(local(
                &damage,
                "restore the journal from a copy; or cancel the batch at the server, then `keyfleet station cancel` it here",
            )),
            Err(other) => Err(local(&other, "look at the journal's disk")),
        }
    }

    /// The counts of a book of this batch: one that was never begun has all of its devices left.
    pub(in crate::command::station) fn counts(&self, book: &Book) -> Counts {
        let planned = self.quota.terms.devices.count();
        if book.plan().is_some() { book.counts() } else { Counts { planned, left: planned, ..Counts::default() } }
    }

    /// Where its keys stand.
    pub(in crate::command::station) fn state(&self) -> Result<BatchState, Failure> {
        if let Some(receipt) = self.receipt()? {
            let wrong = |error: kf_batch::FormatError| local(&error, "restore the file `keys-destroyed` from a copy");
            let said = KeysDestroyed::claimed(&receipt).map_err(wrong)?;
            return Ok(BatchState::Ended(if said.is_given_up { End::Cancelled } else { End::Closed }));
        }
        Ok(if self.path.join("ended").exists() { BatchState::Ending } else { BatchState::Open })
    }

    /// What the station signed when the keys were gone.
    pub(in crate::command::station) fn receipt(&self) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path.join("keys-destroyed");
        if path.exists() { file::read(&path).map(Some) } else { Ok(None) }
    }

    /// Ends the batch at this station: nothing more is made of it, and its keys are destroyed.
    pub(in crate::command::station) fn end(&self, token: &dyn StationToken, end: End) -> Result<(), Failure> {
        let path = self.path.join("ended");
        if !path.exists() {
            file::write_whole(&path, end.word().as_bytes())?;
        }
        self.destroy_keys(token)
    }

    /// Destroys the keys of a batch that has ended, and keeps what the station signed about it.
    pub(super) fn destroy_keys(&self, token: &dyn StationToken) -> Result<(), Failure> {
        let path = self.path.join("keys-destroyed");
        if path.exists() {
            return Ok(());
        }
        let is_given_up = file::read_text(&self.path.join("ended"))? == End::Cancelled.word();
        let receipt = ending::destroy_keys(token, self.generation, self.terms(), is_given_up, SystemClock.now());
        let receipt = receipt.map_err(|error| match error {
            ending::EndingError::Token(error) => of_token(error),
            other => local(&other, "report this as a bug"),
        })?;
        file::write_whole(&path, &receipt)
    }
}
