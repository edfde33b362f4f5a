//! Secrets as people keep them in files.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec;
use alloc::vec::Vec;

use kf_key::SecretBytes;
use pkcs8::PrivateKeyInfoRef;

use super::secret::{NamedSecret, SecretListError};

/// Octets of the scalar of the smallest curve in use: what is shorter is no key.
const MIN_KEY_OCTETS: usize = 16;

impl NamedSecret {
    /// The secrets of a file, by its form:
    ///
    /// * a private key as PEM or DER (PKCS#8, SEC1, PKCS#1): what is secret in it, which is the scalar or seed of an
    ///   elliptic curve key, and exponent and primes of an RSA key. Its public half and its headers occur in certificates
    ///   and would be found there;
    /// * hexadecimal text, 16 digits and more: the octets that it says;
    /// * anything else: its octets as they are.
    ///
    /// # Errors
    /// [`SecretListError::Encrypted`] for a private key under a passphrase, [`SecretListError::KeyFile`] for PEM that holds
    /// no private key, or is damaged.
    pub fn from_file(name: &str, octets: SecretBytes) -> Result<Vec<Self>, SecretListError> {
        // Exposed to tell its form.
        let text = octets.expose().trim_ascii();
        if text.starts_with(b"-----BEGIN ") {
            return pem(name, text);
        }
        if let Some(parts) = private_key(name, octets.expose()) {
            return Ok(parts);
        }
        if let Some(decoded) = hexadecimal(text) {
            return Ok(vec![Self { name: name.to_string(), octets: decoded }]);
        }
        Ok(vec![Self { name: name.to_string(), octets }])
    }
}

fn pem(name: &str, text: &[u8]) -> Result<Vec<NamedSecret>, SecretListError> {
    let refused = || SecretListError::KeyFile { name: name.to_string() };
    // Parameters of a curve may stand before the key, as `openssl ecparam -genkey` writes them.
    let begin = memchr::memmem::find_iter(text, b"-----BEGIN ").find(|begin| {
        let line = text.get(*begin..).unwrap_or_default().split(|octet| *octet == b'\n').next().unwrap_or_default();
        line.trim_ascii_end().ends_with(b"PRIVATE KEY-----")
    });
    let text = begin.and_then(|begin| text.get(begin..)).ok_or_else(refused)?;
    let (label, der) = pem_rfc7468::decode_vec(text).map_err(|_damaged| {
        let has_header = memchr::memmem::find(text, b"Proc-Type: 4,ENCRYPTED").is_some();
        if has_header { SecretListError::Encrypted { name: name.to_string() } } else { refused() }
    })?;
    let der = SecretBytes::from_vec(der);
    if label == "ENCRYPTED PRIVATE KEY" {
        return Err(SecretListError::Encrypted { name: name.to_string() });
    }
    // Exposed to take out what is secret in it.
    private_key(name, der.expose()).ok_or_else(refused)
}

/// What is secret in a private key in DER.
fn private_key(name: &str, der: &[u8]) -> Option<Vec<NamedSecret>> {
    if let Ok(info) = PrivateKeyInfoRef::try_from(der) {
        let inner = info.private_key.as_bytes();
        return Some(match inner {
            // RFC 8410 clause 7: the seed is an OCTET STRING of its own.
            [0x04, length, seed @ ..] if usize::from(*length) == seed.len() => vec![part(name, seed)],
            _ => private_key(name, inner).unwrap_or_else(|| vec![part(name, inner)]),
        });
    }
    if let Ok(key) = sec1::EcPrivateKey::try_from(der).map(|key| key.private_key)
        && key.len() >= MIN_KEY_OCTETS
    {
        return Some(vec![part(name, key)]);
    }
    let key = pkcs1::RsaPrivateKeyRef::try_from(der).ok()?;
    let parts = [("exponent", key.private_exponent), ("prime1", key.prime1), ("prime2", key.prime2)];
    Some(parts.map(|(which, number)| part(&format!("{name}.{which}"), number.as_bytes())).into())
}

fn part(name: &str, octets: &[u8]) -> NamedSecret {
    NamedSecret { name: name.to_string(), octets: SecretBytes::fill(octets.len(), |part| part.copy_from_slice(octets)) }
}

/// Nothing but an even number of at least 16 digits.
fn hexadecimal(text: &[u8]) -> Option<SecretBytes> {
    if text.len() < 16 || !text.len().is_multiple_of(2) || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(SecretBytes::fill(text.len() / 2, |octets| {
        for (octet, pair) in octets.iter_mut().zip(text.chunks_exact(2)) {
            if let [high, low] = pair {
                *octet = digit(*high).unwrap_or_default() << 4 | digit(*low).unwrap_or_default();
            }
        }
    }))
}
