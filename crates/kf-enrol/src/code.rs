//! One-time enrolment codes: 100 random bits as 20 characters of Crockford's base32 with his check character
//! (modulo 37), for people to read aloud and type.
//!
//! The check character finds every single wrong character and every swap of two characters, so that a typing error is
//! named at the keyboard instead of being counted as a guess by the server.

use kf_api::ShownOnce;
use kf_key::SecretArray;

/// Crockford's alphabet, and the five further symbols that only the check character can have.
const SYMBOLS: &[u8; 37] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ*~$=U";
/// Characters that carry the value; one check character follows.
const LENGTH: usize = 20;
/// Characters between two dashes.
const GROUP: usize = 5;
/// Dashes and spaces included, nobody types more.
const MAX_TEXT: usize = 64;
/// Separates these hashes from hashes of anything else.
const HASH_LABEL: &[u8] = b"keyfleet enrolment code v1\0";

/// Why a text is not a code. Says nothing about whether such a code exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not 20 characters and a check character, dashes and spaces aside.
    #[error("a code has 20 characters and a check character, dashes aside")]
    Length,
    /// A character that codes do not contain.
    #[error("character {position} does not occur in codes")]
    Character {
        /// Its place, from 1, dashes and spaces not counted.
        position: usize,
    },
    /// The check character does not fit: something was mistyped.
    #[error("the check character does not fit: something was mistyped")]
    Check,
}

/// A one-time enrolment code: 100 bits in 13 octets, the top four bits zero.
#[derive(Debug)]
pub struct EnrolmentCode(SecretArray<13>);

impl EnrolmentCode {
    /// A code from 13 random octets, of which 100 bits are kept.
    #[must_use]
    pub fn from_random(random: &SecretArray<13>) -> Self {
        Self(SecretArray::fill(|octets| {
            // Exposed to be copied with the top bits cleared.
            octets.copy_from_slice(random.expose());
            if let Some(first) = octets.first_mut() {
                *first &= 0x0f;
            }
        }))
    }

    /// Reads a code as people type it: any case, dashes and spaces anywhere, O for 0, I and L for 1.
    ///
    /// # Errors
    /// [`CodeError`]
    pub fn parse(text: &[u8]) -> Result<Self, CodeError> {
        if text.len() > MAX_TEXT {
            return Err(CodeError::Length);
        }
        let (mut value, mut check, mut count) = (0u128, None, 0usize);
        for character in text.iter().copied().filter(|c| !matches!(c, b'-' | b' ')) {
            count += 1;
            let symbol = symbol_value(character).ok_or(CodeError::Character { position: count })?;
            match count {
                1..=LENGTH if symbol < 32 => value = (value << 5) | u128::from(symbol),
                1..=LENGTH => return Err(CodeError::Character { position: count }),
                _ if check.is_none() => check = Some(symbol),
                _ => return Err(CodeError::Length),
            }
        }
        let check = check.ok_or(CodeError::Length)?;
        if u128::from(check) != value % 37 {
            return Err(CodeError::Check);
        }
        let [_, _, _, octets @ ..] = value.to_be_bytes();
        Ok(Self(SecretArray::fill(|out| out.copy_from_slice(&octets))))
    }

    /// The code in groups of five with its check character: `XXXXX-XXXXX-XXXXX-XXXXX-C`.
    #[must_use]
    pub fn to_text(&self) -> ShownOnce {
        let value = self.value();
        let mut text = String::with_capacity(LENGTH + LENGTH / GROUP + 1);
        for place in 0..LENGTH {
            if place > 0 && place.is_multiple_of(GROUP) {
                text.push('-');
            }
            text.push(symbol(value >> (5 * (LENGTH - 1 - place)) & 31));
        }
        text.push('-');
        text.push(symbol(value % 37));
        ShownOnce::new(text)
    }

    /// What is stored of a code. A plain hash is enough: 100 random bits cannot be searched.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = kf_crypto::Sha256::new();
        hash.update(HASH_LABEL);
        // Exposed to be hashed: the hash is what the registry keeps.
        hash.update(self.0.expose());
        hash.finish()
    }

    fn value(&self) -> u128 {
        // Exposed to be written as text, which is shown once.
        self.0.expose().iter().fold(0, |value, octet| (value << 8) | u128::from(*octet))
    }
}

/// The character of a value below 37.
fn symbol(value: u128) -> char {
    usize::try_from(value).ok().and_then(|value| SYMBOLS.get(value)).map_or('0', |symbol| char::from(*symbol))
}

/// The value of a character, below 37.
fn symbol_value(character: u8) -> Option<u8> {
    let upper = match character.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    SYMBOLS.iter().position(|symbol| *symbol == upper).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(octets: [u8; 13]) -> EnrolmentCode {
        EnrolmentCode::from_random(&SecretArray::fill(|out| out.copy_from_slice(&octets)))
    }

    fn text(octets: [u8; 13]) -> String {
        code(octets).to_text().expose().to_owned()
    }

    #[test]
    fn zero_and_all_ones_have_the_expected_text() {
        assert_eq!(text([0; 13]), "00000-00000-00000-00000-0");
        // (2^100 - 1) mod 37: 2^36 = 1, so 2^100 = 2^28 = 12, and the check value is 11.
        assert_eq!(text([0xff; 13]), "ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-B");
    }

    #[test]
    fn what_people_type_is_read_as_what_was_shown() {
        let shown = text([0x01; 13]);
        let hash = code([0x01; 13]).hash();
        let typed = [
            shown.to_lowercase(),
            shown.replace('-', ""),
            shown.replace('-', " "),
            shown.replace('0', "o").replace('1', "l"),
            shown.replace('0', "O").replace('1', "I"),
        ];
        for typed in typed {
            assert_eq!(EnrolmentCode::parse(typed.as_bytes()).unwrap().hash(), hash, "{typed}");
        }
    }

    #[test]
    fn too_short_too_long_and_foreign_characters_are_named() {
        let shown = text([7; 13]);
        let parse = |text: &str| EnrolmentCode::parse(text.as_bytes()).err();
        assert_eq!(parse(""), Some(CodeError::Length));
        assert_eq!(parse(&shown[..23]), Some(CodeError::Length));
        assert_eq!(parse(&format!("{shown}0")), Some(CodeError::Length));
        assert_eq!(parse(&"0".repeat(65)), Some(CodeError::Length));
        assert_eq!(parse(&format!("!{}", &shown[1..])), Some(CodeError::Character { position: 1 }));
        assert_eq!(parse(&format!("{}U{}", &shown[..6], &shown[7..])), Some(CodeError::Character { position: 6 }));
        assert_eq!(EnrolmentCode::parse(&[0xff; 21]).err(), Some(CodeError::Character { position: 1 }));
    }

    proptest! {
        #[test]
        fn every_code_survives_its_text(octets: [u8; 13]) {
            let code = code(octets);
            let again = EnrolmentCode::parse(code.to_text().expose().as_bytes()).unwrap();
            prop_assert_eq!(again.hash(), code.hash());
        }

        #[test]
        fn every_single_wrong_character_is_found(octets: [u8; 13], place in 0usize..21, other in 0usize..37) {
            let mut typed: Vec<u8> = text(octets).replace('-', "").into_bytes();
            let other = SYMBOLS[other];
            prop_assume!(typed[place] != other);
            typed[place] = other;
            prop_assert!(EnrolmentCode::parse(&typed).is_err());
        }

        #[test]
        fn every_swap_of_two_characters_is_found(octets: [u8; 13], a in 0usize..20, b in 0usize..20) {
            let mut typed: Vec<u8> = text(octets).replace('-', "").into_bytes();
            prop_assume!(typed[a] != typed[b]);
            typed.swap(a, b);
            prop_assert_eq!(EnrolmentCode::parse(&typed).err(), Some(CodeError::Check));
        }

        #[test]
        fn no_octets_make_the_parser_panic(text: Vec<u8>) {
            let _ = EnrolmentCode::parse(&text);
        }
    }
}
