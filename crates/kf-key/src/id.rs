//! Identifiers: time-ordered (UUIDv7, RFC 9562 section 5.7), one type and one text prefix per kind, so that an id
//! pasted in the wrong place is refused instead of looked up.

use core::fmt;
use core::str::FromStr;

use crate::UnixMillis;

/// Why a text is not an identifier of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIdError {
    /// The prefix that was expected, for example `dev_`.
    pub expected_prefix: &'static str,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected `{}` and 32 lower-case hexadecimal digits", self.expected_prefix)
    }
}

impl core::error::Error for ParseIdError {}

fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Decodes exactly `2 * N` lower-case hexadecimal digits.
pub(crate) fn hex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0u8; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = (nibble(*high)? << 4) | nibble(*low)?;
    }
    Some(bytes)
}

/// Writes at most 20 octets as lower-case digits. One piece, because every log entry holds half a dozen of them.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let mut text = [0u8; 40];
    for (pair, octet) in text.chunks_exact_mut(2).zip(octets) {
        if let [high, low] = pair {
            (*high, *low) = (digit(octet >> 4), digit(octet & 0x0f));
        }
    }
    let text = text.get(..octets.len() * 2).and_then(|text| core::str::from_utf8(text).ok());
    f.write_str(text.ok_or(fmt::Error)?)
}

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The text prefix of this kind of identifier.
            pub const PREFIX: &'static str = $prefix;

            /// A UUIDv7 from the time and ten random octets (74 of whose bits are kept).
            #[must_use]
            pub const fn from_parts(now: UnixMillis, random: [u8; 10]) -> Self {
                let [_, _, t0, t1, t2, t3, t4, t5] = now.0.to_be_bytes();
                let [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9] = random;
                Self([t0, t1, t2, t3, t4, t5, 0x70 | (r0 & 0x0f), r1, 0x80 | (r2 & 0x3f), r3, r4, r5, r6, r7, r8, r9])
            }

            /// The 16 octets as stored.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// An identifier read back from storage.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .and_then(hex_array)
                    .map(Self)
                    .ok_or(ParseIdError { expected_prefix: $prefix })
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <alloc::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

identifiers! {
    /// A fleet: one root, one log, one registry.
    FleetId = "fleet_";
    /// A facility: a site or factory, and a scope of access.
    FacilityId = "fac_";
    /// A product line: devices that share an enrolment policy.
    ProductLineId = "line_";
    /// A device in the registry.
    DeviceId = "dev_";
    /// A certification authority (root or issuing).
    AuthorityId = "ca_";
    /// A key under management.
    KeyId = "key_";
    /// A person or machine that operates the fleet.
    OperatorId = "op_";
    /// An API token of an operator.
    TokenId = "tok_";
    /// A proposal that waits for a second person.
    ProposalId = "prop_";
    /// A one-time enrolment code.
    CodeId = "code_";
    /// An enrolment that waits for manual approval.
    EnrolmentId = "enr_";
    /// An act outside the database whose outcome is to be recorded.
    IntentId = "intent_";
    /// An order to a device.
    OrderId = "ord_";
    /// A batch of devices that a station makes.
    BatchId = "batch_";
    /// A campaign over devices.
    CampaignId = "camp_";
    /// A manufacturer whose IDevIDs are accepted.
    VendorId = "vendor_";
    /// The destruction of keys, and its receipt.
    DestructionId = "dst_";
    /// A backup of the registry.
    BackupId = "bkp_";
    /// A key with which the server encrypts for others.
    EncryptionKeyId = "ekey_";
    /// A suspected or confirmed compromise that is being dealt with.
    IncidentId = "inc_";
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn an_identifier_survives_its_text_form() {
        let id = DeviceId::from_parts(UnixMillis(1_700_000_000_123), [0xff; 10]);
        assert_eq!(id.to_string().parse::<DeviceId>(), Ok(id));
    }

    #[test]
    fn an_identifier_of_another_kind_is_refused() {
        let id = DeviceId::from_parts(UnixMillis(1), [0; 10]).to_string();
        assert_eq!(id.parse::<FacilityId>(), Err(ParseIdError { expected_prefix: "fac_" }));
    }

    #[test]
    fn identifiers_made_later_sort_later() {
        let early = DeviceId::from_parts(UnixMillis(1_000), [0xff; 10]);
        let late = DeviceId::from_parts(UnixMillis(1_001), [0; 10]);
        assert!(early < late);
    }

    #[test]
    fn the_version_and_variant_bits_are_those_of_uuid_v7() {
        let id = DeviceId::from_parts(UnixMillis(5), [0xff; 10]);
        assert_eq!(id.as_bytes()[6] >> 4, 7);
        assert_eq!(id.as_bytes()[8] >> 6, 0b10);
    }

    #[test]
    fn upper_case_short_and_long_texts_are_refused() {
        for text in ["dev_", "dev_00", "dev_0123456789ABCDEF0123456789ABCDEF", "dev_0123456789abcdef0123456789abcdef0"]
        {
            assert!(text.parse::<DeviceId>().is_err(), "{text}");
        }
    }
}
