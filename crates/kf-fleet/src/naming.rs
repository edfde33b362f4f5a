//! Names, and references by name or id.

use crate::FleetError;

/// Checks a name of a facility, product line, authority or operator: 1 to 64 characters of `a-z`, `0-9`, `-`, `.`, `_`,
/// starting with a letter or digit.
///
/// # Errors
/// [`FleetError::Invalid`] naming `field`.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), FleetError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
    let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if name.len() <= 64 && starts_well && name.chars().all(allowed) {
        return Ok(());
    }
    Err(FleetError::invalid(
        field,
        format!("`{}` is not a name", shortened(name)),
        "use 1 to 64 characters of a-z, 0-9, `-`, `.`, `_`, starting with a letter or digit",
    ))
}

/// Checks a device name: 1 to 64 characters of `A-Z`, `a-z`, `0-9`, `-`, `.`, `_`, `:`, starting with a letter or digit.
///
/// # Errors
/// [`FleetError::Invalid`] naming `field`.
pub(crate) fn check_device_name(field: &str, name: &str) -> Result<(), FleetError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if name.len() <= 64 && starts_well && name.chars().all(allowed) {
        return Ok(());
    }
    Err(FleetError::invalid(
        field,
        format!("`{}` is not a device name", shortened(name)),
        "use 1 to 64 characters of A-Z, a-z, 0-9, `-`, `.`, `_`, `:`, starting with a letter or digit",
    ))
}

/// Checks a reason given for the log: at most 500 characters, no control characters.
///
/// # Errors
/// [`FleetError::Invalid`].
pub(crate) fn check_why(why: &str) -> Result<(), FleetError> {
    if why.chars().count() <= 500 && !why.chars().any(char::is_control) {
        return Ok(());
    }
    Err(FleetError::invalid("why", "too long, or with control characters", "say it in at most 500 plain characters"))
}

/// At most 80 characters of what somebody sent, control characters replaced, fit for an error text.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}
