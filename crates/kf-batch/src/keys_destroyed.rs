//! The end of a batch at its station: its keys were destroyed in the token, and looked for. The key that signed the records is one of
//! them, so the station's identity key says it.

use kf_key::{BatchId, UnixMillis};

use crate::codec::{Input, Out, Written, decode, encode, is_text};
use crate::frame::{FormatError, Kind, Signed, Unsigned};
use crate::key::P256Key;
use crate::station_request::head;

const MAX_METHOD_OCTETS: usize = 128;
const VERSION: u8 = 1;

/// What a station says of the keys of a batch that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysDestroyed {
    /// The batch.
    pub batch: BatchId,
    /// Which keys of the station they were, counted from 1.
    pub generation: u64,
    /// SHA-256 of the public keys (SubjectPublicKeyInfo) of batch CA, records and transport.
    pub keys: [[u8; 32]; 3],
    /// By which method, and that they were looked for; at most 128 octets.
    pub method: String,
    /// Whether the batch was given up before the station closed it.
    pub is_given_up: bool,
    /// When.
    pub at: UnixMillis,
}

impl KeysDestroyed {
    fn write(&self, out: &mut Out) -> Written {
        let [authority, record, transport] = &self.keys;
        out.array(8)?
            .u8(Kind::KeysDestroyed.code())?
            .u8(VERSION)?
            .bytes(self.batch.as_bytes())?
            .u64(self.generation)?;
        out.array(3)?.bytes(authority)?.bytes(record)?.bytes(transport)?;
        out.str(&self.method)?.bool(self.is_given_up)?.u64(self.at.0)?.ok()
    }

    fn read(input: &mut Input<'_>) -> Result<Self, FormatError> {
        input.array(8)?;
        head(input, Kind::KeysDestroyed, VERSION)?;
        let (batch, generation) = (BatchId::from_bytes(input.octets()?), input.u64()?);
        input.array(3)?;
        let destroyed = Self {
            batch,
            generation,
            keys: [input.octets()?, input.octets()?, input.octets()?],
            method: input.text("method", MAX_METHOD_OCTETS)?,
            is_given_up: input.bool()?,
            at: UnixMillis(input.u64()?),
        };
        destroyed.check()?;
        Ok(destroyed)
    }

    fn check(&self) -> Result<(), FormatError> {
        if self.generation == 0 {
            return Err(FormatError::Field("generation"));
        }
        if is_text(&self.method, MAX_METHOD_OCTETS) { Ok(()) } else { Err(FormatError::Field("method")) }
    }

    /// What the identity key signs.
    ///
    /// # Errors
    /// [`FormatError::Field`].
    pub fn prepare(&self, identity: &P256Key) -> Result<Unsigned, FormatError> {
        self.check()?;
        Ok(Unsigned::new(Kind::KeysDestroyed, identity, encode(|out| self.write(out))))
    }

    /// What a document claims. Nothing is proved.
    ///
    /// # Errors
    /// Those of reading.
    pub fn claimed(document: &[u8]) -> Result<Self, FormatError> {
        decode(Signed::read(Kind::KeysDestroyed, document)?.unverified_payload(), Self::read, Self::write)
    }

    /// What the station says, if its identity key signed it.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn verify(document: &[u8], identity: &P256Key) -> Result<Self, FormatError> {
        let signed = Signed::read(Kind::KeysDestroyed, document)?;
        decode(signed.verify(Kind::KeysDestroyed, identity)?, Self::read, Self::write)
    }
}
