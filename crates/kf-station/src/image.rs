//! What is written to a device.

use kf_crypto::Sha256;
use kf_flash::scan::{BLOCK_OCTETS, Finding, NamedSecret, Scanner, SecretListError, Secrets};
use kf_key::{SecretArray, SecretBytes};

/// The most octets of an image: what a fixture may hand back.
pub const MAX_IMAGE_OCTETS: usize = 16 * 1024 * 1024;

/// Name of the segment that goes into the slots of a secure element's certificate, DER.
pub const ELEMENT_CERTIFICATE: &str = "element.certificate";
/// Name of the segment that says which slots of a secure element are locked: their numbers in order, with commas.
pub const ELEMENT_LOCKS: &str = "element.locks";

/// A partition or a file. Held as a secret: in an unsafe image it is one.
#[derive(Debug)]
pub struct Segment {
    /// Name of partition or file.
    pub name: String,
    /// Octets from the start of the flash; 0 for files.
    pub offset: u32,
    /// The content.
    pub octets: SecretBytes,
}

impl Segment {
    /// A file.
    #[must_use]
    pub fn file(name: impl Into<String>, octets: Vec<u8>) -> Self {
        Self { name: name.into(), offset: 0, octets: SecretBytes::from_vec(octets) }
    }

    /// A copy, wiped like the original.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        // Exposed to the copy.
        let octets = self.octets.expose();
        let octets = SecretBytes::fill(octets.len(), |out| out.copy_from_slice(octets));
        Self { name: self.name.clone(), offset: self.offset, octets }
    }
}

/// An image, and what unlocks it.
#[derive(Debug)]
pub struct Image {
    /// Partitions or files.
    pub segments: Vec<Segment>,
    /// What goes into the hardware's protected place and never into the image: the fused HMAC key, or the seal key that a
    /// Linux device is given at each start.
    pub unlock: Option<SecretArray<32>>,
    /// The key of flash encryption, where the station turns that on: whoever flashes the firmware encrypts it under this.
    pub flash_key: Option<SecretArray<32>>,
}

/// SHA-256 of segments: names, places, contents; in whichever order they were read back.
#[must_use]
pub fn sha256_of(segments: &[Segment]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let length = |octets: usize| u64::try_from(octets).unwrap_or(u64::MAX).to_be_bytes();
    let mut ordered: Vec<&Segment> = segments.iter().collect();
    ordered.sort_by(|one, other| (one.offset, &one.name).cmp(&(other.offset, &other.name)));
    for Segment { name, offset, octets } in ordered {
        hash.update(&length(name.len()));
        hash.update(name.as_bytes());
        hash.update(&offset.to_be_bytes());
        hash.update(&length(octets.len()));
        // Exposed to the hash.
        hash.update(octets.expose());
    }
    hash.finish()
}

/// What lies in clear in segments: private keys in PEM and DER, keys of NVS encryption, and these secrets, whole or in
/// parts, as they are, reversed, in hexadecimal or base64. At most [`MAX_IMAGE_OCTETS`].
///
/// # Errors
/// [`SecretListError`].
pub fn findings(segments: &[Segment], secrets: Vec<NamedSecret>) -> Result<Vec<Finding>, SecretListError> {
    const BLANK: [u8; BLOCK_OCTETS] = [0xff; BLOCK_OCTETS];
    let mut scanner = Scanner::new(Secrets::new(secrets, Vec::new())?);
    for segment in segments {
        // Exposed to be searched.
        let octets = segment.octets.expose();
        // The scanner tells formats by the blocks of flash; a file begins at one of its own.
        let blank = BLANK.get(..octets.len().next_multiple_of(BLOCK_OCTETS) - octets.len()).unwrap_or_default();
        // Far shorter than the longest image.
        let _whole = scanner.push(octets).and_then(|()| scanner.push(blank));
    }
    Ok(scanner.finish().findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(octets: &[u8]) -> Segment {
        Segment { name: "nvs".into(), offset: 0x9000, octets: SecretBytes::from_vec(octets.to_vec()) }
    }

    fn secret(octets: &[u8]) -> Vec<NamedSecret> {
        vec![NamedSecret { name: "key".into(), octets: SecretBytes::from_vec(octets.to_vec()) }]
    }

    #[test]
    fn a_secret_is_found_whole_and_in_parts_in_any_segment_and_not_when_it_is_not_there() {
        let octets: Vec<u8> = (1..33).collect();
        let mut flash = vec![0; 100];
        flash[50..82].copy_from_slice(&octets);
        let all = [segment(&[0xff; 5000]), segment(&flash)];
        assert!(!findings(&all, secret(&octets)).unwrap().is_empty());
        flash[50..66].fill(0);
        assert!(!findings(&[segment(&flash)], secret(&octets)).unwrap().is_empty());
        flash[50..82].fill(0);
        assert!(findings(&[segment(&flash)], secret(&octets)).unwrap().is_empty());
    }

    #[test]
    fn private_keys_in_pem_and_der_are_found_without_being_named() {
        let key = kf_crypto::PrivateKey::generate(kf_key::KeyAlgorithm::P256).unwrap().to_pkcs8().unwrap();
        assert_eq!(findings(&[segment(&[&[0; 33], key.expose()].concat())], Vec::new()).unwrap().len(), 1);
        let pem = b"-----BEGIN EC PRIVATE KEY-----\nMHc=\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(findings(&[segment(pem)], Vec::new()).unwrap().len(), 1);
    }

    #[test]
    fn the_hash_of_an_image_covers_name_place_and_content() {
        let hash = |segment: Segment| sha256_of(&[segment]);
        let base = hash(segment(b"a"));
        assert_ne!(base, hash(segment(b"b")));
        assert_ne!(base, hash(Segment { offset: 0, ..segment(b"a") }));
        assert_ne!(base, hash(Segment { name: "otp".into(), ..segment(b"a") }));
    }
}
