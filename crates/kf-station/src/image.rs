//! What is written to a device.

use kf_crypto::Sha256;
use kf_key::{SecretArray, SecretBytes};

/// The most octets of an image: what a fixture may hand back.
pub const MAX_IMAGE_OCTETS: usize = 4 * 1024 * 1024;

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

/// An image, and what unlocks it.
#[derive(Debug)]
pub struct Image {
    /// Partitions or files.
    pub segments: Vec<Segment>,
    /// What goes into the hardware's protected place and never into the image: the fused HMAC key, or the seal key that a
    /// Linux device is given at each start.
    pub unlock: Option<SecretArray<32>>,
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

/// Whether a secret of this device lies in clear in what was read back: the whole of it, or its last half.
#[must_use]
pub fn shows(segments: &[Segment], secret: &[u8]) -> bool {
    let half = secret.get(secret.len() / 2..).unwrap_or(secret);
    if half.len() < 8 {
        return false;
    }
    // Exposed to be searched.
    segments.iter().any(|segment| find(segment.octets.expose(), half))
}

/// Whether a private key in PEM lies in clear.
#[must_use]
pub fn shows_pem_key(segments: &[Segment]) -> bool {
    // Exposed to be searched.
    segments.iter().any(|segment| find(segment.octets.expose(), b"PRIVATE KEY-----"))
}

fn find(octets: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else { return false };
    let mut places = octets.iter().enumerate().filter(|(_, octet)| *octet == first);
    places.any(|(place, _)| octets.get(place.saturating_add(1)..).is_some_and(|behind| behind.starts_with(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(octets: &[u8]) -> Segment {
        Segment { name: "nvs".into(), offset: 0x9000, octets: SecretBytes::from_vec(octets.to_vec()) }
    }

    #[test]
    fn a_secret_is_found_whole_and_by_its_half_and_not_when_it_is_not_there() {
        let secret: Vec<u8> = (1..33).collect();
        let mut octets = vec![0; 100];
        octets[50..82].copy_from_slice(&secret);
        assert!(shows(&[segment(&octets)], &secret));
        octets[50..66].fill(0);
        assert!(shows(&[segment(&octets)], &secret));
        octets[50..82].fill(0);
        assert!(!shows(&[segment(&octets)], &secret));
        assert!(shows_pem_key(&[segment(b"-----BEGIN EC PRIVATE KEY-----")]));
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
