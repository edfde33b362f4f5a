//! Certificates in slots: whole but for the public key that the chip has anyway, or in the maker's compressed form.

use core::fmt;

use kf_exchange::PublicKey;

use crate::config::Slot;
use crate::layout;
use crate::wire::crc16;

/// Octets of the compressed form.
pub const COMPRESSED_OCTETS: usize = 72;
/// Before a certificate that is stored whole: its length, a checksum over it, and where the key was taken out, or zero.
const HEADER_OCTETS: usize = 6;
/// Octets of the slots of a certificate that is stored whole: 416 and four times 72.
pub const PLAIN_OCTETS: usize = 704;
/// Octets of a public key's coordinates, which are left out.
const KEY_OCTETS: usize = 64;
/// The longest certificate over a P-256 key that is stored whole.
pub const MAX_PLAIN_OCTETS: usize = PLAIN_OCTETS - HEADER_OCTETS + KEY_OCTETS;
/// What stands before the coordinates in a certificate: SubjectPublicKeyInfo of P-256 and the mark of an uncompressed point
/// (RFC 5480 section 2).
const BEFORE_KEY: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const FORMAT_VERSION: u8 = 0;
const FIRST_YEAR: u16 = 2000;

/// A certificate that a slot cannot take, or a slot that holds none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateError {
    /// Longer than its slots; store the compressed form, or keep it outside the chip.
    TooLong {
        /// Its octets.
        octets: usize,
    },
    /// A date that the compressed form cannot say: years 2000 to 2031, whole hours, a life of at most 31 years.
    Date,
    /// Not what was written, or another format.
    Malformed,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { octets } => {
                write!(f, "a certificate of {octets} octets does not fit its slots; at most {MAX_PLAIN_OCTETS} do")
            }
            Self::Date => f.write_str("the compressed form cannot say these dates"),
            Self::Malformed => f.write_str("the slots hold no certificate of a known form"),
        }
    }
}

impl core::error::Error for CertificateError {}

/// When a certificate in compressed form begins, to the hour in UTC, and how many years it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dates {
    /// 2000 to 2031.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 1 to 31, or 0 for no end.
    pub years: u8,
}

/// The compressed form: what differs from certificate to certificate of one template. The template, the names and the key
/// are outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// ECDSA P-256: r and s.
    pub signature: [u8; 64],
    /// Validity.
    pub dates: Dates,
    /// Which signer of the chain.
    pub signer_id: u16,
    /// Which template, 0 to 15.
    pub template: u8,
    /// Which chain, 0 to 15.
    pub chain: u8,
    /// Where the serial number comes from, 0 to 15; 10 is SHA-256 over public key and dates.
    pub serial_number_source: u8,
}

impl Compressed {
    /// The 72 octets.
    ///
    /// # Errors
    /// [`CertificateError::Date`]; [`CertificateError::Malformed`] for a number above 15.
    pub fn encode(&self) -> Result<[u8; COMPRESSED_OCTETS], CertificateError> {
        let Self { signature, dates, signer_id, template, chain, serial_number_source } = *self;
        if template > 15 || chain > 15 || serial_number_source > 15 {
            return Err(CertificateError::Malformed);
        }
        let [_, high, middle, low] = pack(dates)?.to_be_bytes();
        let [signer_high, signer_low] = signer_id.to_be_bytes();
        let rest = [
            high,
            middle,
            low,
            signer_high,
            signer_low,
            (template << 4) | chain,
            (serial_number_source << 4) | FORMAT_VERSION,
            0,
        ];
        let mut octets = [0; COMPRESSED_OCTETS];
        octets.iter_mut().zip(signature.iter().chain(&rest)).for_each(|(place, octet)| *place = *octet);
        Ok(octets)
    }

    /// Reads the 72 octets.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn decode(octets: &[u8; COMPRESSED_OCTETS]) -> Result<Self, CertificateError> {
        let malformed = CertificateError::Malformed;
        let (signature, rest) = octets.split_first_chunk::<64>().ok_or(malformed)?;
        let [high, middle, low, signer_high, signer_low, place, source, reserved] =
            <[u8; 8]>::try_from(rest).map_err(|_length| malformed)?;
        if source & 15 != FORMAT_VERSION || reserved != 0 {
            return Err(malformed);
        }
        Ok(Self {
            signature: *signature,
            dates: unpack(u32::from_be_bytes([0, high, middle, low])).ok_or(CertificateError::Date)?,
            signer_id: u16::from_be_bytes([signer_high, signer_low]),
            template: place >> 4,
            chain: place & 15,
            serial_number_source: source >> 4,
        })
    }
}

/// Year 5 bits, month 4, day 5, hour 5, years 5.
fn pack(dates: Dates) -> Result<u32, CertificateError> {
    let Dates { year, month, day, hour, years } = dates;
    let year = year.checked_sub(FIRST_YEAR).filter(|year| *year < 32).ok_or(CertificateError::Date)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || years > 31 {
        return Err(CertificateError::Date);
    }
    let parts = [(u32::from(month), 4), (u32::from(day), 5), (u32::from(hour), 5), (u32::from(years), 5)];
    Ok(parts.into_iter().fold(u32::from(year), |bits, (value, width)| (bits << width) | value))
}

fn unpack(bits: u32) -> Option<Dates> {
    let [years, hour, day, month, year] =
        [(0, 5), (5, 5), (10, 5), (15, 4), (19, 5)].map(|(shift, width)| (bits >> shift) & ((1 << width) - 1));
    let octet = |value: u32| u8::try_from(value).ok();
    let dates = Dates {
        year: FIRST_YEAR.checked_add(u16::try_from(year).ok()?)?,
        month: octet(month)?,
        day: octet(day)?,
        hour: octet(hour)?,
        years: octet(years)?,
    };
    pack(dates).ok().map(|_valid| dates)
}

/// A certificate on its way into the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// DER, in [`layout::CERTIFICATE`] and, as far as it is longer, in [`layout::CERTIFICATE_REST`].
    Plain(&'a [u8]),
    /// In [`layout::COMPRESSED_CERTIFICATE`].
    Compressed(&'a Compressed),
}

impl Stored<'_> {
    /// Where it begins.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        match self {
            Self::Plain(_) => layout::CERTIFICATE,
            Self::Compressed(_) => layout::COMPRESSED_CERTIFICATE,
        }
    }

    /// The slots that it reaches into.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn slots(&self) -> Result<impl Iterator<Item = Slot> + use<>, CertificateError> {
        let mut octets = [0; PLAIN_OCTETS];
        let reached = parts(self.slot(), self.encode(&mut octets)?).count();
        Ok(core::iter::once(self.slot()).chain(layout::CERTIFICATE_REST).take(reached))
    }

    /// What is written, a multiple of four octets.
    pub(crate) fn encode<'b>(&self, octets: &'b mut [u8; PLAIN_OCTETS]) -> Result<&'b [u8], CertificateError> {
        let length = match self {
            Self::Compressed(compressed) => {
                let encoded = compressed.encode()?;
                octets.iter_mut().zip(encoded).for_each(|(place, octet)| *place = octet);
                COMPRESSED_OCTETS
            }
            Self::Plain(der) => {
                let too_long = CertificateError::TooLong { octets: der.len() };
                let (before, behind) = around_key(der);
                let position = if behind.is_empty() { 0 } else { before.len() };
                let stored = HEADER_OCTETS.saturating_add(before.len()).saturating_add(behind.len());
                let (Ok(length), Ok(position)) = (u16::try_from(der.len()), u16::try_from(position)) else {
                    return Err(too_long);
                };
                if stored > PLAIN_OCTETS {
                    return Err(too_long);
                }
                let header = [length, crc16(*der), position].into_iter().flat_map(u16::to_be_bytes);
                let content = header.chain(before.iter().chain(behind).copied()).chain(core::iter::repeat(0));
                octets.iter_mut().zip(content).for_each(|(place, octet)| *place = octet);
                stored.next_multiple_of(4)
            }
        };
        octets.get(..length).ok_or(CertificateError::Malformed)
    }
}

/// What is written, in the parts that go into one slot each.
pub(crate) fn parts(first: Slot, mut octets: &[u8]) -> impl Iterator<Item = (Slot, &[u8])> {
    let slots = core::iter::once(first).chain(layout::CERTIFICATE_REST);
    slots.map_while(move |slot| {
        let (part, rest) = octets.split_at(octets.len().min(slot.octets()));
        octets = rest;
        (!part.is_empty()).then_some((slot, part))
    })
}

/// What stands before the coordinates of the key, and what behind them; nothing behind for a certificate without such a key.
fn around_key(der: &[u8]) -> (&[u8], &[u8]) {
    let found = der.windows(BEFORE_KEY.len()).position(|window| window == BEFORE_KEY);
    let parts = found.and_then(|place| {
        let start = place.checked_add(BEFORE_KEY.len())?;
        Some((der.get(..start)?, der.get(start.checked_add(KEY_OCTETS)?..)?))
    });
    parts.unwrap_or((der, &[]))
}

/// The certificate in the content of [`layout::CERTIFICATE`], with that of [`layout::CERTIFICATE_REST`] behind it as far as it
/// was read; `key` is the public half of the identity in the chip.
///
/// # Errors
/// [`CertificateError::Malformed`] when there is none, it is damaged, or it is of another key.
pub fn decode_plain<'a>(
    content: &[u8],
    key: &PublicKey,
    der: &'a mut [u8; MAX_PLAIN_OCTETS],
) -> Result<&'a [u8], CertificateError> {
    let malformed = CertificateError::Malformed;
    let (header, rest) = content.split_first_chunk::<HEADER_OCTETS>().ok_or(malformed)?;
    let [length, crc, position] = [0, 2, 4].map(|at| {
        let pair = header.get(at..at + 2).and_then(|pair| <[u8; 2]>::try_from(pair).ok());
        pair.map_or(0, u16::from_be_bytes)
    });
    let (length, position) = (usize::from(length), usize::from(position));
    let key = key.to_sec1();
    let coordinates = if position == 0 { &[][..] } else { key.get(1..).unwrap_or_default() };
    let der = der.get_mut(..length).filter(|der| !der.is_empty()).ok_or(malformed)?;
    let stored = length.checked_sub(coordinates.len()).and_then(|stored| rest.get(..stored)).ok_or(malformed)?;
    let (before, behind) = stored.split_at_checked(position).ok_or(malformed)?;
    der.iter_mut().zip(before.iter().chain(coordinates).chain(behind)).for_each(|(place, octet)| *place = *octet);
    let der: &'a [u8] = der;
    if crc16(der) == crc { Ok(der) } else { Err(malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPRESSED: Compressed = Compressed {
        signature: [0x5a; 64],
        dates: Dates { year: 2026, month: 12, day: 31, hour: 23, years: 20 },
        signer_id: 0xc4a5,
        template: 2,
        chain: 1,
        serial_number_source: 10,
    };

    #[test]
    fn the_compressed_form_comes_back() {
        let octets = COMPRESSED.encode().unwrap();
        assert_eq!(&octets[64..], &[0xd6, 0x7e, 0xf4, 0xc4, 0xa5, 0x21, 0xa0, 0]);
        assert_eq!(Compressed::decode(&octets), Ok(COMPRESSED));
    }

    #[test]
    fn dates_that_the_form_cannot_say_are_refused() {
        let refused = |dates| assert_eq!(Compressed { dates, ..COMPRESSED }.encode(), Err(CertificateError::Date));
        let good = COMPRESSED.dates;
        refused(Dates { year: 1999, ..good });
        refused(Dates { year: 2032, ..good });
        refused(Dates { month: 0, ..good });
        refused(Dates { month: 13, ..good });
        refused(Dates { day: 0, ..good });
        refused(Dates { hour: 24, ..good });
        refused(Dates { years: 32, ..good });
        let mut month_zero = COMPRESSED.encode().unwrap();
        month_zero[64] &= 0xf8;
        month_zero[65] &= 0x7f;
        assert_eq!(Compressed::decode(&month_zero), Err(CertificateError::Date));
    }

    /// The generator of P-256 (SP 800-186 section 3.2.1.3), and twice it (X9.62).
    fn keys() -> [PublicKey; 2] {
        let key = |octet: u8| {
            let secret = kf_key::SecretArray::fill(|scalar: &mut [u8; 32]| scalar[31] = octet);
            kf_exchange::KeyAgreement::public_key(&kf_exchange::Ephemeral::from_random(secret).unwrap())
        };
        [key(1), key(2)]
    }

    /// Something as long as a certificate with this key in it.
    fn with_key(octets: usize, key: &PublicKey) -> std::vec::Vec<u8> {
        let mut der = std::vec![0x30; 100];
        der.extend_from_slice(&BEFORE_KEY);
        der.extend_from_slice(&key.to_sec1()[1..]);
        der.resize(octets, 0x31);
        der
    }

    #[test]
    fn a_whole_certificate_comes_back_and_damage_or_another_key_is_noticed() {
        let [key, other] = keys();
        let der = with_key(MAX_PLAIN_OCTETS, &key);
        let (mut octets, mut out) = ([0xff; PLAIN_OCTETS], [0; MAX_PLAIN_OCTETS]);
        assert_eq!(Stored::Plain(&der).encode(&mut octets).unwrap().len(), PLAIN_OCTETS);
        assert!(!octets.windows(8).any(|window| der[127..191].starts_with(window)), "the key is in the chip already");
        assert_eq!(Stored::Plain(&der).slots().unwrap().count(), 5);
        assert_eq!(decode_plain(&octets, &key, &mut out), Ok(der.as_slice()));
        assert_eq!(decode_plain(&octets, &other, &mut out), Err(CertificateError::Malformed));
        octets[200] ^= 1;
        assert_eq!(decode_plain(&octets, &key, &mut out), Err(CertificateError::Malformed));
        for blank in [0, 0xff] {
            assert_eq!(decode_plain(&[blank; PLAIN_OCTETS], &key, &mut out), Err(CertificateError::Malformed));
        }
        let refused = Stored::Plain(&with_key(MAX_PLAIN_OCTETS + 1, &key)).encode(&mut octets);
        assert_eq!(refused, Err(CertificateError::TooLong { octets: 763 }));
    }

    #[test]
    fn what_has_no_such_key_is_stored_as_it_is() {
        let [key, _] = keys();
        let (mut octets, mut out) = ([0xff; PLAIN_OCTETS], [0; MAX_PLAIN_OCTETS]);
        let der = [0x30; 301];
        assert_eq!(Stored::Plain(&der).encode(&mut octets).unwrap().len(), 308);
        assert_eq!(Stored::Plain(&der).slots().unwrap().collect::<std::vec::Vec<_>>(), [layout::CERTIFICATE]);
        assert_eq!(decode_plain(&octets, &key, &mut out), Ok(der.as_slice()));
        let refused = Stored::Plain(&[0x30; PLAIN_OCTETS]).encode(&mut octets);
        assert_eq!(refused, Err(CertificateError::TooLong { octets: 704 }));
    }
}
