//! Records that survive power cuts: a journal over two banks of erase-block memory.
//!
//! Each bank begins with a header and holds a row of *groups*. A group is one atomic update: one or several records, an
//! integrity tag, and then a *mark*, a word of its own that is programmed when the group is complete:
//!
//! ```text
//! bank    header, padded to a word | mark | group | group | ... | erased
//! header  magic 4 | sequence 4 | tag 8                                            (integers big endian)
//! group   n 2 | !n 2 | records n | tag 8, padded to a word | mark
//! record  id 2 | m 2 | octets m         m = 0xFFFF: removed
//! ```
//! When a bank is full, what is alive is copied to the other one, whose header comes last; then the old bank is erased
//! and read back. So one bank is erased at any time but during that.
//!
//! What a power cut leaves behind is settled by [`Store::open`] before the first value is given out. A tail that is not
//! whole and clean is never written behind and never left as it is: cells whose programming was cut may read
//! differently each time, so the living records move to fresh cells first. Therefore every update is either there, for
//! good, or was never there. What cannot come from a power cut is [`StorageError::Corrupt`]: a counter that silently fell
//! back would be worse than a device that asks for help.
//!
//! Tags are CRC-32 ([`Checksum`]), or HMAC-SHA-256 under a key that the chip holds ([`Authenticated`]). Neither can tell
//! an old copy of the whole memory that somebody has written back: only a monotonic counter in hardware can.

mod counter;
mod flash;
mod format;
mod integrity;
mod journal;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;
mod store;

pub use counter::{Counter, CounterError, HighWater};
pub use flash::{Flash, Geometry, Medium};
pub use integrity::{Authenticated, Checksum, Integrity};
pub use store::{Change, Erasure, RecordId, StorageError, Store};

#[cfg(test)]
mod tests;
