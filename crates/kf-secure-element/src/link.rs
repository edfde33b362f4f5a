//! One chip on the bus: waking, sending, polling within a deadline, sending again what was not executed.

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::{Error as _, ErrorKind, I2c};

use crate::error::Error;
use crate::wire::{Answer, Command, Group, Opcode};

const WORD_RESET: u8 = 0;
const WORD_SLEEP: u8 = 1;
const WORD_IDLE: u8 = 2;

const AFTER_WAKE: [u8; 4] = [0x04, 0x11, 0x33, 0x43];
/// Failure mode. What is published as the checksum of this answer is not the checksum of this answer, so it is not looked at.
const SELF_TEST_FAILED: [u8; 2] = [0x04, 0x07];

/// From the wake token until the chip takes commands.
const WAKE_US: u32 = 1_500;
const WAKE_ATTEMPTS: usize = 3;
/// How often a command is sent again that the chip says it did not execute.
const SEND_ATTEMPTS: usize = 4;
/// How often a damaged answer is read again. It stays in the chip until the next command.
const READ_ATTEMPTS: usize = 3;
const POLL_US: u32 = 1_000;
/// The shortest watchdog of any chip is 700 ms after waking; the longest 1,700 ms.
const SHORTEST_WATCHDOG_US: u32 = 650_000;
const LONGEST_WATCHDOG_US: u32 = 1_700_000;
/// One octet at 100 kHz with its acknowledgement.
const OCTET_US: u32 = 90;
/// What a host spends around one transfer. There is no clock here: the watchdog is reckoned with, generously.
const TRANSFER_US: u32 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    /// Asleep, idle, or not known: to be woken first.
    Resting,
    /// Awake for so long.
    Awake { us: u32 },
}

/// A chip behind a bus.
pub(crate) struct Link<I, D> {
    i2c: I,
    delay: D,
    address: u8,
    power: Power,
    is_slow_clock: bool,
}

impl<I: I2c, D: DelayNs> Link<I, D> {
    pub(crate) const fn new(i2c: I, delay: D, address: u8) -> Self {
        // Until its configuration is known, the chip may have the slowest clock.
        Self { i2c, delay, address, power: Power::Resting, is_slow_clock: true }
    }

    pub(crate) const fn set_slow_clock(&mut self, is_slow: bool) {
        self.is_slow_clock = is_slow;
    }

    /// Goes on at another address, to which the chip was configured.
    pub(crate) const fn set_address(&mut self, address: u8) {
        self.address = address;
    }

    /// Executes one command.
    ///
    /// A command is sent again only when the chip says that it was not executed. A damaged answer is read again, not
    /// asked for again.
    pub(crate) fn execute(&mut self, command: &Command<'_>) -> Result<Answer, Error> {
        let group = command.encode()?;
        let opcode = command.opcode;
        let mut failure = Error::Crc(opcode);
        for _ in 0..SEND_ATTEMPTS {
            self.make_ready(opcode)?;
            if let Err(error) = self.send(&group) {
                // Not taken at all: the chip fell asleep or the line is noisy.
                self.power = Power::Resting;
                failure = error;
                continue;
            }
            let answer = self.receive(opcode)?;
            match answer.status() {
                // After wake, before any command: the group never arrived.
                Some(0xff | 0x11) => failure = Error::Crc(opcode),
                Some(0xee) => {
                    self.idle();
                    failure = Error::Watchdog(opcode);
                }
                Some(status) if opcode != Opcode::SelfTest => return judge(opcode, status).map(|()| answer),
                _ => return Ok(answer),
            }
        }
        Err(failure)
    }

    /// Puts the chip to sleep: it forgets its volatile keys. That it did not acknowledge shows at the next waking.
    pub(crate) fn sleep(&mut self) {
        if self.power != Power::Resting {
            self.word(WORD_SLEEP).ok();
        }
        self.power = Power::Resting;
    }

    /// Lets the chip rest and keep its volatile keys.
    fn idle(&mut self) {
        self.word(WORD_IDLE).ok();
        self.power = Power::Resting;
    }

    /// Awake, and the watchdog leaves time for this command.
    fn make_ready(&mut self, opcode: Opcode) -> Result<(), Error> {
        if let Power::Awake { us } = self.power {
            if us.saturating_add(opcode.execution_us(self.is_slow_clock)) <= SHORTEST_WATCHDOG_US {
                return Ok(());
            }
            self.idle();
        }
        self.wake()
    }

    fn wake(&mut self) -> Result<(), Error> {
        for _ in 0..WAKE_ATTEMPTS {
            // The low level of the line wakes; nobody acknowledges address 0.
            self.i2c.write(0, &[0]).ok();
            self.delay.delay_us(WAKE_US);
            let mut answer = [0; 4];
            if self.i2c.read(self.address, &mut answer).is_ok() {
                if answer == AFTER_WAKE {
                    self.power = Power::Awake { us: 0 };
                    return Ok(());
                }
                if answer.starts_with(&SELF_TEST_FAILED) {
                    return Err(Error::SelfTest(0));
                }
            }
            // Perhaps it was awake already, from before a reset of ours: the token then meant nothing.
            self.word(WORD_SLEEP).ok();
            self.delay.delay_us(WAKE_US);
        }
        self.power = Power::Resting;
        Err(Error::Asleep)
    }

    fn word(&mut self, word: u8) -> Result<(), Error> {
        self.elapse(2 * OCTET_US + TRANSFER_US);
        self.i2c.write(self.address, &[word]).map_err(|error| bus(error.kind()))
    }

    fn send(&mut self, group: &Group) -> Result<(), Error> {
        let octets = group.as_bytes();
        let transfer = u32::try_from(octets.len()).unwrap_or(u32::MAX).saturating_mul(OCTET_US);
        self.elapse(transfer.saturating_add(TRANSFER_US));
        self.i2c.write(self.address, octets).map_err(|error| bus(error.kind()))
    }

    /// Polls until there is an answer or the deadline is over: half as long again as the longest execution.
    fn receive(&mut self, opcode: Opcode) -> Result<Answer, Error> {
        let longest = opcode.execution_us(self.is_slow_clock);
        let deadline = longest.saturating_add(longest / 2).saturating_add(5_000);
        let mut waited = 0_u32;
        let mut failure = None;
        while waited < deadline {
            self.pause(POLL_US);
            self.elapse(TRANSFER_US);
            waited = waited.saturating_add(POLL_US);
            let mut count = [0];
            match self.i2c.read(self.address, &mut count) {
                Ok(()) => return self.read_answer(opcode, count),
                Err(error) => failure = Some(error.kind()),
            }
        }
        self.power = Power::Resting;
        match failure {
            Some(kind @ (ErrorKind::Bus | ErrorKind::ArbitrationLoss | ErrorKind::Overrun)) => Err(Error::Bus(kind)),
            _ => {
                // By then its watchdog has put it to sleep, whatever it was doing.
                self.delay.delay_us(LONGEST_WATCHDOG_US);
                Err(if self.wake().is_ok() { Error::Late(opcode) } else { Error::Gone(opcode) })
            }
        }
    }

    fn read_answer(&mut self, opcode: Opcode, [first]: [u8; 1]) -> Result<Answer, Error> {
        let mut count = first;
        let mut answer = Answer::empty();
        for _ in 0..READ_ATTEMPTS {
            if self.read_rest(&mut answer, count) && answer.is_intact() {
                return Ok(answer);
            }
            // The answer stays in the chip: from its beginning, once more.
            self.word(WORD_RESET).ok();
            self.pause(POLL_US);
            let mut again = [0];
            if self.i2c.read(self.address, &mut again).is_ok() {
                [count] = again;
            }
        }
        Err(Error::Crc(opcode))
    }

    /// Reads what follows the count; `false` when there is no such answer or the bus failed.
    fn read_rest(&mut self, answer: &mut Answer, count: u8) -> bool {
        self.elapse(u32::from(count).saturating_mul(OCTET_US).saturating_add(TRANSFER_US));
        let Some((first, rest)) = answer.place(count).and_then(<[u8]>::split_first_mut) else { return false };
        *first = count;
        self.i2c.read(self.address, rest).is_ok()
    }

    fn pause(&mut self, us: u32) {
        self.delay.delay_us(us);
        self.elapse(us);
    }

    const fn elapse(&mut self, more: u32) {
        if let Power::Awake { us } = self.power {
            self.power = Power::Awake { us: us.saturating_add(more) };
        }
    }
}

const fn bus(kind: ErrorKind) -> Error {
    match kind {
        ErrorKind::NoAcknowledge(_) | ErrorKind::Other => Error::Asleep,
        kind => Error::Bus(kind),
    }
}

const fn judge(opcode: Opcode, status: u8) -> Result<(), Error> {
    Err(match status {
        0x00 => return Ok(()),
        0x01 => Error::Mismatch,
        0x03 => Error::Parse(opcode),
        0x05 => Error::EccFault,
        0x07 => Error::SelfTest(0),
        0x08 => Error::Health,
        0x0f => Error::Execution(opcode),
        status => Error::Status(opcode, status),
    })
}
