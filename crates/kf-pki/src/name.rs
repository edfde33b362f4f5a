//! Distinguished names: built for what we issue, shown as RFC 4514 text.

use const_oid::ObjectIdentifier;

use crate::asn1::{Element, Writer, oid, only, tag};

/// The upper bound of the attributes used here (RFC 5280 appendix A, ub-common-name and its kin), in characters.
pub(crate) const MAX_ATTRIBUTE_CHARACTERS: usize = 64;
/// The most RDNs of a name that is shown.
const MAX_RDNS: usize = 32;

/// One attribute of a name to be built, each in an RDN of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) oid: &'a ObjectIdentifier,
    pub(crate) text: &'a str,
}

/// Whether a text may stand in an attribute: 1 to 64 characters, none of them a control character, no white space at
/// either end (RFC 4518 would drop it, so that two names would compare equal).
pub(crate) fn is_attribute_text(text: &str) -> bool {
    let length = text.chars().count();
    (1..=MAX_ATTRIBUTE_CHARACTERS).contains(&length) && text.trim() == text && !text.chars().any(char::is_control)
}

/// The Name of these attributes, most general first.
pub(crate) fn encode(attributes: &[Attribute<'_>]) -> Vec<u8> {
    Writer::build(128, |w| {
        w.sequence(|w| {
            for attribute in attributes {
                w.nested(tag::SET, |w| {
                    w.sequence(|w| {
                        w.oid(attribute.oid);
                        w.primitive(string_tag(attribute.oid), attribute.text.as_bytes());
                    });
                });
            }
        });
    })
}

/// RFC 5280 appendix A allows serialNumber to be a PrintableString only; DirectoryStrings are UTF8String
/// (section 4.1.2.4).
fn string_tag(oid: &ObjectIdentifier) -> u8 {
    if *oid == oid::SERIAL_NUMBER { tag::PRINTABLE_STRING } else { tag::UTF8_STRING }
}

/// The RFC 4514 text of a Name: most specific attribute first, special characters escaped, unknown types as `OID=#hex`.
/// `None` when `der` is not a Name.
#[must_use]
pub fn to_rfc4514(der: &[u8]) -> Option<String> {
    let mut elements = only(der, tag::SEQUENCE)?.elements();
    let mut rdns = Vec::new();
    while !elements.is_empty() {
        rdns.push(elements.expect(tag::SET)?);
        if rdns.len() > MAX_RDNS {
            return None;
        }
    }
    let mut text = String::with_capacity(der.len());
    for (place, rdn) in rdns.iter().rev().enumerate() {
        if place > 0 {
            text.push(',');
        }
        let mut attributes = rdn.elements();
        let mut is_first = true;
        while !attributes.is_empty() {
            let mut fields = attributes.expect(tag::SEQUENCE)?.elements();
            let (kind, value) = (fields.expect(tag::OID)?, fields.any()?);
            fields.end()?;
            if !is_first {
                text.push('+');
            }
            is_first = false;
            push_attribute(&mut text, kind.value, &value)?;
        }
    }
    Some(text)
}

/// What a Name calls a device: its serialNumber (IEEE 802.1AR section 8.6), else its common name. `None` when it has neither,
/// more than one of that kind, or is not a Name.
#[must_use]
pub fn device_identifier(der: &[u8]) -> Option<String> {
    let mut rdns = only(der, tag::SEQUENCE)?.elements();
    let (mut serial_numbers, mut common_names) = (Vec::new(), Vec::new());
    for _ in 0..MAX_RDNS {
        if rdns.is_empty() {
            break;
        }
        let mut attributes = rdns.expect(tag::SET)?.elements();
        while !attributes.is_empty() {
            let mut fields = attributes.expect(tag::SEQUENCE)?.elements();
            let (kind, value) = (fields.expect(tag::OID)?, fields.any()?);
            let is_text = matches!(value.tag, tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING);
            let text = core::str::from_utf8(value.value).ok().filter(|_| is_text);
            if kind.value == oid::SERIAL_NUMBER.as_bytes() {
                serial_numbers.push(text?);
            } else if kind.value == oid::COMMON_NAME.as_bytes() {
                common_names.push(text?);
            }
        }
    }
    match (serial_numbers.as_slice(), common_names.as_slice()) {
        ([only], _) | ([], [only]) => Some((*only).to_owned()),
        _ => None,
    }
}

/// Whether `der` is a Name with these octets' structure: a SEQUENCE OF RelativeDistinguishedName.
pub(crate) fn is_name(der: &[u8]) -> bool {
    to_rfc4514(der).is_some()
}

fn push_attribute(out: &mut String, kind: &[u8], value: &Element<'_>) -> Option<()> {
    let keyword = [
        (oid::COMMON_NAME, "CN"),
        (oid::SERIAL_NUMBER, "serialNumber"),
        (oid::COUNTRY, "C"),
        (oid::LOCALITY, "L"),
        (oid::STATE, "ST"),
        (oid::ORGANIZATION, "O"),
        (oid::ORGANIZATIONAL_UNIT, "OU"),
        (oid::DOMAIN_COMPONENT, "DC"),
    ]
    .into_iter()
    .find_map(|(oid, keyword)| (oid.as_bytes() == kind).then_some(keyword));
    let text = matches!(value.tag, tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING)
        .then(|| core::str::from_utf8(value.value).ok())
        .flatten();
    match (keyword, text) {
        (Some(keyword), Some(text)) => {
            out.push_str(keyword);
            out.push('=');
            push_escaped(out, text);
        }
        _ => {
            let oid = ObjectIdentifier::from_bytes(kind).ok()?;
            let digits: String = value.der.iter().map(|octet| format!("{octet:02x}")).collect();
            out.push_str(&format!("{oid}=#{digits}"));
        }
    }
    Some(())
}

/// RFC 4514 section 2.4.
fn push_escaped(out: &mut String, text: &str) {
    if text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b':')) {
        out.push_str(text);
        return;
    }
    let last = text.chars().count().saturating_sub(1);
    for (position, character) in text.chars().enumerate() {
        let special = matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || (character == '#' && position == 0)
            || (character == ' ' && (position == 0 || position == last));
        if character.is_control() {
            let mut octets = [0; 4];
            for octet in character.encode_utf8(&mut octets).as_bytes() {
                out.push_str(&format!("\\{octet:02X}"));
            }
            continue;
        }
        if special {
            out.push('\\');
        }
        out.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        to_rfc4514(&encode(&[
            Attribute { oid: &oid::ORGANIZATION, text: "Acme" },
            Attribute { oid: &oid::COMMON_NAME, text },
        ]))
        .unwrap()
    }

    #[test]
    fn a_name_is_shown_most_specific_first_with_special_characters_escaped() {
        assert_eq!(shown("pump 7"), "CN=pump 7,O=Acme");
        assert_eq!(shown("#a,b+c\\"), "CN=\\#a\\,b\\+c\\\\,O=Acme");
        assert_eq!(shown("a\nO=Evil"), "CN=a\\0AO=Evil,O=Acme");
    }

    #[test]
    fn unknown_attributes_are_shown_in_hexadecimal() {
        let name = encode(&[Attribute { oid: &oid::CHALLENGE_PASSWORD, text: "x" }]);
        assert_eq!(to_rfc4514(&name).unwrap(), "1.2.840.113549.1.9.7=#0c0178");
    }

    #[test]
    fn attribute_text_is_bounded_and_plain() {
        assert!(is_attribute_text("Grüße 7"));
        for bad in ["", " a", "a ", "a\u{0}b", "a\nb", &"x".repeat(65)] {
            assert!(!is_attribute_text(bad), "{bad:?}");
        }
    }
}
