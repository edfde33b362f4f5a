//! The claim URI that a QR label carries: where the server is, which device this is, its one-time code, and the SHA-256
//! of the server's root, so that the first connection is already authenticated.
//!
//! `keyfleet:claim?server=<url>&device=<name>&code=<code>&root=<64 hexadecimal digits>`, each value percent-encoded
//! (RFC 3986 section 2.1), each parameter exactly once, in any order. A label that a station printed also has
//! `&key=<64 hexadecimal digits>`, the SHA-256 of the device key's SubjectPublicKeyInfo.

use kf_api::ShownOnce;
use kf_key::SecretBytes;

/// The most octets of a claim URI: what a QR code of medium density holds at error correction level M.
pub const MAX_CLAIM_OCTETS: usize = 512;

const PREFIX: &str = "keyfleet:claim?";
/// The most octets of one octet, percent-encoded.
const ENCODED_OCTETS: usize = 3;
/// More than `&`, the name of a hash, `=` and its digits.
const MAX_HASH_OCTETS: usize = 80;

/// A claim, read.
#[derive(Debug)]
pub struct Claim {
    /// Base address of the server, `https://host:port`.
    pub server: String,
    /// Name of the device.
    pub device: String,
    /// The one-time code, as text.
    pub code: SecretBytes,
    /// SHA-256 of the root certificate's DER.
    pub root_sha256: [u8; 32],
    /// SHA-256 of the device key's SubjectPublicKeyInfo, where the label was printed beside the device.
    pub key_sha256: Option<[u8; 32]>,
}

/// Why a text is not a claim URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Not `keyfleet:claim?…`, or longer than [`MAX_CLAIM_OCTETS`].
    #[error("not a claim URI (keyfleet:claim?…) of at most {MAX_CLAIM_OCTETS} octets")]
    NotAClaim,
    /// A parameter that is unknown, or there twice.
    #[error("the claim URI has a parameter that is unknown or there twice")]
    UnknownParameter,
    /// A parameter is missing or its value is not of its form.
    #[error("the claim URI's parameter `{0}` is missing or malformed")]
    Parameter(&'static str),
}

/// Writes a claim URI.
#[must_use]
pub fn claim_uri(server: &str, device: &str, code: &ShownOnce, root_sha256: &[u8; 32]) -> ShownOnce {
    write(server, device, code, &[("root", root_sha256)])
}

/// As [`claim_uri`], for a device whose key is known when the label is printed.
#[must_use]
pub fn claim_uri_of_key(
    server: &str,
    device: &str,
    code: &ShownOnce,
    root_sha256: &[u8; 32],
    key_sha256: &[u8; 32],
) -> ShownOnce {
    write(server, device, code, &[("root", root_sha256), ("key", key_sha256)])
}

fn write(server: &str, device: &str, code: &ShownOnce, hashes: &[(&str, &[u8; 32])]) -> ShownOnce {
    // Exposed to become part of the URI, which is shown once as well.
    let values = [("server", server), ("device", device), ("code", code.expose())];
    // Room for all of it: a text that grows leaves copies of the code behind.
    let octets = values.iter().map(|(name, value)| name.len() + ENCODED_OCTETS * value.len() + 2).sum::<usize>();
    let mut uri = String::with_capacity(PREFIX.len() + octets + hashes.len() * MAX_HASH_OCTETS);
    uri.push_str(PREFIX);
    for (name, value) in values {
        uri.push_str(name);
        uri.push('=');
        encode(value, &mut uri);
        uri.push('&');
    }
    for (number, (name, hash)) in hashes.iter().enumerate() {
        if number > 0 {
            uri.push('&');
        }
        uri.push_str(name);
        uri.push('=');
        uri.push_str(&hex::encode(hash));
    }
    ShownOnce::new(uri)
}

/// Reads a claim URI.
///
/// # Errors
/// [`ClaimError`].
pub fn parse_claim(uri: &str) -> Result<Claim, ClaimError> {
    let query = uri
        .strip_prefix(PREFIX)
        .filter(|query| PREFIX.len() + query.len() <= MAX_CLAIM_OCTETS)
        .ok_or(ClaimError::NotAClaim)?;
    let (mut server, mut device, mut code, mut root, mut key) = (None, None, None, None, None);
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').ok_or(ClaimError::UnknownParameter)?;
        let place = match name {
            "server" => &mut server,
            "device" => &mut device,
            "code" => &mut code,
            "root" => &mut root,
            "key" => &mut key,
            _ => return Err(ClaimError::UnknownParameter),
        };
        if place.replace(value).is_some() {
            return Err(ClaimError::UnknownParameter);
        }
    }
    let text = |value: Option<&str>, name| value.and_then(decode_text).ok_or(ClaimError::Parameter(name));
    let server = text(server, "server")?;
    if !server.starts_with("https://") {
        return Err(ClaimError::Parameter("server"));
    }
    let root_sha256 = root.and_then(hash).ok_or(ClaimError::Parameter("root"))?;
    let key_sha256 = match key {
        None => None,
        Some(key) => Some(hash(key).ok_or(ClaimError::Parameter("key"))?),
    };
    let code = code.and_then(decode).filter(|code| !code.is_empty()).ok_or(ClaimError::Parameter("code"))?;
    let device = text(device, "device")?;
    Ok(Claim { server, device, code: SecretBytes::from_vec(code), root_sha256, key_sha256 })
}

fn hash(digits: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).ok()?;
    Some(hash)
}

/// Percent-encodes everything but the unreserved characters of RFC 3986 section 2.3.
fn encode(value: &str, out: &mut String) {
    for octet in value.bytes() {
        if octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(octet));
        } else {
            out.push('%');
            for half in [octet >> 4, octet & 15] {
                out.push(char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
}

/// The octets of a percent-encoded value; `None` when a `%` is not followed by two hexadecimal digits.
fn decode(value: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(octet) = rest.next() {
        if octet == b'%' {
            let digit = |octet: Option<u8>| char::from(octet?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            octets.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            octets.push(octet);
        }
    }
    Some(octets)
}

/// As [`decode`], for text that is not empty and has no control characters.
fn decode_text(value: &str) -> Option<String> {
    let text = String::from_utf8(decode(value)?).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uri(server: &str, device: &str, code: &str) -> String {
        claim_uri(server, device, &ShownOnce::new(code.into()), &[0xab; 32]).expose().to_owned()
    }

    #[test]
    fn a_claim_survives_its_uri() {
        let uri = uri("https://[::1]:8443", "pump:7", "00000-00000-00000-00000-$");
        let claim = parse_claim(&uri).unwrap();
        assert_eq!(claim.server, "https://[::1]:8443");
        assert_eq!(claim.device, "pump:7");
        assert!(claim.code.equals(b"00000-00000-00000-00000-$"));
        assert_eq!(claim.root_sha256, [0xab; 32]);
        assert_eq!(claim.key_sha256, None);
    }

    #[test]
    fn a_label_of_a_station_names_the_devices_key() {
        let code = ShownOnce::new("c".into());
        let uri = claim_uri_of_key("https://a", "d", &code, &[0xab; 32], &[0xcd; 32]);
        assert_eq!(parse_claim(uri.expose()).unwrap().key_sha256, Some([0xcd; 32]));
        let short = uri.expose().replace("key=cd", "key=");
        assert_eq!(parse_claim(&short).err(), Some(ClaimError::Parameter("key")));
    }

    #[test]
    fn reserved_characters_are_percent_encoded() {
        let uri = uri("https://a&b=c", "d", "*=$");
        assert!(uri.starts_with("keyfleet:claim?server=https%3A%2F%2Fa%26b%3Dc&device=d&code=%2A%3D%24&root=abab"));
    }

    #[test]
    fn a_debug_print_of_a_claim_shows_no_code() {
        let claim = parse_claim(&uri("https://a", "d", "SECRETSECRET")).unwrap();
        assert!(!format!("{claim:?}").contains("SECRET"));
    }

    #[test]
    fn a_parameter_that_is_missing_doubled_unknown_or_malformed_is_refused() {
        let good = uri("https://a", "d", "c");
        let check = |text: &str, error| assert_eq!(parse_claim(text).err(), Some(error), "{text}");
        check("keyfleet:claim", ClaimError::NotAClaim);
        check(&good.replace("keyfleet", "http"), ClaimError::NotAClaim);
        check(&format!("{good}{}", "&x=".repeat(200)), ClaimError::NotAClaim);
        check(&good.replace("device=d&", ""), ClaimError::Parameter("device"));
        check(&good.replace("code=c", "code="), ClaimError::Parameter("code"));
        check(&good.replace("code=c", "code=%4"), ClaimError::Parameter("code"));
        check(&good.replace("device=d", "device=%0a"), ClaimError::Parameter("device"));
        check(&good.replace("https", "http"), ClaimError::Parameter("server"));
        check(&good.replace("root=ab", "root=a"), ClaimError::Parameter("root"));
        check(&format!("{good}&code=d"), ClaimError::UnknownParameter);
        check(&format!("{good}&colour=d"), ClaimError::UnknownParameter);
    }

    proptest! {
        #[test]
        fn every_value_survives(device in "\\PC{1,40}", code in "[ -~]{1,30}") {
            let claim = parse_claim(&uri("https://server", &device, &code));
            if let Ok(claim) = claim {
                prop_assert_eq!(claim.device, device);
                prop_assert!(claim.code.equals(code.as_bytes()));
            } else {
                prop_assert!(uri("https://server", &device, &code).len() > MAX_CLAIM_OCTETS);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(keyfleet:claim\\?)?\\PC{0,80}") {
            let _ = parse_claim(&text);
        }
    }
}
