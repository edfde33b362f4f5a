//! Fields of fixed places, and the CRC that all of these formats use.

/// How many octets are looked at before a loop can end early: enough for vector instructions.
const BLOCK: usize = 64;

/// `N` octets from `at`. Where `bytes` ends there are zeroes; callers pass what is long enough.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    if let Some(source) = bytes.get(at..).and_then(<[u8]>::first_chunk::<N>) {
        field = *source;
    }
    field
}

pub(crate) fn u16_le(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

pub(crate) fn u32_le(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

/// Copies `value` to `at`, as far as there is room; callers have made it.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..value.len())) {
        place.copy_from_slice(value);
    }
}

/// CRC-32 (IEEE 802.3, reflected) with the register starting at zero: what the boot ROM's `crc32_le` makes of a start
/// value of all ones.
pub(crate) fn crc32(parts: &[&[u8]]) -> u32 {
    let mut hasher = begin_crc32();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// The same, piece by piece.
pub(crate) fn begin_crc32() -> crc32fast::Hasher {
    crc32fast::Hasher::new_with_initial(u32::MAX)
}

/// Whether flash was never written here since the last erase.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK).all(|block| block.iter().fold(0xff, |all, octet| all & octet) == 0xff)
}

/// Whether every bit was programmed, which is how a purge overwrites without erasing.
pub(crate) fn is_purged(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK).all(|block| block.iter().fold(0, |all, octet| all | octet) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_starts_at_zero_not_at_ones() {
        // What `zlib.crc32(b"123456789", 0xffffffff)` returns; the customary start gives cbf43926.
        assert_eq!(crc32(&[b"12345", b"6789"]), 0xd202_d277);
    }

    #[test]
    fn a_field_past_the_end_is_zero() {
        assert_eq!(u32_le(&[1, 2, 3], 0), 0);
        assert_eq!(u16_le(&[1, 2, 3], 1), 0x0302);
    }
}
