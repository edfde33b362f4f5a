//! Certificates in slots: whole, with their length and a checksum, or in the maker's compressed form.

use core::fmt;

use crate::config::Slot;
use crate::layout;
use crate::wire::crc16;

/// Octets of the compressed form.
pub const COMPRESSED_OCTETS: usize = 72;
/// Length and checksum before a certificate that is stored whole.
const HEADER_OCTETS: usize = 4;
/// The longest certificate that is stored whole.
pub const MAX_PLAIN_OCTETS: usize = 416 - HEADER_OCTETS;
const FORMAT_VERSION: u8 = 0;
const FIRST_YEAR: u16 = 2000;

/// A certificate that a slot cannot take, or a slot that holds none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateError {
    /// Longer than the slot; store the compressed form, or keep it outside the chip.
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
                write!(f, "a certificate of {octets} octets does not fit a slot; at most {MAX_PLAIN_OCTETS} do")
            }
            Self::Date => f.write_str("the compressed form cannot say these dates"),
            Self::Malformed => f.write_str("the slot holds no certificate of a known form"),
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
    /// DER, in [`layout::CERTIFICATE`].
    Plain(&'a [u8]),
    /// In [`layout::COMPRESSED_CERTIFICATE`].
    Compressed(&'a Compressed),
}

impl Stored<'_> {
    /// Where it goes.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        match self {
            Self::Plain(_) => layout::CERTIFICATE,
            Self::Compressed(_) => layout::COMPRESSED_CERTIFICATE,
        }
    }

    /// What is written, a multiple of four octets.
    pub(crate) fn encode<'b>(&self, octets: &'b mut [u8; 416]) -> Result<&'b [u8], CertificateError> {
        let length = match self {
            Self::Compressed(compressed) => {
                let encoded = compressed.encode()?;
                octets.iter_mut().zip(encoded).for_each(|(place, octet)| *place = octet);
                COMPRESSED_OCTETS
            }
            Self::Plain(der) => {
                let too_long = CertificateError::TooLong { octets: der.len() };
                let length = u16::try_from(der.len()).map_err(|_too_long| too_long)?;
                if der.len() > MAX_PLAIN_OCTETS {
                    return Err(too_long);
                }
                let header = length.to_be_bytes().into_iter().chain(crc16(*der).to_be_bytes());
                let content = header.chain(der.iter().copied()).chain(core::iter::repeat(0));
                octets.iter_mut().zip(content).for_each(|(place, octet)| *place = octet);
                HEADER_OCTETS.saturating_add(der.len()).next_multiple_of(4)
            }
        };
        octets.get(..length).ok_or(CertificateError::Malformed)
    }
}

/// The certificate in the content of [`layout::CERTIFICATE`].
///
/// # Errors
/// [`CertificateError::Malformed`] when there is none or it is damaged.
pub fn decode_plain(content: &[u8; 416]) -> Result<&[u8], CertificateError> {
    let malformed = CertificateError::Malformed;
    let (length, rest) = content.split_first_chunk::<2>().ok_or(malformed)?;
    let (crc, rest) = rest.split_first_chunk::<2>().ok_or(malformed)?;
    let der = rest.get(..usize::from(u16::from_be_bytes(*length))).filter(|der| !der.is_empty()).ok_or(malformed)?;
    if crc16(der).to_be_bytes() == *crc { Ok(der) } else { Err(malformed) }
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

    #[test]
    fn a_whole_certificate_comes_back_and_damage_is_noticed() {
        let der = [0x30; 301];
        let mut octets = [0xff; 416];
        assert_eq!(Stored::Plain(&der).encode(&mut octets).unwrap().len(), 308);
        assert_eq!(decode_plain(&octets), Ok(der.as_slice()));
        octets[200] ^= 1;
        assert_eq!(decode_plain(&octets), Err(CertificateError::Malformed));
        assert_eq!(decode_plain(&[0; 416]), Err(CertificateError::Malformed));
        assert_eq!(decode_plain(&[0xff; 416]), Err(CertificateError::Malformed));
        let long = [0x30; MAX_PLAIN_OCTETS + 1];
        let refused = Stored::Plain(&long).encode(&mut octets);
        assert_eq!(refused, Err(CertificateError::TooLong { octets: 413 }));
    }
}
