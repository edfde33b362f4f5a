//! Base64 (RFC 4648 section 4) as EST has it: written in one line, read with any white space (RFC 8951 section 3.1).

const DIGITS: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes into the front of `out`; `None` when it does not fit.
pub(super) fn encode(octets: impl Iterator<Item = u8>, out: &mut [u8]) -> Option<&[u8]> {
    let (mut bits, mut held, mut length) = (0_u32, 0_u32, 0_usize);
    let mut put = |digit: u8| -> Option<()> {
        *out.get_mut(length)? = digit;
        length += 1;
        Some(())
    };
    let mut octets_in_group = 0_u32;
    for octet in octets {
        bits = (bits << 8) | u32::from(octet);
        held += 8;
        octets_in_group = (octets_in_group + 1) % 3;
        while held >= 6 {
            held -= 6;
            put(digit(bits >> held)?)?;
        }
    }
    if octets_in_group > 0 {
        put(digit(bits << (6 - held))?)?;
        for _ in octets_in_group..3 {
            put(b'=')?;
        }
    }
    out.get(..length)
}

fn digit(bits: u32) -> Option<u8> {
    DIGITS.get(usize::try_from(bits & 0x3f).ok()?).copied()
}

fn value(digit: u8) -> Option<u32> {
    let (from, base) = match digit {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => return Some(62),
        b'/' => return Some(63),
        _ => return None,
    };
    Some(u32::from(digit - from) + base)
}

/// Decodes in place; `None` when it is not base64. Bits behind the last octet must be zero.
pub(super) fn decode_in_place(text: &mut [u8]) -> Option<&[u8]> {
    let (mut bits, mut held, mut written, mut padding, mut digits) = (0_u32, 0_u32, 0_usize, 0_u32, 0_u32);
    for place in 0..text.len() {
        let octet = *text.get(place)?;
        if octet.is_ascii_whitespace() {
            continue;
        }
        digits = (digits + 1) % 4;
        if octet == b'=' {
            padding += 1;
            continue;
        }
        // Nothing comes after padding.
        (padding == 0).then_some(())?;
        bits = ((bits & 0xffff) << 6) | value(octet)?;
        held += 6;
        if held >= 8 {
            held -= 8;
            *text.get_mut(written)? = u8::try_from((bits >> held) & 0xff).ok()?;
            written += 1;
        }
    }
    let rest = bits & ((1 << held) - 1);
    let is_whole = digits == 0 && rest == 0 && padding * 2 == held;
    is_whole.then(|| text.get(..written)).flatten()
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn encoded(octets: &[u8]) -> Vec<u8> {
        let mut out = vec![0; octets.len() * 2 + 4];
        encode(octets.iter().copied(), &mut out).unwrap().to_vec()
    }

    #[test]
    fn the_examples_of_rfc_4648_section_10() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encoded(plain.as_bytes()), text.as_bytes());
            assert_eq!(decode_in_place(&mut text.as_bytes().to_vec()), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn white_space_is_skipped_and_the_rest_is_refused() {
        assert_eq!(decode_in_place(&mut b" Zm9v\r\nYg=\n=\n".to_vec()), Some(b"foob".as_slice()));
        for text in ["Zg", "Zg=", "Zh==", "Z===", "Zg==Zg==", "Zm9v*", "=", "====", "Zm8=="] {
            assert_eq!(decode_in_place(&mut text.as_bytes().to_vec()), None, "{text}");
        }
        assert_eq!(encode(b"foo".iter().copied(), &mut [0; 3]), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(octets: Vec<u8>) {
            let mut text = encoded(&octets);
            prop_assert_eq!(decode_in_place(&mut text), Some(octets.as_slice()));
        }
    }
}
