//! Counters that never go back.

use core::fmt;

use super::flash::Flash;
use super::integrity::Integrity;
use super::store::{RecordId, StorageError, Store};

/// Why a counter gives no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterError<E> {
    /// The store.
    Storage(StorageError<E>),
    /// The last number has been used.
    Exhausted,
    /// The number is not above the last one: a replay.
    NotAbove {
        /// The last one.
        last: u64,
    },
}

impl<E> fmt::Display for CounterError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storage(_) => "the counter is not readable",
            Self::Exhausted => "the counter is at its end",
            Self::NotAbove { .. } => "the number is not above the last one",
        })
    }
}

impl<E: fmt::Debug> core::error::Error for CounterError<E> {}

impl<E> From<StorageError<E>> for CounterError<E> {
    fn from(error: StorageError<E>) -> Self {
        Self::Storage(error)
    }
}

/// A counter of ours that hands out numbers. To spare the memory it stores a ceiling and hands out what lies below it
/// without writing; after a power cut it goes on at the ceiling. So numbers may be left out but never come twice.
#[derive(Debug)]
pub struct Counter {
    id: RecordId,
    next: u64,
    ceiling: u64,
    stride: u32,
}

impl Counter {
    /// The counter in record `id`, beginning at 1, that writes once in `stride` numbers (at least 1).
    ///
    /// # Errors
    /// Of the store.
    pub fn open<F: Flash, I: Integrity>(
        store: &mut Store<F, I>,
        id: RecordId,
        stride: u32,
    ) -> Result<Self, CounterError<F::Error>> {
        let ceiling = store.read_array(id)?.map_or(0, u64::from_be_bytes);
        Ok(Self { id, next: ceiling, ceiling, stride: stride.max(1) })
    }

    /// The next number: above every number given out before, whatever the power did.
    ///
    /// # Errors
    /// [`CounterError::Exhausted`], or of the store.
    pub fn next<F: Flash, I: Integrity>(&mut self, store: &mut Store<F, I>) -> Result<u64, CounterError<F::Error>> {
        let number = self.next.checked_add(1).ok_or(CounterError::Exhausted)?;
        if number > self.ceiling {
            let ceiling = self.next.saturating_add(u64::from(self.stride));
            store.put(self.id, &ceiling.to_be_bytes())?;
            self.ceiling = ceiling;
        }
        self.next = number;
        Ok(number)
    }
}

/// The highest number accepted from somebody else, such as the counter of orders.
#[derive(Debug)]
pub struct HighWater {
    id: RecordId,
    last: u64,
}

impl HighWater {
    /// The mark in record `id`, 0 at first.
    ///
    /// # Errors
    /// Of the store.
    pub fn open<F: Flash, I: Integrity>(store: &mut Store<F, I>, id: RecordId) -> Result<Self, CounterError<F::Error>> {
        let last = store.read_array(id)?.map_or(0, u64::from_be_bytes);
        Ok(Self { id, last })
    }

    /// The last number accepted.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Accepts a number above the last one, and returns when that is durable: only then act on it.
    ///
    /// # Errors
    /// [`CounterError::NotAbove`], or of the store.
    pub fn raise<F: Flash, I: Integrity>(
        &mut self,
        store: &mut Store<F, I>,
        number: u64,
    ) -> Result<(), CounterError<F::Error>> {
        if number <= self.last {
            return Err(CounterError::NotAbove { last: self.last });
        }
        store.put(self.id, &number.to_be_bytes())?;
        self.last = number;
        Ok(())
    }
}
