//! The fold of the journal: how many units there are, where each open one stands, which devices and keys were seen.
//!
//! A finished or scrapped unit leaves three numbers behind (some 60 octets): its device, its board, its key. Everything else
//! is kept for the units in work only, so that memory hardly grows with the batch.

use std::collections::{BTreeMap, BTreeSet};

use kf_key::UnixMillis;

use super::{Entry, FailReason, HardwareId};

/// How far the clock may be behind the latest entry, in milliseconds: 5 minutes. Within it the latest time stands.
pub const MAX_CLOCK_BACK: u64 = 5 * 60 * UnixMillis::SECOND;
/// The most failures of one unit; a power cut is none.
const MAX_FAILURES: u32 = 5;

/// Why the journal and the rest of the station do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// An entry that cannot follow the ones before it.
    #[error("entry {number} of the journal cannot follow the ones before it: the journal is not this station's own")]
    Illegal {
        /// Number of the entry, from 0.
        number: u64,
    },
    /// The token has counted more units than the journal knows.
    #[error("the token counted {token} units, the journal knows {journal}: the journal is an old copy")]
    JournalRolledBack {
        /// Of the token.
        token: u64,
        /// Of the journal.
        journal: u64,
    },
    /// The journal shows units that the token has not counted.
    #[error("the token counted {token} units, the journal shows {journal}: the token is another one, or an old copy")]
    TokenRolledBack {
        /// Of the token.
        token: u64,
        /// Of the journal.
        journal: u64,
    },
}

/// Where a unit that is not used up stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// It has a number; nothing was signed or written.
    Begun,
    /// A certificate was about to be signed; its key is in memory only.
    Certifying,
    /// It was about to be written.
    Writing {
        /// SHA-256 of the image, hexadecimal.
        image: String,
        /// Whether fuses may be burnt.
        burns: bool,
    },
    /// Everything was checked; its serial port may be closed.
    Closing,
    /// It failed and may be given to the same device once more.
    Rework,
}

impl Unit {
    /// Whether its board may have fuses that were burnt for it.
    #[must_use]
    pub const fn is_burnt(&self) -> bool {
        matches!(self, Self::Writing { burns: true, .. } | Self::Closing)
    }
}

/// How a unit goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// From the beginning.
    Fresh,
    /// Its image may be whole: read back, then the proof.
    ReadBack,
    /// Its image holds no secret: written once more, then as above.
    WriteAgain,
    /// Everything was checked: only the serial port is left to be closed.
    Close,
}

/// A unit that was open when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// Nothing was signed or written: goes on under the same number.
    Untouched,
    /// Its key is lost: to be spoiled now, the board is as it was.
    KeyLost,
    /// Goes on with reading back, when the device is there.
    ToReadBack,
}

/// What the operator reads off the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Devices of the quota.
    pub planned: u32,
    /// Finished units.
    pub good: u32,
    /// Units that are used up without a device.
    pub scrap: u32,
    /// Attempts that failed and left the unit usable.
    pub rework: u32,
    /// Units that wait for their device.
    pub open: u32,
    /// Units that were never begun.
    pub left: u32,
    /// Devices turned away without a number.
    pub refused: u32,
}

impl Counts {
    /// Whether every unit of the quota is accounted for.
    #[must_use]
    pub fn balance(&self) -> bool {
        [self.good, self.scrap, self.open, self.left].iter().try_fold(0u32, |sum, count| sum.checked_add(*count))
            == Some(self.planned)
    }
}

#[derive(Clone, Debug)]
struct Open {
    hardware: HardwareId,
    stands: Unit,
    failures: u32,
}

/// The state of a station.
#[derive(Debug, Default)]
pub struct Book {
    entries: u64,
    plan: Option<String>,
    planned: u32,
    next: u32,
    counted: u32,
    good: u32,
    scrap: u32,
    rework: u32,
    refused: u32,
    is_final: bool,
    latest: UnixMillis,
    open: BTreeMap<u32, Open>,
    /// Units in a fixture now. Not part of the journal: a power cut empties the fixtures.
    in_work: BTreeSet<u32>,
    devices: BTreeMap<u64, Mark>,
    boards: BTreeMap<u64, u64>,
    keys: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Unit(u32),
    Made,
    Spent,
}

/// 64 bits of SHA-256: two of a million texts fall together once in some ten million batches, and then a device is
/// refused, never made twice.
fn short(text: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = kf_crypto::sha256(text.as_bytes());
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl Book {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an entry in.
    ///
    /// # Errors
    /// [`BookError::Illegal`]; the book is then as it was.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), BookError> {
        let illegal = BookError::Illegal { number: self.entries };
        if self.plan.is_some() == matches!(entry, Entry::Opened { .. }) || self.is_final {
            return Err(illegal);
        }
        self.take(entry).ok_or(illegal)?;
        self.entries = self.entries.saturating_add(1);
        self.latest = self.latest.max(entry.at());
        Ok(())
    }

    fn take(&mut self, entry: &Entry) -> Option<()> {
        match entry {
            Entry::Opened { plan, count, at: _ } => {
                self.plan = Some(plan.clone());
                self.planned = *count;
            }
            Entry::Begun { unit, hardware, at: _ } => self.begin(*unit, hardware)?,
            Entry::Certifying { unit, key, at: _ } => {
                let open = self.open.get_mut(unit).filter(|open| open.stands == Unit::Begun)?;
                if !self.keys.insert(*key) {
                    return None;
                }
                open.stands = Unit::Certifying;
                self.counted = self.counted.max(unit.saturating_add(1));
            }
            Entry::Writing { unit, image, burns, at: _ } => {
                let open = self.open.get_mut(unit).filter(|open| open.stands == Unit::Certifying)?;
                open.stands = Unit::Writing { image: image.clone(), burns: *burns };
            }
            Entry::Burning { unit, at: _ } => match &mut self.open.get_mut(unit)?.stands {
                Unit::Writing { burns, .. } if !*burns => *burns = true,
                _ => return None,
            },
            Entry::Closing { unit, at: _ } => {
                let open = self.open.get_mut(unit).filter(|open| matches!(open.stands, Unit::Writing { .. }))?;
                open.stands = Unit::Closing;
            }
            Entry::Finished { unit, at: _ } => {
                let is_written = |open: &&Open| matches!(open.stands, Unit::Writing { .. } | Unit::Closing);
                let open = self.open.get(unit).filter(is_written)?;
                self.devices.insert(short(open.hardware.mac()), Mark::Made);
                self.open.remove(unit);
                self.good = self.good.checked_add(1)?;
            }
            Entry::Spoiled { unit, reason, is_scrap, at: _ } => self.spoil(*unit, *reason, *is_scrap)?,
            Entry::Refused { .. } => self.refused = self.refused.saturating_add(1),
            Entry::Closed { is_final, at: _ } => {
                if *is_final && !self.open.is_empty() {
                    return None;
                }
                self.is_final = *is_final;
            }
        }
        Some(())
    }

    fn begin(&mut self, unit: u32, hardware: &HardwareId) -> Option<()> {
        let mac = short(hardware.mac());
        if let Some(open) = self.open.get_mut(&unit) {
            if open.stands != Unit::Rework || open.hardware.mac() != hardware.mac() {
                return None;
            }
            open.stands = Unit::Begun;
            return Some(());
        }
        if unit != self.next || unit >= self.planned || self.devices.contains_key(&mac) {
            return None;
        }
        self.next = unit.checked_add(1)?;
        self.devices.insert(mac, Mark::Unit(unit));
        if !hardware.board().is_empty() {
            self.boards.insert(short(hardware.board()), mac);
        }
        self.open.insert(unit, Open { hardware: hardware.clone(), stands: Unit::Begun, failures: 0 });
        Some(())
    }

    fn spoil(&mut self, unit: u32, reason: FailReason, is_scrap: bool) -> Option<()> {
        let open = self.open.get_mut(&unit)?;
        self.counted = self.counted.max(unit.checked_add(1)?);
        if !is_scrap {
            open.stands = Unit::Rework;
            open.failures = open.failures.saturating_add(u32::from(reason != FailReason::PowerCut));
            self.rework = self.rework.saturating_add(1);
            return Some(());
        }
        let mac = short(open.hardware.mac());
        if open.stands.is_burnt() || reason == FailReason::Spent {
            self.devices.insert(mac, Mark::Spent);
        } else {
            // Nothing of the unit is in the board: it may come again, as another unit.
            self.devices.remove(&mac);
            self.boards.remove(&short(open.hardware.board()));
        }
        self.open.remove(&unit);
        self.scrap = self.scrap.checked_add(1)?;
        Some(())
    }

    /// Which unit a device is to be: one that waits for it, or the next one. It is then in work.
    ///
    /// # Errors
    /// [`FailReason`].
    pub fn admit(&mut self, hardware: &HardwareId) -> Result<(u32, Unit), FailReason> {
        let mac = short(hardware.mac());
        if !hardware.board().is_empty() && self.boards.get(&short(hardware.board())).is_some_and(|other| *other != mac)
        {
            return Err(FailReason::DuplicateBoard);
        }
        let unit = match self.devices.get(&mac) {
            Some(Mark::Made) => return Err(FailReason::AlreadyMade),
            Some(Mark::Spent) => return Err(FailReason::Spent),
            Some(Mark::Unit(unit)) => *unit,
            None if self.next >= self.planned || self.is_final => return Err(FailReason::Exhausted),
            None => self.next,
        };
        if self.in_work.contains(&unit) {
            return Err(FailReason::InWork);
        }
        // A unit without an entry is new: its first entry is for the caller to write, and stands like one after rework.
        let stands = self.open.get(&unit).map_or(Unit::Rework, |open| open.stands.clone());
        if stands == Unit::Certifying {
            // Spoiled at the start of the station; one that is not was not recovered.
            return Err(FailReason::Bug);
        }
        self.in_work.insert(unit);
        Ok((unit, stands))
    }

    /// A device left its fixture.
    pub fn release(&mut self, unit: u32) {
        self.in_work.remove(&unit);
    }

    /// Whether a unit that fails now is used up: its fuses are burnt, or it failed too often.
    #[must_use]
    pub fn would_be_scrap(&self, unit: u32) -> bool {
        self.open
            .get(&unit)
            .is_some_and(|open| open.stands.is_burnt() || open.failures.saturating_add(1) >= MAX_FAILURES)
    }

    /// Whether a key was seen before.
    #[must_use]
    pub fn knows_key(&self, key: u64) -> bool {
        self.keys.contains(&key)
    }

    /// Where an open unit stands.
    #[must_use]
    pub fn unit(&self, unit: u32) -> Option<&Unit> {
        self.open.get(&unit).map(|open| &open.stands)
    }

    /// The device of an open unit.
    #[must_use]
    pub fn hardware(&self, unit: u32) -> Option<&HardwareId> {
        self.open.get(&unit).map(|open| &open.hardware)
    }

    /// Units that wait for their device, rework included.
    pub fn open_units(&self) -> impl Iterator<Item = u32> + '_ {
        self.open.keys().copied()
    }

    /// What a power cut left: each open unit but those in rework, which were accounted for.
    #[must_use]
    pub fn interrupted(&self) -> Vec<(u32, Interrupted)> {
        let one = |(unit, open): (&u32, &Open)| {
            let interrupted = match open.stands {
                Unit::Begun => Interrupted::Untouched,
                Unit::Certifying => Interrupted::KeyLost,
                Unit::Writing { .. } | Unit::Closing => Interrupted::ToReadBack,
                Unit::Rework => return None,
            };
            Some((*unit, interrupted))
        };
        self.open.iter().filter_map(one).collect()
    }

    /// Compares with the counter of the token; the number to which it is to be advanced.
    ///
    /// # Errors
    /// [`BookError::JournalRolledBack`], [`BookError::TokenRolledBack`].
    pub fn check_counter(&self, token: u64) -> Result<u64, BookError> {
        let (next, counted) = (u64::from(self.next), u64::from(self.counted));
        if token > next {
            return Err(BookError::JournalRolledBack { token, journal: next });
        }
        if token < counted {
            return Err(BookError::TokenRolledBack { token, journal: counted });
        }
        Ok(next)
    }

    /// The time to work with: never before the latest entry.
    ///
    /// # Errors
    /// [`FailReason::ClockBack`] when the clock is further back than [`MAX_CLOCK_BACK`].
    pub fn time(&self, now: UnixMillis) -> Result<UnixMillis, FailReason> {
        if now.plus(MAX_CLOCK_BACK) < self.latest { Err(FailReason::ClockBack) } else { Ok(now.max(self.latest)) }
    }

    /// The plan that the journal was opened for.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.plan.as_deref()
    }

    /// Whether nothing more will be made.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        self.is_final
    }

    /// The time of the latest entry.
    #[must_use]
    pub const fn latest(&self) -> UnixMillis {
        self.latest
    }

    /// The counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            planned: self.planned,
            good: self.good,
            scrap: self.scrap,
            rework: self.rework,
            open: u32::try_from(self.open.len()).unwrap_or(u32::MAX),
            left: self.planned.saturating_sub(self.next),
            refused: self.refused,
        }
    }
}
