//! Errors, by who must act.

use core::fmt;

use embedded_hal::i2c::ErrorKind;

use crate::config::Slot;
use crate::policy::Refusal;
use crate::wire::Opcode;

/// Why a secure element did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The caller: the chip's configuration does not permit it. Nothing was sent.
    Refused(Refusal),
    /// The caller: the element is in use by another call.
    InUse,
    /// The operator: nothing wakes at the address.
    Asleep,
    /// The hardware: it stopped answering in the middle of a command and does not wake any more.
    Gone(Opcode),
    /// The hardware: no answer within the command's longest execution time; the chip wakes again. Whether the command was
    /// executed is not known.
    Late(Opcode),
    /// The hardware: checksums went wrong again and again, of commands or of answers.
    Crc(Opcode),
    /// The hardware: an answer of a length that this command does not have.
    Answer(Opcode),
    /// The hardware: its watchdog would end before the command.
    Watchdog(Opcode),
    /// The chip did not understand the command. A bug of ours, or another kind of chip.
    Parse(Opcode),
    /// The chip refused in its present state.
    Execution(Opcode),
    /// The chip found its elliptic-curve computation faulty.
    EccFault,
    /// The chip's self-test failed, or it woke in failure mode. The failed tests as bits.
    SelfTest(u8),
    /// The chip's random number generator failed its health test.
    Health,
    /// The signature or the authorisation compared does not match.
    Mismatch,
    /// What was locked stays so: the configuration zone, the data zone, or a slot.
    Locked(Option<Slot>),
    /// A status that no public document describes.
    Status(Opcode, u8),
    /// What was written is not what is read, or what was injected is not what answers.
    ReadBack,
    /// The chip's configuration was locked with another layout; it cannot be used with this one.
    OtherLayout,
    /// What the operator typed is not this chip's serial number. Nothing was done.
    Confirmation,
    /// The bus, other than by not acknowledging.
    Bus(ErrorKind),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_) => f.write_str("the secure element's configuration does not permit this"),
            Self::InUse => f.write_str("the secure element is in use by another call"),
            Self::Asleep => f.write_str("no secure element wakes; check address, wiring and power"),
            Self::Gone(command) => write!(f, "the secure element went away during {command}"),
            Self::Late(command) => write!(f, "the secure element did not answer {command} in time"),
            Self::Crc(command) => write!(f, "checksum errors on the bus during {command}; check wiring and speed"),
            Self::Answer(command) => write!(f, "the answer to {command} has a wrong length"),
            Self::Watchdog(command) => write!(f, "the secure element's watchdog left no time for {command}"),
            Self::Parse(command) => write!(f, "the secure element did not understand {command}; is it an ATECC608?"),
            Self::Execution(command) => write!(f, "the secure element refused {command} in its present state"),
            Self::EccFault => f.write_str("the secure element reported a fault in its elliptic-curve unit"),
            Self::SelfTest(failed) => write!(f, "the secure element's self-test failed ({failed:#04x}); replace it"),
            Self::Health => f.write_str("the secure element's random number generator failed its health test"),
            Self::Mismatch => f.write_str("the signature does not match"),
            Self::Locked(None) => f.write_str("the zone is locked; nothing unlocks it"),
            Self::Locked(Some(slot)) => write!(f, "{slot} is locked; nothing unlocks it"),
            Self::Status(command, status) => write!(f, "the secure element answered {command} with {status:#04x}"),
            Self::ReadBack => f.write_str("the secure element does not hold what was written; scrap it"),
            Self::OtherLayout => f.write_str("the secure element was configured with another layout for good"),
            Self::Confirmation => f.write_str("what was typed is not this secure element's serial number"),
            Self::Bus(kind) => write!(f, "the I2C bus failed: {kind}"),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}
