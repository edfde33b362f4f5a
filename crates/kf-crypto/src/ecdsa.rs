//! The two forms of an ECDSA signature: raw (PKCS#11 section 6.3.1, TPM 2.0, COSE: r and s, equally long) and DER
//! Ecdsa-Sig-Value (RFC 3279 section 2.2.3).

/// `SEQUENCE { INTEGER r, INTEGER s }`; `None` unless the input is two numbers of 32 or 48 octets, neither of them zero.
#[must_use]
pub fn ecdsa_signature_to_der(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != 64 && raw.len() != 96 {
        return None;
    }
    let (r, s) = raw.split_at_checked(raw.len() / 2)?;
    let body = [integer(r)?, integer(s)?].concat();
    // Two integers of at most 49 octets: always the short form of the length.
    let length = u8::try_from(body.len()).ok().filter(|length| *length < 0x80)?;
    Some([&[0x30, length], body.as_slice()].concat())
}

/// r and s of a P-256 signature in DER, 32 octets each; `None` for any other encoding than the shortest.
#[must_use]
pub fn ecdsa_p256_signature_from_der(der: &[u8]) -> Option<[[u8; 32]; 2]> {
    let [0x30, length, body @ ..] = der else { return None };
    if usize::from(*length) != body.len() {
        return None;
    }
    let (r, rest) = number(body)?;
    let (s, rest) = number(rest)?;
    let raw = [r, s];
    // Written again and compared: what is not the shortest form is not accepted.
    (rest.is_empty() && ecdsa_signature_to_der(&raw.concat())? == der).then_some(raw)
}

/// A positive INTEGER in its shortest form (X.690 section 8.3).
fn integer(number: &[u8]) -> Option<Vec<u8>> {
    let start = number.iter().position(|octet| *octet != 0)?;
    let digits = number.get(start..)?;
    let pad: &[u8] = if digits.first()? & 0x80 == 0 { &[] } else { &[0] };
    let length = u8::try_from(pad.len() + digits.len()).ok()?;
    Some([&[0x02, length], pad, digits].concat())
}

fn number(der: &[u8]) -> Option<([u8; 32], &[u8])> {
    let [0x02, length, rest @ ..] = der else { return None };
    let (digits, rest) = rest.split_at_checked(usize::from(*length))?;
    let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
    let mut number = [0; 32];
    let start = number.len().checked_sub(digits.len())?;
    number.get_mut(start..)?.copy_from_slice(digits);
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_their_shortest_positive_form() {
        let mut raw = [0; 64];
        raw[31] = 0x7f;
        raw[62] = 0x80;
        let der = ecdsa_signature_to_der(&raw).unwrap();
        assert_eq!(der, [0x30, 8, 2, 1, 0x7f, 2, 3, 0, 0x80, 0]);
        assert_eq!(ecdsa_p256_signature_from_der(&der).unwrap().concat(), raw);
    }

    #[test]
    fn the_largest_numbers_fit() {
        let der = ecdsa_signature_to_der(&[0xff; 96]).unwrap();
        assert_eq!(der.len(), 2 + 2 * 51);
        assert_eq!(der[..5], [0x30, 102, 2, 49, 0]);
        let raw = [0xff; 64];
        assert_eq!(ecdsa_p256_signature_from_der(&ecdsa_signature_to_der(&raw).unwrap()).unwrap().concat(), raw);
    }

    #[test]
    fn zero_and_other_lengths_are_refused() {
        assert_eq!(ecdsa_signature_to_der(&[0; 64]), None);
        for length in [0, 1, 63, 65, 97, 128] {
            assert_eq!(ecdsa_signature_to_der(&vec![1; length]), None, "{length}");
        }
    }

    #[test]
    fn another_encoding_of_the_same_numbers_is_refused() {
        let der = ecdsa_signature_to_der(&[1; 64]).unwrap();
        for length in 0..der.len() {
            assert_eq!(ecdsa_p256_signature_from_der(&der[..length]), None);
        }
        let longer = [&der[..], &[0]].concat();
        assert_eq!(ecdsa_p256_signature_from_der(&longer), None);
        // A leading zero that is not needed, and a negative number.
        assert_eq!(ecdsa_p256_signature_from_der(&[0x30, 7, 2, 2, 0, 1, 2, 1, 1]), None);
        assert_eq!(ecdsa_p256_signature_from_der(&[0x30, 6, 2, 1, 0x80, 2, 1, 1]), None);
        let over = [&[0x30, 38, 2, 33][..], &[1; 33], &[2, 1, 1]].concat();
        assert_eq!(ecdsa_p256_signature_from_der(&over), None);
    }
}
