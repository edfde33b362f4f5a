//! Reading a partition.

use sha2::{Digest, Sha256};

use super::record::{KeyProtection, Record, RecordType};
use super::{ALIGNMENT, CRC_OCTETS, HEADER_OCTETS, MAGIC, MAX_PARTITION_OCTETS, SecureCertError};
use crate::octets::{crc32, is_blank, u16_le, u32_le};

/// A partition, read where it lies.
#[derive(Clone, Copy)]
pub struct SecureCert<'a>(&'a [u8]);

/// What the last record says of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// There is no integrity record. Tools before 2.6 wrote none.
    Absent,
    /// The digest is right for all records before it.
    Holds,
    /// The digest is wrong.
    Broken,
    /// Records come after the last integrity record.
    Partial,
}

impl<'a> SecureCert<'a> {
    /// Takes a partition, or a file that holds its records only.
    ///
    /// # Errors
    /// [`SecureCertError::PartitionSize`].
    pub const fn new(octets: &'a [u8]) -> Result<Self, SecureCertError> {
        if octets.len() < HEADER_OCTETS + CRC_OCTETS || octets.len() > MAX_PARTITION_OCTETS {
            return Err(SecureCertError::PartitionSize { octets: octets.len() });
        }
        Ok(Self(octets))
    }

    /// The records in order. After a damaged one its length cannot be trusted, so that the error is the last item; so is
    /// [`SecureCertError::Trailing`] when what follows the records is not blank. The vendor's end mark, ffff, is blank.
    pub fn records(&self) -> impl Iterator<Item = Result<Record<'a>, SecureCertError>> + use<'a> {
        let octets = self.0;
        let mut offset = Some(0);
        core::iter::from_fn(move || {
            let here = offset.take()?;
            let rest = octets.get(here..)?;
            if rest.is_empty() || is_end(rest) {
                return None;
            }
            let record = read_record(here, rest);
            if let Ok(record) = &record {
                offset = Some(here + record.octets.len());
            }
            Some(record)
        })
    }

    /// The record of this type and index.
    ///
    /// # Errors
    /// [`SecureCertError::Damaged`], [`SecureCertError::Trailing`]: a partition that is not whole has no records.
    pub fn record(&self, record_type: RecordType, index: u8) -> Result<Option<Record<'a>>, SecureCertError> {
        let mut found = None;
        for record in self.records() {
            let record = record?;
            if (record.record_type, record.index) == (record_type, index) {
                found = found.or(Some(record));
            }
        }
        Ok(found)
    }

    /// Checks the digest over all records.
    ///
    /// # Errors
    /// [`SecureCertError::Damaged`], [`SecureCertError::Trailing`].
    pub fn integrity(&self) -> Result<Integrity, SecureCertError> {
        let mut verdict = Integrity::Absent;
        for record in self.records() {
            let record = record?;
            verdict = match (verdict, record.record_type) {
                (Integrity::Broken, _) => Integrity::Broken,
                (_, RecordType::Integrity) => {
                    let before = self.0.get(..record.offset).unwrap_or_default();
                    if Sha256::digest(before).as_slice() == record.value { Integrity::Holds } else { Integrity::Broken }
                }
                (Integrity::Absent, _) => Integrity::Absent,
                (Integrity::Holds | Integrity::Partial, _) => Integrity::Partial,
            };
        }
        Ok(verdict)
    }
}

/// Blank flash, or the mark that `append integrity` of the vendor's tool leaves before it.
fn is_end(rest: &[u8]) -> bool {
    let after_mark = rest.strip_prefix(&0xffff_u32.to_le_bytes()).unwrap_or(rest);
    is_blank(after_mark)
}

fn read_record(offset: usize, rest: &[u8]) -> Result<Record<'_>, SecureCertError> {
    let damaged = SecureCertError::Damaged { offset };
    let header = rest.first_chunk::<HEADER_OCTETS>().ok_or(SecureCertError::Trailing { offset })?;
    if u32_le(header, 0) != MAGIC {
        return Err(SecureCertError::Trailing { offset });
    }
    let [.., flags, _, _, _, record_type, index, _, _] = *header;
    let length = usize::from(u16_le(header, 10));
    let crc_offset = HEADER_OCTETS + length.next_multiple_of(ALIGNMENT);
    let (covered, after) = rest.split_at_checked(crc_offset).ok_or(damaged)?;
    if after.len() < CRC_OCTETS || crc32(&[covered]) != u32_le(after, 0) {
        return Err(damaged);
    }
    Ok(Record {
        offset,
        record_type: RecordType::from_number(record_type),
        index,
        protection: KeyProtection::from_flags(flags),
        value: rest.get(HEADER_OCTETS..HEADER_OCTETS + length).ok_or(damaged)?,
        octets: rest.get(..crc_offset + CRC_OCTETS).ok_or(damaged)?,
    })
}
