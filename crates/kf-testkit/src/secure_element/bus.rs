//! The bus: waking, idling, sleeping, being busy, the watchdog, and faults.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

use super::chip::{Chip, Group, status};
use super::{Fault, Moment};

/// Bus time of one octet at 100 kHz.
const OCTET_NS: u64 = 90_000;
/// What a host needs at least from one transfer to the next.
const TRANSFER_NS: u64 = 500_000;
const WAKE_NS: u64 = 1_500_000;
/// The shortest that the data sheets allow.
const WATCHDOG_NS: u64 = 700_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    Off,
    Asleep,
    Idle,
    /// Awake, or about to be, since the wake token.
    Awake {
        since: u64,
    },
}

/// A chip and the bus it hangs on.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) chip: Chip,
    pub(super) executed: usize,
    pub(super) executed_of: [usize; 256],
    pub(super) traffic: Vec<u8>,
    pub(super) faults: Vec<Fault>,
    pub(super) cut: Option<(usize, Moment)>,
    now: u64,
    power: Power,
    address: u8,
    busy_until: u64,
    output: Vec<u8>,
    read: usize,
}

impl Board {
    pub(super) fn new(number: u16) -> Self {
        let chip = Chip::blank(number);
        Self {
            address: chip.address(),
            chip,
            executed: 0,
            executed_of: [0; 256],
            traffic: Vec::new(),
            faults: Vec::new(),
            cut: None,
            now: 0,
            power: Power::Asleep,
            busy_until: 0,
            output: Vec::new(),
            read: 0,
        }
    }

    pub(super) fn is_asleep(&mut self) -> bool {
        self.let_time_pass(0);
        self.power == Power::Asleep
    }

    pub(super) fn set_power(&mut self, is_on: bool) {
        self.fall_asleep();
        self.faults.retain(|fault| *fault != Fault::SelfTest);
        self.cut = None;
        self.power = if is_on { Power::Asleep } else { Power::Off };
    }

    fn fall_asleep(&mut self) {
        self.chip.forget();
        self.busy_until = 0;
        self.output.clear();
        self.power = Power::Asleep;
    }

    fn let_time_pass(&mut self, ns: u64) {
        self.now = self.now.saturating_add(ns);
        if let Power::Awake { since } = self.power
            && self.now.saturating_sub(since) >= WATCHDOG_NS
        {
            self.fall_asleep();
        }
    }

    /// One of these faults, once.
    fn strikes(&mut self, is_it: impl Fn(Fault) -> bool) -> Option<Fault> {
        let place = self.faults.iter().position(|fault| is_it(*fault))?;
        let fault = self.faults[place];
        match &mut self.faults[place] {
            Fault::NotAcknowledged(times) | Fault::CommandDamaged(times) | Fault::AnswerDamaged(times)
                if *times > 1 =>
            {
                *times -= 1;
            }
            _ => {
                self.faults.remove(place);
            }
        }
        Some(fault)
    }

    fn is_ready(&self) -> bool {
        match self.power {
            Power::Awake { since } => self.now >= since.saturating_add(WAKE_NS) && self.now >= self.busy_until,
            _ => false,
        }
    }

    fn write(&mut self, address: u8, octets: &[u8]) -> Result<(), BusError> {
        self.let_time_pass(TRANSFER_NS + OCTET_NS * (octets.len() as u64 + 1));
        if matches!(self.power, Power::Asleep | Power::Idle) {
            // Whatever is sent pulls the line down: the wake token. Nobody acknowledges.
            if self.power == Power::Asleep {
                self.address = self.chip.address();
            }
            self.power = Power::Awake { since: self.now };
            let is_sick = self.faults.contains(&Fault::SelfTest);
            self.answer(&[if is_sick { status::SELF_TEST } else { status::AFTER_WAKE }]);
            return Err(BusError::NOT_ACKNOWLEDGED);
        }
        if address != self.address || !self.is_ready() {
            return Err(BusError::NOT_ACKNOWLEDGED);
        }
        self.traffic.extend_from_slice(octets);
        match octets {
            [0, ..] => self.read = 0,
            [1, ..] => self.fall_asleep(),
            [2, ..] => {
                self.power = Power::Idle;
                self.output.clear();
            }
            [3, group @ ..] => return self.command(group),
            _ => {}
        }
        Ok(())
    }

    fn command(&mut self, octets: &[u8]) -> Result<(), BusError> {
        if self.strikes(|fault| matches!(fault, Fault::NotAcknowledged(_))).is_some() {
            return Err(BusError::NOT_ACKNOWLEDGED);
        }
        let is_damaged = self.strikes(|fault| matches!(fault, Fault::CommandDamaged(_))).is_some();
        let Some(group) = Group::parse(octets).filter(|_intact| !is_damaged) else {
            self.answer(&[status::CRC]);
            return Ok(());
        };
        if self.cut == Some((self.executed, Moment::Before)) || self.strikes(|f| f == Fault::Vanish).is_some() {
            self.power = Power::Off;
            self.chip.forget();
            self.cut = None;
            return Ok(());
        }
        let forced = self.strikes(|fault| matches!(fault, Fault::Status(_) | Fault::SelfTestReport(_)));
        let wrong = group.opcode == 0x41 && self.strikes(|fault| fault == Fault::WrongSignature).is_some();
        let is_cut = self.cut == Some((self.executed, Moment::After));
        self.executed += 1;
        self.executed_of[usize::from(group.opcode)] += 1;
        let answer = match forced {
            Some(Fault::Status(status)) => Err(status),
            Some(Fault::SelfTestReport(failed)) => Ok(vec![failed]),
            _ => self.chip.execute(&group, wrong),
        };
        self.answer(&answer.unwrap_or_else(|status| vec![status]));
        self.busy_until = self.now.saturating_add(group.execution_ns());
        if self.strikes(|fault| fault == Fault::Late).is_some() {
            self.busy_until = u64::MAX;
        }
        if is_cut {
            self.power = Power::Off;
            self.chip.forget();
            self.cut = None;
        }
        Ok(())
    }

    fn answer(&mut self, data: &[u8]) {
        let mut output = vec![data.len() as u8 + 3];
        output.extend_from_slice(data);
        output.extend_from_slice(&super::chip::checksum(&output).to_le_bytes());
        self.output = output;
        self.read = 0;
    }

    fn read(&mut self, address: u8, octets: &mut [u8]) -> Result<(), BusError> {
        self.let_time_pass(TRANSFER_NS + OCTET_NS * (octets.len() as u64 + 1));
        if address != self.address || !self.is_ready() || self.output.is_empty() {
            return Err(BusError::NOT_ACKNOWLEDGED);
        }
        for octet in &mut *octets {
            *octet = self.output.get(self.read).copied().unwrap_or(0xff);
            self.read += 1;
        }
        let is_whole = self.read >= self.output.len();
        if is_whole && self.strikes(|fault| matches!(fault, Fault::AnswerDamaged(_))).is_some() {
            octets[octets.len() / 2] ^= 0x10;
        }
        self.traffic.extend_from_slice(octets);
        Ok(())
    }
}

/// An error of the emulated bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusError(ErrorKind);

impl BusError {
    const NOT_ACKNOWLEDGED: Self = Self(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown));
}

impl embedded_hal::i2c::Error for BusError {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

/// The bus of an emulated chip.
#[derive(Clone, Debug)]
pub struct ElementBus(Arc<Mutex<Board>>);

impl ElementBus {
    pub(super) const fn new(board: Arc<Mutex<Board>>) -> Self {
        Self(board)
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ErrorType for ElementBus {
    type Error = BusError;
}

impl I2c for ElementBus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), BusError> {
        let mut board = lock(&self.0);
        for operation in operations {
            match operation {
                Operation::Write(octets) => board.write(address, octets)?,
                Operation::Read(octets) => board.read(address, octets)?,
            }
        }
        Ok(())
    }
}

/// The time of an emulated chip: waiting costs none of ours.
#[derive(Clone, Debug)]
pub struct ElementDelay(Arc<Mutex<Board>>);

impl ElementDelay {
    pub(super) const fn new(board: Arc<Mutex<Board>>) -> Self {
        Self(board)
    }
}

impl DelayNs for ElementDelay {
    fn delay_ns(&mut self, ns: u32) {
        lock(&self.0).let_time_pass(u64::from(ns));
    }
}
