//! The certification request (PKCS#10, RFC 2986) of a P-256 key: no name and no attribute, because the server takes
//! neither from a request. Everything but the key and the signature is constant.

use crate::identity::IdentityKey;

/// The most octets of a request.
pub const REQUEST_OCTETS: usize = 190;

/// SEQUENCE of 98 octets: version 0, empty subject.
const INFO_FRONT: [u8; 7] = [0x30, 98, 0x02, 1, 0, 0x30, 0];
const SPKI_OCTETS: usize = 91;
/// Attributes: none.
const INFO_BACK: [u8; 2] = [0xa0, 0];
const INFO_OCTETS: usize = 100;
/// ecdsa-with-SHA256, 1.2.840.10045.4.3.2.
const ALGORITHM: [u8; 12] = [0x30, 10, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// Writes the request for `key` to `out`, DER, and gives its octets.
///
/// # Errors
/// Of the holder of the key.
pub fn certification_request<'a, K: IdentityKey>(
    key: &K,
    out: &'a mut [u8; REQUEST_OCTETS],
) -> Result<&'a [u8], K::Error> {
    let spki: [u8; SPKI_OCTETS] = key.public_key().to_spki();
    let mut info = [0; INFO_OCTETS];
    fill(&mut info, INFO_FRONT.iter().chain(&spki).chain(&INFO_BACK));
    let signature = key.sign(&info)?;
    let (r, s) = signature.split_at(32);
    let ((r_pad, r), (s_pad, s)) = (integer(r), integer(s));
    let (r_octets, s_octets) = (pad_octets(r_pad) + octets(r), pad_octets(s_pad) + octets(s));
    let signature_octets = 4 + r_octets + s_octets;
    let body = u8::try_from(INFO_OCTETS + ALGORITHM.len()).unwrap_or(u8::MAX) + 5 + signature_octets;
    let front = [0x30, 0x81, body];
    let bit_string = [0x03, signature_octets + 3, 0, 0x30, signature_octets];
    let r_front = [0x02, r_octets];
    let s_front = [0x02, s_octets];
    let parts = front
        .iter()
        .chain(&info)
        .chain(&ALGORITHM)
        .chain(&bit_string)
        .chain(&r_front)
        .chain(r_pad)
        .chain(r)
        .chain(&s_front)
        .chain(s_pad)
        .chain(s);
    fill(out, parts);
    Ok(out.get(..usize::from(body) + 3).unwrap_or_default())
}

fn fill<'a>(out: &mut [u8], parts: impl Iterator<Item = &'a u8>) {
    out.iter_mut().zip(parts).for_each(|(place, octet)| *place = *octet);
}

/// A DER INTEGER of an unsigned number of 32 octets: a zero if its top bit is set, and the octets without leading zeroes.
fn integer(number: &[u8]) -> (&'static [u8], &[u8]) {
    let zeroes = number.iter().take_while(|octet| **octet == 0).count().min(31);
    let digits = number.get(zeroes..).unwrap_or_default();
    let pad: &[u8] = if digits.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    (pad, digits)
}

const fn pad_octets(pad: &[u8]) -> u8 {
    if pad.is_empty() { 0 } else { 1 }
}

/// At most 32.
fn octets(digits: &[u8]) -> u8 {
    u8::try_from(digits.len()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use kf_exchange::{P256IdentityKey, PublicKey};
    use kf_key::SecretArray;

    use super::*;

    fn key(octet: u8) -> P256IdentityKey {
        P256IdentityKey::from_secret(&SecretArray::fill(|secret| secret.fill(octet))).unwrap()
    }

    #[test]
    fn the_server_takes_the_request_of_any_key_and_reads_no_name() {
        for octet in 1..=60 {
            let mut out = [0; REQUEST_OCTETS];
            let der = certification_request(&key(octet), &mut out).unwrap();
            let request = kf_pki::request::CertificationRequest::from_der(der).unwrap();
            assert_eq!(request.key.spki, key(octet).public_key().to_spki());
            assert_eq!(request.subject, [0x30, 0]);
        }
    }

    #[test]
    fn numbers_with_leading_zeroes_and_with_a_set_top_bit_are_shortest_der() {
        struct Fixed([u8; 64]);
        impl IdentityKey for Fixed {
            type Error = Infallible;
            fn public_key(&self) -> PublicKey {
                key(1).public_key()
            }
            fn sign(&self, _message: &[u8]) -> Result<[u8; 64], Infallible> {
                Ok(self.0)
            }
        }
        let mut signature = [0; 64];
        signature[30] = 0x80;
        signature[63] = 0x7f;
        let mut out = [0; REQUEST_OCTETS];
        let der = certification_request(&Fixed(signature), &mut out).unwrap();
        assert_eq!(der[der.len() - 13..], [0x03, 11, 0, 0x30, 8, 0x02, 3, 0, 0x80, 0, 0x02, 1, 0x7f]);
        let mut out = [0; REQUEST_OCTETS];
        assert_eq!(certification_request(&Fixed([0xff; 64]), &mut out).unwrap().len(), REQUEST_OCTETS);
    }
}
