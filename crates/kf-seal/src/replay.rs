//! Which messages were seen: a sliding window of counters per boot (as RFC 4303 section 3.4.3 and RFC 9147 section 4.5.1
//! have it), a bounded number of boots, and a floor below which every boot that is not remembered is refused.
//!
//! A window holds for one key identifier. The floor is what makes forgetting safe: a boot that is dropped to make room
//! raises the floor above its number, so its messages are refused from then on, not taken for new.

use core::fmt;

use crate::boot::{BOOT_ID_OCTETS, BootId};

/// How far a counter may lie behind the highest one of its boot and still be judged: 256. A message farther back is
/// refused.
pub const WINDOW_COUNTERS: u32 = 256;

const WORDS: usize = 4;
const VERSION: u8 = 1;
const FRONT_OCTETS: usize = 6;
const SEEN_OCTETS: usize = BOOT_ID_OCTETS + 4 + WORDS * 8;

/// A message, as the window sees it: its boot and its counter. Made by opening it, so a window never takes note of a
/// message that nobody authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    boot: BootId,
    counter: u32,
}

impl Mark {
    pub(crate) const fn new(boot: BootId, counter: u32) -> Self {
        Self { boot, counter }
    }

    /// The boot.
    #[must_use]
    pub const fn boot(&self) -> &BootId {
        &self.boot
    }

    /// The counter.
    #[must_use]
    pub const fn counter(&self) -> u32 {
        self.counter
    }
}

/// A window took note of a message for the first time. Made by [`Replay::accept`] alone.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted(Mark);

impl Accepted {
    pub(crate) fn is_of(&self, mark: &Mark) -> bool {
        self.0 == *mark
    }
}

/// An [`Accepted`] of another message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAccepted;

impl fmt::Display for NotAccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the replay window accepted another message")
    }
}

impl core::error::Error for NotAccepted {}

/// Why an authentic message is not new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// It was accepted before.
    Replayed,
    /// Its counter is [`WINDOW_COUNTERS`] or more behind the highest one of its boot.
    TooOld,
    /// Its boot is older than the boots that are remembered. If the device sent it now, its boot counter went
    /// backwards.
    BootTooOld {
        /// The boot number of the message.
        number: u32,
        /// The lowest one that a boot not yet seen may have.
        floor: u32,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replayed => f.write_str("the message was accepted before"),
            Self::TooOld => write!(f, "the message lies more than {WINDOW_COUNTERS} behind the newest of its boot"),
            Self::BootTooOld { number, floor } => {
                write!(f, "boot {number} is too old: a boot not seen before needs a number of {floor} or more")
            }
        }
    }
}

impl core::error::Error for ReplayError {}

/// Stored octets that are no window. Refuse every message until it is known why: an empty window would accept replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptReplay;

impl fmt::Display for CorruptReplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stored replay window is damaged: give the device a new epoch")
    }
}

impl core::error::Error for CorruptReplay {}

/// The counters seen of one boot. Bit `i` of the window, from the lowest of the first word, is `highest - i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    boot: BootId,
    highest: u32,
    window: [u64; WORDS],
}

/// Which bit of which word.
fn place(distance: u32) -> Option<(usize, u64)> {
    let word = usize::try_from(distance / 64).ok().filter(|word| *word < WORDS)?;
    Some((word, 1 << (distance % 64)))
}

impl Seen {
    const fn first(mark: &Mark) -> Self {
        Self { boot: mark.boot, highest: mark.counter, window: [1, 0, 0, 0] }
    }

    fn check(&self, counter: u32) -> Result<(), ReplayError> {
        let Some(distance) = self.highest.checked_sub(counter) else { return Ok(()) };
        let (word, bit) = place(distance).ok_or(ReplayError::TooOld)?;
        let is_seen = self.window.get(word).is_none_or(|word| word & bit != 0);
        if is_seen { Err(ReplayError::Replayed) } else { Ok(()) }
    }

    /// Takes note of a counter that [`check`](Self::check) let pass.
    fn note(&mut self, counter: u32) {
        if counter > self.highest {
            self.shift(counter - self.highest);
            self.highest = counter;
        }
        if let Some((word, bit)) = place(self.highest - counter)
            && let Some(word) = self.window.get_mut(word)
        {
            *word |= bit;
        }
    }

    /// Moves every bit `by` places up; what leaves the window is forgotten as too old.
    fn shift(&mut self, by: u32) {
        let old = self.window;
        let whole = usize::try_from(by / 64).unwrap_or(WORDS);
        let bits = by % 64;
        let word = |index: Option<usize>| index.and_then(|index| old.get(index)).copied().unwrap_or(0);
        for (index, place) in self.window.iter_mut().enumerate() {
            let from = index.checked_sub(whole);
            let below = from.and_then(|from| from.checked_sub(1));
            let carried = if bits == 0 { 0 } else { word(below) >> (64 - bits) };
            *place = (word(from) << bits) | carried;
        }
    }

    fn write(&self, out: &mut [u8; SEEN_OCTETS]) {
        let boot = self.boot.to_bytes();
        let octets = boot.into_iter().chain(self.highest.to_be_bytes());
        let octets = octets.chain(self.window.into_iter().flat_map(u64::to_be_bytes));
        out.iter_mut().zip(octets).for_each(|(place, octet)| *place = octet);
    }

    fn read(octets: &[u8; SEEN_OCTETS]) -> Option<Self> {
        let (boot, rest) = octets.split_at_checked(BOOT_ID_OCTETS)?;
        let (highest, rest) = rest.split_first_chunk()?;
        let mut window = [0; WORDS];
        for (word, octets) in window.iter_mut().zip(rest.as_chunks().0) {
            *word = u64::from_be_bytes(*octets);
        }
        // The highest counter was seen, always.
        (window.first()? & 1 == 1).then_some(())?;
        Some(Self { boot: BootId::from_bytes(boot)?, highest: u32::from_be_bytes(*highest), window })
    }
}

/// What was seen under one key identifier: up to `BOOTS` boots and the floor. A server remembers 8, a device 2 or so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay<const BOOTS: usize> {
    floor: u32,
    boots: [Option<Seen>; BOOTS],
}

impl<const BOOTS: usize> Default for Replay<BOOTS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BOOTS: usize> Replay<BOOTS> {
    /// The most octets of the stored form.
    pub const MAX_OCTETS: usize = FRONT_OCTETS + BOOTS * SEEN_OCTETS;

    /// Nothing seen: right for a key that is used for the first time, and for no other.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(BOOTS >= 1 && BOOTS <= 255, "at least one boot is remembered, and its number fits an octet") }
        Self { floor: 0, boots: [None; BOOTS] }
    }

    /// The lowest number that a boot not yet seen may have.
    #[must_use]
    pub const fn floor(&self) -> u32 {
        self.floor
    }

    /// Whether a message of this boot and counter would be accepted. It saves the work of opening what cannot be new; what
    /// was opened still goes through [`accept`](Self::accept).
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn check(&self, boot: &BootId, counter: u32) -> Result<(), ReplayError> {
        if let Some(seen) = self.boots.iter().flatten().find(|seen| seen.boot == *boot) {
            return seen.check(counter);
        }
        // Room can only be made by dropping the lowest boot, and whoever takes its place must be above it.
        let is_full = self.boots.iter().all(Option::is_some);
        let lowest = self.lowest().filter(|_| is_full);
        if boot.number() < self.floor || lowest.is_some_and(|lowest| boot.number() <= lowest) {
            let floor = lowest.map_or(self.floor, |lowest| self.floor.max(lowest.saturating_add(1)));
            return Err(ReplayError::BootTooOld { number: boot.number(), floor });
        }
        Ok(())
    }

    /// Takes note of a message that is new.
    ///
    /// # Errors
    /// [`ReplayError`]; the window is then as it was.
    pub fn accept(&mut self, mark: &Mark) -> Result<Accepted, ReplayError> {
        self.check(&mark.boot, mark.counter)?;
        if let Some(seen) = self.boots.iter_mut().flatten().find(|seen| seen.boot == mark.boot) {
            seen.note(mark.counter);
            return Ok(Accepted(*mark));
        }
        if let Some(free) = self.boots.iter_mut().find(|place| place.is_none()) {
            *free = Some(Seen::first(mark));
            return Ok(Accepted(*mark));
        }
        let lowest = self.boots.iter_mut().flatten().min_by_key(|seen| seen.boot);
        if let Some(lowest) = lowest {
            // `check` let only a higher number pass, so one more than the lowest is a number.
            self.floor = self.floor.max(lowest.boot.number().saturating_add(1));
            *lowest = Seen::first(mark);
        }
        Ok(Accepted(*mark))
    }

    fn lowest(&self) -> Option<u32> {
        self.boots.iter().flatten().map(|seen| seen.boot.number()).min()
    }

    /// Writes the form to store to the front of `out`; its length. `None`: less room than
    /// [`MAX_OCTETS`](Self::MAX_OCTETS) and too little.
    #[must_use]
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let count = self.boots.iter().flatten().count();
        let length = FRONT_OCTETS + count * SEEN_OCTETS;
        let (front, rest) = out.get_mut(..length)?.split_first_chunk_mut::<FRONT_OCTETS>()?;
        let [f0, f1, f2, f3] = self.floor.to_be_bytes();
        *front = [VERSION, f0, f1, f2, f3, u8::try_from(count).ok()?];
        for (seen, place) in self.boots.iter().flatten().zip(rest.as_chunks_mut().0) {
            seen.write(place);
        }
        Some(length)
    }

    /// Reads the stored form. No damage yields an empty window.
    ///
    /// # Errors
    /// [`CorruptReplay`], also for more boots than `BOOTS`.
    pub fn decode(stored: &[u8]) -> Result<Self, CorruptReplay> {
        let (front, rest) = stored.split_first_chunk::<FRONT_OCTETS>().ok_or(CorruptReplay)?;
        let [version, f0, f1, f2, f3, count] = *front;
        let (seen, left_over) = rest.as_chunks();
        if version != VERSION || !left_over.is_empty() || seen.len() != usize::from(count) || seen.len() > BOOTS {
            return Err(CorruptReplay);
        }
        let mut replay = Self { floor: u32::from_be_bytes([f0, f1, f2, f3]), boots: [None; BOOTS] };
        for (place, octets) in replay.boots.iter_mut().zip(seen) {
            *place = Some(Seen::read(octets).ok_or(CorruptReplay)?);
        }
        Ok(replay)
    }
}
