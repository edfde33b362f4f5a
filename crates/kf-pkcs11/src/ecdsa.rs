//! Raw ECDSA signatures of tokens (PKCS#11 section 6.3.1: r and s, equally long) as DER Ecdsa-Sig-Value (RFC 3279
//! section 2.2.3).

/// `SEQUENCE { INTEGER r, INTEGER s }`; `None` unless the input is two numbers of 32 or 48 octets.
pub(crate) fn signature_to_der(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != 64 && raw.len() != 96 {
        return None;
    }
    let (r, s) = raw.split_at_checked(raw.len() / 2)?;
    let body = [integer(r)?, integer(s)?].concat();
    // Two integers of at most 49 octets: always the short form of the length.
    let length = u8::try_from(body.len()).ok().filter(|length| *length < 0x80)?;
    Some([&[0x30, length], body.as_slice()].concat())
}

/// A positive INTEGER in its shortest form (X.690 section 8.3).
fn integer(number: &[u8]) -> Option<Vec<u8>> {
    let start = number.iter().position(|octet| *octet != 0)?;
    let digits = number.get(start..)?;
    let pad: &[u8] = if digits.first()? & 0x80 == 0 { &[] } else { &[0] };
    let length = u8::try_from(pad.len() + digits.len()).ok()?;
    Some([&[0x02, length], pad, digits].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_their_shortest_positive_form() {
        let mut raw = [0; 64];
        raw[31] = 0x7f;
        raw[62] = 0x80;
        assert_eq!(signature_to_der(&raw).unwrap(), [0x30, 8, 2, 1, 0x7f, 2, 3, 0, 0x80, 0]);
    }

    #[test]
    fn the_largest_numbers_fit() {
        let der = signature_to_der(&[0xff; 96]).unwrap();
        assert_eq!(der.len(), 2 + 2 * 51);
        assert_eq!(der[..5], [0x30, 102, 2, 49, 0]);
    }

    #[test]
    fn zero_and_other_lengths_are_refused() {
        assert_eq!(signature_to_der(&[0; 64]), None);
        for length in [0, 1, 63, 65, 97, 128] {
            assert_eq!(signature_to_der(&vec![1; length]), None, "{length}");
        }
    }
}
