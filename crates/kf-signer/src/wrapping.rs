//! Versions of the wrapping key, as whoever stores what it wraps sees them.

/// The version that is derived from the root. Every other is random, and known only to those who have its sealed form and the
/// root: without the sealed form nobody brings it back.
pub const FIRST_VERSION: u32 = 1;

/// The format of a wrapped secret: this octet, the version (4 octets, big-endian), then AES-256-GCM with its nonce.
const FORMAT: u8 = 1;
/// Octets of format and version.
pub(crate) const HEADER_OCTETS: usize = 5;

pub use crate::protocol::MAX_REWRAPPED;

/// A secret that is to be wrapped anew: what it is bound to, and as it is wrapped now.
#[derive(Clone, PartialEq, Eq)]
pub struct RewrapItem {
    /// What it is bound to, at most 1,024 octets.
    pub context: Vec<u8>,
    /// As it was wrapped.
    pub wrapped: Vec<u8>,
}

impl std::fmt::Debug for RewrapItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RewrapItem")
    }
}

/// The version of the wrapping key that a secret is wrapped under; `None` for octets that are none.
#[must_use]
pub fn wrapped_version(wrapped: &[u8]) -> Option<u32> {
    match wrapped {
        [FORMAT, v0, v1, v2, v3, ..] => Some(u32::from_be_bytes([*v0, *v1, *v2, *v3])),
        _ => None,
    }
}

/// What stands in front of a secret that is wrapped under a version.
pub(crate) const fn header(version: u32) -> [u8; HEADER_OCTETS] {
    let [v0, v1, v2, v3] = version.to_be_bytes();
    [FORMAT, v0, v1, v2, v3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_wrapped_secret_is_in_front_of_it() {
        for version in [FIRST_VERSION, 2, u32::MAX] {
            assert_eq!(wrapped_version(&[&header(version)[..], b"x"].concat()), Some(version));
        }
        for other in [&b""[..], &[1, 0, 0, 0], &[2, 0, 0, 0, 1, 9]] {
            assert_eq!(wrapped_version(other), None);
        }
    }
}
