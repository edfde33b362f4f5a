//! Comparing distinguished names.

use der::{Decode, Tag, Tagged};
use x509_cert::name::Name;

/// DER of a Name without any RDN.
const EMPTY: [u8; 2] = [0x30, 0x00];

/// Whether a request leaves its subject open.
pub(crate) fn is_empty(name: &[u8]) -> bool {
    name == EMPTY || name.is_empty()
}

/// Whether two Names (DER) say the same: the same attributes with the same characters in the same order. The string type
/// may differ, because OpenSSL writes UTF8String where others write PrintableString (RFC 5280 section 7.1 compares
/// across them as well). Case and white space count: what is renewed is what was issued.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (Name::from_der(a), Name::from_der(b)) else { return false };
    let (a, b): (Vec<_>, Vec<_>) = (a.iter_rdn().collect(), b.iter_rdn().collect());
    a.len() == b.len()
        && a.iter().zip(&b).all(|(a, b)| {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.oid == b.oid && same_value(&a.value, &b.value))
        })
}

/// Whether two attribute values hold the same characters.
fn same_value(a: &der::Any, b: &der::Any) -> bool {
    // The octets of these three types are the characters in UTF-8, so that equal octets are equal characters.
    let comparable = |tag| matches!(tag, Tag::Utf8String | Tag::PrintableString | Tag::Ia5String);
    (a.tag() == b.tag() || (comparable(a.tag()) && comparable(b.tag()))) && a.value() == b.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Name with one CN of the given string tag.
    fn common_name(tag: u8, text: &[u8]) -> Vec<u8> {
        let length = u8::try_from(text.len()).unwrap();
        let head = [0x30, length + 11, 0x31, length + 9, 0x30, length + 7, 0x06, 0x03, 0x55, 0x04, 0x03, tag, length];
        [&head, text].concat()
    }

    #[test]
    fn a_utf8_and_a_printable_string_of_the_same_characters_are_the_same_name() {
        assert!(same(&common_name(0x0c, b"pump-7"), &common_name(0x13, b"pump-7")));
    }

    #[test]
    fn other_characters_other_case_or_another_attribute_are_another_name() {
        assert!(!same(&common_name(0x0c, b"pump-7"), &common_name(0x0c, b"pump-8")));
        assert!(!same(&common_name(0x0c, b"pump-7"), &common_name(0x13, b"Pump-7")));
        let mut organization = common_name(0x0c, b"pump-7");
        organization[10] = 0x0a;
        assert!(!same(&common_name(0x0c, b"pump-7"), &organization));
    }

    #[test]
    fn a_bmp_string_with_the_same_octets_is_another_name() {
        assert!(!same(&common_name(0x0c, b"pu"), &common_name(0x1e, b"pu")));
    }

    #[test]
    fn what_is_not_a_name_is_the_same_as_nothing_but_itself() {
        assert!(!same(&[0x30, 0x05], &common_name(0x0c, b"a")));
        assert!(is_empty(&[0x30, 0x00]));
        assert!(!is_empty(&common_name(0x0c, b"a")));
    }
}
