//! Manifests of pre-provisioned secure elements, in Microchip's format ("Trust Platform Manifest File Full Format"): a JSON
//! array of JWS (RFC 7515, general form with one signature), one for each element, signed with ES256.
//!
//! ```text
//! { "payload": base64url, "protected": base64url({"alg":"ES256","x5t#S256":…}), "header": {"uniqueId":…}, "signature": base64url }
//! payload = { "version": 1, "uniqueId":…, "publicKeySet": {"keys": [{"kid":"0","kty":"EC","crv":"P-256","x":…,"y":…,"x5c":[…]}]}, … }
//! ```
//!
//! `x5c` holds the element's certificate and its issuer's (RFC 7517 section 4.7). An entry is believed when its signature
//! verifies under the certificate of the manifest's signer, which the vendor publishes apart from the manifest, and when
//! the certificate holds the key that the entry names.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kf_key::KeyAlgorithm;
use kf_pki::certificate::PresentedCertificate;
use serde::Deserialize;

/// The most octets of a manifest: 64 MiB, some 16,000 elements.
pub const MAX_MANIFEST_OCTETS: usize = 64 << 20;
/// The most certificates of an element.
const MAX_CHAIN: usize = 4;
const MAX_IDENTIFIER: usize = 64;

/// An element that the manifest vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestElement {
    /// The serial number of the chip, in hexadecimal as the manifest has it.
    pub unique_id: String,
    /// Its certificate and what is above it, DER.
    pub chain: Vec<Vec<u8>>,
}

/// Why a manifest cannot be read as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Larger than [`MAX_MANIFEST_OCTETS`].
    #[error("the manifest is larger than 64 MiB")]
    TooLarge,
    /// Not a JSON array of signed objects.
    #[error("the manifest is no JSON array of signed entries")]
    Malformed,
    /// The signer's certificate is none, or its key is not P-256.
    #[error("the signer's certificate is none with a P-256 key")]
    Signer,
}

/// Why one entry is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A part is missing, or is not base64url of what it should be.
    #[error("the entry is malformed")]
    Malformed,
    /// Another algorithm than ES256.
    #[error("the entry is signed with another algorithm than ES256")]
    Algorithm,
    /// `x5t#S256` names another certificate.
    #[error("the entry names another signer")]
    OtherSigner,
    /// The signature does not verify.
    #[error("the entry's signature does not verify under the signer's certificate")]
    Signature,
    /// `uniqueId` of header and payload differ, or it is none.
    #[error("the entry's uniqueId is none, or differs between header and payload")]
    Identifier,
    /// No key of the element has a certificate.
    #[error("no key of the element has a certificate")]
    NoCertificate,
    /// The certificate holds another key than the entry names.
    #[error("the element's certificate holds another key than the entry names")]
    OtherKey,
}

#[derive(Deserialize)]
struct Entry<'a> {
    payload: &'a str,
    protected: &'a str,
    signature: &'a str,
    header: Option<EntryHeader>,
}

#[derive(Deserialize)]
struct EntryHeader {
    #[serde(rename = "uniqueId")]
    unique_id: String,
}

#[derive(Deserialize)]
struct Protected {
    alg: String,
    #[serde(rename = "x5t#S256")]
    signer: Option<String>,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "uniqueId")]
    unique_id: String,
    #[serde(rename = "publicKeySet")]
    keys: KeySet,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    x5c: Option<Vec<String>>,
}

/// Reads a manifest and verifies each entry under `signer`, the certificate (DER) of who signed it. Entries come in the order
/// of the manifest; one that is not believed is an error of its own.
///
/// # Errors
/// [`ManifestError`].
pub fn read(manifest: &[u8], signer: &[u8]) -> Result<Vec<Result<ManifestElement, EntryError>>, ManifestError> {
    if manifest.len() > MAX_MANIFEST_OCTETS {
        return Err(ManifestError::TooLarge);
    }
    let certificate = PresentedCertificate::from_der(signer).ok_or(ManifestError::Signer)?;
    let Ok((KeyAlgorithm::P256, key)) = kf_crypto::public_key_of_spki(&certificate.spki) else {
        return Err(ManifestError::Signer);
    };
    let thumbprint = URL_SAFE_NO_PAD.encode(kf_crypto::sha256(signer));
    let entries: Vec<Entry<'_>> = serde_json::from_slice(manifest).map_err(|_malformed| ManifestError::Malformed)?;
    Ok(entries.iter().map(|entry| element(entry, key, &thumbprint)).collect())
}

fn element(entry: &Entry<'_>, key: &[u8], thumbprint: &str) -> Result<ManifestElement, EntryError> {
    let decode =
        |part: &str| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).map_err(|_not_base64url| EntryError::Malformed);
    let protected: Protected =
        serde_json::from_slice(&decode(entry.protected)?).map_err(|_malformed| EntryError::Malformed)?;
    if protected.alg != "ES256" {
        return Err(EntryError::Algorithm);
    }
    if protected.signer.is_some_and(|signer| signer.trim_end_matches('=') != thumbprint) {
        return Err(EntryError::OtherSigner);
    }
    let signed = format!("{}.{}", entry.protected, entry.payload);
    let signature = kf_crypto::ecdsa_signature_to_der(&decode(entry.signature)?);
    let verifies = signature
        .is_some_and(|signature| kf_crypto::verify(KeyAlgorithm::P256, key, signed.as_bytes(), &signature).is_ok());
    if !verifies {
        return Err(EntryError::Signature);
    }
    let payload: Payload =
        serde_json::from_slice(&decode(entry.payload)?).map_err(|_malformed| EntryError::Malformed)?;
    let is_identifier = (1..=MAX_IDENTIFIER).contains(&payload.unique_id.len())
        && payload.unique_id.bytes().all(|octet| octet.is_ascii_alphanumeric());
    // The header is not signed: it may repeat the payload, and nothing else.
    let agrees = entry.header.as_ref().is_none_or(|header| header.unique_id == payload.unique_id);
    if !is_identifier || !agrees {
        return Err(EntryError::Identifier);
    }
    let (key, certificates) = payload
        .keys
        .keys
        .iter()
        .find_map(|key| key.x5c.as_ref().filter(|chain| !chain.is_empty()).map(|chain| (key, chain)))
        .ok_or(EntryError::NoCertificate)?;
    let chain = certificates
        .iter()
        .take(MAX_CHAIN)
        .map(|text| STANDARD.decode(text).map_err(|_not_base64| EntryError::Malformed))
        .collect::<Result<Vec<_>, _>>()?;
    let leaf = chain.first().and_then(|der| PresentedCertificate::from_der(der)).ok_or(EntryError::NoCertificate)?;
    if point_of(key)? != kf_crypto::public_key_of_spki(&leaf.spki).map_err(|_not_a_key| EntryError::OtherKey)?.1 {
        return Err(EntryError::OtherKey);
    }
    Ok(ManifestElement { unique_id: payload.unique_id, chain })
}

/// The uncompressed point of a JWK (RFC 7518 section 6.2.1).
fn point_of(key: &Key) -> Result<Vec<u8>, EntryError> {
    let coordinate = |text: &Option<String>| {
        let octets = URL_SAFE_NO_PAD.decode(text.as_deref()?.trim_end_matches('=')).ok()?;
        (octets.len() == 32).then_some(octets)
    };
    if key.kty != "EC" || key.crv.as_deref() != Some("P-256") {
        return Err(EntryError::OtherKey);
    }
    match (coordinate(&key.x), coordinate(&key.y)) {
        (Some(x), Some(y)) => Ok([&[0x04][..], &x, &y].concat()),
        _ => Err(EntryError::Malformed),
    }
}
