//! Moments as people write and read them.

use kf_key::UnixMillis;

/// RFC 3339 in UTC, whole seconds.
pub(crate) fn text(moment: UnixMillis) -> String {
    let seconds = i64::try_from(moment.seconds()).unwrap_or(i64::MAX);
    // 99991231235959Z means "no end" (RFC 5280 section 4.1.2.5) and lies just past what jiff can hold.
    jiff::Timestamp::from_second(seconds).map_or_else(|_out_of_range| "never".to_owned(), |moment| moment.to_string())
}

/// A length of time in seconds, exactly: `2d`, `1h 30m`, `0s`.
pub(crate) fn period(seconds: u64) -> String {
    let units = [(seconds / 86_400, 'd'), (seconds / 3_600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let parts: Vec<String> =
        units.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Reads `2027-01-31`, `2027-01-31T12:00:00Z`, or a distance from now such as `30d` or `12h`.
///
/// # Errors
/// A sentence that says what is expected.
pub(crate) fn parse(text: &str, now: UnixMillis) -> Result<UnixMillis, String> {
    let expected =
        || "expected a date (2027-01-31), a moment (2027-01-31T12:00:00Z), or a distance (30d, 12h)".to_owned();
    let distance = |digits: &str, unit: u64| {
        digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)).map(|distance| now.plus(distance))
    };
    let relative = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(days), _) => distance(days, UnixMillis::DAY),
        (None, Some(hours)) => distance(hours, UnixMillis::HOUR),
        (None, None) => None,
    };
    if let Some(moment) = relative {
        return Ok(moment);
    }
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let moment: jiff::Timestamp = full.parse().map_err(|_unreadable| expected())?;
    u64::try_from(moment.as_millisecond()).map(UnixMillis).map_err(|_before_1970| expected())
}

/// As [`parse`], for what lies behind: a distance counts back from now.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_past(text: &str, now: UnixMillis) -> Result<UnixMillis, String> {
    let moment = parse(text, now)?;
    let is_distance = text.ends_with(['d', 'h']);
    Ok(if is_distance { now.minus(moment.0.saturating_sub(now.0)) } else { moment })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_moments_and_distances_are_read() {
        let now = UnixMillis(1_700_000_000_000);
        assert_eq!(parse("30d", now), Ok(now.plus(30 * UnixMillis::DAY)));
        assert_eq!(parse("12h", now), Ok(now.plus(12 * UnixMillis::HOUR)));
        assert_eq!(parse("2023-11-14T22:13:20Z", now), Ok(now));
        assert_eq!(parse("1970-01-02", now), Ok(UnixMillis(UnixMillis::DAY)));
    }

    #[test]
    fn a_length_of_time_reads_as_it_is_written_on_the_command_line() {
        let read = [0, 1, 60, 5_400, 86_400, 172_805].map(period);
        assert_eq!(read, ["0s", "1s", "1m", "1h 30m", "1d", "2d 5s"]);
    }

    #[test]
    fn a_distance_into_the_past_counts_back() {
        let now = UnixMillis(1_700_000_000_000);
        assert_eq!(parse_past("30d", now), Ok(now.minus(30 * UnixMillis::DAY)));
        assert_eq!(parse_past("2023-11-14T22:13:20Z", now), Ok(now));
    }

    #[test]
    fn anything_else_is_refused_with_what_is_expected() {
        for text in ["", "d", "tomorrow", "-3d", "1969-12-31", "2023-13-01", "99999999999999999999d"] {
            assert!(parse(text, UnixMillis(0)).is_err_and(|refusal| refusal.contains("2027-01-31")), "{text}");
        }
    }

    #[test]
    fn the_end_of_a_certificate_that_never_expires_reads_never() {
        assert_eq!(text(UnixMillis::from_seconds(253_402_300_799)), "never");
    }
}
