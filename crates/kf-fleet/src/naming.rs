//! Names, and other short texts that people give.

use crate::FleetError;

/// Checks a name of a facility, product line, authority or operator: 1 to 64 characters of `a-z`, `0-9`, `-`, `.`, `_`,
/// starting with a letter or digit, and not of the form of an id.
///
/// # Errors
/// [`FleetError::Invalid`] naming `field`.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), FleetError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
    let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if name.len() > 64 || !starts_well || !name.chars().all(allowed) {
        return Err(FleetError::invalid(
            field,
            format!("`{}` is not a name", shortened(name)),
            "use 1 to 64 characters of a-z, 0-9, `-`, `.`, `_`, starting with a letter or digit",
        ));
    }
    check_not_an_id(field, name)
}

/// Checks a device name: 1 to 64 characters of `A-Z`, `a-z`, `0-9`, `-`, `.`, `_`, `:`, starting with a letter or digit,
/// and not of the form of an id.
///
/// # Errors
/// [`FleetError::Invalid`] naming `field`.
pub(crate) fn check_device_name(field: &str, name: &str) -> Result<(), FleetError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if name.len() > 64 || !starts_well || !name.chars().all(allowed) {
        return Err(FleetError::invalid(
            field,
            format!("`{}` is not a device name", shortened(name)),
            "use 1 to 64 characters of A-Z, a-z, 0-9, `-`, `.`, `_`, `:`, starting with a letter or digit",
        ));
    }
    check_not_an_id(field, name)
}

/// A name that reads like an id would make references ambiguous.
fn check_not_an_id(field: &str, name: &str) -> Result<(), FleetError> {
    let is_id = name.split_once('_').is_some_and(|(prefix, digits)| {
        prefix.bytes().all(|c| c.is_ascii_lowercase())
            && digits.len() == 32
            && digits.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'a'..=b'f'))
    });
    if is_id {
        return Err(FleetError::invalid(
            field,
            "reads like an id",
            "choose a name that is not a prefix and 32 hexadecimal digits",
        ));
    }
    Ok(())
}

/// Checks a reason given for the log: at most 500 characters, no control characters.
///
/// # Errors
/// [`FleetError::Invalid`].
pub(crate) fn check_why(why: &str) -> Result<(), FleetError> {
    check_text("why", why, 500)
}

/// Checks free text: at most `limit` characters, no control characters.
///
/// # Errors
/// [`FleetError::Invalid`] naming `field`.
pub(crate) fn check_text(field: &str, text: &str, limit: usize) -> Result<(), FleetError> {
    if text.chars().count() <= limit && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(FleetError::invalid(
        field,
        "too long, or with control characters",
        format!("say it in at most {limit} plain characters"),
    ))
}

/// At most 80 characters of what somebody sent, control characters replaced, fit for an error text.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet() {
        for good in ["a", "7", "north-1", "a.b_c", &"x".repeat(64)] {
            assert!(check_name("name", good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "A", "ä", "a b", "a/b", "a\n", &"x".repeat(65)] {
            assert!(check_name("name", bad).is_err(), "{bad}");
        }
        assert!(check_device_name("name", "00:1A:22-x").is_ok());
        assert!(check_device_name("name", ":a").is_err());
        assert!(check_device_name("name", "a/b").is_err());
    }

    #[test]
    fn a_name_that_reads_like_an_id_is_refused() {
        let id = format!("dev_{}", "0a".repeat(16));
        assert!(check_name("name", &id).is_err());
        assert!(check_device_name("name", &id).is_err());
        assert!(check_device_name("name", &id[..35]).is_ok());
    }

    #[test]
    fn what_somebody_sent_is_cut_and_cleaned_before_it_is_repeated() {
        assert_eq!(shortened("a\u{1b}[31m\n"), "a?[31m?");
        assert_eq!(shortened(&"x".repeat(1_000)).len(), 80);
    }
}
