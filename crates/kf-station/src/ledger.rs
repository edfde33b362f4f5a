//! Book, journal and chain of records, kept in step: what is in the book is on its way to the disk in the same order, and
//! nothing is answered before it is there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kf_batch::P256Key;
use kf_batch::frame::{Unsigned, document_hash};
use kf_batch::manifest::{Counts as RecordCounts, Manifest};
use kf_batch::record::Record;
use kf_key::{BatchId, UnixMillis};

use crate::journal::{Journal, JournalError, JournalFile, Noted};
use crate::line::{Book, BookError, Counts, Entry, FailReason, HardwareId, Interrupted, Standing, Unit};
use crate::token::{Generation, StationKey, StationToken, TokenError};

/// Why the ledger does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Journal and station do not belong together.
    #[error(transparent)]
    Book(#[from] BookError),
    /// A record in it cannot be read.
    #[error("a record in the journal cannot be read: the journal is not this station's own")]
    Record,
    /// It was opened for another quota.
    #[error("the journal is of another batch: give each batch a directory of its own")]
    OtherBatch,
    /// It was opened for another plan.
    #[error("the journal was opened for plan {found}, the recipe is now {given}: only the approved plan may run")]
    OtherPlan {
        /// In the journal.
        found: String,
        /// Of the recipe.
        given: String,
    },
    /// The journal could not be written at start.
    #[error("the journal cannot be written at start: {}", .0.words())]
    Start(FailReason),
}

fn of_journal(error: &JournalError) -> FailReason {
    if error.is_full() { FailReason::JournalFull } else { FailReason::Journal }
}

/// How many of the latest finished units are remembered at a start. A cut leaves at most one label unreleased for each fixture.
const MAX_LATELY_FINISHED: usize = 1_024;

/// The chain of records.
#[derive(Clone, Copy, Debug)]
struct Chain {
    sequence: u64,
    head: [u8; 32],
    counts: RecordCounts,
}

impl Chain {
    fn add(&mut self, record: &Record, document: &[u8]) {
        use kf_api::batch::Outcome;
        self.sequence = record.sequence;
        self.head = document_hash(document);
        let count = match record.outcome {
            Outcome::Passed => &mut self.counts.passed,
            Outcome::Scrapped => &mut self.counts.scrapped,
            Outcome::Rework => &mut self.counts.rework,
        };
        *count = count.saturating_add(1);
    }
}

struct Inner {
    book: Book,
    chain: Chain,
    /// Documents beside the latest entry of each open unit.
    drafts: BTreeMap<u32, Vec<u8>>,
    opened: Option<Vec<u8>>,
    /// The latest units that the journal shows as finished, for what was to follow when power went.
    lately_finished: VecDeque<u32>,
}

/// The ledger of one batch.
pub struct Ledger<F> {
    inner: Mutex<Inner>,
    journal: Journal<F>,
    token: Arc<dyn StationToken>,
    generation: Generation,
    record_key: P256Key,
    batch: BatchId,
    counting: Mutex<Counting>,
    counted: Condvar,
}

/// The token's counter: one thread raises it for all that wait, because a token takes its time.
#[derive(Debug, Default)]
struct Counting {
    wanted: u64,
    reached: u64,
    is_busy: bool,
}

/// For which batch a ledger is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The batch.
    pub batch: BatchId,
    /// Whose keys sign its records.
    pub generation: Generation,
    /// The signed quota.
    pub quota: &'a [u8],
    /// How many devices it lists.
    pub count: u32,
    /// Hash of the plan, hexadecimal.
    pub plan: &'a str,
    /// The present moment.
    pub now: UnixMillis,
}

impl<F: JournalFile> Ledger<F> {
    /// Reads the journal, checks that it belongs to quota, plan and token, and brings the token's counter up to it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(file: F, opening: &Opening<'_>, token: Arc<dyn StationToken>) -> Result<Self, LedgerError> {
        let head = document_hash(opening.quota);
        let chain = Chain { sequence: 0, head, counts: RecordCounts::default() };
        let mut inner =
            Inner { book: Book::new(), chain, drafts: BTreeMap::new(), opened: None, lately_finished: VecDeque::new() };
        let journal = Journal::open(file, |noted| inner.replay(noted))?;
        match &inner.opened {
            Some(quota) if quota.as_slice() != opening.quota => return Err(LedgerError::OtherBatch),
            Some(_) if inner.book.plan() != Some(opening.plan) => {
                let found = inner.book.plan().unwrap_or_default().to_owned();
                return Err(LedgerError::OtherPlan { found, given: opening.plan.to_owned() });
            }
            Some(_) | None => {}
        }
        let start = |_token_error| LedgerError::Start(FailReason::Token);
        let record_key = token.public_key(StationKey::Record(opening.generation)).map_err(start)?;
        let counted = token.counter(opening.batch.as_bytes()).map_err(start)?;
        let next = inner.book.check_counter(counted)?;
        token.advance(opening.batch.as_bytes(), next).map_err(start)?;
        let is_new = inner.opened.is_none();
        let ledger = Self {
            inner: Mutex::new(inner),
            journal,
            token,
            generation: opening.generation,
            record_key,
            batch: opening.batch,
            counting: Mutex::new(Counting { wanted: next, reached: next, is_busy: false }),
            counted: Condvar::new(),
        };
        if is_new {
            let entry = Entry::Opened { plan: opening.plan.to_owned(), count: opening.count, at: opening.now };
            ledger.note(&entry, opening.quota).map_err(LedgerError::Start)?;
        }
        Ok(ledger)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an entry into book and journal and waits until it is durable.
    ///
    /// # Errors
    /// [`FailReason::Bug`] for an entry that cannot follow, [`FailReason::Journal`].
    pub fn note(&self, entry: &Entry, document: &[u8]) -> Result<(), FailReason> {
        let ticket = self.lock().append(&self.journal, entry, document)?;
        self.journal.wait(ticket).map_err(|error| of_journal(&error))
    }

    /// Gives a device its unit: one that waits for it, or the next one, whose first entry is then durable.
    ///
    /// # Errors
    /// [`FailReason`].
    pub fn begin(&self, hardware: &HardwareId, at: UnixMillis) -> Result<(u32, Standing), FailReason> {
        let mut inner = self.lock();
        let (unit, stands) = inner.book.admit(hardware)?;
        let standing = match stands {
            Unit::Writing { .. } => return Ok((unit, Standing::ReadBack)),
            Unit::Closing => return Ok((unit, Standing::Close)),
            Unit::Begun => return Ok((unit, Standing::Fresh)),
            Unit::Rework => Standing::Fresh,
            Unit::Certifying => return Err(FailReason::Bug),
        };
        if !self.journal.has_space() {
            // Turned away while what was begun can still be finished.
            inner.book.release(unit);
            return Err(FailReason::DiskFull);
        }
        let entry = Entry::Begun { unit, hardware: hardware.clone(), at };
        let appended = inner.append(&self.journal, &entry, &[]);
        if appended.is_err() {
            inner.book.release(unit);
        }
        drop(inner);
        self.journal.wait(appended?).map_err(|error| of_journal(&error))?;
        Ok((unit, standing))
    }

    /// Signs a record as the next of the chain and makes it durable with its entry.
    ///
    /// # Errors
    /// [`FailReason::Token`], [`FailReason::Journal`], [`FailReason::Bug`].
    pub fn close_unit(&self, entry: &Entry, mut record: Record) -> Result<(), FailReason> {
        let mut inner = self.lock();
        // Fixtures read the clock side by side; the chain of records takes them one after the other and goes forward.
        record.at = record.at.max(inner.book.latest());
        record.sequence = inner.chain.sequence.saturating_add(1);
        record.previous = inner.chain.head;
        let document = self.sign(&record)?;
        let ticket = inner.append(&self.journal, entry, &document)?;
        inner.chain.add(&record, &document);
        drop(inner);
        self.journal.wait(ticket).map_err(|error| of_journal(&error))
    }

    fn sign(&self, record: &Record) -> Result<Vec<u8>, FailReason> {
        self.complete(record.prepare(&self.record_key).map_err(|_field| FailReason::Bug)?)
    }

    fn complete(&self, unsigned: Unsigned) -> Result<Vec<u8>, FailReason> {
        let signed = self.token.sign(StationKey::Record(self.generation), &unsigned.to_be_signed());
        unsigned.complete(&signed.map_err(|_token_error| FailReason::Token)?).map_err(|_format| FailReason::Token)
    }

    /// Signs the manifest of a shift and makes it durable.
    ///
    /// # Errors
    /// [`FailReason`].
    pub fn close_shift(&self, operator: &str, is_final: bool, at: UnixMillis) -> Result<(), FailReason> {
        let mut inner = self.lock();
        let Chain { sequence, head, counts } = inner.chain;
        let manifest =
            Manifest { batch: self.batch, last: sequence, head, counts, at, operator: operator.to_owned(), is_final };
        let document = self.complete(manifest.prepare(&self.record_key).map_err(|_field| FailReason::Bug)?)?;
        let ticket = inner.append(&self.journal, &Entry::Closed { is_final, at }, &document)?;
        drop(inner);
        self.journal.wait(ticket).map_err(|error| of_journal(&error))
    }

    /// Raises the token's counter to what the journal shows.
    ///
    /// # Errors
    /// [`FailReason::Token`].
    pub fn count(&self, unit: u32) -> Result<(), FailReason> {
        let to = u64::from(unit).saturating_add(1);
        let mut counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        counting.wanted = counting.wanted.max(to);
        while counting.reached < to {
            if counting.is_busy {
                counting = self.counted.wait(counting).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            counting.is_busy = true;
            let wanted = counting.wanted;
            drop(counting);
            let advanced = self.token.advance(self.batch.as_bytes(), wanted);
            counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
            counting.is_busy = false;
            self.counted.notify_all();
            advanced.map_err(
                |error| if error == TokenError::DISK_FULL { FailReason::DiskFull } else { FailReason::Token },
            )?;
            counting.reached = counting.reached.max(wanted);
        }
        Ok(())
    }

    /// The time to work with.
    ///
    /// # Errors
    /// [`FailReason::ClockBack`].
    pub fn time(&self, now: UnixMillis) -> Result<UnixMillis, FailReason> {
        self.lock().book.time(now)
    }

    /// A device left its fixture.
    pub fn release(&self, unit: u32) {
        self.lock().book.release(unit);
    }

    /// Whether a key was seen before.
    #[must_use]
    pub fn knows_key(&self, key: u64) -> bool {
        self.lock().book.knows_key(key)
    }

    /// Where an open unit stands, its device, and the document beside its latest entry.
    #[must_use]
    pub fn unit(&self, unit: u32) -> Option<(Unit, HardwareId, Vec<u8>)> {
        let inner = self.lock();
        let stands = inner.book.unit(unit)?.clone();
        Some((stands, inner.book.hardware(unit)?.clone(), inner.drafts.get(&unit).cloned().unwrap_or_default()))
    }

    /// Whether a unit that fails now is used up.
    #[must_use]
    pub fn would_be_scrap(&self, unit: u32) -> bool {
        self.lock().book.would_be_scrap(unit)
    }

    /// What a power cut left.
    #[must_use]
    pub fn interrupted(&self) -> Vec<(u32, Interrupted)> {
        self.lock().book.interrupted()
    }

    /// The latest units that were finished before this start.
    #[must_use]
    pub fn lately_finished(&self) -> Vec<u32> {
        self.lock().lately_finished.iter().copied().collect()
    }

    /// Units that wait for their device.
    #[must_use]
    pub fn open_units(&self) -> Vec<u32> {
        self.lock().book.open_units().collect()
    }

    /// The counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().book.counts()
    }

    /// Whether nothing more will be made.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.lock().book.is_final()
    }

    /// Gives the file of the journal back.
    pub fn into_file(self) -> F {
        self.journal.into_file()
    }
}

impl Inner {
    fn append<F: JournalFile>(
        &mut self,
        journal: &Journal<F>,
        entry: &Entry,
        document: &[u8],
    ) -> Result<u64, FailReason> {
        self.book.apply(entry).map_err(|_illegal| FailReason::Bug)?;
        self.remember(entry, document);
        journal.append(entry, document).map_err(|error| of_journal(&error))
    }

    fn replay(&mut self, noted: Noted) -> Result<(), LedgerError> {
        let Noted { entry, document } = noted;
        self.book.apply(&entry)?;
        match &entry {
            Entry::Opened { .. } => self.opened = Some(document.clone()),
            Entry::Finished { .. } | Entry::Spoiled { .. } => {
                let record = Record::claimed(&document).map_err(|_format| LedgerError::Record)?;
                self.chain.add(&record, &document);
            }
            Entry::Begun { .. }
            | Entry::Certifying { .. }
            | Entry::Writing { .. }
            | Entry::Burning { .. }
            | Entry::Closing { .. }
            | Entry::Refused { .. }
            | Entry::Closed { .. } => {}
        }
        if let Entry::Finished { unit, .. } = entry {
            self.lately_finished.push_back(unit);
            if self.lately_finished.len() > MAX_LATELY_FINISHED {
                self.lately_finished.pop_front();
            }
        }
        self.remember(&entry, &document);
        Ok(())
    }

    fn remember(&mut self, entry: &Entry, document: &[u8]) {
        match entry {
            Entry::Certifying { unit, .. } | Entry::Writing { unit, .. } => {
                self.drafts.insert(*unit, document.to_vec());
            }
            Entry::Begun { unit, .. } | Entry::Finished { unit, .. } | Entry::Spoiled { unit, .. } => {
                self.drafts.remove(unit);
            }
            Entry::Opened { .. }
            | Entry::Burning { .. }
            | Entry::Closing { .. }
            | Entry::Refused { .. }
            | Entry::Closed { .. } => {}
        }
    }
}

/// The records and manifests of a journal as one CBOR sequence (RFC 8742), in order, and how many there are.
///
/// # Errors
/// Of the journal, and of `out`.
pub fn export<F: JournalFile>(journal: &mut F, out: &mut impl std::io::Write) -> Result<u64, JournalError> {
    let mut count = 0u64;
    crate::journal::read(journal, |noted: Noted| {
        if matches!(noted.entry, Entry::Finished { .. } | Entry::Spoiled { .. } | Entry::Closed { .. }) {
            out.write_all(&noted.document).map_err(|source| JournalError::Io { verb: "exported", source })?;
            count = count.saturating_add(1);
        }
        Ok::<_, JournalError>(())
    })?;
    Ok(count)
}
