//! Device names as brokers can carry them.

use crate::BrokerError;

/// Accepts what the registry accepts as a device name: 1 to 64 of `A-Z a-z 0-9 - . _ :`, a letter or digit first. So a
/// name never contains what MQTT topics, control messages or log lines give a meaning.
pub(crate) fn check(device_name: &str) -> Result<(), BrokerError> {
    let first_fits = device_name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if first_fits && device_name.len() <= 64 && device_name.chars().all(fits) {
        Ok(())
    } else {
        Err(BrokerError::DeviceName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_meaning_in_topics_or_log_lines_are_refused() {
        for name in ["", "a/b", "a+", "#", "a b", "a\n", "-a", "ä", "a'", &"a".repeat(65)] {
            assert!(check(name).is_err(), "{name}");
        }
        for name in ["a", "meter-17", "0A:1b_2.c", &"a".repeat(64)] {
            assert!(check(name).is_ok(), "{name}");
        }
    }
}
