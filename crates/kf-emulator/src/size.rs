//! How much flash an image takes.

use std::path::Path;
use std::process::Command;

/// Binutils of the target; the Debian package is binutils-arm-none-eabi.
const SIZE: &str = "arm-none-eabi-size";

/// Why a size is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SizeError {
    #[error("cannot start {SIZE}; it is in the Debian package binutils-arm-none-eabi")]
    Start(#[source] std::io::Error),
    #[error("{SIZE} did not understand the image: {said}")]
    Form { said: String },
}

/// Octets of flash: code, constants and the initial values of data.
///
/// # Errors
/// [`SizeError`].
pub(crate) fn flash_octets(image: &Path) -> Result<u64, SizeError> {
    let output = Command::new(SIZE).arg(image).output().map_err(SizeError::Start)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = text
        .lines()
        .nth(1)
        .map(|line| line.split_whitespace().take(2).filter_map(|cell| cell.parse().ok()).collect())
        .unwrap_or_default();
    match numbers.as_slice() {
        [code, data] if output.status.success() => Ok(code + data),
        _ => Err(SizeError::Form { said: String::from_utf8_lossy(&output.stderr).into_owned() }),
    }
}
