//! The text of API tokens: `kft_` and 256 random bits in lower-case base32 (RFC 4648 section 6, without padding).

use kf_api::ShownOnce;
use kf_key::SecretBytes;

use crate::FleetError;

const PREFIX: &str = "kft_";
const LENGTH: usize = 52;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Separates these hashes from hashes of anything else.
const HASH_LABEL: &[u8] = b"keyfleet api token v1\0";

/// A fresh API token, shown once, and the hash that the registry keeps of it.
///
/// # Errors
/// [`FleetError::Bug`] when the random source fails.
pub(crate) fn fresh_token() -> Result<(ShownOnce, [u8; 32]), FleetError> {
    let secret = kf_crypto::random_secret::<32>()?;
    // Exposed to be written as text, which is shown once.
    let mut text = String::with_capacity(PREFIX.len() + LENGTH);
    text.push_str(PREFIX);
    text.extend(base32(secret.expose()));
    let hash = hash(text.as_bytes());
    Ok((ShownOnce::new(text), hash))
}

/// The stored form of a token that somebody presents; `None` when it cannot be one. A plain hash is enough: 256 random
/// bits cannot be searched. Looking a hash up takes a time that depends on the hash and not on the token.
pub(crate) fn hash_of(token: &SecretBytes) -> Option<[u8; 32]> {
    // Exposed to be hashed.
    let text = token.expose();
    let body = text.strip_prefix(PREFIX.as_bytes())?;
    (body.len() == LENGTH && body.iter().all(|c| ALPHABET.contains(c))).then(|| hash(text))
}

fn hash(text: &[u8]) -> [u8; 32] {
    let mut hash = kf_crypto::Sha256::new();
    hash.update(HASH_LABEL);
    hash.update(text);
    hash.finish()
}

/// Symbol by symbol into where it is kept: a text of its own would stay in memory.
fn base32(octets: &[u8; 32]) -> impl Iterator<Item = char> {
    let bit = |place: usize| octets.get(place / 8).is_some_and(|octet| octet >> (7 - place % 8) & 1 == 1);
    (0..LENGTH).map(move |symbol| {
        let value = (0..5).fold(0, |value, offset| value << 1 | usize::from(bit(symbol * 5 + offset)));
        ALPHABET.get(value).map_or('a', |symbol| char::from(*symbol))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of_text(text: &str) -> Option<[u8; 32]> {
        hash_of(&SecretBytes::from_vec(text.as_bytes().to_vec()))
    }

    #[test]
    fn base32_is_that_of_rfc_4648() {
        // Section 10: BASE32("foobar") = "MZXW6YTBOI", here followed by zeros.
        let mut octets = [0; 32];
        octets[..6].copy_from_slice(b"foobar");
        assert_eq!(base32(&octets).collect::<String>(), format!("mzxw6ytboi{}", "a".repeat(42)));
        assert_eq!(base32(&[0xff; 32]).collect::<String>(), format!("{}q", "7".repeat(51)));
    }

    #[test]
    fn a_fresh_token_has_its_form_and_is_found_by_its_hash() {
        let (text, hash) = fresh_token().unwrap();
        assert_eq!(text.expose().len(), 56);
        assert_eq!(hash_of_text(text.expose()), Some(hash));
        assert_ne!(fresh_token().unwrap().1, hash);
    }

    #[test]
    fn a_text_that_cannot_be_a_token_has_no_hash() {
        let (token, _) = fresh_token().unwrap();
        let text = token.expose();
        for wrong in ["", "kft_", &text[..55], &format!("{text}a"), &text.to_uppercase(), &text.replace("kft_", "kfx_")]
        {
            assert_eq!(hash_of_text(wrong), None, "{wrong}");
        }
        assert_eq!(hash_of(&SecretBytes::from_vec(vec![0xff; 56])), None);
    }
}
