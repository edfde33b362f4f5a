//! Certificate serial numbers (RFC 5280 section 4.1.2.2; CA/B BR 7.1).

use core::fmt;
use core::str::FromStr;

use crate::UnixMillis;
use crate::id::{hex_array, write_hex};

/// Why a text is not a serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseSerialError;

impl fmt::Display for ParseSerialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a serial number of 40 hexadecimal digits, colons allowed")
    }
}

impl core::error::Error for ParseSerialError {}

/// A certificate serial number: 20 octets = bits `01`, a 46-bit count of milliseconds since 2024-01-01, 112 random
/// bits. The prefix keeps it positive and exactly 20 octets long in DER; the milliseconds keep index inserts in order;
/// the randomness alone exceeds the 64 bits that the CA/B Baseline Requirements ask for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SerialNumber([u8; 20]);

/// 2024-01-01T00:00:00Z.
const EPOCH: UnixMillis = UnixMillis(1_704_067_200_000);
const TIME_MASK: u64 = (1 << 46) - 1;

impl SerialNumber {
    /// A serial number for a certificate issued at `now`. Of the random octets the last 14 are kept.
    #[must_use]
    pub fn from_parts(now: UnixMillis, random: [u8; 16]) -> Self {
        let time = (0b01 << 46) | (now.since(EPOCH) & TIME_MASK);
        let [_, _, t0, t1, t2, t3, t4, t5] = time.to_be_bytes();
        let [_, _, r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13] = random;
        Self([t0, t1, t2, t3, t4, t5, r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13])
    }

    /// The 20 octets, which are also the contents of the DER INTEGER.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// When its certificate was issued, as far as the 46 bits go: until the year 4253.
    #[must_use]
    pub fn issued(&self) -> UnixMillis {
        let [t0, t1, t2, t3, t4, t5, ..] = self.0;
        EPOCH.plus(u64::from_be_bytes([0, 0, t0, t1, t2, t3, t4, t5]) & TIME_MASK)
    }

    /// A serial number from the contents of a DER INTEGER; `None` unless it is one that we could have issued.
    #[must_use]
    pub fn from_der_contents(contents: &[u8]) -> Option<Self> {
        let octets: [u8; 20] = contents.try_into().ok()?;
        let [first, ..] = octets;
        (first >> 6 == 0b01).then_some(Self(octets))
    }

    /// The CRL shard of this certificate among `shard_count` shards (at least 1, at most 256): the low random octet
    /// modulo the count.
    #[must_use]
    pub const fn shard(&self, shard_count: u16) -> u16 {
        let [.., last] = self.0;
        let count = if shard_count == 0 { 1 } else { shard_count };
        // u8 to u16 never loses a bit; `u16::from` is not const.
        #[allow(clippy::as_conversions)]
        {
            (last as u16) % count
        }
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SerialNumber {
    type Err = ParseSerialError;

    /// Accepts what openssl and certtool print: either case, colons between octets.
    fn from_str(text: &str) -> Result<Self, ParseSerialError> {
        if text.len() > 80 {
            return Err(ParseSerialError);
        }
        let mut digits = [0; 40];
        let mut places = digits.iter_mut();
        for digit in text.bytes().filter(|byte| *byte != b':') {
            *places.next().ok_or(ParseSerialError)? = digit.to_ascii_lowercase();
        }
        if places.next().is_some() {
            return Err(ParseSerialError);
        }
        let digits = core::str::from_utf8(&digits).map_err(|_not_ascii| ParseSerialError)?;
        hex_array(digits).and_then(|octets: [u8; 20]| Self::from_der_contents(&octets)).ok_or(ParseSerialError)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for SerialNumber {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for SerialNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <alloc::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn openssl_and_certtool_spellings_are_read() {
        let serial = SerialNumber::from_parts(UnixMillis(1_800_000_000_000), [0xab; 16]);
        let plain = serial.to_string();
        let colons: alloc::vec::Vec<_> = plain.as_bytes().chunks(2).map(|c| core::str::from_utf8(c).unwrap()).collect();
        assert_eq!(plain.to_uppercase().parse(), Ok(serial));
        assert_eq!(colons.join(":").parse(), Ok(serial));
    }

    proptest! {
        #[test]
        fn every_serial_is_positive_twenty_octets_and_keeps_its_randomness(now: u64, random: [u8; 16]) {
            let serial = SerialNumber::from_parts(UnixMillis(now), random);
            prop_assert_eq!(serial.as_bytes()[0] >> 6, 0b01);
            prop_assert_eq!(&serial.as_bytes()[6..], &random[2..]);
            prop_assert_eq!(SerialNumber::from_der_contents(serial.as_bytes()), Some(serial));
            prop_assert_eq!(format!("{serial}").parse::<SerialNumber>(), Ok(serial));
        }

        #[test]
        fn serials_are_in_the_order_of_their_milliseconds(earlier in 0..1u64 << 46, random: [[u8; 16]; 2]) {
            let at = |offset| UnixMillis(EPOCH.0 + offset);
            let [first, second] = random;
            let later = SerialNumber::from_parts(at(earlier + 1), second);
            prop_assert!(earlier + 1 > TIME_MASK || SerialNumber::from_parts(at(earlier), first) < later);
        }

        #[test]
        fn a_shard_is_always_below_the_count(random: [u8; 16], count in 1u16..=256) {
            prop_assert!(SerialNumber::from_parts(UnixMillis(0), random).shard(count) < count);
        }
    }
}
