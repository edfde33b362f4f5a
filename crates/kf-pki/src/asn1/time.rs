//! UTCTime and GeneralizedTime (RFC 5280 section 4.1.2.5): always Zulu, always with seconds.

use core::time::Duration;

use der::DateTime;
use kf_key::UnixMillis;

use super::{Element, tag};

/// 9999-12-31T23:59:59Z: no well-defined expiration (RFC 5280 section 4.1.2.5).
pub(crate) const NO_EXPIRY: UnixMillis = UnixMillis(253_402_300_799_000);

/// `YYYYMMDDHHMMSSZ`; moments past [`NO_EXPIRY`] are written as it.
pub(super) fn generalized(moment: UnixMillis) -> [u8; 15] {
    const LATEST: [u8; 15] = *b"99991231235959Z";
    let Ok(time) = DateTime::from_unix_duration(Duration::from_secs(moment.seconds())) else { return LATEST };
    let [y1, y2] = two_digits(time.year() / 100);
    let [y3, y4] = two_digits(time.year() % 100);
    let [m1, m2] = two_digits(time.month().into());
    let [d1, d2] = two_digits(time.day().into());
    let [h1, h2] = two_digits(time.hour().into());
    let [n1, n2] = two_digits(time.minutes().into());
    let [s1, s2] = two_digits(time.seconds().into());
    [y1, y2, y3, y4, m1, m2, d1, d2, h1, h2, n1, n2, s1, s2, b'Z']
}

/// The UTCTime form of a GeneralizedTime through 2049.
pub(super) fn utc_part(generalized: &[u8; 15]) -> Option<&[u8]> {
    let (century, rest) = generalized.split_at(2);
    let before_2050 = century == b"19" || (century == b"20" && rest.first().is_some_and(|decade| *decade < b'5'));
    before_2050.then_some(rest)
}

/// The moment of a UTCTime or GeneralizedTime; `None` for anything but the profile's form, and before 1970.
pub(crate) fn time_of(element: &Element<'_>) -> Option<UnixMillis> {
    let (year, rest) = match element.tag {
        tag::UTC_TIME => {
            let (year, rest) = element.value.split_at_checked(2)?;
            let year = number(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        tag::GENERALIZED_TIME => {
            let (year, rest) = element.value.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    let digits = rest.strip_suffix(b"Z").filter(|digits| digits.len() == 10)?;
    let mut pairs = digits.chunks_exact(2).map(|pair| number(pair).and_then(|value| u8::try_from(value).ok()));
    let mut next = || pairs.next().flatten();
    let time = DateTime::new(year, next()?, next()?, next()?, next()?, next()?).ok()?;
    Some(UnixMillis::from_seconds(time.unix_duration().as_secs()))
}

fn two_digits(value: u16) -> [u8; 2] {
    let digit = |value: u16| u8::try_from(value % 10).map_or(b'0', |digit| b'0' + digit);
    [digit(value / 10), digit(value)]
}

fn number(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::super::{Writer, only};
    use super::*;

    #[test]
    fn utc_time_ends_with_2049_and_every_time_is_read_back() {
        let rows: [(u64, u8, &[u8]); 5] = [
            (0, tag::UTC_TIME, b"700101000000Z"),
            (951_782_400, tag::UTC_TIME, b"000229000000Z"),
            (2_524_607_999, tag::UTC_TIME, b"491231235959Z"),
            (2_524_608_000, tag::GENERALIZED_TIME, b"20500101000000Z"),
            (253_402_300_799, tag::GENERALIZED_TIME, b"99991231235959Z"),
        ];
        for (seconds, expected_tag, text) in rows {
            let moment = UnixMillis::from_seconds(seconds);
            let der = Writer::build(0, |w| w.time(moment));
            let element = only(&der, expected_tag).unwrap();
            assert_eq!(element.value, text);
            assert_eq!(time_of(&element), Some(moment));
        }
    }

    #[test]
    fn times_without_seconds_or_zulu_or_with_signs_are_refused() {
        for text in [&b"7001010000Z"[..], b"700101000000", b"700101000000+0100", b"7001010000+1Z", b"700229000000Z"] {
            let der = Writer::build(0, |w| w.primitive(tag::UTC_TIME, text));
            assert_eq!(time_of(&only(&der, tag::UTC_TIME).unwrap()), None, "{text:?}");
        }
    }
}
