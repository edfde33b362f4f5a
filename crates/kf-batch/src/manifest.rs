//! The end of a shift: how many records there are, and the hash of the last one.

use kf_key::{BatchId, UnixMillis};

use crate::codec::{Input, Out, Written, decode, encode, is_text};
use crate::frame::{FormatError, Kind, Signed, Unsigned};
use crate::key::P256Key;
use crate::station_request::head;

const MAX_NAME_OCTETS: usize = 64;
const VERSION: u8 = 1;

/// Records by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records with outcome passed.
    pub passed: u64,
    /// Records with outcome scrapped.
    pub scrapped: u64,
    /// Records with outcome rework.
    pub rework: u64,
}

impl Counts {
    /// All of them; `None` beyond 2^64.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.passed.checked_add(self.scrapped)?.checked_add(self.rework)
    }
}

/// What a station says when a shift ends. Whoever has it knows whether records are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The batch.
    pub batch: BatchId,
    /// Sequence of the last record; 0 when there is none.
    pub last: u64,
    /// Hash of the last record, or of the quota when there is none.
    pub head: [u8; 32],
    /// Records 1 to `last` by outcome; they add up to `last`.
    pub counts: Counts,
    /// When it was made.
    pub at: UnixMillis,
    /// Who closed the shift, at most 64 octets.
    pub operator: String,
    /// Whether the station will make nothing more of this batch.
    pub is_final: bool,
}

impl Manifest {
    fn write(&self, out: &mut Out) -> Written {
        out.array(9)?.u8(Kind::Manifest.code())?.u8(VERSION)?.bytes(self.batch.as_bytes())?.u64(self.last)?;
        out.bytes(&self.head)?.array(3)?.u64(self.counts.passed)?.u64(self.counts.scrapped)?.u64(self.counts.rework)?;
        out.u64(self.at.0)?.str(&self.operator)?.bool(self.is_final)?.ok()
    }

    fn read(input: &mut Input<'_>) -> Result<Self, FormatError> {
        input.array(9)?;
        head(input, Kind::Manifest, VERSION)?;
        let (batch, last, head) = (BatchId::from_bytes(input.octets()?), input.u64()?, input.octets()?);
        input.array(3)?;
        let counts = Counts { passed: input.u64()?, scrapped: input.u64()?, rework: input.u64()? };
        let manifest = Self {
            batch,
            last,
            head,
            counts,
            at: UnixMillis(input.u64()?),
            operator: input.text("operator", MAX_NAME_OCTETS)?,
            is_final: input.bool()?,
        };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), FormatError> {
        if self.counts.total() != Some(self.last) {
            return Err(FormatError::Field("counts"));
        }
        if is_text(&self.operator, MAX_NAME_OCTETS) { Ok(()) } else { Err(FormatError::Field("operator")) }
    }

    /// What the record key signs.
    ///
    /// # Errors
    /// [`FormatError::Field`].
    pub fn prepare(&self, record_key: &P256Key) -> Result<Unsigned, FormatError> {
        self.check()?;
        Ok(Unsigned::new(Kind::Manifest, record_key, encode(|out| self.write(out))))
    }

    /// What a document claims. Nothing is proved.
    ///
    /// # Errors
    /// Those of reading.
    pub fn claimed(document: &[u8]) -> Result<Self, FormatError> {
        decode(Signed::read(Kind::Manifest, document)?.unverified_payload(), Self::read, Self::write)
    }

    /// The manifest, if `record_key` signed it.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn verify(document: &[u8], record_key: &P256Key) -> Result<Self, FormatError> {
        let signed = Signed::read(Kind::Manifest, document)?;
        decode(signed.verify(Kind::Manifest, record_key)?, Self::read, Self::write)
    }
}
