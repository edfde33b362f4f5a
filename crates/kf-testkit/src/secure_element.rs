//! A secure element of the ATECC608 class on an I2C bus, emulated: **built from public documents; not certified**.
//!
//! What it does is taken from the complete data sheet of the ATECC508A, the public data sheets of the provisioned ATECC608
//! variants and the constants that the maker publishes; no real chip was compared with it. Where these leave a choice, it
//! takes the stricter one: the shortest watchdog, volatile keys spent by their use. It computes with real cryptography, keeps
//! slot policies and locks, sleeps and wakes, and can be made to fail. Commands: AES, Counter, ECDH, GenDig, GenKey, Info,
//! KDF (HKDF mode), Lock, Nonce, Random, Read, SelfTest, SHA (with HMAC), Sign (external), Verify (external), Write. Others
//! get a parse error, as from a chip that lacks them.
//!
//! Its generator is a hash chain from the chip's number, and signatures are deterministic: two runs make the same keys.
//! Time is its own: it passes with [`ElementDelay`] and with each octet on the bus. Counters are not mirrored in the
//! configuration zone.
// A model for tests: its tables are indexed within lengths that stand beside them.
#![allow(clippy::indexing_slicing, clippy::as_conversions, clippy::cast_possible_truncation)]

mod bus;
mod chip;
mod digest;
mod ecc;
mod memory;
mod served;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::Board;
use chip::Chip;

pub use bus::{BusError, ElementBus, ElementDelay};
pub use served::ServedElement;

/// Something that goes wrong once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next so many command groups are not acknowledged.
    NotAcknowledged(usize),
    /// The next so many command groups reach the chip damaged.
    CommandDamaged(usize),
    /// The next so many times an answer is read, it is damaged.
    AnswerDamaged(usize),
    /// The next command is executed, and its answer does not come.
    Late,
    /// The chip goes away during the next command, before it is executed.
    Vanish,
    /// The next command is answered with this status instead of being executed.
    Status(u8),
    /// The chip wakes in failure mode, until its power is cut.
    SelfTest,
    /// The next SelfTest command reports these tests as failed.
    SelfTestReport(u8),
    /// The next signature is one by another key.
    WrongSignature,
}

/// When power is cut, around a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before it is executed.
    Before,
    /// After it was executed, before its answer is read.
    After,
}

/// What a chip held at one moment.
#[derive(Debug)]
pub struct HeldByElement(Chip);

/// One chip. Clones are the same chip.
#[derive(Clone, Debug)]
pub struct SecureElement(Arc<Mutex<Board>>);

impl SecureElement {
    /// A chip fresh from the maker, at address 0x60: nothing configured, nothing locked. `number` becomes part of its serial
    /// number.
    #[must_use]
    pub fn blank(number: u16) -> Self {
        Self(Arc::new(Mutex::new(Board::new(number))))
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its bus.
    #[must_use]
    pub fn bus(&self) -> ElementBus {
        ElementBus::new(Arc::clone(&self.0))
    }

    /// Its time.
    #[must_use]
    pub fn delay(&self) -> ElementDelay {
        ElementDelay::new(Arc::clone(&self.0))
    }

    /// Its configuration zone.
    #[must_use]
    pub fn config(&self) -> [u8; 128] {
        self.board().chip.config
    }

    /// What a slot holds, as no command tells.
    #[must_use]
    pub fn slot(&self, number: usize) -> Vec<u8> {
        self.board().chip.slots[number].clone()
    }

    /// How many commands it has executed since it was made.
    #[must_use]
    pub fn executed(&self) -> usize {
        self.board().executed
    }

    /// How many commands it has executed of this opcode.
    #[must_use]
    pub fn executed_of(&self, opcode: u8) -> usize {
        self.board().executed_of[usize::from(opcode)]
    }

    /// Every octet that crossed the bus, both ways, since it was made.
    #[must_use]
    pub fn traffic(&self) -> Vec<u8> {
        self.board().traffic.clone()
    }

    /// Whether it sleeps: woken never, or put to sleep, or by its watchdog.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.board().is_asleep()
    }

    /// Makes something go wrong once. Faults are independent of each other.
    pub fn fault(&self, fault: Fault) {
        self.board().faults.push(fault);
    }

    /// Cuts the power around the command after `after` more commands.
    pub fn cut_power(&self, after: usize, moment: Moment) {
        let mut board = self.board();
        board.cut = Some((board.executed.saturating_add(after), moment));
    }

    /// What it holds now.
    #[must_use]
    pub fn held(&self) -> HeldByElement {
        HeldByElement(self.board().chip.clone())
    }

    /// Makes it hold what it held, and without power in between.
    pub fn put_back(&self, held: &HeldByElement) {
        self.set_power(false);
        self.board().chip = held.0.clone();
        self.set_power(true);
    }

    /// Takes it off the bus, or puts it there again; without power it forgets what is volatile.
    pub fn set_power(&self, is_on: bool) {
        self.board().set_power(is_on);
    }
}
