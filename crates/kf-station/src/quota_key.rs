//! Which key signed a quota: the one that the station pins, or one that it leads to over the links in the quota's file.

use kf_batch::P256Key;
use kf_batch::frame::{FormatError, split_quota};
use kf_batch::quota::Quota;
use kf_exchange::PublicKey;
use kf_exchange::succession::{KeyRole, follow};

/// The most times that links are followed: each goes as far as 16 of them.
const MAX_ROUNDS: usize = 4;

/// The signed quota in a file, without the links behind it, and the key that signed it. Links prove themselves: the file may have
/// come on a stick from anybody.
///
/// # Errors
/// [`FormatError::OtherKey`] for a quota of a key that `pinned` does not lead to, those of reading.
pub fn quota_in<'a>(file: &'a [u8], pinned: &P256Key) -> Result<(&'a [u8], P256Key), FormatError> {
    let split = split_quota(file)?;
    let mut key = *pinned;
    for _ in 0..MAX_ROUNDS {
        match Quota::open(split.item, &key) {
            Err(FormatError::OtherKey) => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok((split.item, key)),
        }
        let held = PublicKey::from_spki(&key.spki()).map_err(|_not_a_point| FormatError::OtherKey)?;
        let newer = follow(split.rest, KeyRole::Batch, &held).ok_or(FormatError::OtherKey)?;
        key = P256Key::from_spki(&newer.key.to_spki())?;
    }
    Err(FormatError::OtherKey)
}
