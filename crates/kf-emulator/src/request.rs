//! Requests to the image that computes vectors: an operation octet and fields, each behind its length.

use crate::machine::{Machine, MachineError};

pub(crate) const STEP: u8 = 1;
pub(crate) const COUNTER_STEP: u8 = 2;
pub(crate) const EXTRACT: u8 = 3;
pub(crate) const HMAC: u8 = 4;
pub(crate) const SEAL: u8 = 5;
pub(crate) const OPEN: u8 = 6;

/// A request being built. A field that cannot be encoded spoils it, which the firmware answers with a refusal.
pub(crate) struct Request {
    frame: Vec<u8>,
    is_whole: bool,
}

impl Request {
    pub(crate) fn new(operation: u8) -> Self {
        Self { frame: vec![operation], is_whole: true }
    }

    pub(crate) fn octets(mut self, field: &[u8]) -> Self {
        match u16::try_from(field.len()) {
            Ok(length) => {
                self.frame.extend_from_slice(&length.to_le_bytes());
                self.frame.extend_from_slice(field);
            }
            Err(_) => self.is_whole = false,
        }
        self
    }

    pub(crate) fn hex(mut self, field: &str) -> Self {
        match hex::decode(field) {
            Ok(octets) => self.octets(&octets),
            Err(_) => {
                self.is_whole = false;
                self
            }
        }
    }

    pub(crate) fn octet(self, field: u8) -> Self {
        self.octets(&[field])
    }

    pub(crate) fn number(self, field: u32) -> Self {
        self.octets(&field.to_be_bytes())
    }

    pub(crate) fn text(self, field: &str) -> Self {
        self.octets(field.as_bytes())
    }

    /// The result, or `None` when the firmware refuses.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(crate) fn ask(self, machine: &mut Machine) -> Result<Option<Vec<u8>>, MachineError> {
        if !self.is_whole {
            return Err(MachineError::Request);
        }
        let mut answer = machine.ask(&self.frame)?;
        match answer.first() {
            Some(0) => Ok(Some(answer.split_off(1))),
            Some(1) => Ok(None),
            _ => Err(MachineError::Request),
        }
    }
}
