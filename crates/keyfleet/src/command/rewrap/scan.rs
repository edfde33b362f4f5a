//! Finds ciphertexts in a stream of octets, in bounded memory.

use std::io::{self, Read};

use kf_api::ciphertext::{CIPHERTEXT_PREFIX, Ciphertext, MAX_CIPHERTEXT_CHARACTERS};

/// Octets of the stream that are held.
const BUFFER_OCTETS: usize = 2 * MAX_CIPHERTEXT_CHARACTERS;

/// A piece of the stream: one after the other they are the whole of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Octets that are no ciphertext.
    Other(Vec<u8>),
    /// A ciphertext as it stands there, taken apart, and where it begins.
    Ciphertext {
        /// Octets before it in the stream.
        offset: u64,
        /// As it stands there.
        text: String,
        /// Taken apart.
        parsed: Ciphertext,
    },
}

/// Reads a stream piece by piece.
pub(crate) struct Scanner<R> {
    input: R,
    buffer: Vec<u8>,
    /// Octets of the stream before the buffer.
    before: u64,
    /// The octet before the buffer, where there was one.
    last: Option<u8>,
    ended: bool,
}

/// Whether an octet may stand in a ciphertext; one that does before a beginning makes it a part of something else.
const fn is_word(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_')
}

impl<R: Read> Scanner<R> {
    pub(crate) const fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), before: 0, last: None, ended: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        while !self.ended && self.buffer.len() < BUFFER_OCTETS {
            let room = u64::try_from(BUFFER_OCTETS - self.buffer.len()).unwrap_or(u64::MAX);
            self.ended = self.input.by_ref().take(room).read_to_end(&mut self.buffer)? == 0;
        }
        Ok(())
    }

    fn take(&mut self, octets: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(octets.min(self.buffer.len()));
        let taken = std::mem::replace(&mut self.buffer, rest);
        self.last = taken.last().copied().or(self.last);
        self.before += u64::try_from(taken.len()).unwrap_or(u64::MAX);
        taken
    }

    /// Where the next word that begins like a ciphertext begins in the buffer.
    fn beginning(&self) -> Option<usize> {
        let prefix = CIPHERTEXT_PREFIX.as_bytes();
        let mut windows = self.buffer.windows(prefix.len()).enumerate();
        windows.find_map(|(place, window)| {
            let before = match place.checked_sub(1) {
                Some(place) => self.buffer.get(place).copied(),
                None => self.last,
            };
            (window == prefix && before.is_none_or(|octet| !is_word(octet))).then_some(place)
        })
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// Of the stream.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece>> {
        self.fill()?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let prefix = CIPHERTEXT_PREFIX.len();
        let Some(place) = self.beginning() else {
            // A beginning may be cut by the end of the buffer.
            let kept = if self.ended { 0 } else { prefix - 1 };
            let octets = self.take(self.buffer.len() - kept);
            return Ok(Some(Piece::Other(octets)));
        };
        if place > 0 {
            let octets = self.take(place);
            return Ok(Some(Piece::Other(octets)));
        }
        let body = self.buffer.iter().skip(prefix).position(|octet| !is_word(*octet));
        let length = body.map_or(self.buffer.len(), |body| prefix + body);
        let (offset, word) = (self.before, self.take(length));
        let text = String::from_utf8_lossy(&word).into_owned();
        Ok(Some(match text.parse() {
            Ok(parsed) => Piece::Ciphertext { offset, text, parsed },
            Err(_only_looks_like_one) => Piece::Other(word),
        }))
    }
}

#[cfg(test)]
mod tests {
    use kf_key::EncryptionKeyId;

    use super::*;

    fn ciphertext(octets: usize) -> Ciphertext {
        let key = EncryptionKeyId::from_bytes([7; 16]);
        Ciphertext { key, version: 2, iv_and_body: vec![0x5a; 28 + octets] }
    }

    /// A stream that gives a few octets at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let (now, rest) = self.0.split_at(self.1.min(self.0.len()).min(out.len()));
            out[..now.len()].copy_from_slice(now);
            self.0 = rest;
            Ok(now.len())
        }
    }

    fn scan(stream: &[u8], step: usize) -> (Vec<u8>, Vec<u64>) {
        let mut scanner = Scanner::new(Slow(stream, step));
        let (mut whole, mut found) = (Vec::new(), Vec::new());
        while let Some(piece) = scanner.next().unwrap() {
            match piece {
                Piece::Other(octets) => whole.extend(octets),
                Piece::Ciphertext { offset, text, parsed } => {
                    assert_eq!(parsed.to_string(), text);
                    whole.extend(text.as_bytes());
                    found.push(offset);
                }
            }
        }
        (whole, found)
    }

    #[test]
    fn every_ciphertext_is_found_wherever_the_reads_cut_the_stream() {
        let word = ciphertext(3).to_string();
        let stream = format!("{word}\n{{\"a\":\"{word}\"}},{word}").into_bytes();
        let length = u64::try_from(word.len()).unwrap();
        for step in 1..=stream.len() {
            assert_eq!(scan(&stream, step), (stream.clone(), vec![0, length + 7, 2 * length + 10]), "{step}");
        }
    }

    #[test]
    fn a_stream_far_larger_than_the_buffer_comes_through_as_it_was() {
        let word = ciphertext(60_000).to_string();
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for filler in [0, 1, 100_000, BUFFER_OCTETS, 3] {
            stream.extend(std::iter::repeat_n(b' ', filler));
            expected.push(u64::try_from(stream.len()).unwrap());
            stream.extend(word.as_bytes());
            stream.push(b'\n');
        }
        assert_eq!(scan(&stream, 8_192), (stream.clone(), expected));
    }

    #[test]
    fn what_only_looks_like_one_is_left_alone() {
        let word = ciphertext(1).to_string();
        for text in ["kfc1.", "kfc1.AAAA", "kfc1", &format!("x{word}"), &format!("{word}A"), &"kfc1.".repeat(50_000)] {
            assert_eq!(scan(text.as_bytes(), 4_096), (text.as_bytes().to_vec(), Vec::new()), "{text:.60}");
        }
    }
}
