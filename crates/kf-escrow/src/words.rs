//! A share as words, for paper: 11 bits each from the English list of BIP-39, whose words differ in their first four
//! letters. The share's own digest finds a wrong word; a share of a key of 32 octets has 46 words.

use kf_key::SecretBytes;
use zeroize::Zeroizing;

use crate::share::{MAX_SHARE_OCTETS, Share, ShareError};

const WORD_BITS: usize = 11;

/// Why words are no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordError {
    /// Not in the list.
    #[error("word {0} is not in the list")]
    Unknown(usize),
    /// More than any share has, or no whole number of octets.
    #[error("no share has {0} words")]
    Count(usize),
    /// The words are in the list and are no share.
    #[error(transparent)]
    Share(#[from] ShareError),
}

impl Share {
    /// The share as words with a space between; a secret.
    #[must_use]
    pub fn words(&self) -> SecretBytes {
        let octets = self.encode();
        let octets = octets.expose(); // to be written on paper
        let list = bip39::Language::English.word_list();
        let count = (octets.len() * 8).div_ceil(WORD_BITS);
        let words = (0..count).filter_map(|place| list.get(usize::from(bits(octets, place * WORD_BITS))));
        let mut text = Zeroizing::new(Vec::with_capacity(count * 9));
        for word in words {
            if !text.is_empty() {
                text.push(b' ');
            }
            text.extend_from_slice(word.as_bytes());
        }
        SecretBytes::fill(text.len(), |place| place.copy_from_slice(&text))
    }

    /// Reads a share from words, in any case, with any white space between.
    ///
    /// # Errors
    /// [`WordError`], which counts words from 1.
    pub fn from_words(text: &str) -> Result<Self, WordError> {
        let count = text.split_ascii_whitespace().count();
        let most = count.min(MAX_SHARE_OCTETS) * WORD_BITS / 8;
        // Up to ten bits fill the last word up, so that two lengths may have this many words; the digest tells which.
        let fits = |octets: &usize| *octets <= MAX_SHARE_OCTETS && (octets * 8).div_ceil(WORD_BITS) == count;
        let mut outcome = Err(WordError::Count(count));
        for length in [most.saturating_sub(1), most].into_iter().filter(fits) {
            outcome = octets_of(text, length).and_then(|octets| Ok(Self::decode(&octets)?));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

/// The first `length` octets of what the words stand for; the bits that are left over are zeroes.
fn octets_of(text: &str, length: usize) -> Result<Zeroizing<Vec<u8>>, WordError> {
    let list = bip39::Language::English.word_list();
    let mut octets = Zeroizing::new(vec![0_u8; length]);
    for (place, word) in text.split_ascii_whitespace().enumerate() {
        let found = list.iter().position(|known| known.eq_ignore_ascii_case(word));
        let number = found.and_then(|number| u16::try_from(number).ok()).ok_or(WordError::Unknown(place + 1))?;
        if !put_bits(&mut octets, place * WORD_BITS, number) {
            return Err(WordError::Share(ShareError::Sum));
        }
    }
    Ok(octets)
}

/// 11 bits from `start` on, the highest first; zeroes beyond the end.
fn bits(octets: &[u8], start: usize) -> u16 {
    (start..start + WORD_BITS).fold(0, |number, place| {
        let octet = octets.get(place / 8).copied().unwrap_or(0);
        (number << 1) | u16::from((octet >> (7 - place % 8)) & 1)
    })
}

/// Writes 11 bits from `start` on; whether those beyond the end are zeroes.
fn put_bits(octets: &mut [u8], start: usize, number: u16) -> bool {
    let mut is_whole = true;
    for place in 0..WORD_BITS {
        let bit = u8::from((number >> (WORD_BITS - 1 - place)) & 1 == 1);
        match octets.get_mut((start + place) / 8) {
            Some(octet) => *octet |= bit << (7 - (start + place) % 8),
            None => is_whole &= bit == 0,
        }
    }
    is_whole
}
